"""Options about the board: type, accelerator, memory, processors, clock, identity."""

from __future__ import annotations

from vmrun.config.importers.firmwareopts import boot
from vmrun.config.importers.qemuopts import CPU_TYPE, Option, boolean, number, only, settings, size
from vmrun.config.importers.runopts import host_only, no_equal
from vmrun.config.importers.state import Line, Opt, guess
from vmrun.config.machinetypes import newest_type
from vmrun.config.scalar import parse_size, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ACCELERATORS = {"kvm": "kvm", "tcg": "soft", "qtest": "qtest"}
_OTHER_HOSTS = ("whpx", "hax", "hvf", "nvmm", "xen")  # accelerators of Windows, macOS, NetBSD and Xen
# Properties of -machine that say how the host shall behave, not what the guest sees.
_HOST = frozenset(
    (
        "kvm-shadow-mem",
        "enforce-config-section",
        "suppress-vmdesc",
        "phandle-start",
        "dtb",
        "dumpdtb",
    )
)
_GUEST = frozenset(
    (
        "vmport",
        "hpet",
        "smm",
        "acpi",
        "iommu",
        "smbus",
        "sata",
        "pit",
        "pic",
        "i8042",
        "igd-passthru",
        "max-fw-size",
        "fd-bootchk",
        "default-bus-bypass-iommu",
        "memory-encryption",
        "confidential-guest-support",
        "x-oem-id",
        "x-oem-table-id",
        "smbios-entry-point-type",
        "usb",
        "aux-ram-share",
        "loadparm",
        "cap-cfpc",
        "pcspk-audiodev",
    )
)
# What a machine does anyway.
_AS_IS: dict[str, tuple[str, ...]] = {
    key: ("on", "auto") for key in ("vmport", "acpi", "hpet", "smbus", "sata", "pit", "pic", "i8042")
}
_AS_IS["sata"] = ("on", "off", "auto")  # of q35's board, and without effect on this one
_AS_IS |= {key: ("off", "auto") for key in ("iommu", "igd-passthru")}
_AS_IS["smm"] = ("on", "off", "auto")  # the board is QEMU's with smm=off; firmware without it tells no difference
# What options of their own ask for too: key → section of the file, and name in it
_FILES = {
    "kernel": ("", "kernel"), "initrd": ("", "initrd"), "append": ("", "cmdline"), "firmware": ("firmware", "bios"),
}  # fmt: skip
# Devices of the board that a switch keeps away.
REMOVABLE = {
    "hpet": ("hpet",),
    "vmport": ("vmport",),
    "i8042": ("i8042", "port92", "vmmouse", "vmport"),
    "pit": ("pcspk", "pit"),
    "acpi": ("pm",),
}


def remove(line: Line, id: str) -> None:
    removed = line.file.setdefault("remove", [])
    if id not in removed:
        removed.append(id)
        removed.sort()


_SWITCHES, _THREE_WAY = ("hpet", "i8042", "smbus", "sata"), ("vmport", "acpi", "pit", "pic")


