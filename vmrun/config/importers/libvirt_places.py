"""Where the devices of a libvirt domain are: PCI slots, ports of USB, units of disks, as libvirt gives them."""

from __future__ import annotations

import re

from vmrun.config.importers.libvirt_base import Base, element
from vmrun.config.importers.xmltree import Item, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt import _Domain
    from vmrun.config.importers.libvirt_base import Pairs

_ON_USB = ("interface", "sound", "hostdev", "controller", "smartcard", "serial", "input", "hub", "redirdev")
_USB_PORTS = {"ehci": 6, "ich9-ehci1": 6, "nec-xhci": 4, "qemu-xhci": 4, "pci-ohci": 3}
MOST_BUSES = 256
_BOOTS = {"hd": ("disk", "lun"), "cdrom": ("cdrom",), "fd": ("floppy",)}
# Slots of the board: the host bridge and the PIIX3.
_TAKEN = (0, 1)


class Places(Base):
    """Counts places for Devices. items: those of <devices> and what libvirt adds; place: of each its PCI function."""

    def __init__(self, domain: _Domain) -> None:
        self.domain, self.add = domain, domain.add
        self.items: list[Item] = []
        self.taken: set[tuple[int, int]] = {(0, slot) for slot in _TAKEN}  # (bus, slot)
        self.place: dict[int, tuple[int, int, int]] = {}
        self.closed: set[int] = set()  # buses that nothing is put on unasked
        self.boots: dict[int, int] = {}
        self.ports: dict[int, str] = {}

    def _number(self, item: Item) -> int:
        """A controller's index."""
        try:
            return int(item.attributes.get("index") or 0)
        except ValueError:
            raise wrong(f"index of <{item.tag}> is no number", self.domain.file, item.line) from None

    def _of(self, *tags: str) -> list[Item]:
        return [item for item in self.items if item.tag in tags]

    def _bus(self, item: Item) -> str:
        target = item.peek("target")
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
        target = item.peek("target")
        match = re.fullmatch(r"(?:fd|hd|sd|vd|xvd|ubd)([a-z]{1,6})", target.attributes.get("dev", "") if target else "")
        found = -1
        for letter in match[1] if match else "":
            found = (found + 1) * 26 + ord(letter) - ord("a")
        return found

    def _spot(self, item: Item) -> tuple[int, int, int, int]:
        """(controller, bus, target, unit), as said or as the name of the disk has it."""
        address = item.peek("address")
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

    def _in_order(self, disks: list[Item]) -> list[Item]:
        """libvirt puts a disk beside those of its bus, by name."""
        found: list[Item] = []
        named = {id(disk): (self._bus(disk), self._index(disk)) for disk in disks}
        for disk in disks:
            at, (own, index) = -1, named[id(disk)]
            for place in range(len(found) - 1, -1, -1):
                bus, other = named[id(found[place])]
                if bus == own:
                    if other > index:
                        at = place
                    elif at < 0:
                        at = place + 1
            found.insert(at if at >= 0 else len(found), disk)
        return found

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
                is_disk = item.tag == "disk" and item.attributes.get("device", "disk") in _BOOTS.get(kind, ())
                if (is_disk or kind == "network" and item.tag == "interface") and id(item) not in found:
                    found[id(item)] = order
                    break
        return found

    def _assign(self) -> None:
        """PCI slots in libvirt's order for all that has none."""
        for item in self.items:
            address = item.peek("address")
            if address is not None and address.attributes.get("type") == "pci":
                get = address.attributes.get
                try:
                    spot = tuple(int(get(key, "0x0"), 0) for key in ("bus", "slot", "function"))
                    domain = int(get("domain", "0x0"), 0)
                except ValueError:
                    raise wrong("an address of PCI is no number", self.domain.file, address.line) from None
                if spot[0] >= MOST_BUSES:
                    raise wrong(f"there is no bus {spot[0]}", self.domain.file, address.line)
                if not (domain or spot[0] or spot[1]):
                    continue  # one of PCI is wanted, and not said; libvirt does not look at the function
                self.place[id(item)] = (spot[0], spot[1], spot[2])
                self.taken.add((spot[0], spot[1]))
        videos = self._of("video")
        usb = next((each for each in self._of("controller") if self._usb_of_the_board(each)), None)
        if usb is not None and id(usb) not in self.place:
            self.place[id(usb)] = (0, 1, 2)
        if videos and videos[0] is not None and id(videos[0]) not in self.place:
            model = videos[0].peek("model")
            if model is None or model.attributes.get("type") not in ("none", "ramfb"):
                self.place[id(videos[0])] = self._reserve(2)
        self._bridge()

    def _bridge(self) -> None:
        """Place all that wait; behind further bridges what there is no room for. As with libvirt, a slot remains."""
        root = {
            self._number(each): each.attributes.get("model")
            for each in self._of("controller")
            if each.attributes.get("type") == "pci"
        }
        line = self.domain.root.line
        if any(n >= MOST_BUSES for n in root):
            raise wrong(f"there is no bus {max(root)}", self.domain.file, line)
        self.closed = {n for n, model in root.items() if n and model != "pci-bridge"}
        present = {0, *root}
        spare = any(bus not in self.closed and self._room(bus) for bus in present)
        while True:
            place, taken = dict(self.place), set(self.taken)
            self._settle()
            if spare:
                self._free()
            last = max(*root, *(bus for bus, _ in self.taken))
            missing = [bus for bus in range(last + 1) if bus not in present]
            if not missing:
                return
            self.place, self.taken, spare = place, taken, False
            present.update(missing)
            for bus in missing:
                self.items.append(element("controller", line, type="pci", index=str(bus), model="pci-bridge"))

    def _settle(self) -> None:
        controllers, videos = self._of("controller"), self._of("video")
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
        if (0, slot) in self.taken:
            return self._free()
        self.taken.add((0, slot))
        return 0, slot, 0

    def _free(self) -> tuple[int, int, int]:
        found = next((room for bus in range(MOST_BUSES) if bus not in self.closed and (room := self._room(bus))), None)
        if found is None:
            raise wrong("more PCI devices than buses have slots", self.domain.file, self.domain.root.line)
        self.taken.add(found)
        return *found, 0

    def _room(self, bus: int) -> tuple[int, int] | None:
        """The first free slot of a bus. None: it is full."""
        return next(((bus, slot) for slot in range(1, 32) if (bus, slot) not in self.taken), None)

    def _on_pci(self, item: Item) -> bool:
        get = item.attributes.get
        address = item.peek("address")
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
            target = item.peek("target")
            return target is not None and target.attributes.get("type") == "pci-serial"
        if item.tag == "hostdev":
            return get("type") == "pci"
        if item.tag == "interface":
            model = item.peek("model")
            return model is None or model.attributes.get("type") not in ("ne2k_isa", "usb-net")
        return True

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
                if child.tag == "address" and get("type") == "usb":
                    said.add((self.domain.number(child, get("bus") or "0", "bus"), get("port", "")))
        order = [*self._in_order(self._of("disk")), *(item for tag in _ON_USB for item in self._of(tag))]
        waiting = [item for item in order if self._on_usb(item)]
        models = [
            item.attributes.get("model") or ""
            for item in self._of("controller")
            if item.attributes.get("type") == "usb" and not self._number(item)
        ]
        root = max((_USB_PORTS.get(model, 2) for model in models), default=2)
        free = [str(port) for port in range(1, root + 1) if (0, str(port)) not in said]
        hubs = [item for item in waiting if item.tag == "hub"]
        others = [item for item in waiting if item.tag != "hub"]
        while len(others) > len(free) - len(hubs) + 8 * len(hubs) and len(hubs) < 2 * root and models:
            hubs.append(element("hub", self.items[0].line, type="usb"))
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
