"""libvirt's domain XML → a machine file's content, through the QEMU options that libvirt itself would write: the same
names, places and properties. Every element and attribute is used, or named with its line.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from vmrun.config.importers.libvirt_devices import Devices
from vmrun.config.importers.libvirt_memory import Memory
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import SOURCE, join
from vmrun.config.importers.xmltree import Item, parse_xml, wrong
from vmrun.config.machinetypes import another_board, newest_type
from vmrun.config.scalar import parse_size
from vmrun.errors import WARNING, ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

QEMU_NS = "http://libvirt.org/schemas/domain/qemu/1.0"
_UNITS = {"b": 1, "bytes": 1} | {
    name: step**power
    for power, letter in enumerate("kmgtpe", 1)
    for name, step in ((letter, 1024), (f"{letter}ib", 1024), (f"{letter}b", 1000))
}
_BOOT = {"hd": "c", "cdrom": "d", "fd": "a", "network": "n"}
# Elements that say nothing about the machine: names for people, and what only a manager does.
_NOTES = frozenset(("title", "description", "metadata", "currentMemory"))
_HYPERV = {"vpindex": "vpindex", "synic": "synic", "runtime": "runtime", "reset": "reset", "relaxed": "relaxed"}
_HYPERV |= {"vapic": "vapic", "frequencies": "frequencies", "reenlightenment": "reenlightenment", "ipi": "ipi"}
_HYPERV |= {"tlbflush": "tlbflush", "evmcs": "evmcs", "avic": "avic"}
_ENDS = {("on_poweroff", "preserve"): "shutdown=pause", ("on_reboot", "destroy"): "reboot=shutdown"}
_ENDS |= {("on_crash", "preserve"): "panic=pause"}
MOST_THREADS = 1024
_CPU_TIMERS = {"kvmclock": "kvmclock", "hypervclock": "hv-time"}


def import_domain(data: bytes, file: str) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """(content of a machine file, what it has no equal for). Raises ConfigError."""
    domain = _Domain(parse_xml(data, file), file)
    try:
        parsed = parse_command_line(domain.words, defaults=False)
    except ConfigError as error:
        raise ConfigError(problems=[domain.placed(problem) for problem in error.problems]) from None
    found = [*domain.problems, *(domain.placed(problem) for problem in (*parsed.warnings, *parsed.unsaid()))]
    found.sort(key=lambda problem: problem.place.line if problem.place is not None else 0)
    return parsed.machine(), tuple(found)


class _Domain(Memory):
    """words: the options that the elements are; lines: of each the line of its element."""

    def __init__(self, root: Item, file: str) -> None:
        self.file, self.root = file, root
        self.problems: list[Problem] = []
        self.words: list[str] = []
        self.lines: list[int] = []
        if root.tag != "domain":
            raise wrong(f"<{root.tag}> is no domain", file, root.line)
        passage = [child for child in root.children if child.space == QEMU_NS]
        # what stands there says more than the domain can
        self.own = {arg.get("value") for child in passage if child.tag == "commandline" for arg in child.children}
        self.given = "-nodefaults" in self.own  # as vmrun writes it: libvirt wants some elements all the same
        root.ignore("type", "id")
        named = root.find("name")
        self.name = named.text if named is not None else "domain"
        machine = root.find("os", "type")
        name = (machine.get("machine", "pc") if machine is not None else "pc") or "pc"
        arch = machine.get("arch", "x86_64") if machine is not None else "x86_64"
        if another_board(name) or name == "none" or arch not in ("x86_64", "i686"):
            raise wrong(f"machine '{name}' is no i440FX PC", file, machine.line if machine is not None else root.line)
        if machine is not None and machine.text not in ("hvm", ""):
            self.lost(machine.line, f"<type>{machine.text}</type>")
        self.old = name.startswith("rhel6")
        self.accel = {"kvm": "kvm", "qemu": "tcg"}.get(root.get("type"), "kvm")
        if root.get("type") not in ("kvm", "qemu", ""):
            self.lost(root.line, f"type='{root.get('type')}' of <domain>")
        self.add(root.line, "-nodefaults")
        self._machine(name, machine.line if machine is not None else root.line)
        self._cpu()
        self._memory()
        self._processors()
        self._threads()
        self._identity()
        self._clock()
        self._power()
        self._firmware()
        devices = root.find("devices")
        Devices(self, devices)
        self._generation()
        for child in passage:
            self._passage(child)
        for child in root.children:
            if child.tag in _NOTES:
                child.skip()
        for line, what in root.unread():
            self.lost(line, what)

    # --- words and what is lost -----------------------------------------------------------------------------------

    def add(self, line: int, *words: str) -> None:
        held = set(self.own) | ({"-m", "-smp"} if self.given else set())
        if words[0] not in held or words[0] in ("-device", "-drive", "-chardev", "-netdev", "-global", "-object"):
            self.words += words
            self.lines += [line] * len(words)

    def lost(self, line: int, what: str) -> None:
        place = Place(self.file, line, 1)
        self.problems.append(Problem("VR0121", f"{what} has no equal in a machine file", place, severity=WARNING))

    def note(self, line: int, text: str) -> None:
        self.problems.append(Problem("VR0121", text, Place(self.file, line, 1), severity=WARNING))

    def placed(self, problem: Problem) -> Problem:
        """With the element's line in place of the option's."""
        if problem.place is None or problem.place.file != SOURCE:
            return problem
        index = min(max(problem.place.line - 1, 0), len(self.lines) - 1)
        message = problem.message
        if self.words[index][:1] == "-":
            option = self.words[index]
            value = self.words[index + 1] if index + 1 < len(self.words) else ""
            for shown in (f"{option} {value}", option):
                if message.startswith(f"{shown}: "):
                    message = message[len(shown) + 2 :]
                    break
            else:
                message = message.partition("…: ")[2] or message
            if message.startswith("this has "):  # of an option that nobody wrote
                message = f"<{self.root.at(self.lines[index]).tag}> {message.removeprefix('this ')}"
        place = Place(self.file, self.lines[index], 1)
        return Problem(problem.code, message, place, nearest=problem.nearest, severity=problem.severity)

    def is_on(self, item: Item) -> bool:
        """Whether its state is on; one that is no state is named."""
        state = item.get("state")
        if state not in ("on", "off", ""):
            self.lost(item.line, f"state='{state}' of <{item.tag}>")
        return state == "on"

    def number(self, item: Item, text: str, what: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            raise wrong(f"{what} of <{item.tag}> is '{text}', no number", self.file, item.line) from None

    def amount(self, item: Item, text: str, unit: str) -> int:
        """Bytes."""
        factor = _UNITS.get((unit or "KiB").lower())
        if not text.isdecimal() or len(text) > 18 or factor is None:
            raise wrong(f"'{text}{unit}' is no amount of memory", self.file, item.line)
        return int(text) * int(factor)

    def _passage(self, passage: Item) -> None:
        if passage.tag != "commandline":
            return
        for child in passage.all("arg"):
            self.words.append(child.get("value"))
            self.lines.append(child.line)

    # --- the machine ------------------------------------------------------------------------------------------------

    def _machine(self, name: str, line: int) -> None:
        pairs: list[tuple[str, str]] = []
        features = self.root.find("features")
        removed = []
        if features is not None:
            for tag, key in (("vmport", "vmport"), ("smm", "smm")):
                state = features.attr(tag, "state")
                if state:
                    pairs.append((key, state))
            driver = features.attr("ioapic", "driver")
            if driver:
                pairs.append(("kernel_irqchip", {"qemu": "split", "kvm": "on"}.get(driver, driver)))
            for tag in ("acpi", "apic", "pae"):
                features.find(tag)
        if features is None or features.find("acpi") is None:
            removed.append("-no-acpi")
        backing = self.root.find("memoryBacking")
        if backing is not None and backing.find("nosharepages") is not None:
            pairs.append(("mem-merge", "off"))
        self.add(line, "-machine", join([("accel", self.accel), *pairs], name))
        for word in removed if not self.given and not self.old else ():
            self.add(line, word)
        mode = backing.attr("allocation", "mode") if backing is not None else ""
        if mode == "immediate":
            self.add(line, "-mem-prealloc")
        elif mode not in ("", "ondemand"):
            self.lost(line, f"mode='{mode}' of <allocation>")

    def _cpu(self) -> None:
        item, features = self.root.find("cpu"), self.root.find("features")
        pairs: list[tuple[str, str]] = []
        name = ""
        line = item.line if item is not None else self.root.line
        if item is not None:
            mode = item.get("mode") or "custom"
            item.ignore("match", "check")
            model = item.find("model")
            name = {"host-passthrough": "host", "host-model": "host", "maximum": "max"}.get(mode, "")
            if model is not None:
                model.ignore("fallback")
                name = name or model.text
                if model.get("vendor_id"):
                    pairs.append(("vendor", model.get("vendor_id")))
            if mode == "host-model":
                self.note(line, "mode='host-model' of <cpu> is what this host has: `host` here")
            vendor = item.find("vendor")
            if vendor is not None and vendor.text:
                pass  # what the model is of anyhow
            if item.get("migratable") and name in ("host", "max"):
                pairs.append(("migratable", item.get("migratable")))
            elif item.get("migratable"):
                self.lost(line, f"migratable='{item.get('migratable')}' of <cpu>")
            if mode not in ("custom", "host-passthrough", "host-model", "maximum"):
                self.lost(line, f"mode='{mode}' of <cpu>")
            policies = {"require": "on", "force": "on", "disable": "off", "forbid": "off"}
            for each in item.all("feature"):
                policy = each.get("policy", "require")
                each.get("name")
                if policy in policies:
                    pairs.append((each.get("name"), policies[policy]))
                else:
                    self.lost(each.line, f"policy='{policy}' of <feature>")
        self.cpu_line = line
        pairs += self._timers_of_processors()
        if features is not None:
            pairs += self._features_of_processors(features)
        if item is not None:
            pairs += self._rest_of_processors(item)
        if pairs and not name and (self.old or not self._is_i386()):
            name = "qemu64" if self.accel == "tcg" or not self.old else "cpu64-rhel6"
        if not name and not self.old and self._is_i386():
            name = "qemu32"  # what qemu-system-i386 has
        if name:
            self.add(line, "-cpu", join(pairs, name.strip()))

    def _is_i386(self) -> bool:
        """Whether libvirt runs qemu-system-i386, whose processors are others by default."""
        emulator, machine = self.root.find("devices", "emulator"), self.root.find("os", "type")
        if emulator is not None and emulator.text:
            return emulator.text.endswith("qemu-system-i386")
        return machine is not None and machine.get("arch") == "i686"

    def _timers_of_processors(self) -> list[tuple[str, str]]:
        pairs = []
        clock = self.root.find("clock")
        for timer in clock.all("timer") if clock is not None else ():
            name = timer.get("name")
            if name in _CPU_TIMERS and timer.get("present"):
                if timer.get("present") == "yes" or name == "kvmclock":  # Hyper-V's is off anyhow
                    pairs.append((_CPU_TIMERS[name], "on" if timer.get("present") == "yes" else "off"))
            elif name == "tsc":
                if timer.get("frequency"):
                    pairs.append(("tsc-frequency", timer.get("frequency")))
                if timer.get("present") == "no":
                    self.lost(timer.line, "present='no' of <timer name='tsc'>")
                if timer.get("mode", "auto") != "auto":
                    self.lost(timer.line, f"mode='{timer.get('mode')}' of <timer name='tsc'>")
        return pairs

    def _features_of_processors(self, features: Item) -> list[tuple[str, str]]:
        pairs = []
        eoi = features.attr("apic", "eoi")
        if eoi:
            pairs.append(("kvm-pv-eoi", eoi))
        spinlock = features.find("pvspinlock")
        if spinlock is not None:
            pairs.append(("kvm-pv-unhalt", spinlock.get("state", "on")))
        hyperv = features.find("hyperv")
        if hyperv is not None:
            if hyperv.get("mode") == "passthrough":
                pairs.append(("hv-passthrough", "on"))
            elif hyperv.get("mode") not in ("", "custom"):
                self.lost(hyperv.line, f"mode='{hyperv.get('mode')}' of <hyperv>")
            for child in hyperv.children:
                if self.is_on(child) or child.tag == "vendor_id" and child.get("state") != "off":
                    pairs += self._hyperv(child)
        devices = self.root.find("devices")
        if any(item.attributes.get("model") == "hyperv" for item in (devices.all("panic") if devices else [])):
            pairs.append(("hv-crash", "on"))
        kvm = features.find("kvm")
        if kvm is not None:
            switches = {"hidden": ("kvm", "off"), "hint-dedicated": ("kvm-hint-dedicated", "on")}
            for tag, pair in {**switches, "poll-control": ("kvm-poll-control", "on")}.items():
                switch = kvm.find(tag)
                if switch is not None and self.is_on(switch):
                    pairs.append(pair)
            if kvm.attr("pv-ipi", "state"):
                pairs.append(("kvm-pv-ipi", kvm.attr("pv-ipi", "state")))
        state = features.attr("pmu", "state")
        pmu = features.find("pmu")
        if pmu is not None:
            pairs.append(("pmu", state or "on"))
        return pairs

    def _hyperv(self, child: Item) -> list[tuple[str, str]]:
        if child.tag == "spinlocks":
            return [("hv-spinlocks", f"{self.number(child, child.get('retries', '4095'), 'retries'):#x}")]
        if child.tag == "vendor_id":
            return [("hv-vendor-id", child.get("value"))]
        if child.tag == "stimer":
            direct = child.attr("direct", "state") == "on"
            return [("hv-stimer", "on"), *([("hv-stimer-direct", "on")] if direct else [])]
        if child.tag in _HYPERV:
            return [(f"hv-{_HYPERV[child.tag]}", "on")]
        self.lost(child.line, f"<{child.tag}>")
        return []

    def _rest_of_processors(self, item: Item) -> list[tuple[str, str]]:
        pairs = []
        cache = item.find("cache")
        if cache is not None:
            mode, level = cache.get("mode"), cache.get("level")
            if mode == "passthrough":
                pairs += [("host-cache-info", "on"), ("l3-cache", "off")]
            elif mode == "emulate" and level in ("", "3"):
                pairs += [("l3-cache", "on")]
            elif mode == "disable":
                pairs += [("host-cache-info", "off")] if item.get("mode") == "host-passthrough" else []
                pairs += [("l3-cache", "off")]
            else:
                self.lost(cache.line, f"level='{level}' of <cache>")
        bits = item.find("maxphysaddr")
        if bits is not None:
            if bits.get("mode") == "passthrough":
                pairs.append(("host-phys-bits", "on"))
            elif bits.get("mode", "emulate") != "emulate":
                self.lost(bits.line, f"mode='{bits.get('mode')}' of <maxphysaddr>")
            if bits.get("bits"):
                pairs.append(("phys-bits", bits.get("bits")))
            if bits.get("limit"):
                pairs.append(("host-phys-bits-limit", bits.get("limit")))
        return pairs

    def _processors(self) -> None:
        vcpu = self.root.find("vcpu")
        most = now = 1
        line = self.root.line
        if vcpu is not None:
            most = self.number(vcpu, vcpu.text or "1", "text")
            now = self.number(vcpu, vcpu.get("current") or str(most), "current")
            vcpu.ignore("placement")
            line = vcpu.line
        vcpus = self.root.find("vcpus")
        for each in vcpus.all("vcpu") if vcpus is not None else ():
            each.ignore("id", "enabled", "hotpluggable", "order")
        topology = self.root.find("cpu", "topology")
        sockets = [("sockets", str(most)), ("cores", "1"), ("threads", "1")]
        if topology is not None:
            line = topology.line
            dies = topology.get("dies", "1")
            sockets = [(key, topology.get(key, "1")) for key in ("sockets", "cores", "threads")]
            sockets.insert(1, ("dies", dies)) if dies != "1" else None
        pairs = [("maxcpus", str(most))] if now != most else []
        self.add(line, "-smp", join([*pairs, *sockets], str(now)))
        self._nodes(most)

    def _generation(self) -> None:
        """<genid>: the machine's generation, which libvirt chooses where the file does not; and <vmcoreinfo>."""
        item = self.root.find("genid")
        if item is not None:
            self.add(item.line, "-device", f"vmgenid,guid={item.text or 'auto'},id=vmgenid0")
        info = self.root.find("features", "vmcoreinfo")
        if info is not None and info.get("state", "on") == "on":
            self.add(info.line, "-device", "vmcoreinfo")

    def _threads(self) -> None:
        """I/O threads that disks may have: so many, or those of given numbers."""
        count, named = self.root.find("iothreads"), self.root.find("iothreadids")
        given = named.all("iothread") if named is not None else []
        numbers = [self.number(each, each.get("id"), "id") for each in given if each.get("id")]
        many = self.number(count, count.text or "0", "text") if count is not None else 0
        if count is not None and many > MOST_THREADS:
            self.note(count.line, f"<iothreads>{many}</iothreads>: {MOST_THREADS} are made here")
        fresh = (n for n in range(1, MOST_THREADS + 1) if n not in numbers)
        while len(numbers) < min(many, MOST_THREADS):
            numbers.append(next(fresh))
        told = {each.get("id"): each for each in given}
        for number in numbers:
            each = told.get(str(number))
            ends = [(end, each.get(f"thread_pool_{end}")) for end in ("min", "max")] if each is not None else []
            pairs = [("id", f"iothread{number}"), *((f"thread-pool-{end}", value) for end, value in ends if value)]
            self.add((each or count or named or self.root).line, "-object", join(pairs, "iothread"))

    def _identity(self) -> None:
        name, uuid = self.root.find("name"), self.root.find("uuid")
        if name is not None:
            self.add(name.line, "-name", join([("guest", name.text)]))
        if uuid is not None:
            self.add(uuid.line, "-uuid", uuid.text)
        smbios, mode = self.root.find("os", "smbios"), self.root.attr("os", "smbios", "mode")
        for item in [child for child in self.root.children if child.tag == "sysinfo"]:
            kind = item.get("type", "smbios")
            if kind == "fwcfg":
                for entry in item.all("entry"):
                    file = entry.get("file")
                    what = ("file", file) if file else ("string", entry.text)
                    self.add(entry.line, "-fw_cfg", join([("name", entry.get("name")), what]))
            elif mode == "sysinfo":
                self._sysinfo(item)
            else:
                item.skip()
                self.note(item.line, "<sysinfo> is not shown to the guest without <smbios mode='sysinfo'/> in <os>")
        if smbios is not None and mode == "host":
            self.lost(smbios.line, "mode='host' of <smbios>")

    def _sysinfo(self, item: Item) -> None:
        kinds = {"bios": "0", "system": "1", "baseBoard": "2", "chassis": "3", "oemStrings": "11"}
        for tag, kind in kinds.items():
            for table in item.all(tag):
                pairs = [(entry.get("name", "value"), entry.text) for entry in table.all("entry")]
                if pairs and kind in "23" and "manufacturer" not in dict(pairs):
                    pairs.insert(0, ("manufacturer", ""))  # libvirt writes it, and QEMU shows it
                if pairs:
                    self.add(table.line, "-smbios", join([("type", kind), *pairs]))

    # --- clock, power -----------------------------------------------------------------------------------------------

    def _clock(self) -> None:
        clock = self.root.find("clock")
        if clock is None:
            return
        offset = clock.get("offset", "utc")
        base = "localtime" if offset in ("localtime", "timezone") else "utc"
        if offset not in ("utc", "localtime", "timezone", "absolute", "variable"):
            self.lost(clock.line, f"offset='{offset}' of <clock>")
        if offset == "timezone":
            self.note(
                clock.line, f"timezone='{clock.get('timezone')}' of <clock>: `localtime` here, of the host's zone"
            )
        elif offset == "absolute":
            base = _date(self.number(clock, clock.get("start", "0"), "start"))
        elif offset == "variable":
            base = "localtime" if clock.get("basis") == "localtime" else "utc"
            if clock.get("adjustment", "0") not in ("0", "reset"):
                self.lost(clock.line, f"adjustment='{clock.get('adjustment')}' of <clock>")
        if clock.get("adjustment") == "reset" or offset != "variable" and clock.get("adjustment") == "0":
            clock.ignore("adjustment")
        elif offset != "variable" and clock.get("adjustment"):
            self.lost(clock.line, f"adjustment='{clock.get('adjustment')}' of <clock>")
        pairs = [("base", base)]
        for timer in clock.all("timer"):
            pairs += self._timer(timer)
        self.add(clock.line, "-rtc", join(pairs))

    def _timer(self, timer: Item) -> list[tuple[str, str]]:
        name, policy, present = timer.get("name"), timer.get("tickpolicy"), timer.get("present")
        what = f"of <timer name='{name}'>"
        if name == "rtc":
            track = {"guest": "vm", "wall": "host", "realtime": "rt"}.get(timer.get("track"), "")
            pairs = [("clock", track)] if track else []
            if policy == "catchup":
                pairs.append(("driftfix", "slew"))
            elif policy not in ("", "delay"):
                self.lost(timer.line, f"tickpolicy='{policy}' {what}")
            if timer.find("catchup") is not None:
                catchup = timer.find("catchup")
                assert catchup is not None
                for key in ("threshold", "slew", "limit"):
                    if catchup.get(key):
                        self.lost(catchup.line, f"{key}='{catchup.get(key)}' of <catchup>")
            if present == "no":
                self.lost(timer.line, f"present='no' {what}")
            return pairs
        if name == "pit":
            if policy in ("delay", "discard"):
                self.add(timer.line, "-global", f"kvm-pit.lost_tick_policy={policy}")
            elif policy == "merge":
                self.lost(timer.line, f"tickpolicy='{policy}' {what}")
            if present == "no":
                self.lost(timer.line, f"present='no' {what}")
        elif name == "hpet":
            if present == "no":
                self.add(timer.line, "-no-hpet")
            if policy:
                self.lost(timer.line, f"tickpolicy='{policy}' {what}")
        elif name not in (*_CPU_TIMERS, "tsc"):
            self.lost(timer.line, f"<timer name='{name}'>")
        elif policy:
            self.lost(timer.line, f"tickpolicy='{policy}' {what}")
        return []

    def _power(self) -> None:
        pm = self.root.find("pm")
        for tag, key in (("suspend-to-mem", "disable_s3"), ("suspend-to-disk", "disable_s4")):
            item = pm.find(tag) if pm is not None else None
            if item is not None and item.get("enabled"):
                self.add(item.line, "-global", f"PIIX4_PM.{key}={int(item.get('enabled') == 'no')}")
        features = self.root.find("features")
        for parent in (pm, features, features.find("pci") if features is not None else None):
            item = parent.find("acpi-bridge-hotplug") if parent is not None else None
            if item is not None:
                self.add(
                    item.line, "-global", f"PIIX4_PM.acpi-pci-hotplug-with-bridge-support={item.get('state', 'on')}"
                )
        usual = {"on_poweroff": "destroy", "on_reboot": "restart", "on_crash": "destroy", "on_lockfailure": ""}
        for tag, action in usual.items():
            item = self.root.find(tag)
            said = _ENDS.get((tag, item.text)) if item is not None else None
            if item is not None and said:
                self.add(item.line, "-action", said)
            elif item is not None and item.text != action:
                self.lost(item.line, f"<{tag}>{item.text}</{tag}>")  # what only a manager does

    def _firmware(self) -> None:
        item = self.root.find("os")
        if item is None:
            return
        pairs: list[tuple[str, str]] = []
        menu = item.find("bootmenu")
        self.boot_order = [boot.get("dev") for boot in item.all("boot")]
        for boot in item.all("boot"):
            if boot.get("dev") not in _BOOT:
                self.lost(boot.line, f"dev='{boot.get('dev')}' of <boot>")
        line = item.line
        if menu is not None:
            line = menu.line
            pairs.append(("menu", "on" if menu.get("enable") == "yes" else "off"))
            if menu.get("timeout"):
                pairs.append(("splash-time", menu.get("timeout")))
        bios = item.find("bios")
        if bios is not None:
            if bios.get("rebootTimeout"):
                line = bios.line
                pairs.append(("reboot-timeout", bios.get("rebootTimeout")))
            if bios.get("useserial") == "yes":
                if self.old:
                    self.add(bios.line, "-device", "sga")
                else:
                    self.add(bios.line, "-machine", "graphics=off")
        pairs += [("strict", "on")] if not self.given else []
        if pairs:
            self.add(line, "-boot", join(pairs))
        for tag, option in (("kernel", "-kernel"), ("initrd", "-initrd"), ("cmdline", "-append")):
            found = item.find(tag)
            if found is not None and found.text:
                self.add(found.line, option, found.text)
        acpi = item.find("acpi")
        for table in acpi.all("table") if acpi is not None else ():
            if table.get("type") != "slic":
                self.lost(table.line, f"type='{table.get('type')}' of <table>")
            else:
                self.add(table.line, "-acpitable", join([("sig", "SLIC"), ("file", table.text)]))
        loader = item.find("loader")
        if loader is not None and loader.text:
            loader.ignore("secure")
            if loader.get("type", "rom") == "pflash":
                fixed = [("readonly", "on")] if loader.get("readonly") == "yes" else []
                pairs = [("if", "pflash"), ("unit", "0"), ("format", loader.get("format") or "raw"), *fixed]
                self.add(loader.line, "-drive", join([("file", loader.text), *pairs]))
                nvram = item.find("nvram")
                if nvram is not None and nvram.text:
                    nvram.ignore("template")
                    pairs = [("if", "pflash"), ("unit", "1"), ("format", nvram.get("format") or "raw")]
                    self.add(nvram.line, "-drive", join([("file", nvram.text), *pairs]))
            else:
                self.add(loader.line, "-bios", loader.text)
        elif item.get("firmware"):
            self._chosen_firmware(item, item.get("firmware"))

    def _chosen_firmware(self, item: Item, kind: str) -> None:
        """<os firmware='efi'>: what libvirt would take on this host; it would make the variables' file, too."""
        from vmrun.config.importers.libvirt_firmware import find

        wanted = {}
        asked, nvram, loader = item.find("firmware"), item.find("nvram"), item.find("loader")
        for feature in asked.all("feature") if asked is not None else ():
            wanted[feature.get("name")] = feature.get("enabled") == "yes"
        if loader is not None and loader.get("secure"):
            wanted["secure-boot"] = loader.get("secure") == "yes"
        kind_of = item.find("type")
        machine = kind_of.get("machine") if kind_of is not None else ""
        machine = newest_type() if machine in ("", "pc") else machine
        smm = self.root.find("features", "smm")
        found = find(kind, machine, wanted, smm is not None and smm.get("state", "on") == "on")
        own = nvram.text if nvram is not None and nvram.text else f"{self.name}_VARS.fd"
        if found is None and kind == "bios":
            self.note(item.line, "firmware='bios' of <os>: the machine type's own firmware is taken")
        elif found is None:
            self.note(
                item.line,
                f"firmware='{kind}' of <os>: no firmware of this host fits {machine}; write `pflash: [CODE.fd, {own}]` "
                "with the files of one",
            )
        elif not found.flash:
            self.add(item.line, "-bios", found.code)
        else:
            if nvram is not None:
                found.template = nvram.get("template") or found.template
            fixed = [("if", "pflash"), ("unit", "0"), ("format", "raw"), ("readonly", "on")]
            self.add(item.line, "-drive", join([("file", found.code), *fixed]))
            self.add(item.line, "-drive", join([("file", own), ("if", "pflash"), ("unit", "1"), ("format", "raw")]))
            self.note(
                item.line,
                f"firmware='{kind}' of <os> is {found.code} here; its variables are to be in {own}: "
                f"copy {found.template or 'a file of variables'} there, as libvirt does at the first start",
            )


def _date(seconds: int) -> str:
    """UTC of seconds since 1970, as -rtc takes it."""
    import datetime

    try:
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=seconds)
    except OverflowError:
        return str(seconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def export_domain(document: dict[str, Any], words: list[str]) -> str:
    """Domain XML whose devices stand in libvirt's own passage for QEMU options, where libvirt changes nothing."""
    domain = Element(
        "domain", {"type": "kvm" if "kvm" in document.get("accel", ["kvm"]) else "qemu", "xmlns:qemu": QEMU_NS}
    )
    SubElement(domain, "name").text = str(document.get("name", "machine"))
    if "uuid" in document:
        SubElement(domain, "uuid").text = str(document["uuid"])
    SubElement(SubElement(domain, "os"), "type", {"arch": "x86_64", "machine": str(document["machine"])}).text = "hvm"
    SubElement(SubElement(domain, "features"), "acpi")  # libvirt turns it off otherwise
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
