"""The short forms (disks, serial, parallel, debugcon, display, nics) written out as drives, chardevs and devices.

Each becomes exactly what a person would have written in full, and stands at the place of the short form.
"""

from __future__ import annotations

import os

from vmrun.config.node import Node
from vmrun.config.scalar import plain_scalar
from vmrun.config.spec import SHORT, DeviceSpec
from vmrun.config.work import Work, not_yet
from vmrun.core.iolimits import NAMES as LIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Sections that machine files will have and this release does not act on yet.
PLANNED = {
    "spice": "the SPICE server",
    "include": "including QEMU's -readconfig files",
    "sound": "a sound card",
    "usb": "a USB controller",
}
GDB_PORT = 1234
_DISK_DRIVE = frozenset((
    "file", "format", "media", "readonly", "cache", "aio", "snapshot", "serial", "werror", "rerror",
    "discard", "detect-zeroes", "locking", "copy-on-read", *LIMITS, "throttle-group", "node-name"))  # fmt: skip

# bus that a disk's short form may name → its driver; the machine type says which disk IDE has
_DISK_BUSES = {"ide": "", "scsi": "scsi-hd", "virtio": "virtio-blk-pci"}
_DISK_SET = frozenset(("id", "driver", "in-kernel", "bus", "addr", "provides", "unit", "drive"))


def planned_sections(work: Work) -> None:
    """Name each section that is still to come."""
    for name, what in PLANNED.items():
        node = work.spec.get(name)
        if node is not None and node.value not in (None, False, "none"):
            work.problems.append(not_yet(what, node.key_place, name, "VR0805"))


def expand(work: Work) -> list[DeviceSpec]:
    """The devices of the short forms; their drives and chardevs are put into the spec's."""
    devices: list[DeviceSpec] = []
    _display(work, devices)
    _disks(work, devices)
    _cdrom(work, devices)
    _floppies(work, devices)
    _pflash(work, devices)
    for key, driver, most in (("serial", "isa-serial", 4), ("parallel", "isa-parallel", 3)):
        _ports(work, devices, key, driver, most)
    _debugcon(work, devices)
    _watchdog(work, devices)
    _nics(work, devices)
    _gdb(work)
    return devices


def _display(work: Work, devices: list[DeviceSpec]) -> None:
    node = work.spec.get("display")
    if node is None or node.value == "none":
        return
    name = str(work.machine_type.default("display")) if node.value == "default" else str(node.value)
    drivers = work.machine_type.displays()
    driver = drivers.get(name)
    if driver is None:
        known = ["default", "none", *drivers]
        work.wrong(
            "VR0406",
            f"there is no display '{name}'",
            node.place,
            "display",
            nearest=work.near(name, known),
            remedy=f"one of: {', '.join(known)}",
        )
        return
    devices.append(_device(node, "video0", driver, {}, "display"))


def _disks(work: Work, devices: list[DeviceSpec]) -> None:
    node = work.spec.get("disks")
    if node is None:
        return
    counts = dict.fromkeys(_DISK_BUSES, 0)
    for number, disk in enumerate(node.value):
        path = f"disks[{number}]"
        where = _disk_bus(disk)
        if where not in counts:
            work.wrong(
                "VR0406",
                f"a disk is on no bus '{where}'",
                disk.value["bus"].place,
                f"{path}.bus",
                nearest=work.near(where, list(counts)),
                remedy=f"one of: {', '.join(counts)}; or write the disk out under drives and devices",
            )
            continue
        index = counts[where]
        counts[where] += 1
        if where == "ide" and index >= 4:
            work.wrong(
                "VR0506",
                "four disks fit on the two IDE channels",
                disk.place,
                path,
                remedy="remove this one",
            )
            break
        fields: dict[str, Node] = disk.value if type(disk.value) is dict else {"file": disk}
        fields = {key: value for key, value in fields.items() if key != "bus"}
        bus, unit = divmod(index, 2)
        driver = _DISK_BUSES[where] or str(work.machine_type.default("disk") or "ide-hd")
        name = {"ide": f"ide0-{bus}-{unit}", "scsi": f"scsi0-0-{index}", "virtio": f"virtio-disk{index}"}[where]
        drive = {key: value for key, value in fields.items() if key in _DISK_DRIVE}
        rest = {key: value for key, value in fields.items() if key not in _DISK_DRIVE}
        for key in _DISK_SET.intersection(rest):
            work.wrong(
                "VR0405",
                f"'{key}' of a disk is set by the short form",
                rest.pop(key).key_place,
                f"{path}.{key}",
                remedy="remove it, or write the disk out under drives and devices",
            )
        _add_backend(work, "drives", f"drive-{name}", disk.at(drive), path)
        if where == "ide":
            rest |= {"bus": disk.at(f"ide.{bus}"), "unit": disk.at(unit)}
        elif where == "scsi":
            rest.setdefault("scsi-id", disk.at(index))
        rest["drive"] = disk.at(f"drive-{name}")
        devices.append(_device(disk, name, driver, rest, path))


def _disk_bus(disk: Node) -> str:
    given = disk.value.get("bus") if type(disk.value) is dict else None
    return str(given.value) if given is not None else "ide"


