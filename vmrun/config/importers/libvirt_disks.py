"""The disks and file systems of a libvirt domain, and the host's side of each."""

from __future__ import annotations

import json

from vmrun.config.importers.libvirt_places import Places
from vmrun.config.importers.qemuopts import join
from vmrun.config.importers.xmltree import Item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.libvirt_base import Pairs

SCSI = {"": "lsi", "auto": "lsi", "lsilogic": "lsi", "virtio-scsi": "virtio-scsi-pci", "lsisas1068": "mptsas1068"}
SCSI |= {"lsisas1078": "megasas", "vmpvscsi": "pvscsi", "am53c974": "am53c974", "dc390": "dc390"}
SCSI |= {"virtio-transitional": "virtio-scsi-pci-transitional"}
SCSI |= {"virtio-non-transitional": "virtio-scsi-pci-non-transitional"}
# What <source> says of the way to a server, by its protocol: an element's attribute → a node's option
_WEB = {("readahead", "size"): "readahead", ("timeout", "seconds"): "timeout", ("ssl", "verify"): "sslverify"}
_WAYS = {"nbd": {("reconnect", "delay"): "reconnect-delay"}, "http": _WEB, "https": _WEB}
_WRITE_CACHE = {"none": "on", "writeback": "on", "unsafe": "on", "writethrough": "off", "directsync": "off"}
# <iotune>'s limits → QEMU's
_TUNE = {
    f"{which}_{unit}_sec{end}": f"{short}-{which}{end.replace('_', '-')}"
    for which in ("total", "read", "write")
    for unit, short in (("bytes", "bps"), ("iops", "iops"))
    for end in ("", "_max", "_max_length")
} | {"size_iops_sec": "iops-size", "group_name": "group"}


