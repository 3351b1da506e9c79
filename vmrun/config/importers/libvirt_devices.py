"""The devices of a libvirt domain as QEMU options, with the names and places that libvirt gives them."""

from __future__ import annotations

import re

from vmrun.config.importers.libvirt_networks import Networks
from vmrun.config.importers.libvirt_others import Others
from vmrun.config.importers.qemuopts import join, split
from vmrun.config.importers.xmltree import Item, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.libvirt import _Domain

    Pairs = list[tuple[str, Any]]

_USB = {
    "": "piix3-usb-uhci", "piix3-uhci": "piix3-usb-uhci", "piix4-uhci": "piix4-usb-uhci", "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1", "ich9-uhci1": "ich9-usb-uhci1", "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3", "vt82c686b-uhci": "vt82c686b-usb-uhci", "pci-ohci": "pci-ohci",
    "nec-xhci": "nec-usb-xhci", "qemu-xhci": "qemu-xhci",
}  # fmt: skip
_SCSI = {"": "lsi", "auto": "lsi", "lsilogic": "lsi", "virtio-scsi": "virtio-scsi-pci", "lsisas1068": "mptsas1068"}
_SCSI |= {"lsisas1078": "megasas", "vmpvscsi": "pvscsi", "am53c974": "am53c974", "dc390": "dc390"}
_SCSI |= {"virtio-transitional": "virtio-scsi-pci-transitional"}
_SCSI |= {"virtio-non-transitional": "virtio-scsi-pci-non-transitional"}
_SOUND = {"ac97": "AC97", "es1370": "ES1370", "sb16": "sb16", "ich6": "intel-hda", "ich7": "ich9-intel-hda"}
_SOUND |= {"ich9": "ich9-intel-hda", "usb": "usb-audio"}
_VIDEO = {"cirrus": "cirrus-vga", "vga": "VGA", "qxl": "qxl-vga", "vmvga": "vmware-svga", "virtio": "virtio-vga"}
_VIDEO |= {"bochs": "bochs-display", "ramfb": "ramfb"}
_SECOND = {"qxl": "qxl", "virtio": "virtio-gpu-pci"}
_CODECS = {"duplex": "hda-duplex", "micro": "hda-micro", "output": "hda-output"}
_INPUTS = {"tablet": "usb-tablet", "mouse": "usb-mouse", "keyboard": "usb-kbd"}
_WRITE_CACHE = {"none": "on", "writeback": "on", "unsafe": "on", "writethrough": "off", "directsync": "off"}
_ADDRESSES = ("pci", "drive", "usb", "isa", "virtio-serial", "ccid", "unassigned", "")
_ON_USB = ("interface", "sound", "hostdev", "controller", "smartcard", "serial", "input", "hub", "redirdev")
_USB_PORTS = {"ehci": 6, "ich9-ehci1": 6, "nec-xhci": 4, "qemu-xhci": 4, "pci-ohci": 3}
# Slots of the board: the host bridge and the PIIX3.
_TAKEN = (0, 1)


# <iotune>'s limits → QEMU's
_TUNE = {
    f"{which}_{unit}_sec{end}": f"{short}-{which}{end.replace('_', '-')}"
    for which in ("total", "read", "write")
    for unit, short in (("bytes", "bps"), ("iops", "iops"))
    for end in ("", "_max", "_max_length")
} | {"size_iops_sec": "iops-size", "group_name": "group"}