def _cdrom(work: Work, devices: list[DeviceSpec]) -> None:
    """The master of the second channel, as qemu-kvm has it; `cdrom: ""` or `empty` is a drive without a medium."""
    node = work.spec.get("cdrom")
    if node is None or node.value in (None, False, "none"):
        return
    driver = "ide-drive" if work.machine_type.default("disk") == "ide-drive" else "ide-cd"
    name, fields = "ide0-1-0", {"media": node.at("cdrom"), "readonly": node.at(True), "format": node.at("raw")}
    if node.value not in (True, "", "empty"):
        fields["file"] = node
    disks = work.spec.get("disks")
    if disks is not None and sum(_disk_bus(disk) == "ide" for disk in disks.value) > 2:
        work.wrong(
            "VR0506",
            "the third disk and the CD-ROM drive both want the master of the second IDE channel",
            node.key_place,
            "cdrom",
            remedy="write one of them out under drives and devices, at another place",
        )
        return
    _add_backend(work, "drives", f"drive-{name}", node.at(fields), "cdrom")
    rest = {"bus": node.at("ide.1"), "unit": node.at(0), "drive": node.at(f"drive-{name}")}
    devices.append(_device(node, name, driver, rest, "cdrom"))


def _floppies(work: Work, devices: list[DeviceSpec]) -> None:
    """Drives A and B; `empty` is one without a disk."""
    node = work.spec.get("floppies")
    for index, image in enumerate(node.value if node is not None else ()):
        path = f"floppies[{index}]"
        fields: dict[str, Node] = image.value if type(image.value) is dict else {"file": image}
        if image.value == "empty":
            fields = {}
        kinds = {key: fields[key] for key in ("drive-type",) if key in fields}
        rest = {key: child for key, child in fields.items() if key not in kinds}
        fields = {"format": image.at("raw"), "media": image.at("floppy"), **rest}
        _add_backend(work, "drives", f"floppy{index}", image.at(fields), path)
        rest = {"bus": image.at("floppy-bus.0"), "unit": image.at(index), "drive": image.at(f"floppy{index}"), **kinds}
        devices.append(_device(image, f"fd{index}", "floppy", rest, path))


def _pflash(work: Work, devices: list[DeviceSpec]) -> None:
    """One image, or two: the firmware, and below it the variables that it keeps."""
    node = work.spec.get("pflash")
    if node is None:
        return
    images: list[Node] = node.value if type(node.value) is list else [node]
    for index, image in enumerate(images):
        path = f"pflash[{index}]" if images[0] is not node else "pflash"
        fields: dict[str, Node] = image.value if type(image.value) is dict else {"file": image}
        fields = {"format": image.at("raw"), **fields}
        _add_backend(work, "drives", f"pflash{index}", image.at(fields), path)
        name = f"system.flash{index}"
        rest = {"drive": image.at(f"pflash{index}"), "name": image.at(name)}
        if index:
            rest["below"] = image.at("system.flash0")
        devices.append(_device(image, name, "cfi.pflash01", rest, path))


def _ports(work: Work, devices: list[DeviceSpec], key: str, driver: str, most: int) -> None:
    node = work.spec.get(key)
    if node is None:
        return
    entries: list[Node] = node.value if type(node.value) is list else [node]
    for index, entry in enumerate(entries):
        path = f"{key}[{index}]" if entry is not node else key
        if index >= most:
            work.wrong(
                "VR0507", f"there are only {most} {key} ports", entry.place, path, remedy="remove this one"
            )
            break
        if entry.value == "none":
            continue
        chardev = _chardev(work, entry, f"{key}{index}", path)
        if chardev:
            fields = {"index": entry.at(index), "chardev": entry.at(chardev)}
            devices.append(_device(entry, f"{key}{index}", driver, fields, path))


def _debugcon(work: Work, devices: list[DeviceSpec]) -> None:
    node = work.spec.get("debugcon")
    if node is None or node.value == "none":
        return
    fields: dict[str, Node] = {}
    target = node
    if type(node.value) is dict:
        target = node.value["chardev"]
        if "iobase" in node.value:
            fields["iobase"] = node.value["iobase"]
    chardev = _chardev(work, target, "debugcon", "debugcon")
    if chardev:
        fields["chardev"] = target.at(chardev)
        devices.append(_device(node, "debugcon", "isa-debugcon", fields, "debugcon"))


def _watchdog(work: Work, devices: list[DeviceSpec]) -> None:
    node = work.spec.get("watchdog")
    if node is not None and node.value != "none":
        devices.append(_device(node, "watchdog", str(node.value), {}, "watchdog"))