def machine(line: Line, option: Option) -> None:
    given = settings(option, "type")
    for key in [key for key in given if key.startswith(("smp.", "memory.", "boot."))]:
        group, _, part = key.partition(".")
        part = {"max-size": "maxmem"}.get(part, part)
        handler = {"smp": smp, "memory": memory, "boot": boot}[group]
        handler(line, Option(option.name, f"{part}={given.pop(key)}".replace(",", ",,"), option.index, option.text))
    for key, value in given.items():
        if key in _SWITCHES:
            value = "on" if boolean(option, key, value) else "off"
        elif key in _THREE_WAY and value not in ("on", "off", "auto"):
            raise option.wrong(f"Parameter '{key}' does not accept value '{value}'", key)
        if key == "type":
            name = _type(line, option, value)
            if line.file.setdefault("machine", name) != name:
                line.warn(option, f"contradicts '{line.file['machine']}' given before; this one counts", value)
            line.file["machine"] = name
        elif key == "accel":
            for name in value.split(":"):
                accelerator(line, option, name)
        elif key in ("kernel_irqchip", "kernel-irqchip"):
            if value not in ("on", "off", "split"):
                raise option.wrong(f"Parameter '{key}' does not accept value '{value}'", key)
            line.file["kernel_irqchip"] = value
        elif key == "usb":
            if boolean(option, key, value):
                line.given.setdefault("usb", [option])
        elif key == "max-ram-below-4g":
            _low_ram(line, option, size(option, key, value))
        elif key == "memory-backend":
            line.run["memdevs"] = [value]
        elif key in ("mem-merge", "dump-guest-core"):
            if not boolean(option, key, value):
                line.file.setdefault("memory-backing", {})["merge" if key == "mem-merge" else "dump"] = False
        elif key == "graphics":
            if not boolean(option, key, value):
                line.file.setdefault("firmware", {})["nographic"] = True
        elif key in ("nvdimm", "hmat"):
            line.run[key] = (option, boolean(option, key, value))
        elif key == "nvdimm-persistence":
            if value not in ("cpu", "mem-ctrl"):
                raise option.wrong(f"-machine nvdimm-persistence={value}: unsupported option", key)
            line.run[key] = (option, value)
        elif key in _FILES:
            section, name = _FILES[key]
            if section:
                line.file.setdefault(section, {})[name] = value
            else:
                line.file[name] = value
        elif key in _HOST:
            line.no_equal(option, key, host=True)
        elif key == "pcspk-audiodev":
            line.run["speaker"] = (option, str(value))
        elif key == "hpet" and line.old and value == "off":
            continue
        elif key in REMOVABLE and value == "off":
            for id in REMOVABLE[key]:
                remove(line, id)
        elif key in ("pflash0", "pflash1"):
            line.run.setdefault("flash", {})[int(key[-1])] = (option, str(value))
        elif key in _GUEST:
            if not (key in _AS_IS and value in _AS_IS[key]):
                line.no_equal(option, key)
        else:
            raise option.wrong(f"Property '{line.file.get('machine') or newest_type()}-machine.{key}' not found", key)


def _low_ram(line: Line, option: Option, most: int) -> None:
    if most > 1 << 32:
        raise option.wrong(f"Machine option 'max-ram-below-4g={most}' expects size less than or equal to 4G", str(most))
    split = min(most, 3 << 30) if line.splits_at_whole_gib() else most
    line.file["memory-map"] = {"low-ram-limit": most, "low-ram-split": split} if most else {}


# Ubuntu's types: the release's name → the QEMU that it has
_HEX = frozenset("0123456789abcdefABCDEF")
_UBUNTU = {
    "trusty": "2.0", "utopic": "2.1", "vivid": "2.2", "wily": "2.3", "xenial": "2.5", "yakkety": "2.6", "zesty": "2.8",
    "artful": "2.10", "bionic": "2.11", "cosmic": "2.12", "disco": "3.1", "eoan": "4.0", "focal": "4.2",
    "groovy": "5.0", "hirsute": "5.2", "impish": "6.0", "jammy": "6.2", "kinetic": "7.0", "lunar": "7.2",
}  # fmt: skip


def _type(line: Line, option: Option, given: str) -> str:
    """The type that a name means here; what a distribution added to it is said."""
    name, plus, patch = given.partition("+")
    if plus and patch.startswith("pve") and patch[3:].isdecimal():
        line.warn(option, f"'+{patch}' is Proxmox's own word; the type is '{name}' here", given)
    else:
        name = given
    ubuntu = next((release for release in _UBUNTU if release in name.split("-")), "")
    if ubuntu and name.startswith("pc-"):
        name = f"pc-i440fx-{_UBUNTU[ubuntu]}"
        line.warn(option, f"'{given}' is Ubuntu's own type; '{name}' is QEMU's of that version", given)
    if name.startswith("pc-i440fx-rhel"):
        remedy = "take the pc-i440fx type of its QEMU, 1.5 for rhel7.0.0 to 2.12 for rhel7.6.0, and compare"
        line.warn(option, f"'{given}' is Red Hat's own type, which vmrun does not have: {remedy}", given)
    return newest_type(name) if name in ("pc", "rhel6") else name