class Disks(Places):
    """<disk> and <filesystem>, read for Devices."""

    def _disk(self, item: Item) -> None:
        domain, bus = self.domain, self._bus(item)
        kind = item.get("device", "disk")
        item.ignore("type", "snapshot", "model")
        controller, line_bus, target_id, unit = self._spot(item)
        address = item.find("address")
        if address is not None and address.get("type") == "drive":
            address.ignore("controller", "bus", "target", "unit")
        target = item.find("target")
        if target is not None:
            target.ignore("dev", "bus")
            target.get("tray")
        wide = bus == "scsi" and SCSI.get(self._model_of("scsi", controller)) != "lsi"
        index = self._index(item)
        alias = {
            "ide": f"ide{controller}-{line_bus}-{unit}",
            "sata": f"sata{controller}-{line_bus}-{unit}",
            "fdc": f"fdc{controller}-{line_bus}-{unit}",
            "scsi": f"scsi{controller}-{line_bus}-{target_id}-{unit}"
            if wide
            else f"scsi{controller}-{line_bus}-{unit}",
            "virtio": f"virtio-disk{max(index, 0)}",
            "usb": f"usb-disk{max(index, 0)}",
        }.get(bus, "")
        if not alias:
            domain.lost(item.line, f"bus='{bus}' of <disk>")
            item.skip()
            return
        image = f"drive-{alias}"
        drive, props = self._image(item, kind)
        if drive or kind == "disk":
            self.add(item.line, "-drive", join([("if", "none"), ("id", image), *drive]))
            props = [("drive", image), *props]
        if target is not None and target.get("rotation_rate"):
            props.append(("rotation_rate", target.get("rotation_rate")))
        place: Pairs = []
        if bus == "ide":
            driver = "ide-drive" if domain.old else "ide-cd" if kind == "cdrom" else "ide-hd"
            place = [("bus", f"ide.{line_bus}"), ("unit", unit)]
        elif bus == "fdc":
            driver, place = "floppy", [("unit", unit)]
            boot = item.find("boot")
            order = boot.get("order") if boot is not None else str(self.boots.pop(id(item), ""))
            if order:  # the controller's, and for all that is in it
                self.add(item.line, "-global", f"isa-fdc.bootindex{'AB'[unit & 1]}={order}")
            self.add(item.line, "-device", join([*place, ("id", alias), *props], driver))
            return
        elif bus == "virtio":
            driver = "virtio-blk-pci"
        elif bus == "scsi":
            driver = "scsi-cd" if kind == "cdrom" else "scsi-block" if kind == "lun" else "scsi-hd"
            place = [("bus", f"scsi{controller}.0"), ("scsi-id", unit)]
            if wide:
                place = [("bus", f"scsi{controller}.0"), ("channel", 0), ("scsi-id", target_id), ("lun", unit)]
            place.append(("device_id", dict(props).get("serial", image)))
        elif bus == "usb":
            driver, place = "usb-storage", self._usb(item)
            place.append(("removable", target.get("removable", "off") if target is not None else "off"))
        else:
            domain.lost(item.line, f"bus='{bus}' of <disk>")
            return
        self.device(item, driver, [*place, ("id", alias), *props])

    def _model_of(self, kind: str, index: int) -> str:
        for item in self._of("controller"):
            if item.attributes.get("type") == kind and self._number(item) == index:
                return item.attributes.get("model") or ""
        return ""

    @staticmethod
    def _limits(item: Item) -> Pairs:
        """<iotune>."""
        found: Pairs = []
        if not any(child.tag == "iotune" and child.children for child in item.children):
            return found
        tune = item.find("iotune")
        for child in tune.children if tune is not None else ():
            name = _TUNE.get(child.tag)
            if name is not None:
                found.append((f"throttling.{name}", child.text))
        return found

    @classmethod
    def _remote(cls, source: Item) -> str:
        """The text that names an image of a server: of NBD, or of the web; with more to it than an address as JSON."""
        host, protocol = source.find("host"), source.get("protocol")
        assert host is not None
        found = _more(source, protocol)
        if not found:
            return cls._address(source, host)
        if protocol != "nbd":
            return _as_json({"driver": protocol, "url": cls._address(source, host), **found})
        if host.get("transport") == "unix":
            server = {"type": "unix", "path": host.get("socket")}
        else:
            server = {"type": "inet", "host": host.get("name"), "port": host.get("port", "10809")}
        name = source.get("name")
        return _as_json({"driver": "nbd", "server": server, **({"export": name} if name else {}), **found})

    @staticmethod
    def _address(source: Item, host: Item) -> str:
        protocol, name, place = source.get("protocol"), source.get("name"), host.get("name")
        if ":" in place:
            place = f"[{place}]"
        if protocol != "nbd":
            host.ignore("transport")
            port = f":{host.get('port')}" if host.get("port") else ""
            query = f"?{source.get('query')}" if source.get("query") else ""
            return f"{protocol}://{place}{port}/{name.removeprefix('/')}{query}"
        if host.get("transport") == "unix":
            path = f"nbd:unix:{host.get('socket')}"
        else:
            path = f"nbd:{place}:{host.get('port', '10809')}"
        return path + (f":exportname={name}" if name else "")

    def _image(self, item: Item, kind: str) -> tuple[Pairs, Pairs]:
        """(of the drive, of the device): what a disk says about its image."""
        domain, source, driver = self.domain, item.find("source"), item.find("driver")
        drive: Pairs = []
        path = ""
        if source is not None:
            source.ignore("startupPolicy", "index")
            path = source.get("file") or source.get("dev")
            if not path and source.attributes:
                if source.get("dir"):
                    path = f"fat:{source.get('dir')}"
                elif source.get("protocol") in ("nbd", "http", "https") and source.find("host") is not None:
                    path = self._remote(source)
                else:
                    kind_of = next(iter(source.attributes))
                    domain.lost(source.line, f"{kind_of}='{source.get(kind_of)}' of <source>")
        for tag in ("backingStore", "mirror"):
            found = item.find(tag)
            if found is not None:
                found.skip()  # what libvirt found in the image itself
        readonly = item.find("readonly") is not None or kind == "cdrom"
        transient = item.find("transient") is not None
        if not path:
            if driver is not None:
                driver.skip()
            return [("media", "cdrom"), ("readonly", "on")] if kind == "cdrom" else [], self._of_disk(item)
        drive.append(("file", path))
        get = driver.get if driver is not None else (lambda name, default="": default)
        drive.append(("format", get("type") or "raw"))
        if kind == "cdrom":
            drive.append(("media", "cdrom"))
        if readonly:
            drive.append(("readonly", "on"))
        if transient:
            drive.append(("snapshot", "on"))
        get("name")
        cache = get("cache")
        names = (("cache", "cache"), ("io", "aio"), ("discard", "discard"), ("detect_zeroes", "detect-zeroes"))
        drive += [(name, get(key)) for key, name in names if get(key) and get(key) != "default"]
        if get("detect_zeroes") == "unmap" and get("discard") != "unmap":
            drive[-1] = ("detect-zeroes", "on")  # there is nothing that would be given back
        if get("copy_on_read"):
            drive.append(("copy-on-read", get("copy_on_read")))
        drive += self._limits(item)
        props: Pairs = []
        if cache in _WRITE_CACHE and not domain.old and kind == "disk":
            props.append(("write-cache", _WRITE_CACHE[cache]))
        policy, read_policy = get("error_policy").replace("enospace", "enospc"), get("rerror_policy")
        if policy:
            drive.append(("werror", policy))
        if read_policy or policy in ("ignore", "report", "stop"):  # enospc is about writing alone
            drive.append(("rerror", read_policy or policy))
        for key, name in (("ioeventfd", "ioeventfd"), ("event_idx", "event_idx")):
            props += [(name, get(key))] if get(key) else []
        if get("iothread"):
            props.append(("iothread", f"iothread{get('iothread')}"))
        for key, name in (("queues", "num-queues"), ("queue_size", "queue-size")):
            props += [(name, get(key))] if get(key) else []
        return drive, [*self._of_disk(item), *props]

    def _of_disk(self, item: Item) -> Pairs:
        props: Pairs = []
        serial, wwn, geometry, blocks = (item.find(tag) for tag in ("serial", "wwn", "geometry", "blockio"))
        if blocks is not None:
            for key in ("logical_block_size", "physical_block_size", "discard_granularity"):
                props += [(key, blocks.get(key))] if blocks.get(key) else []
        if wwn is not None and wwn.text:
            props.append(("wwn", int(wwn.text, 16)))
        if geometry is not None:
            props += [(key, geometry.get(key)) for key in ("cyls", "heads", "secs") if geometry.get(key)]
            props += [("bios-chs-trans", geometry.get("trans"))] if geometry.get("trans") else []
        if serial is not None and serial.text:
            props.append(("serial", serial.words))
        for tag, name in (("vendor", "vendor"), ("product", "product")):
            found = item.find(tag)
            props += [(name, found.text)] if found is not None and found.text else []
        if item.find("shareable") is not None:
            props.append(("share-rw", "on"))
        return props

    def _filesystem(self, item: Item) -> None:
        number, source, target, driver = self.next("fs"), *(item.find(tag) for tag in ("source", "target", "driver"))
        path = (source.get("dir") or source.get("file")) if source is not None else ""
        if driver is not None and driver.get("type") not in ("", "path"):
            self.domain.lost(item.line, f"<filesystem> of driver '{driver.get('type')}'")
            item.skip()
            return
        if item.get("type") not in ("mount", ""):
            self.domain.lost(item.line, f"type='{item.get('type')}' of <filesystem>")
        model = {"passthrough": "passthrough", "mapped": "mapped", "squash": "none"}.get(item.get("accessmode"), "none")
        pairs: Pairs = [("security_model", model)]
        for key in ("fmode", "dmode"):
            pairs += [(key, item.get(key))] if item.get(key) else []
        pairs += [("readonly", "on")] if item.find("readonly") is not None else []
        pairs += [("id", f"fsdev-fs{number}"), ("path", path)]
        self.add(item.line, "-fsdev", join(pairs, "local"))
        tag = target.get("dir") if target is not None else ""
        name = "virtio-9p-pci" + item.get("model", "virtio").removeprefix("virtio")
        self.device(item, name, [("id", f"fs{number}"), ("fsdev", f"fsdev-fs{number}"), ("mount_tag", tag)])


def _more(source: Item, protocol: str) -> dict[str, Any]:
    """What is said of a server besides where it is, as a node's options."""
    found: dict[str, Any] = {}
    for (tag, attribute), option in _WAYS[protocol].items():
        item = source.peek(tag)
        if item is not None and (value := item.get(attribute)):
            found[option] = {"yes": True, "no": False}.get(value, value)
    cookies = source.peek("cookies") if protocol != "nbd" else None
    if cookies is not None:
        found["cookie"] = "; ".join(f"{each.get('name')}={each.text}" for each in cookies.all("cookie"))
    return found


def _as_json(options: dict[str, Any]) -> str:
    return f"json:{json.dumps(options, separators=(',', ':'))}"