class Devices(Networks, Others):
    """Reads <devices> of a domain; what it says goes to the domain's words."""

    def __init__(self, domain: _Domain, devices: Item | None) -> None:
        self.domain, self.add = domain, domain.add
        self.count: dict[str, int] = {}
        self.taken: set[tuple[int, int, int]] = {(0, slot, 0) for slot in _TAKEN}
        self.ports: dict[int, str] = {}
        self.numbers: dict[tuple[int, int], set[int]] = {}
        self.boots = self._boot_order(devices)
        self.place: dict[int, tuple[int, int, int]] = {}
        if devices is None:
            if not domain.given:
                devices = Item("devices", {}, domain.root.line)
            else:
                return
        devices.used = True
        emulator = devices.find("emulator")
        if emulator is not None:
            emulator.skip()
        self.items = devices.children
        self._implicit(devices)
        self._assign()
        self._count_ports()
        for tag in (
            "controller",
            "hub",
            "disk",
            "filesystem",
            "interface",
            "smartcard",
            "serial",
            "parallel",
            "channel",
        ):
            self._each(tag)
        for tag in ("console", "input", "graphics", "video", "sound", "audio", "watchdog", "redirdev", "hostdev"):
            self._each(tag)
        for tag in ("memory", "memballoon", "rng", "panic", "tpm", "shmem", "vsock", "iommu", "crypto"):
            self._each(tag)

    def _each(self, tag: str) -> None:
        handler = getattr(self, f"_{tag}", None)
        for item in self.items:
            if item.tag == tag and handler is not None:
                own = ""
                for name in ("alias", "acpi"):
                    found = next((child for child in item.children if child.tag == name), None)
                    if found is not None:
                        found.skip()
                        own = found.get("name") if name == "alias" else own
                before = len(self.domain.words)
                try:
                    handler(item)
                    if own.startswith("ua-") and tag != "controller":
                        self._rename(before, own)
                except ValueError:
                    raise wrong(f"a value in <{tag}> is no number", self.domain.file, item.line) from None
                for child in item.children:
                    if child.tag == "address" and child.used and child.get("type") not in _ADDRESSES:
                        self.domain.lost(child.line, f"type='{child.get('type')}' of <address>")

    def _rename(self, start: int, name: str) -> None:
        """A name that the user gave is the device's."""
        words = self.domain.words
        for at in range(len(words) - 1, start, -1):
            if words[at - 1] == "-device":
                driver, *parts = split(words[at])
                pairs = [part.partition("=")[::2] for part in parts]
                words[at] = join([(key, name if key == "id" else value) for key, value in pairs], driver)
                return

    def _number(self, item: Item) -> int:
        """A controller's index."""
        try:
            return int(item.attributes.get("index") or 0)
        except ValueError:
            raise wrong(f"index of <{item.tag}> is no number", self.domain.file, item.line) from None

    def next(self, kind: str) -> int:
        self.count[kind] = self.count.get(kind, -1) + 1
        return self.count[kind]

    # --- places -------------------------------------------------------------------------------------------------------

    def _boot_order(self, devices: Item | None) -> dict[int, int]:
        """Of each device that <boot dev=> means, its number: the first of a kind stands for it."""
        found: dict[int, int] = {}
        items = list(devices.children) if devices is not None else []
        if any(child.tag == "boot" for item in items for child in item.children):
            return found
        items = self._in_order([item for item in items if item.tag == "disk"]) + [
            item for item in items if item.tag != "disk"
        ]
        kinds = getattr(self.domain, "boot_order", []) or ([] if self.domain.given else ["hd"])
        for order, kind in enumerate(kinds, 1):
            for item in items:
                is_disk = item.tag == "disk" and item.attributes.get("device", "disk") == {
                    "hd": "disk", "cdrom": "cdrom", "fd": "floppy",
                }.get(kind)  # fmt: skip
                if (is_disk or kind == "network" and item.tag == "interface") and id(item) not in found:
                    found[id(item)] = order
                    break
        return found

    def _in_order(self, disks: list[Item]) -> list[Item]:
        """libvirt puts a disk beside those of its bus, by name."""
        found: list[Item] = []
        for disk in disks:
            at = -1
            for place in range(len(found) - 1, -1, -1):
                if self._bus(found[place]) == self._bus(disk):
                    if self._index(found[place]) > self._index(disk):
                        at = place
                    elif at < 0:
                        at = place + 1
            found.insert(at if at >= 0 else len(found), disk)
        return found

    def _implicit(self, devices: Item) -> None:
        """What libvirt adds: controllers that devices need, a USB controller, a balloon."""
        have = {(item.attributes.get("type"), self._number(item)) for item in self._of("controller")}
        made: list[Item] = []

        def need(kind: str, index: int, model: str = "") -> None:
            if (kind, index) not in have:
                have.add((kind, index))
                made.append(_made("controller", devices.line, type=kind, index=str(index), model=model))

        if not any(kind == "usb" for kind, _ in have) and not self.domain.given:
            need("usb", 0)
        for item in self._of("disk"):
            if self._bus(item) == "scsi":
                need("scsi", self._spot(item)[0])
        ports = [item for item in devices.children if item.tag in ("channel", "console")]
        if any(
            (child.attributes.get("type") == "virtio")
            for item in ports
            for child in item.children
            if child.tag == "target"
        ):
            need("virtio-serial", 0)
        if self._of("smartcard") or any(item.tag == "smartcard" for item in devices.children):
            need("ccid", 0)
        seen = {item.tag for item in devices.children}
        if "graphics" in seen and "video" not in seen:
            made.append(_made("video", devices.line))
        if not any(item.tag == "memballoon" for item in devices.children) and not self.domain.given:
            made.append(_made("memballoon", devices.line, model="virtio"))
        self.items = [*devices.children, *made]

    def _of(self, *tags: str) -> list[Item]:
        items = getattr(self, "items", [])
        return [item for item in items if item.tag in tags]

    def _assign(self) -> None:
        """PCI slots in libvirt's order for all that has none."""
        for item in self.items:
            address = next((child for child in item.children if child.tag == "address"), None)
            if address is not None and address.attributes.get("type") == "pci":
                get = address.attributes.get
                try:
                    spot = tuple(int(get(key, "0x0"), 0) for key in ("bus", "slot", "function"))
                except ValueError:
                    raise wrong("an address of PCI is no number", self.domain.file, address.line) from None
                self.place[id(item)] = (spot[0], spot[1], spot[2])
                self.taken.add(self.place[id(item)])
        videos = self._of("video")
        controllers = self._of("controller")
        usb = next((each for each in controllers if self._usb_of_the_board(each)), None)
        if usb is not None and id(usb) not in self.place:
            self.place[id(usb)] = (0, 1, 2)
        if videos and videos[0] is not None and id(videos[0]) not in self.place:
            model = next((child for child in videos[0].children if child.tag == "model"), None)
            if model is None or model.attributes.get("type") not in ("none", "ramfb"):
                self.place[id(videos[0])] = self._reserve(2)
        waiting = [each for each in controllers if each.attributes.get("model") == "pci-bridge"]
        waiting += [*self._of("filesystem"), *self._of("interface"), *self._of("sound")]
        waiting += [each for each in controllers if each.attributes.get("type") in ("scsi", "virtio-serial", "usb")]
        waiting += [disk for disk in self._in_order(self._of("disk")) if self._bus(disk) == "virtio"]
        waiting += [*self._of("hostdev"), *self._of("memballoon"), *self._of("rng"), *self._of("watchdog"), *videos[1:]]
        for tag in ("shmem", "input", "serial", "vsock", "crypto"):
            waiting += self._of(tag)
        for item in waiting:
            if id(item) not in self.place and self._on_pci(item):
                self.place[id(item)] = self._with_master(item) or self._free()

    def _usb_of_the_board(self, item: Item) -> bool:
        model = item.attributes.get("model") or ""
        return item.attributes.get("type") == "usb" and model in ("", "piix3-uhci") and not self._number(item)

    def _with_master(self, item: Item) -> tuple[int, int, int] | None:
        """The companions of an EHCI controller share its slot."""
        model = item.attributes.get("model") or ""
        if item.tag != "controller" or not model.startswith("ich9-"):
            return None
        function = {"ich9-uhci1": 0, "ich9-uhci2": 1, "ich9-uhci3": 2, "ich9-ehci1": 7}.get(model)
        if function is None:
            return None
        for other in self._of("controller"):
            same = other.attributes.get("index") == item.attributes.get("index")
            if (
                same
                and other is not item
                and id(other) in self.place
                and (other.attributes.get("model") or "").startswith("ich9-")
            ):
                bus, slot, _ = self.place[id(other)]
                return bus, slot, function
        bus, slot, _ = self._free()
        return bus, slot, function

    def _reserve(self, slot: int) -> tuple[int, int, int]:
        if any(bus == 0 and taken == slot for bus, taken, _ in self.taken):
            return self._free()
        self.taken.add((0, slot, 0))
        return 0, slot, 0

    def _free(self) -> tuple[int, int, int]:
        used = {slot for bus, slot, _ in self.taken if bus == 0}
        slot = next((slot for slot in range(1, 32) if slot not in used), 31)
        self.taken.add((0, slot, 0))
        return 0, slot, 0

    def _on_pci(self, item: Item) -> bool:
        get = item.attributes.get
        address = next((child for child in item.children if child.tag == "address"), None)
        if address is not None and address.attributes.get("type") not in (None, "pci"):
            return False
        if item.tag == "controller":
            return get("model") != "none" and not self._usb_of_the_board(item)
        if item.tag == "sound":
            return get("model") not in ("sb16", "pcspk", "usb")
        if item.tag == "watchdog":
            return get("model", "i6300esb") == "i6300esb"
        if item.tag == "memballoon":
            return get("model") != "none"
        if item.tag == "input":
            return get("bus") == "virtio"
        if item.tag == "serial":
            target = next((child for child in item.children if child.tag == "target"), None)
            return target is not None and target.attributes.get("type") == "pci-serial"
        if item.tag == "hostdev":
            return get("type") == "pci"
        if item.tag == "interface":
            model = next((child for child in item.children if child.tag == "model"), None)
            return model is None or model.attributes.get("type") not in ("ne2k_isa", "usb-net")
        if item.tag == "rng":
            return True
        return True

    def device(self, item: Item, driver: str, pairs: Pairs) -> None:
        """-device with what any element may say about its place."""
        address, boot, rom = item.find("address"), item.find("boot"), item.find("rom")
        if id(item) in self.place:
            bus, slot, function = self.place[id(item)]
            spot = f"{slot:#x}" + (f".{function:#x}" if function else "")
            pairs = [*pairs, ("bus", "pci.0" if not bus else f"pci.{bus}"), ("addr", spot)]
            shared = not function and any(
                other[:2] == (bus, slot) and other[2] for key, other in self.place.items() if key != id(item)
            )
            if shared and (address is None or not address.attributes.get("multifunction")):
                pairs.append(("multifunction", "on"))
            if address is not None:
                if address.get("type") == "pci" and address.get("multifunction") == "on":
                    pairs.append(("multifunction", "on"))
                if int(address.get("domain", "0"), 0):
                    self.domain.lost(address.line, f"domain='{address.get('domain')}' of <address>")
                if address.get("type") == "pci":
                    address.ignore("bus", "slot", "function")
        if boot is not None:
            boot.ignore("loadparm")
            pairs = [*pairs, ("bootindex", boot.get("order", "1"))]
        elif id(item) in self.boots:
            pairs = [*pairs, ("bootindex", self.boots[id(item)])]
        if rom is not None:
            if rom.get("bar"):
                pairs = [*pairs, ("rombar", int(rom.get("bar") == "on"))]
            if rom.get("enabled", "no") not in ("yes", "no"):
                self.domain.lost(rom.line, f"enabled='{rom.get('enabled')}' of <rom>")
            if rom.get("file") or rom.get("enabled") == "no":
                pairs = [*pairs, ("romfile", rom.get("file"))]
        self.add(item.line, "-device", join(pairs, driver))

    def _usb(self, item: Item) -> Pairs:
        """Bus and port of a USB device: those that are said, else the next."""
        address = item.find("address")
        if address is not None and address.get("type") == "usb" and address.get("port"):
            bus = int(address.get("bus", "0"), 0)
            return [("bus", f"usb{bus or ''}.0"), ("port", address.get("port"))]
        port = self.ports.get(id(item), "")
        return [("bus", "usb.0"), *([("port", port)] if port else [])]

    def _count_ports(self) -> None:
        """Ports of all USB devices that have none, in libvirt's order; where they do not do, there is a hub."""
        said = set()
        for item in self.items:
            for child in item.children:
                get = child.attributes.get
                if child.tag == "address" and get("type") == "usb" and not int(get("bus") or "0", 0):
                    said.add(get("port", ""))
        order = [*self._in_order(self._of("disk")), *(item for tag in _ON_USB for item in self._of(tag))]
        waiting = [item for item in order if self._on_usb(item)]
        models = [
            item.attributes.get("model") or ""
            for item in self._of("controller")
            if item.attributes.get("type") == "usb" and not self._number(item)
        ]
        root = max((_USB_PORTS.get(model, 2) for model in models), default=2)
        free = [str(port) for port in range(1, root + 1) if str(port) not in said]
        hubs = [item for item in waiting if item.tag == "hub"]
        others = [item for item in waiting if item.tag != "hub"]
        while len(others) > len(free) - len(hubs) + 8 * len(hubs) and len(hubs) < 2 * root and models:
            hubs.append(_made("hub", self.items[0].line, type="usb"))
            self.items.append(hubs[-1])
        for hub in hubs:
            if free:
                port = free.pop(0)
                self.ports[id(hub)] = port
                free += [f"{port}.{n}" for n in range(1, 9)]
        for item in others:
            self.ports[id(item)] = free.pop(0) if free else ""

    def _on_usb(self, item: Item) -> bool:
        """Whether it wants a place on a USB bus."""
        get, tag = item.attributes.get, item.tag
        targets = [child.attributes.get("type") for child in item.children if child.tag == "target"]
        if any(child.tag == "address" and child.attributes.get("port") for child in item.children) and tag != "serial":
            return False
        if tag in ("hub", "redirdev"):
            return True
        if tag == "disk":
            return self._bus(item) == "usb"
        if tag in ("sound", "controller"):
            return get("model") == "usb" if tag == "sound" else get("type") == "ccid"
        if tag == "hostdev":
            return get("type") == "usb"
        if tag == "serial":
            return "usb-serial" in targets
        return tag == "input" and (get("bus") == "usb" or get("bus") is None and get("type") == "tablet")

    # --- controllers and disks --------------------------------------------------------------------------------------

    def _controller(self, item: Item) -> None:
        kind, model = item.get("type"), item.get("model")
        index = int(item.get("index") or "0")
        if kind == "usb" and model == "none":
            return
        if kind == "usb" and model in _USB:
            name = f"usb{index or ''}"
            master = item.find("master")
            pairs: Pairs = [("id", name)]
            if master is not None:
                pairs = [("masterbus", f"{name}.0"), ("firstport", master.get("startport", "0"))]
            if item.get("ports") and "xhci" in model:
                pairs += [("p2", item.get("ports")), ("p3", item.get("ports"))]
            self.device(item, _USB[model], pairs)
        elif kind == "virtio-serial":
            pairs = [("id", f"virtio-serial{index}")]
            pairs += [("max_ports", item.get("ports"))] if item.get("ports") else []
            pairs += [("vectors", item.get("vectors"))] if item.get("vectors") else []
            self.device(item, "virtio-serial-pci", pairs)
        elif kind == "scsi" and model in _SCSI:
            pairs = [("id", f"scsi{index}")]
            driver = item.find("driver")
            if driver is not None:
                names = {"queues": "num_queues", "cmd_per_lun": "cmd_per_lun", "max_sectors": "max_sectors"}
                names |= {"ioeventfd": "ioeventfd"}
                pairs += [(name, driver.get(key)) for key, name in names.items() if driver.get(key)]
                if driver.get("iothread"):
                    pairs.append(("iothread", f"iothread{driver.get('iothread')}"))
            self.device(item, _SCSI[model], pairs)
        elif kind == "pci" and model in ("", "pci-root"):
            target = item.find("target")
            if target is not None and target.get("hotplug") == "off":
                self.add(item.line, "-global", "PIIX4_PM.acpi-root-pci-hotplug=off")
        elif kind == "pci" and model == "pci-bridge":
            number = item.attr("target", "chassisNr") or str(index)
            named = item.find("model")
            if named is not None:
                named.ignore("name")
            self.device(item, "pci-bridge", [("chassis_nr", number), ("id", f"pci.{index}")])
        elif kind == "ccid":
            self.add(item.line, "-device", join([("id", f"ccid{index}"), *self._usb(item)], "usb-ccid"))
        elif (kind, model) in (("ide", ""), ("fdc", ""), ("ide", "piix3")):
            for child in item.all("address"):
                child.skip()  # the board's
        else:
            self.domain.lost(item.line, f"<controller type='{kind}' model='{model}'>")

    def _hub(self, item: Item) -> None:
        if item.get("type", "usb") != "usb":
            self.domain.lost(item.line, f"type='{item.get('type')}' of <hub>")
        self.add(item.line, "-device", join([("id", f"hub{self.next('hub')}"), *self._usb(item)], "usb-hub"))

    def _bus(self, item: Item) -> str:
        target = next((child for child in item.children if child.tag == "target"), None)
        name = target.attributes.get("dev", "") if target is not None else ""
        said = target.attributes.get("bus") if target is not None else None
        if said:
            return said
        if item.attributes.get("device") == "floppy":
            return "fdc"
        guessed = {"fd": "fdc", "hd": "ide", "sd": "scsi", "vd": "virtio", "ub": "usb"}
        return guessed.get(name[:2], "ide")

    def _index(self, item: Item) -> int:
        """hda 0, hdb 1 … sdaa 26; -1 for no such name."""
        target = next((child for child in item.children if child.tag == "target"), None)
        match = re.fullmatch(r"(?:fd|hd|sd|vd|xvd|ubd)([a-z]{1,6})", target.attributes.get("dev", "") if target else "")
        found = -1
        for letter in match[1] if match else "":
            found = (found + 1) * 26 + ord(letter) - ord("a")
        return found

    def _spot(self, item: Item) -> tuple[int, int, int, int]:
        """(controller, bus, target, unit), as said or as the name of the disk has it."""
        address = next((child for child in item.children if child.tag == "address"), None)
        if address is not None and address.attributes.get("type") == "drive":
            try:
                found = [int(address.attributes.get(key) or "0") for key in ("controller", "bus", "target", "unit")]
            except ValueError:
                raise wrong("a value in <address> is no number", self.domain.file, address.line) from None
            return found[0], found[1], found[2], found[3]
        index, bus = max(self._index(item), 0), self._bus(item)
        if bus == "ide":
            return index // 4, index // 2 % 2, 0, index % 2
        if bus == "scsi":
            return index // 7, 0, 0, index % 7
        return index // 2, 0, 0, index % 2

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
        wide = bus == "scsi" and _SCSI.get(self._model_of("scsi", controller)) != "lsi"
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
                elif source.get("protocol") == "nbd" and source.find("host") is not None:
                    host = source.find("host")
                    assert host is not None
                    path = f"nbd:{host.get('name')}:{host.get('port', '10809')}"
                    path += f":exportname={source.get('name')}" if source.get("name") else ""
                    host.ignore("transport")
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
            props.append(("serial", serial.text))
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

    # --- characters -------------------------------------------------------------------------------------------------

    def _characters(self, item: Item, id: str) -> bool:
        """The -chardev of an element; False when it has no equal."""
        sources, kind, domain = item.all("source"), item.get("type", "pty"), self.domain
        source = sources[0] if sources else Item("source", {}, item.line)
        protocol, log = item.find("protocol"), item.find("log")
        rest: Pairs = []
        backend = {"dev": "serial", "unix": "socket", "tcp": "socket"}.get(kind, kind)
        if kind == "dev" and item.tag == "parallel":
            backend = "parallel"
        if kind == "unix":
            rest = [("path", source.get("path") or f"{id}.sock")]
        elif kind == "tcp":
            rest = [("host", source.get("host", "localhost")), ("port", source.get("service", "0"))]
            if protocol is not None and protocol.get("type") == "telnet":
                rest.append(("telnet", "on"))
            elif protocol is not None and protocol.get("type") not in ("raw", ""):
                domain.lost(protocol.line, f"type='{protocol.get('type')}' of <protocol>")
        elif kind == "udp":
            for each in sources:
                bind = each.get("mode") == "bind"
                names = ("localaddr", "localport") if bind else ("host", "port")
                rest += [
                    (name, each.get(key)) for name, key in zip(names, ("host", "service"), strict=True) if each.get(key)
                ]
        elif kind in ("file", "dev", "pipe"):
            rest = [("path", source.get("path"))]
            if source.get("append"):
                rest.append(("append", source.get("append")))
        elif kind == "spicevmc":
            rest = [("name", {"redirdev": "usbredir", "smartcard": "smartcard"}.get(item.tag, "vdagent"))]
        elif kind == "spiceport":
            rest = [("name", source.get("channel"))]
        elif kind in ("pty", "null", "stdio", "vc"):
            if kind == "pty":
                source.ignore("path")  # where it was the last time
        else:
            domain.lost(item.line, f"type='{kind}' of <{item.tag}>")
            return False
        if kind in ("unix", "tcp"):
            reconnect = source.find("reconnect")
            if source.get("mode") == "bind" or kind == "unix" and not source.get("mode") and item.tag == "channel":
                rest += [("server", "on"), ("wait", "off")]
            if reconnect is not None and reconnect.get("enabled") == "yes":
                rest.append(("reconnect", reconnect.get("timeout", "0")))
            if source.get("tls") == "yes":
                domain.lost(source.line, "tls='yes' of <source>")
        if log is not None:
            rest.append(("logfile", log.get("file")))
            if log.get("append"):
                rest.append(("logappend", log.get("append")))
        item.ignore("tty")
        self.add(item.line, "-chardev", join([("id", id), *rest], backend))
        return True

    def _serial(self, item: Item) -> None:
        number, target = self.next("serial"), item.find("target")
        port = (target.get("port") if target is not None else "") or str(number)
        kind = (target.get("type") if target is not None else "") or "isa-serial"
        model = item.find("target", "model")
        if model is not None:
            model.ignore("name")
        if not self._characters(item, f"charserial{number}"):
            return
        address = item.find("address")
        pairs: Pairs = [("chardev", f"charserial{number}"), ("id", f"serial{number}")]
        if kind in ("isa-serial", "serial"):
            pairs.append(("index", port))
            if address is not None and address.get("type") == "isa":
                pairs += [(key, address.get(key)) for key in ("iobase", "irq") if address.get(key)]
            self.add(item.line, "-device", join(pairs, "isa-serial"))
        elif kind == "usb-serial":
            self.add(item.line, "-device", join([*pairs, *self._usb(item)], kind))
        else:
            self.device(item, kind, pairs)

    def _parallel(self, item: Item) -> None:
        number, target = self.next("parallel"), item.find("target")
        if target is not None:
            target.ignore("type", "port")  # libvirt counts them by their order
        if self._characters(item, f"charparallel{number}"):
            pairs: Pairs = [("chardev", f"charparallel{number}"), ("id", f"parallel{number}")]
            self.add(item.line, "-device", join([*pairs, ("index", number)], "isa-parallel"))

    def _console(self, item: Item) -> None:
        number, target = self.next("console"), item.find("target")
        kind = (target.get("type") if target is not None else "") or "serial"
        if target is not None:
            target.ignore("port")
        if kind == "serial":
            if number == 0 and self._of("serial"):
                for child in item.children:
                    child.skip()  # the first is another view of the first serial port
                item.ignore("type", "tty")
            elif number == 0:
                self._serial(item)
            else:
                self.domain.lost(item.line, "<console> of a serial port, beyond the first,")
        elif kind == "virtio":
            # a console of virtio comes after the one that every PC has
            if not number and self._of("serial"):
                number = self.next("console")
            if self._characters(item, f"charconsole{number}"):
                pairs: Pairs = [("chardev", f"charconsole{number}"), ("id", f"console{number}")]
                self.add(item.line, "-device", join([*self._console_port(item), *pairs], "virtconsole"))
        else:
            self.domain.lost(item.line, f"type='{kind}' of <target>")

    def _console_port(self, item: Item) -> Pairs:
        address = item.find("address")
        return self._virtio_port(item, 0) if address is not None and address.get("type") == "virtio-serial" else []

    def _virtio_port(self, item: Item, least: int) -> Pairs:
        address = item.find("address")
        controller = bus = 0
        if address is not None and address.get("type") == "virtio-serial":
            controller, bus = int(address.get("controller", "0")), int(address.get("bus", "0"))
            port = int(address.get("port", "0"))
        else:
            used = self.numbers.setdefault((controller, bus), set())
            port = next(n for n in range(least, 1 << 16) if n not in used)
        self.numbers.setdefault((controller, bus), set()).add(port)
        return [("bus", f"virtio-serial{controller}.{bus}"), ("nr", port)]

    def _channel(self, item: Item) -> None:
        number, target = self.next("channel"), item.find("target")
        if target is None or target.get("type") != "virtio":
            self.domain.lost(item.line, f"<channel> of type '{target.get('type') if target is not None else ''}'")
            item.skip()
            return
        target.ignore("state")
        if self._characters(item, f"charchannel{number}"):
            name = [("name", target.get("name"))] if target.get("name") else []
            if not name and item.get("type") == "spicevmc":
                name = [("name", "com.redhat.spice.0")]
            pairs: Pairs = [("chardev", f"charchannel{number}"), ("id", f"channel{number}"), *name]
            self.add(item.line, "-device", join([*self._virtio_port(item, 1), *pairs], "virtserialport"))

    def _smartcard(self, item: Item) -> None:
        number, mode = self.next("smartcard"), item.get("mode")
        address = item.find("address")
        slot = ""
        if address is not None and address.get("type") == "ccid":
            slot = address.get("slot")
            address.ignore("controller")
        pairs: Pairs = [("id", f"smartcard{number}"), ("bus", "ccid0.0"), *([("slot", slot)] if slot else [])]
        if mode == "passthrough" and self._characters(item, f"charsmartcard{number}"):
            self.add(item.line, "-device", join([("chardev", f"charsmartcard{number}"), *pairs], "ccid-card-passthru"))
        elif mode == "host":
            self.add(item.line, "-device", join([("backend", "nss-emulated"), *pairs], "ccid-card-emulated"))
        else:
            self.domain.lost(item.line, f"mode='{mode}' of <smartcard>")

    def _redirdev(self, item: Item) -> None:
        number = self.next("redir")
        if item.get("bus", "usb") != "usb":
            self.domain.lost(item.line, f"bus='{item.get('bus')}' of <redirdev>")
        if self._characters(item, f"charredir{number}"):
            pairs: Pairs = [("chardev", f"charredir{number}"), ("id", f"redir{number}"), *self._usb(item)]
            boot = item.find("boot")
            pairs += [("bootindex", boot.get("order"))] if boot is not None else []
            self.add(item.line, "-device", join(pairs, "usb-redir"))

    # --- what is seen and heard -------------------------------------------------------------------------------------

    def _input(self, item: Item) -> None:
        kind, bus, number = item.get("type"), item.get("bus"), self.next("input")
        bus = bus or ("usb" if kind == "tablet" else "ps2")
        if bus == "usb" and kind in _INPUTS:
            self.add(item.line, "-device", join([("id", f"input{number}"), *self._usb(item)], _INPUTS[kind]))
        elif bus == "virtio" and kind in _INPUTS:
            self.device(item, f"virtio-{kind}-pci", [("id", f"input{number}")])
        elif bus != "ps2" or kind not in ("mouse", "keyboard"):
            self.domain.lost(item.line, f"<input type='{kind}' bus='{bus}'>")

    def _listen(self, item: Item) -> str:
        address = item.get("listen")
        listen = item.find("listen")
        if listen is not None:
            if listen.get("type") == "socket":
                return f"unix:{listen.get('socket')}"
            address = listen.get("address") or address
            if listen.get("type") == "network":
                self.domain.lost(listen.line, f"network='{listen.get('network')}' of <listen>")
        return address or "127.0.0.1"

    def _graphics(self, item: Item) -> None:
        kind, domain = item.get("type"), self.domain
        port = item.get("port", "-1")
        item.ignore("autoport")
        if kind == "vnc":
            where = f"unix:{item.get('socket')}" if item.get("socket") else self._listen(item)
            if not where.startswith("unix:"):
                where = f"{where}:{max(int(port or '-1'), 5900) - 5900}"
            pairs: Pairs = [("password", "on")] if item.get("passwd") else []
            share = {"allow-exclusive": "allow-exclusive", "force-shared": "force-shared", "ignore": "ignore"}
            pairs += [("share", share[item.get("sharePolicy")])] if item.get("sharePolicy") in share else []
            websocket = item.get("websocket")
            if websocket:  # -1: libvirt chooses one, as it does for the display
                pairs += [("websocket", websocket if websocket != "-1" else "on")]
            pairs += [("power-control", "on")] if item.get("powerControl") == "yes" else []
            self.add(item.line, "-vnc", join(pairs, where))
            if item.get("keymap"):
                self.add(item.line, "-k", item.get("keymap"))
        elif kind == "spice":
            pairs = [("port", port if port not in ("-1", "") else "5900")]
            pairs += [("tls-port", item.get("tlsPort"))] if item.get("tlsPort") not in ("", "-1") else []
            pairs += [("addr", self._listen(item))]
            mouse = item.attr("mouse", "mode")
            pairs += [("agent-mouse", "on" if mouse == "client" else "off")] if mouse else []
            if not item.get("passwd"):
                pairs.append(("disable-ticketing", "on"))
            for tag, key in (("image", "image-compression"), ("jpeg", "jpeg-wan-compression")):
                pairs += [(key, item.attr(tag, "compression"))] if item.attr(tag, "compression") else []
            zlib, playback = item.attr("zlib", "compression"), item.attr("playback", "compression")
            pairs += [("zlib-glz-wan-compression", zlib)] if zlib else []
            pairs += [("playback-compression", playback)] if playback else []
            streaming = item.attr("streaming", "mode")
            pairs += [("streaming-video", streaming)] if streaming else []
            pairs += [("disable-copy-paste", "on")] if item.attr("clipboard", "copypaste") == "no" else []
            pairs += [("disable-agent-file-xfer", "on")] if item.attr("filetransfer", "enable") == "no" else []
            pairs.append(("seamless-migration", "on"))
            self.add(item.line, "-spice", join(pairs))
            if item.get("keymap"):
                self.add(item.line, "-k", item.get("keymap"))
        else:
            domain.lost(item.line, f"<graphics type='{kind}'>")
            item.skip()
        if item.get("passwd"):
            domain.note(
                item.line, "passwd of <graphics> is not written down: a client is asked for one that is set by hand"
            )

    def _video(self, item: Item) -> None:
        number, model = self.next("video"), item.find("model")
        kind = (model.get("type") if model is not None else "") or "cirrus"
        get = model.get if model is not None else (lambda name, default="": default)
        get("primary")
        if kind == "none":
            return
        driver = _SECOND.get(kind, _VIDEO.get(kind, "")) if number else _VIDEO.get(kind, "")
        if not driver:
            self.domain.lost(item.line, f"type='{kind}' of <model>")
            return

        def kib(name: str, default: int) -> int:
            return int(get(name) or default)

        pairs: Pairs = [("id", f"video{number}")]
        heads = get("heads")
        if kind == "qxl":
            pairs.append(("max_outputs", heads or "1"))
            pairs += [("ram_size", kib("ram", 65536) * 1024), ("vram_size", kib("vram", 65536) * 1024)]
            pairs += [("vram64_size_mb", kib("vram64", 0) // 1024), ("vgamem_mb", kib("vgamem", 16384) // 1024)]
        elif kind in ("vga", "vmvga"):  # libvirt rounds up to a power of two
            pairs.append(("vgamem_mb", max(1, 1 << (kib("vram", 16384) // 1024 - 1).bit_length())))
        elif kind == "virtio":
            pairs.append(("max_outputs", heads or "1"))
        elif kind == "bochs":
            pairs.append(("vgamem", f"{kib('vram', 16384) // 1024}M"))
        if kind == "cirrus" and get("vram") not in ("", "9216", "16384"):  # its size is the type's
            self.domain.lost(item.line, f"vram='{get('vram')}' of <model>")
        if kind != "qxl" and kind != "virtio" and heads not in ("", "1"):
            self.domain.lost(item.line, f"heads='{heads}' of <model>")
        resolution = model.find("resolution") if model is not None else None
        if resolution is not None:
            pairs += [("xres", resolution.get("x")), ("yres", resolution.get("y"))]
        self.device(item, driver, pairs)

    def _sound(self, item: Item) -> None:
        number, model = self.next("sound"), item.get("model")
        if model == "pcspk":
            return
        if model not in _SOUND:
            self.domain.lost(item.line, f"model='{model}' of <sound>")
            return
        audio = item.find("audio")
        if audio is not None:
            audio.ignore("id")
        name = f"sound{number}"
        if model == "usb":
            self.add(item.line, "-device", join([("id", name), *self._usb(item)], _SOUND[model]))
            return
        self.device(item, _SOUND[model], [("id", name)])
        if model.startswith("ich"):
            for n, codec in enumerate([each.get("type") for each in item.all("codec")] or ["duplex"]):
                pairs: Pairs = [("id", f"{name}-codec{n}"), ("bus", f"{name}.0"), ("cad", n)]
                self.add(item.line, "-device", join(pairs, _CODECS.get(codec, codec)))

    def _audio(self, item: Item) -> None:
        item.skip()  # the host's sound

    def _hostdev(self, item: Item) -> None:
        number, kind, source = self.next("hostdev"), item.get("type"), item.find("source")
        item.ignore("mode", "managed")
        if kind == "pci" and source is not None and source.find("address") is not None:
            get = source.find("address")
            assert get is not None
            spot = [int(get.get(key, "0"), 0) for key in ("domain", "bus", "slot", "function")]
            get.ignore("type")
            driver = item.find("driver")
            if driver is not None:
                driver.ignore("name")
            host = f"{spot[0]:04x}:{spot[1]:02x}:{spot[2]:02x}.{spot[3]:x}"
            self.device(item, "vfio-pci", [("host", host), ("id", f"hostdev{number}")])
        elif kind == "usb" and source is not None:
            pairs: Pairs = [("id", f"hostdev{number}")]
            for tag, key in (("vendor", "vendorid"), ("product", "productid")):
                if source.attr(tag, "id"):
                    pairs.append((key, int(source.attr(tag, "id"), 0)))
            spot_of = source.find("address")
            if spot_of is not None:
                pairs += [("hostbus", spot_of.get("bus")), ("hostaddr", spot_of.get("device"))]
            self.add(item.line, "-device", join([*pairs, *self._usb(item)], "usb-host"))
        else:
            self.domain.lost(item.line, f"<hostdev type='{kind}'>")
            item.skip()


def _made(tag: str, line: int, **attributes: str) -> Item:
    """An element that libvirt adds."""
    item = Item(tag, attributes, line)
    item.used = True
    return item
