"""The devices of a libvirt domain as QEMU options, with the names and places that libvirt gives them."""

from __future__ import annotations

from vmrun.config.importers.libvirt_base import element
from vmrun.config.importers.libvirt_chars import Characters
from vmrun.config.importers.libvirt_disks import SCSI, Disks
from vmrun.config.importers.libvirt_networks import Networks
from vmrun.config.importers.libvirt_others import Others
from vmrun.config.importers.libvirt_screens import Screens
from vmrun.config.importers.qemuopts import join, split
from vmrun.config.importers.xmltree import Item, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.config.importers.libvirt import _Domain
    from vmrun.config.importers.libvirt_base import Pairs

_USB = {
    "": "piix3-usb-uhci", "piix3-uhci": "piix3-usb-uhci", "piix4-uhci": "piix4-usb-uhci", "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1", "ich9-uhci1": "ich9-usb-uhci1", "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3", "vt82c686b-uhci": "vt82c686b-usb-uhci", "pci-ohci": "pci-ohci",
    "nec-xhci": "nec-usb-xhci", "qemu-xhci": "qemu-xhci",
}  # fmt: skip
MOST_DEVICES = 2048
_ADDRESSES = ("pci", "drive", "usb", "isa", "virtio-serial", "ccid", "dimm", "unassigned", "")
# what <driver> says of a virtio device → its properties
_RINGS = {"iommu": "iommu_platform", "ats": "ats", "packed": "packed", "page_per_vq": "page-per-vq"}


class Devices(Disks, Characters, Screens, Networks, Others):
    """Reads <devices> of a domain; what it says goes to the domain's words."""

    def __init__(self, domain: _Domain, devices: Item | None) -> None:
        super().__init__(domain)
        self.count: dict[str, int] = {}
        self.port: dict[int, tuple[int, int]] = {}
        self.boots = self._boot_order(devices)
        if devices is None:
            if not domain.given:
                devices = Item("devices", {}, domain.root.line)
            else:
                return
        devices.used = True
        if len(devices.children) > MOST_DEVICES:
            raise wrong(f"more than {MOST_DEVICES} devices", domain.file, devices.line)
        emulator = devices.find("emulator")
        if emulator is not None:
            emulator.skip()
        self.items = devices.children
        self._implicit(devices)
        self._number_ports()
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
                alias = item.peek("alias")
                if alias is not None:
                    own = alias.get("name")
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

    def next(self, kind: str) -> int:
        self.count[kind] = self.count.get(kind, -1) + 1
        return self.count[kind]

    def _implicit(self, devices: Item) -> None:
        """What libvirt adds: controllers that devices need, a USB controller, a balloon."""
        have = {(item.attributes.get("type"), self._number(item)) for item in self._of("controller")}
        made: list[Item] = []

        def need(kind: str, index: int, model: str = "") -> None:
            if (kind, index) not in have:
                have.add((kind, index))
                made.append(element("controller", devices.line, type=kind, index=str(index), model=model))

        if not any(kind == "usb" for kind, _ in have) and not self.domain.given:
            need("usb", 0)
        for item in self._of("disk"):
            if self._bus(item) == "scsi":
                need("scsi", self._spot(item)[0])
        if self._of("smartcard") or any(item.tag == "smartcard" for item in devices.children):
            need("ccid", 0)
        seen = {item.tag for item in devices.children}
        if "graphics" in seen and "video" not in seen:
            made.append(element("video", devices.line))
        if not any(item.tag == "memballoon" for item in devices.children) and not self.domain.given:
            made.append(element("memballoon", devices.line, model="virtio"))
        self.items = [*devices.children, *made]

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
        acpi = item.find("acpi")
        if acpi is not None and acpi.get("index"):
            pairs = [*pairs, ("acpi-index", acpi.get("index"))]
        rings = item.find("driver") if driver.startswith("virtio-") else None
        if rings is not None:
            pairs = [*pairs, *((name, rings.get(key)) for key, name in _RINGS.items() if rings.get(key))]
        if rom is not None:
            if rom.get("bar"):
                pairs = [*pairs, ("rombar", int(rom.get("bar") == "on"))]
            if rom.get("enabled", "no") not in ("yes", "no"):
                self.domain.lost(rom.line, f"enabled='{rom.get('enabled')}' of <rom>")
            if rom.get("file") or rom.get("enabled") == "no":
                pairs = [*pairs, ("romfile", rom.get("file"))]
        self.add(item.line, "-device", join(pairs, driver))

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
        elif kind == "scsi" and model in SCSI:
            pairs = [("id", f"scsi{index}")]
            driver = item.find("driver")
            if driver is not None:
                names = {"queues": "num_queues", "cmd_per_lun": "cmd_per_lun", "max_sectors": "max_sectors"}
                names |= {"ioeventfd": "ioeventfd"}
                pairs += [(name, driver.get(key)) for key, name in names.items() if driver.get(key)]
                if driver.get("iothread"):
                    pairs.append(("iothread", f"iothread{driver.get('iothread')}"))
            self.device(item, SCSI[model], pairs)
        elif kind == "pci" and model in ("", "pci-root"):
            target = item.find("target")
            if target is not None and target.get("hotplug") == "off":
                self.add(item.line, "-global", "PIIX4_PM.acpi-root-pci-hotplug=off")
            hole = item.find("pcihole64")
            if hole is not None:
                size = self.domain.amount(hole, hole.text, hole.get("unit"))
                self.add(item.line, "-global", f"i440FX-pcihost.pci-hole64-size={size}")
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