_OF_ACCELERATORS = frozenset((
    "tb-size", "kvm-shadow-mem", "split-wx", "one-insn-per-tb", "dirty-ring-size", "igd-passthru", "notify-vmexit",
    "notify-window",
))  # fmt: skip


def accel(line: Line, option: Option) -> None:
    given = settings(option, "accel")
    accelerator(line, option, str(given.pop("accel", "")))
    for key in given:
        if key in ("kernel-irqchip", "kernel_irqchip"):
            line.file["kernel_irqchip"] = given[key]
        elif key == "thread":
            if given[key] not in ("single", "multi"):
                raise option.wrong(f"Invalid 'thread' setting {given[key]}", given[key])
            line.file["thread"] = given[key]
        elif key in _OF_ACCELERATORS:
            line.no_equal(option, key, host=True)
        else:
            raise option.wrong(f"Property '{(line.accel or ['none'])[-1]}-accel.{key}' not found", key)


def accelerator(line: Line, option: Option, name: str) -> None:
    if name in _OTHER_HOSTS:
        line.elsewhere.append((option, name))
        return
    if name not in ACCELERATORS:
        raise option.wrong(f"invalid accelerator {name}", name)
    if ACCELERATORS[name] not in line.accel:
        line.accel.append(ACCELERATORS[name])


def enable_kvm(line: Line, option: Option) -> None:
    line.accel = ["kvm", "soft"]


def no_kvm(line: Line, option: Option) -> None:
    if line.has("enable-kvm"):
        line.warn(option, "contradicts -enable-kvm; the last one counts")
    line.accel = ["soft"]


def no_kvm_irqchip(line: Line, option: Option) -> None:
    line.file["kernel_irqchip"] = "off"


MEMORY_STEP = 8192  # QEMU rounds up to it


