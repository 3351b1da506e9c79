"""libvirt's domain XML → a machine file's content, through the QEMU options that libvirt itself would write.

The parser is expat alone: a document type is refused, so there are no entities of anyone's own to expand.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, TreeBuilder, tostring
from xml.parsers import expat

from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import join
from vmrun.config.scalar import parse_size
from vmrun.errors import WARNING, ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"
_MOST, _DEPTH = 1 << 20, 64
_UNITS = {
    "b": 1,
    "bytes": 1,
    "KB": 1000,
    "k": 1 << 10,
    "KiB": 1 << 10,
    "MB": 10**6,
    "M": 1 << 20,
    "MiB": 1 << 20,
    "GB": 10**9,
    "G": 1 << 30,
    "GiB": 1 << 30,
    "T": 1 << 40,
    "TiB": 1 << 40,
}
_BOOT = {"hd": "c", "cdrom": "d", "fd": "a", "network": "n"}
_VIDEO = {"cirrus": "cirrus", "vga": "std", "qxl": "qxl", "vmvga": "vmware", "virtio": "virtio", "none": "none"}
_SOUND = {"ac97": ["AC97"], "es1370": ["ES1370"], "sb16": ["sb16"], "ich6": ["intel-hda", "hda-duplex"], "pcspk": []}
_USB = {
    "piix3-uhci": "piix3-usb-uhci",
    "piix4-uhci": "piix4-usb-uhci",
    "ehci": "usb-ehci",
    "ich9-ehci1": "ich9-usb-ehci1",
    "ich9-uhci1": "ich9-usb-uhci1",
    "ich9-uhci2": "ich9-usb-uhci2",
    "ich9-uhci3": "ich9-usb-uhci3",
    "nec-xhci": "nec-usb-xhci",
    "qemu-xhci": "qemu-xhci",
    "pci-ohci": "pci-ohci",
}
_BOARD = frozenset((("ide", ""), ("fdc", ""), ("pci", ""), ("pci", "pci-root"), ("usb", "none"), ("ide", "piix3")))
_FOREIGN = ("microvm", "isapc", "none", "xenfv", "xenpv", "x-remote")
_OF_DISKS = frozenset(["driver", "source", "target", "serial", "readonly", "address", "boot", "alias", "backingStore"])
_QUIET = frozenset(("emulator", "alias", "address", "hub"))


def parse_xml(data: bytes, file: str) -> Element:
    """The tree of an XML text of at most 1 MiB and 64 levels. ConfigError for anything else, and for any DTD."""
    builder, depth = TreeBuilder(), 0
    parser = expat.ParserCreate(namespace_separator="}")

    def refuse(*_: Any) -> None:
        raise _wrong("a document type is refused", file, parser.CurrentLineNumber)

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEPTH:
            raise _wrong(f"more than {_DEPTH} levels of nesting", file, parser.CurrentLineNumber)
        builder.start(tag, {**attributes, "\0line": str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, builder.data
    if len(data) > _MOST:
        raise _wrong("larger than 1 MiB", file, 0)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise _wrong(f"not well-formed XML: {expat.ErrorString(error.code)}", file, error.lineno) from None
    except (LookupError, ValueError):
        raise _wrong("of an unknown encoding", file, 0) from None
    return builder.close()


def _wrong(message: str, file: str, line: int) -> ConfigError:
    return ConfigError(problems=[Problem("VR0122", message, Place(file, line, 1 if line else 0))])


def import_domain(data: bytes, file: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """(content of a machine file, what it has no equal for). Raises ConfigError."""
    domain = _Domain(parse_xml(data, file), file)
    parsed = parse_command_line(domain.words, defaults=False)
    return parsed.document, (*domain.problems, *parsed.warnings)


class _Domain:
    def __init__(self, root: Element, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.words: list[str] = ["-nodefaults"]
        self.count: dict[str, int] = {}
        if root.tag != "domain":
            raise _wrong(f"<{root.tag}> is no domain", file, _line(root))
        machine = root.find("os/type")
        name = machine.get("machine", "pc") if machine is not None else "pc"
        arch = machine.get("arch", "x86_64") if machine is not None else "x86_64"
        if "q35" in name or name in _FOREIGN or arch not in ("x86_64", "i686"):
            raise _wrong(f"machine '{name}' is no i440FX PC", file, _line(machine if machine is not None else root))
        self.old = name.startswith("rhel6")
        accel = {"kvm": "kvm", "qemu": "tcg"}.get(root.get("type", ""), "kvm")
        passage = [child for child in root if child.tag == f"{QEMU_NS}}}commandline"]
        # what stands there says more than the domain can
        self.own = {str(arg.get("value")) for child in passage for arg in child}
        self.add("-machine", join([("accel", accel)], name))
        for child in root:
            handler = getattr(self, f"_{child.tag}", None) if child.tag.isidentifier() else None
            if child.tag == f"{QEMU_NS}}}commandline":
                self.words += [arg.get("value", "") for arg in child if arg.tag == f"{QEMU_NS}}}arg"]
            elif handler is not None:
                handler(child)
            elif child.tag not in (
                "currentMemory",
                "title",
                "metadata",
            ):
                self.lost(child)

    def add(self, *words: str) -> None:
        held = set(self.own)
        if "-nodefaults" in held:  # as vmrun writes it: libvirt wants some elements all the same
            held |= {"-m", "-smp"}
        if words[0] not in held or words[0] in ("-device", "-drive", "-chardev", "-netdev"):
            self.words += words

    def lost(self, element: Element) -> None:
        place = Place(self.file, _line(element), 1)
        self.problems.append(
            Problem(
                "VR0121", f"<{element.tag.rpartition('}')[2]}> has no equal in a machine file", place, severity=WARNING
            )
        )

    def next(self, kind: str) -> int:
        self.count[kind] = self.count.get(kind, -1) + 1
        return self.count[kind]

    def _name(self, element: Element) -> None:
        self.add("-name", (element.text or "").replace(",", ",,"))

    def _uuid(self, element: Element) -> None:
        self.add("-uuid", (element.text or "").strip())

    def _memory(self, element: Element) -> None:
        text = (element.text or "").strip()
        unit = _UNITS.get(element.get("unit", "KiB"))
        if not text.isdecimal() or len(text) > 18 or unit is None:
            raise _wrong(f"'{text}' is no amount of memory", self.file, _line(element))
        self.add("-m", f"{int(text) * unit}B")

    def _vcpu(self, element: Element) -> None:
        most, now = (element.text or "").strip(), element.get("current")
        self.add("-smp", f"{now},maxcpus={most}" if now and now != most else most)

    def _features(self, element: Element) -> None:
        for child in element:
            if child.tag == "vmport" and child.get("state") == "off":
                self.add("-machine", "vmport=off")
            elif child.tag not in ("acpi", "apic", "pae"):
                self.lost(child)

    def _ends(self, element: Element) -> None:
        if element.text not in (None, {"on_reboot": "restart"}.get(element.tag, "destroy")):
            self.lost(element)  # it is what a manager does, and no machine file says it

    _on_poweroff = _on_reboot = _on_crash = _ends

    def _sysinfo(self, element: Element) -> None:
        kinds = {"bios": "0", "system": "1", "baseBoard": "2", "chassis": "3", "oemStrings": "11"}
        for tag, kind in kinds.items():
            entries = element.findall(f"{tag}/entry")
            pairs = [(entry.get("name", "value"), (entry.text or "").strip()) for entry in entries]
            if pairs:
                self.add("-smbios", join([("type", kind), *pairs]))
        for child in element:
            if child.tag not in kinds:
                self.lost(child)

    def _cpu(self, element: Element) -> None:
        topology = element.find("topology")
        if topology is not None:
            self.add("-smp", join([(key, topology.get(key, "1")) for key in ("sockets", "cores", "threads")]))
        model = element.find("model")
        name = {"host-passthrough": "host", "host-model": "host"}.get(element.get("mode", ""))
        name = name or (model.text if model is not None else None)
        if name:
            policies = {"require": "on", "force": "on", "disable": "off", "forbid": "off"}
            features = [
                (each.get("name", ""), policies.get(each.get("policy", "require"), "on"))
                for each in element.iter("feature")
            ]
            self.add("-cpu", join(features, name.strip()))

    def _os(self, element: Element) -> None:
        order = "".join(_BOOT.get(boot.get("dev", ""), "") for boot in element.iter("boot"))
        menu = element.find("bootmenu")
        for child in element:
            if child.tag not in ("type", "boot", "bootmenu", "kernel", "initrd", "cmdline", "loader", "smbios"):
                self.lost(child)
        pairs = ([("order", order)] if order else []) + (
            [("menu", "on")] if menu is not None and menu.get("enable") == "yes" else []
        )
        if pairs:
            self.add("-boot", join(pairs))
        for tag, option in (("kernel", "-kernel"), ("initrd", "-initrd"), ("cmdline", "-append"), ("loader", "-bios")):
            found = element.find(tag)
            if found is not None and found.text:
                self.add(option, found.text.strip())

    def _clock(self, element: Element) -> None:
        pairs = [("base", "localtime" if element.get("offset") == "localtime" else "utc")]
        for timer in element.iter("timer"):
            if timer.get("name") == "rtc" and timer.get("tickpolicy") == "catchup":
                pairs.append(("driftfix", "slew"))
            elif timer.get("name") == "hpet" and timer.get("present") == "no":
                self.add("-no-hpet")
        self.add("-rtc", join(pairs))

    def _devices(self, devices: Element) -> None:
        for child in sorted(devices, key=lambda each: each.tag != "controller"):  # what others stand on comes first
            handler = getattr(self, f"_dev_{child.tag}", None)
            if handler is not None:
                try:
                    handler(child)
                except ValueError:
                    raise _wrong(f"a value in <{child.tag}> is no number", self.file, _line(child)) from None
            elif child.tag not in _QUIET:
                self.lost(child)

    def device(self, element: Element, driver: str, pairs: list[tuple[str, str]], pci: bool = True) -> None:
        place = element.find("address")
        boot = element.find("boot")
        if place is not None and place.get("type") == "pci" and pci:
            slot, function = place.get("slot", "0x0"), place.get("function", "0x0")
            pairs = [*pairs, ("bus", "pci.0"), ("addr", f"{int(slot, 16):#x}.{int(function, 16):#x}")]
        if boot is not None:
            pairs = [*pairs, ("bootindex", boot.get("order", "1"))]
        self.add("-device", join(pairs, driver))

    def _dev_controller(self, element: Element) -> None:
        kind, index, model = element.get("type", ""), element.get("index", "0"), element.get("model", "")
        if kind == "usb" and model in ("", *_USB):
            name = "usb" if index == "0" else f"usb{index}"
            master = element.find("master")
            pairs = (
                [("id", name)]
                if master is None
                else [("masterbus", f"{name}.0"), ("firstport", master.get("startport", "0"))]
            )
            self.device(element, _USB.get(model, "piix3-usb-uhci"), pairs)
        elif kind == "virtio-serial":
            self.device(element, "virtio-serial-pci", [("id", f"virtio-serial{index}")])
        elif kind == "scsi":
            self.device(
                element, "virtio-scsi-pci" if model == "virtio-scsi" else "lsi53c895a", [("id", f"scsi{index}")]
            )
        elif (kind, model) not in _BOARD:
            self.lost(element)

    def _dev_disk(self, element: Element) -> None:
        target, source, driver = element.find("target"), element.find("source"), element.find("driver")
        bus = target.get("bus", "ide") if target is not None else "ide"
        kind = element.get("device", "disk")
        place = element.find("address")
        number = self.next(bus)
        spot = (
            {"bus": str(number // 2), "unit": str(number % 2), "target": "0"}
            if bus == "ide"
            else {"bus": "0", "unit": str(number)}
        )
        if place is not None and place.get("type") == "drive":
            spot |= {key: place.get(key, spot.get(key, "0")) for key in ("bus", "unit")}
        id = f"drive-{bus}{number}"
        pairs = [("if", "none"), ("id", id)] + ([("media", "cdrom")] if kind == "cdrom" else [])
        path = next((source.get(key) for key in ("file", "dev") if source is not None and source.get(key)), None)
        pairs += [("file", path)] if path else []
        for child in element:
            if child.tag not in _OF_DISKS or child.tag == "source" and child.attrib.keys() - {"\0line"} and not path:
                self.lost(child)
        if element.find("readonly") is not None or kind == "cdrom":
            pairs.append(("readonly", "on"))
        for key, name in (("type", "format"), ("cache", "cache"), ("io", "aio"), ("error_policy", "werror")):
            value = driver.get(key) if driver is not None else None
            pairs += [(name, value)] if value and value not in ("default", "threads") else []
        self.add("-drive", join(pairs))
        serial = element.find("serial")
        props = [("drive", id), ("id", f"{bus}{number}")] + (
            [("serial", serial.text)] if serial is not None and serial.text else []
        )
        if bus == "ide":
            self.device(
                element,
                "ide-drive" if self.old else "ide-cd" if kind == "cdrom" else "ide-hd",
                [("bus", f"ide.{spot['bus']}"), ("unit", spot["unit"]), *props],
            )
        elif bus == "virtio":
            self.device(element, "virtio-blk-pci", props)
        elif bus == "fdc" or kind == "floppy":
            self.device(element, "floppy", [("unit", spot["unit"]), *props])
        elif bus == "scsi":
            self.device(
                element,
                "scsi-cd" if kind == "cdrom" else "scsi-hd",
                [("bus", "scsi0.0"), ("scsi-id", spot["unit"]), *props],
            )
        elif bus == "usb":
            self.device(element, "usb-storage", props)
        else:
            self.lost(element)

    def _dev_interface(self, element: Element) -> None:
        number = self.next("net")
        model, mac = element.find("model"), element.find("mac")
        name = model.get("type", "rtl8139") if model is not None else "rtl8139"
        kind = "user" if element.get("type") == "user" else "tap"
        source = element.find("source")
        if source is not None and element.get("type") != "user":
            self.lost(source)  # libvirt opens the tap and gives QEMU its descriptor
        target = element.find("target")
        tap = target.get("dev", "") if target is not None and kind == "tap" else ""
        known = [("ifname", tap)] if tap else []
        self.add("-netdev", join([("id", f"hostnet{number}"), *known], kind))
        pairs = [("netdev", f"hostnet{number}"), ("id", f"net{number}")]
        pairs += [("mac", mac.get("address", ""))] if mac is not None else []
        self.device(element, {"virtio": "virtio-net-pci"}.get(name, name), pairs)

    def _characters(self, element: Element, id: str) -> bool:
        source, kind = element.find("source"), element.get("type", "pty")
        get = source.get if source is not None else (lambda key, default=None: default)
        rest: list[tuple[str, Any]] = []
        if kind == "unix":
            rest, kind = [("path", get("path") or f"{id}.sock")], "socket"
            rest += [("server", "on"), ("wait", "off")] if get("mode") == "bind" else []
        elif kind == "tcp":
            rest, kind = [("host", get("host", "localhost")), ("port", get("service", "0"))], "socket"
            rest += [("server", "on"), ("wait", "off")] if get("mode") == "bind" else []
        elif kind in ("file", "dev", "pipe"):
            rest, kind = [("path", get("path", ""))], {"dev": "tty"}.get(kind, kind)
        elif kind == "spicevmc":
            target = element.find("target")
            name = "usbredir" if element.tag == "redirdev" else "smartcard" if element.tag == "smartcard" else "vdagent"
            rest = [("name", name)] if target is not None or element.tag == "redirdev" else []
        elif kind not in ("pty", "null", "stdio", "vc"):
            self.lost(element)
            return False
        self.add("-chardev", join([("id", id), *rest], kind))
        return True

    def _dev_serial(self, element: Element) -> None:
        number = self.next("serial")
        if self._characters(element, f"charserial{number}"):
            self.add(
                "-device",
                join([("chardev", f"charserial{number}"), ("id", f"serial{number}"), ("index", number)], "isa-serial"),
            )

    def _dev_parallel(self, element: Element) -> None:
        number = self.next("parallel")
        if self._characters(element, f"charparallel{number}"):
            pairs = [("chardev", f"charparallel{number}"), ("id", f"parallel{number}"), ("index", number)]
            self.add("-device", join(pairs, "isa-parallel"))

    def _dev_console(self, element: Element) -> None:
        target = element.find("target")
        if target is None or target.get("type", "serial") == "serial":
            if not any(word.startswith("isa-serial") for word in self.words):
                self._dev_serial(element)
        else:
            self.lost(element)

    def _dev_channel(self, element: Element) -> None:
        number, target = self.next("channel"), element.find("target")
        if target is None or target.get("type") != "virtio":
            self.lost(element)
        elif self._characters(element, f"charchannel{number}"):
            if not any(word.startswith("virtio-serial") for word in self.words):
                self.add("-device", "virtio-serial-pci,id=virtio-serial0")
            pairs = [
                ("bus", "virtio-serial0.0"),
                ("nr", number + 1),
                ("chardev", f"charchannel{number}"),
                ("id", f"channel{number}"),
            ]
            self.add(
                "-device",
                join([*pairs, *([("name", target.get("name"))] if target.get("name") else [])], "virtserialport"),
            )

    def _dev_redirdev(self, element: Element) -> None:
        number = self.next("redir")
        if self._characters(element, f"charredir{number}"):
            self.add("-device", f"usb-redir,chardev=charredir{number},id=redir{number}")

    def _dev_input(self, element: Element) -> None:
        if element.get("bus") == "usb":
            driver = {"tablet": "usb-tablet", "mouse": "usb-mouse", "keyboard": "usb-kbd"}.get(element.get("type", ""))
            if driver:
                self.add("-device", f"{driver},id=input{self.next('input')}")
        elif element.get("bus", "ps2") != "ps2":
            self.lost(element)

    def _dev_graphics(self, element: Element) -> None:
        listen, port = element.get("listen", "127.0.0.1"), element.get("port", "-1")
        if element.get("type") == "vnc":
            self.add("-vnc", f"{listen}:{max(int(port), 5900) - 5900}")
        elif element.get("type") == "spice":
            self.add(
                "-spice",
                join([("port", port if port != "-1" else "5900"), ("addr", listen), ("disable-ticketing", "on")]),
            )
        else:
            self.lost(element)

    def _dev_video(self, element: Element) -> None:
        model = element.find("model")
        kind = _VIDEO.get(model.get("type", "cirrus") if model is not None else "cirrus")
        if kind is None or self.next("video"):
            self.lost(element)
        else:
            self.add("-vga", kind)

    def _dev_sound(self, element: Element) -> None:
        drivers = _SOUND.get(element.get("model", ""))
        if drivers is None:
            self.lost(element)
            return
        for place, driver in enumerate(drivers):
            self.device(element, driver, [("id", f"sound{self.next('sound')}")] if not place else [], pci=not place)

    def _dev_memballoon(self, element: Element) -> None:
        if element.get("model") == "virtio":
            self.device(element, "virtio-balloon-pci", [("id", f"balloon{self.next('balloon')}")])

    def _dev_panic(self, element: Element) -> None:
        place = element.find("address")
        if element.get("model", "isa") != "isa":
            self.lost(element)
        else:
            port = [("ioport", place.get("iobase", "0x505"))] if place is not None else []
            self.add("-device", join(port, "pvpanic"))

    def _dev_watchdog(self, element: Element) -> None:
        self.device(element, element.get("model", "i6300esb"), [("id", f"watchdog{self.next('watchdog')}")])


def _line(element: Element) -> int:
    return int(element.get("\0line", "0"))


def export_domain(document: dict[str, Any], words: list[str]) -> str:
    """Domain XML whose devices stand in libvirt's own passage for QEMU options, where libvirt changes nothing."""
    domain = Element(
        "domain", {"type": "kvm" if "kvm" in document.get("accel", ["kvm"]) else "qemu", "xmlns:qemu": QEMU_NS}
    )
    SubElement(domain, "name").text = str(document.get("name", "machine"))
    if "uuid" in document:
        SubElement(domain, "uuid").text = str(document["uuid"])
    SubElement(SubElement(domain, "os"), "type", {"arch": "x86_64", "machine": str(document["machine"])}).text = "hvm"
    size, cpus = document.get("memory", "128MiB"), document.get("cpus", {})
    SubElement(domain, "memory", {"unit": "bytes"}).text = str(parse_size(size))
    SubElement(domain, "vcpu").text = str(cpus.get("count", 1))
    devices = SubElement(domain, "devices")
    # libvirt would add these by itself
    SubElement(devices, "controller", {"type": "usb", "model": "none"})
    SubElement(devices, "memballoon", {"model": "none"})
    passage = SubElement(domain, "qemu:commandline")
    for word in words:
        SubElement(passage, "qemu:arg", {"value": word})
    from xml.etree.ElementTree import indent

    indent(domain)
    return str(tostring(domain, encoding="unicode")) + "\n"