def _nics(work: Work, devices: list[DeviceSpec]) -> None:
    """A netdev's type (`user`), `segment:NAME`, the id of a netdev, or a card in full: netdev's options go to it."""
    node = work.spec.get("nics")
    for index, entry in enumerate(node.value if node is not None else ()):
        path, name = f"nics[{index}]", f"net{index}"
        given: dict[str, Node] = dict(entry.value) if type(entry.value) is dict else {"type": entry}
        driver = given.pop("driver", None) or given.pop("model", None)
        kind = given.pop("type", None) or entry.at("segment" if "segment" in given else "user")
        there = kind.value in work.spec.netdevs or ("netdev", str(kind.value)) in work.idle_backends
        if "netdev" not in given and there:
            given["netdev"] = kind
        named = str(given["netdev"].value) if "netdev" in given else ""
        if "capture" in given and named in work.spec.netdevs:
            there_is = work.spec.netdevs[named]
            work.spec.netdevs[named] = there_is.at({**there_is.value, "capture": given.pop("capture")})
        if "netdev" not in given and kind.value != "none":
            word, colon, rest = str(kind.value).partition(":")
            if colon and word == "segment":
                kind = kind.at(word)
                given.setdefault("segment", kind.at(rest))
            known = {prop["name"] for prop in (work.catalogue.netdevs.get(str(kind.value)) or {"props": ()})["props"]}
            netdev = {"type": kind, **{key: given.pop(key) for key in list(given) if key in known}}
            made = _add_backend(work, "netdevs", f"hostnet{index}", entry.at(netdev), path)
            if not made:
                continue
            given["netdev"] = entry.at(made)
        model = str(driver.value) if driver is not None else str(work.machine_type.default("nic") or "e1000")
        model = {"virtio": "virtio-net-pci", "virtio-net": "virtio-net-pci"}.get(model, model)
        devices.append(_device(entry, name, model, given, path))


def _gdb(work: Work) -> None:
    """A monitor that speaks gdb's protocol, on a server socket unless it is given a chardev."""
    node = work.spec.get("gdb")
    if node is None or node.value in (False, "none"):
        return
    text = str(GDB_PORT if node.value is True else node.value)
    if text.isdecimal():
        text = f"tcp:127.0.0.1:{text}"
    elif text not in work.spec.chardevs and text.rpartition(":")[2].isdecimal() and not text.startswith("tcp:"):
        text = f"tcp:{text}"
    if text.startswith(("tcp:", "unix:")) and "," not in text:
        text += ",server,nowait,nodelay" if text.startswith("tcp:") else ",server,nowait"
    chardev = _chardev(work, node.at(text), "gdb", "gdb")
    if chardev:
        work.spec.monitors["gdb"] = node.at({"chardev": node.at(chardev), "mode": node.at("gdb")})


def _chardev(work: Work, node: Node, id: str, path: str) -> str:
    """The id of the chardev that a short form names, made when needed; '' after a problem."""
    if type(node.value) is dict:
        return _add_backend(work, "chardevs", id, node, path)
    text = str(node.value)
    if text in work.spec.chardevs or ("chardev", text) in work.idle_backends:
        return text
    fields = _parse_chardev(text)
    if fields is None:
        known = ["stdio", "pty", "null", "none", *work.spec.chardevs]
        work.wrong(
            "VR0602",
            f"'{text}' says no place for characters to go",
            node.place,
            path,
            nearest=work.near(text, known),
            remedy="stdio, pty, null, none, file:PATH, unix:PATH[,server][,nowait], "
            "tcp:HOST:PORT[,server][,nowait] or the id of a chardev",
        )
        return ""
    return _add_backend(
        work, "chardevs", id, node.at({key: node.at(value) for key, value in fields.items()}), path
    )


def _parse_chardev(text: str) -> dict[str, Any] | None:
    """QEMU's legacy words for character devices: the type and its options, or None."""
    if text in ("stdio", "pty", "null", "vc", "msmouse"):
        return {"type": text}
    head, colon, rest = text.partition(":")
    if not colon or not rest:
        return None
    if head == "file":
        return {"type": "file", "path": rest}
    if head in ("unix", "tcp", "telnet"):
        where, *options = rest.split(",")
        fields: dict[str, Any] = {"type": "socket"}
        if head == "unix":
            fields["path"] = where
        else:
            host, colon, port = where.rpartition(":")
            if not colon:
                return None
            fields |= {"host": host or "localhost", "port": plain_scalar(port)}
            if head == "telnet":
                fields["telnet"] = True
        for option in options:
            if option == "server":
                fields["server"] = True
            elif option == "nowait":
                fields["wait"] = False
            elif option == "nodelay":
                fields["nodelay"] = True
            else:
                return None
        return fields
    if os.path.isabs(text):
        return {"type": "tty", "path": text}
    return None


def _add_backend(work: Work, section: str, id: str, node: Node, path: str) -> str:
    table: dict[str, Node] = getattr(work.spec, section)
    if id in table:
        work.wrong(
            "VR0403",
            f"the short form '{path}' makes {section[:-1]} '{id}', but that id is taken",
            node.place,
            path,
            also=[(table[id].key_place, f"{section[:-1]} '{id}' is here")],
            remedy=f"rename {section[:-1]} '{id}'",
        )
        return ""
    table[id] = node
    return id


def _device(node: Node, id: str, driver: str, fields: dict[str, Node], path: str) -> DeviceSpec:
    value = {"id": node.at(id), "driver": node.at(driver), **fields}
    return DeviceSpec(node.at(value), path, SHORT)