def memory(line: Line, option: Option) -> None:
    given = settings(option, "size")
    only(option, given, ("size", "slots", "maxmem"))
    if "size" in given:
        amount = size(option, "size", given["size"], "m")
        if amount:  # none: the type's default
            line.file["memory"] = size_text(-(-amount // MEMORY_STEP) * MEMORY_STEP)
    if "slots" in given or "maxmem" in given:
        _memory_slots(line, option, given)


def _memory_slots(line: Line, option: Option, given: dict[str, str]) -> None:
    """Checked as QEMU does, in its words; what the machine type allows is the resolver's."""
    slots = number(option, "slots", given.get("slots", "0"))
    start = parse_size(line.file.get("memory") or line.default("memory")) or 0
    if "maxmem" not in given:
        raise option.wrong("slots specified but no max-size", "slots")
    most = size(option, "maxmem", given["maxmem"])
    if most < start:
        raise option.wrong(
            f"invalid value of maxmem: maximum memory size ({most:#x}) must be at least the initial memory size "
            f"({start:#x})",
            "maxmem",
        )
    if slots and most == start:
        raise option.wrong(
            f"invalid value of maxmem: memory slots were specified but maximum memory size ({most:#x}) is equal to the "
            f"initial memory size ({start:#x})",
            "maxmem",
        )
    if slots > 256:
        raise option.wrong(f"unsupported amount of memory slots: {slots}", "slots")
    if most % 4096:
        raise option.wrong("maximum memory size must by aligned to multiple of 4096 bytes", "maxmem")
    if slots:
        line.file["memory-slots"] = {"count": slots, "maxmem": size_text(most)}
    elif most != start:
        line.warn(option, "without slots no module ever comes; the room for them is not kept free here", "maxmem")


def smp(line: Line, option: Option) -> None:
    given = settings(option, "cpus")
    only(option, given, ("cpus", "sockets", "dies", "clusters", "cores", "threads", "maxcpus"))
    cpus = line.file.setdefault("cpus", {})
    for key, value in given.items():
        count = number(option, key, value)
        if not count:
            line.warn(option, "a part of a topology that is zero is as if it were not given", key)
            continue
        if count < 1:
            raise option.wrong("Invalid CPU topology: CPU topology parameters must be greater than zero", key)
        if key in ("dies", "clusters"):
            if key == "clusters" and count > 1:
                raise option.wrong("clusters not supported by this machine's CPU topology", key)
            if count > 1:
                line.no_equal(option, key)
            cpus.pop(key, None)
        else:
            cpus["count" if key == "cpus" else key] = count


# Features whose values are numbers.
_NUMBERS = frozenset(
    (
        "level", "min-level", "xlevel", "min-xlevel", "xlevel2", "min-xlevel2", "family", "model", "stepping",
        "phys-bits", "host-phys-bits-limit", "hv-spinlocks", "tsc-frequency", "x-hv-max-vps", "lbr-fmt", "ucode-rev",
        "hv-version-id-build", "hv-version-id-major", "hv-version-id-minor", "hv-version-id-sbranch",
        "hv-version-id-snumber", "hv-version-id-spack", "level-func7",
    )
)  # fmt: skip
_TEXTS = ("vendor", "model-id", "hv-vendor-id")


def cpu(line: Line, option: Option) -> None:
    """MODEL[,+FEATURE][,-FEATURE][,FEATURE[=VALUE]]: what has a sign counts more, and minus the most."""
    model, *features = (option.value or "").split(",")
    if not option.value:
        raise option.wrong("-cpu option cannot be empty")
    if not model or "=" in model:
        raise option.wrong("a CPU model name is expected first", model)
    cpus = line.file.setdefault("cpus", {})
    cpus["model"] = model
    cpus.pop("features", None)
    table: dict[str, Any] = {}
    signs: dict[str, dict[str, bool]] = {"+": {}, "-": {}}
    for text in features:
        if not text:
            continue
        if text[0] in "+-":
            signs[text[0]][text[1:].replace("_", "-")] = text[0] == "+"
            continue
        name, equals, value = text.partition("=")
        name = name.replace("_", "-")
        if name == "tsc-freq":
            name, value = "tsc-frequency", str(size(option, name, value, "b", 1000))
        table[name] = _feature(option, name, value) if equals else True
    for sign, named in signs.items():
        for name in named:
            if name in table:
                mixed = f'"{sign}{name}" and "{name}={"on" if table[name] is True else "off"}"'
                line.warn(option, f"Ambiguous CPU model string. Don't mix both {mixed}; the former counts", name)
        table |= named
    if table:
        cpus["features"] = table


def _feature(option: Option, name: str, value: str) -> Any:
    if name in _NUMBERS:
        return number(option, name, value)
    if name in _TEXTS:
        return value
    if value in ("on", "yes", "true", "y"):
        return True
    return False if value in ("off", "no", "false", "n") else guess(value)


def rtc(line: Line, option: Option) -> None:
    given = settings(option)
    only(option, given, ("base", "clock", "driftfix"))
    clock = line.file.setdefault("rtc", {})
    for key, value in given.items():
        allowed = {"clock": ("host", "rt", "vm"), "driftfix": ("none", "slew")}.get(key)
        if allowed and value not in allowed:
            raise option.wrong(f"invalid option value '{value}'", value)
        clock[key] = value


def localtime(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["base"] = "localtime"


def icount(line: Line, option: Option) -> None:
    """2^shift ns an instruction; without one, or with `auto`, time follows the host's, as it does on soft anyhow."""
    given = settings(option, "shift")
    only(option, given, ("shift", "align", "sleep", "rr", "rrfile", "rrsnapshot"))
    shift = str(given.get("shift", ""))
    align = boolean(option, "align", given.get("align", "off"))
    sleep = boolean(option, "sleep", given.get("sleep", "on"))
    if align and not shift:
        raise option.wrong("Please specify shift option when using align")
    if align and not sleep:
        raise option.wrong("align=on and sleep=off are incompatible")
    if shift not in ("", "auto", *map(str, range(11))):
        raise option.wrong("icount: Invalid shift value", shift)
    for key in ("rr", "rrfile", "rrsnapshot"):
        if key in given:
            line.no_equal(option, f"{key}={given[key]}")
    if align:
        line.no_equal(option, "align=on")
    if shift in ("", "auto"):
        if not sleep:
            line.no_equal(option, "sleep=off")
        line.warn(option, "time follows the host's, as that of vmrun's own processors always does", shift)
        return
    counted: dict[str, Any] = {"mode": "instructions"}
    if shift != "0":
        counted["shift"] = int(shift)
    if not sleep:
        counted["sleep"] = False
    line.file["clock"] = counted


def startdate(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["base"] = "utc" if option.value == "now" else option.value


def td_hack(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["driftfix"] = "slew"


def name(line: Line, option: Option) -> None:
    given = settings(option, "guest")
    only(option, given, ("guest", "process", "debug-threads"))
    text = clean = str(given.get("guest", ""))
    if not text.isalnum() or not text.isascii() or len(text) > 128:
        import re

        clean = re.sub(r"[^A-Za-z0-9_.~-]+", "-", text).strip("-._~")[:128]
    if clean != text:
        line.warn(option, f"a machine is named with letters, digits, and _.~-; it is '{clean or 'imported'}' now")
    line.file["name"] = clean or "imported"
    if "process" in given:
        line.run["process"] = given["process"]
    line.run["name"] = text


def uuid(line: Line, option: Option) -> None:
    text = str(option.value)
    parts = text.split("-")
    if [len(part) for part in parts] != [8, 4, 4, 4, 12] or set("".join(parts)) - _HEX:
        raise option.wrong("failed to parse UUID string: wrong format", text)
    line.file["uuid"] = text.lower()


def memory_path(line: Line, option: Option) -> None:
    line.file.setdefault("memory-backing", {})["mem-path"] = str(option.value)


def memory_now(line: Line, option: Option) -> None:
    line.file.setdefault("memory-backing", {})["prealloc"] = True


def no_acpi(line: Line, option: Option) -> None:
    for id in REMOVABLE["acpi"]:
        remove(line, id)


def no_hpet(line: Line, option: Option) -> None:
    if not line.old:
        remove(line, "hpet")


def _topology(line: Line) -> None:
    """QEMU 7.2's own rule, for who wants to start what it starts: the parts make up all the processors."""
    given = line.given.get("smp")
    cpus = line.file.get("cpus", {})
    parts = {key: int(cpus.get(key, 0)) for key in ("sockets", "cores", "threads")}
    if not given or not any(parts.values()) or not str(line.file["machine"]).startswith("pc-i440fx-"):
        return  # older ones took less
    most = int(cpus.get("maxcpus", 0)) or int(cpus.get("count", 0))
    threads = parts["threads"] or 1
    if most:
        first = "sockets" if parts["sockets"] == 0 and (parts["cores"] or parts["threads"]) else "cores"
        if first == "sockets":
            cores = parts["cores"] or 1
            sockets = most // (cores * threads)
        else:
            sockets = parts["sockets"] or 1
            cores = parts["cores"] or most // (sockets * threads)
            threads = parts["threads"] or most // (sockets * cores) if cores else 1
        if sockets * cores * threads != most:
            text = f"sockets ({sockets}) * dies (1) * cores ({cores}) * threads ({threads}) != maxcpus ({most})"
            raise given[-1].wrong(f"Invalid CPU topology: product of the hierarchy must match maxcpus: {text}")


def _plugged(line: Line) -> None:
    """-device MODEL-x86_64-cpu: processors beside those of -smp."""
    cpus = line.file.setdefault("cpus", {})
    wanted = f"{cpus.get('model') or line.default('cpu') or 'qemu64'}{CPU_TYPE}"
    for option, driver, given in line.processors:
        if driver != wanted:
            raise option.wrong(f"Invalid CPU type, expected cpu type: '{wanted}'", driver)
        row: dict[str, Any] = {"id": str(given["id"])} if "id" in given else {}
        for key in ("socket-id", "core-id", "thread-id"):
            if key not in given:
                raise option.wrong(f"CPU {key} is not set")
            row[key] = number(option, key, given[key])
        if number(option, "die-id", given.get("die-id", 0)):
            raise option.wrong(f"Invalid CPU die-id: {given['die-id']} must be in range 0:0", "die-id")
        only(option, given, ("id", "socket-id", "die-id", "core-id", "thread-id", "node-id"))
        cpus.setdefault("plugged", []).append(row)


def _nonvolatile(line: Line) -> None:
    """What nvdimm= and nvdimm-persistence= of -machine are in memory-slots."""
    option, on = line.run.pop("nvdimm", (None, False))
    kept, persistence = line.run.pop("nvdimm-persistence", (None, ""))
    slots = line.file.get("memory-slots")
    if kept is not None and not on:
        line.warn(kept, "no effect without nvdimm=on", "nvdimm-persistence")
    if on and slots is None:
        line.warn(option, "no module can come without memory slots: -m …,slots=N,maxmem=SIZE", "nvdimm")
    elif on and slots is not None:
        slots |= {"nvdimm": True, **({"nvdimm-persistence": persistence} if persistence else {})}


def finish(line: Line) -> None:
    line.file.setdefault("machine", newest_type())
    if line.processors:
        _plugged(line)
    if line.defaults:
        _topology(line)
    _nonvolatile(line)
    for option, name in line.elsewhere:
        if line.defaults and not line.accel:  # it shall run here
            raise option.wrong(f"invalid accelerator {name}", name)
        line.warn(option, f"'{name}' is an accelerator of other host systems; vmrun has kvm and soft", name)
    counted = line.given.get("icount")
    if counted and "kvm" in line.accel:
        raise counted[-1].wrong("-icount is not allowed with hardware virtualization")
    if counted and line.file.get("thread") == "multi":
        raise counted[-1].wrong("No MTTCG when icount is enabled")
    if line.accel or line.elsewhere:
        line.file["accel"] = line.accel or ["kvm", "soft"]
    elif not line.old:
        line.file["accel"] = ["soft"]  # QEMU's own default is TCG; qemu-kvm's is KVM, which is ours


OPTIONS = (
    Opt("M", True, machine, "machine type (and properties)"),
    Opt("machine", True, machine, "machine type and properties: machine, accel, kernel_irqchip"),
    Opt("accel", True, accel, "accelerator: accel"),
    Opt("enable-kvm", False, enable_kvm, "use KVM: accel"),
    Opt("no-kvm", False, no_kvm, "use no KVM: accel: soft"),
    Opt("no-kvm-irqchip", False, no_kvm_irqchip, "interrupt controllers outside the kernel: kernel_irqchip: off"),
    Opt("no-kvm-pit", False, host_only, "host policy; vmrun chooses"),
    Opt("no-kvm-pit-reinjection", False, host_only, "host policy; vmrun chooses"),
    Opt("enable-nesting", False, no_equal, "nested virtualisation"),
    Opt("m", True, memory, "amount of RAM: memory"),
    Opt("smp", True, smp, "processors and their topology: cpus"),
    Opt("cpu", True, cpu, "processor model and features: cpus.model, cpus.features"),
    Opt("rtc", True, rtc, "clock: rtc"),
    Opt("localtime", False, localtime, "clock in local time: rtc.base"),
    Opt("startdate", True, startdate, "start of the clock: rtc.base"),
    Opt("rtc-td-hack", False, td_hack, "make up for lost clock ticks: rtc.driftfix: slew"),
    Opt("tdf", False, no_equal, "make up for lost timer ticks"),
    Opt("name", True, name, "name"),
    Opt("uuid", True, uuid, "uuid"),
    Opt("no-acpi", False, no_acpi, "no power management device: remove"),
    Opt("no-hpet", False, no_hpet, "no HPET"),
    Opt("win2k-hack", False, no_equal, "slow disk interrupts for Windows 2000"),
    Opt("mem-path", True, memory_path, "a file under the memory: memory-backing"),
    Opt("mem-prealloc", False, memory_now, "all memory at the start: memory-backing"),
    Opt("kvm-shadow-memory", True, host_only, "host policy"),
    Opt("icount", True, icount, "virtual time by instructions: clock"),
    Opt("async-teardown", False, host_only, "host policy"),
    Opt("tb-size", True, host_only, "host policy"),
)
