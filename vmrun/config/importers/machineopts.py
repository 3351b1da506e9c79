"""Options about the machine as a whole: type, accelerator, memory, processors, clock, boot, firmware, identity."""

from __future__ import annotations

import re

from vmrun.config.importers.qemuopts import boolean, number, only, settings, size, split
from vmrun.config.importers.state import Line, Opt, guess
from vmrun.config.scalar import size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option

ACCELERATORS = {"kvm": "kvm", "tcg": "soft", "qtest": "qtest"}
# Properties of -machine that say how the host shall behave, not what the guest sees.
_HOST = frozenset(
    (
        "dump-guest-core",
        "mem-merge",
        "graphics",
        "kvm-shadow-mem",
        "enforce-config-section",
        "memory-backend",
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
        "nvdimm",
        "iommu",
        "smbus",
        "sata",
        "pit",
        "pic",
        "i8042",
        "igd-passthru",
        "max-ram-below-4g",
        "max-fw-size",
        "fd-bootchk",
        "default-bus-bypass-iommu",
        "pflash0",
        "pflash1",
        "firmware",
        "kernel",
        "initrd",
        "append",
        "memory-encryption",
        "confidential-guest-support",
        "x-oem-id",
        "x-oem-table-id",
        "smbios-entry-point-type",
        "usb",
        "hmat",
        "nvdimm-persistence",
        "aux-ram-share",
        "loadparm",
        "cap-cfpc",
        "pcspk-audiodev",
    )
)


# What a machine does anyway.
_AS_IS = {key: ("on", "auto") for key in ("vmport", "acpi", "hpet", "smm", "smbus", "sata", "pit", "pic", "i8042")}
_AS_IS |= {key: ("off", "auto") for key in ("nvdimm", "hmat", "iommu", "igd-passthru")}


# Board devices by the option that keeps them away.
_REMOVABLE = ("hpet", "vmport")


def remove(line: Line, id: str) -> None:
    removed = line.file.setdefault("remove", [])
    if id not in removed:
        removed.append(id)
        removed.sort()


def newest(alias: str = "pc") -> str:
    """The type that `pc`, `rhel6` and no -machine at all mean: our newest of that kind."""
    from vmrun.config.machinetypes import type_names

    return [name for name in type_names() if name.startswith({"pc": "pc-i440fx-", "rhel6": "rhel6."}[alias])][-1]


def machine(line: Line, option: Option) -> None:
    given = settings(option, "type")
    for key, value in given.items():
        if key == "type":
            name = newest(value) if value in ("pc", "rhel6") else value
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
        elif key == "pcspk-audiodev" or key in _HOST or key == "hpet" and line.old and value == "off":
            continue
        elif key in _REMOVABLE and value == "off":
            remove(line, key)
        elif key in _GUEST:
            if not (key in _AS_IS and value in _AS_IS[key]):
                line.no_equal(option, key)
        else:
            raise option.wrong(f"Property '{line.file.get('machine') or newest()}-machine.{key}' not found", key)


def accel(line: Line, option: Option) -> None:
    given = settings(option, "accel")
    accelerator(line, option, str(given.pop("accel", "")))
    for key in given:
        if key in ("kernel-irqchip", "kernel_irqchip"):
            line.file["kernel_irqchip"] = given[key]
        elif key not in ("thread", "tb-size", "kvm-shadow-mem", "split-wx", "one-insn-per-tb", "dirty-ring-size"):
            raise option.wrong(f"Property '{line.accel[-1]}-accel.{key}' not found", key)


def accelerator(line: Line, option: Option, name: str) -> None:
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


def memory(line: Line, option: Option) -> None:
    given = settings(option, "size")
    only(option, given, ("size", "slots", "maxmem"))
    for key, value in given.items():
        if key == "size":
            amount = size(option, key, value, "m")
            if amount:  # none: the type's default
                line.file["memory"] = size_text(amount)
        else:
            line.no_equal(option, key)


def smp(line: Line, option: Option) -> None:
    given = settings(option, "cpus")
    only(option, given, ("cpus", "sockets", "dies", "clusters", "cores", "threads", "maxcpus"))
    cpus = line.file.setdefault("cpus", {})
    for key, value in given.items():
        count = number(option, key, value)
        if count < 1:
            raise option.wrong("Invalid CPU topology: CPU topology parameters must be greater than zero", key)
        if key in ("dies", "clusters"):
            if count > 1:
                line.no_equal(option, key)
        else:
            cpus["count" if key == "cpus" else key] = count


def cpu(line: Line, option: Option) -> None:
    model, *features = split(option.value or "")
    if not model or "=" in model:
        raise option.wrong("a CPU model name is expected first", model)
    cpus = line.file.setdefault("cpus", {})
    cpus["model"] = model
    cpus.pop("features", None)
    for text in features:
        table = cpus.setdefault("features", {})
        name, equals, value = text.partition("=")
        if not text or text in "+-":
            raise option.wrong("expected a CPU feature", text)
        if text[0] in "+-":
            table[text[1:]] = text[0] == "+"
        else:
            table[name] = guess(value) if equals else True


def rtc(line: Line, option: Option) -> None:
    given = settings(option)
    only(option, given, ("base", "clock", "driftfix"))
    clock = line.file.setdefault("rtc", {})
    for key, value in given.items():
        if key == "clock" and value == "rt":
            line.no_equal(option, value)
            continue
        allowed = {"clock": ("host", "vm"), "driftfix": ("none", "slew")}.get(key)
        if allowed and value not in allowed:
            raise option.wrong(f"invalid option value '{value}'", value)
        clock[key] = value


def localtime(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["base"] = "localtime"


def startdate(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["base"] = "utc" if option.value == "now" else option.value


def td_hack(line: Line, option: Option) -> None:
    line.file.setdefault("rtc", {})["driftfix"] = "slew"


def boot(line: Line, option: Option) -> None:
    given = settings(option, "order")
    only(option, given, ("order", "once", "menu", "strict", "reboot-timeout", "splash", "splash-time"))
    table = line.file.setdefault("boot", {})
    for key, value in given.items():
        if key in ("menu", "strict"):
            table[key] = boolean(option, key, value)
        elif key == "reboot-timeout":
            table[key] = number(option, key, value)
        elif key in ("order", "once"):
            for letter in value:
                if letter not in "abcdefghijklmnop":
                    raise option.wrong(f"Invalid boot device '{letter}'", value)
            if len(set(value)) != len(value):
                raise option.wrong(f"Boot device '{value}' was given twice", value)
            table[key] = value
        else:
            line.no_equal(option, key)


def name(line: Line, option: Option) -> None:
    given = settings(option, "guest")
    only(option, given, ("guest", "process", "debug-threads"))
    text = str(given.get("guest", ""))
    clean = re.sub(r"[^A-Za-z0-9_.~-]+", "-", text).strip("-._~")[:128]
    if clean != text:
        line.warn(option, f"a machine is named with letters, digits, and _.~-; it is '{clean or 'imported'}' now")
    line.file["name"] = clean or "imported"
    line.run["name"] = text


def uuid(line: Line, option: Option) -> None:
    text = str(option.value)
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise option.wrong("failed to parse UUID string: wrong format", text)
    line.file["uuid"] = text.lower()


def smbios(line: Line, option: Option) -> None:
    given = settings(option)
    kind = f"type{given.pop('type', '')}"
    known = _smbios_fields().get(kind)
    if known is None:
        line.no_equal(option)
        return
    table = line.file.setdefault("smbios", {}).setdefault(kind, {})
    if kind == "type11":
        only(option, given, ("value",))
        texts = [part.removeprefix("value=") for part in split(option.value or "") if part.startswith("value=")]
        table.setdefault("values", []).extend(texts)
        return
    only(option, given, known)
    readers = {"boolean": boolean, "integer": number}
    for key, value in given.items():
        read = readers.get(known[key]["type"])
        table[key] = read(option, key, value) if read is not None else str(value)


def _smbios_fields() -> dict[str, dict[str, Any]]:
    """type0, type1 … → the fields of that structure as a machine file has them, which have QEMU's names."""
    from vmrun.config.check import load_schema

    schema = load_schema("machine")
    rows = schema["properties"]["smbios"]["properties"]
    return {kind: schema["$defs"][row["$ref"].rpartition("/")[2]]["properties"] for kind, row in rows.items()}


def bios(line: Line, option: Option) -> None:
    line.file.setdefault("firmware", {})["bios"] = option.value


def data_dir(line: Line, option: Option) -> None:
    line.file.setdefault("firmware", {}).setdefault("dirs", []).append(option.value)


def kernel(line: Line, option: Option) -> None:
    line.file[{"append": "cmdline"}.get(option.name, option.name)] = option.value


def paused(line: Line, option: Option) -> None:
    line.file["paused"] = line.run["paused"] = True


def no_equal(line: Line, option: Option) -> None:
    line.no_equal(option, host=option.name in ("seed", "tdf"))


def no_hpet(line: Line, option: Option) -> None:
    if not line.old:
        remove(line, "hpet")


def process(line: Line, option: Option) -> None:
    """What the process does; no machine file says it."""
    key = option.name
    line.run[key] = True if option.value is None else option.value


ACTIONS = {
    "reboot": ("reset", "shutdown"),
    "shutdown": ("poweroff", "pause"),
    "panic": ("pause", "shutdown", "exit-failure", "none"),
    "watchdog": ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none"),
}


def action(line: Line, option: Option) -> None:
    given = settings(option)
    only(option, given, ACTIONS)
    for key, value in given.items():
        if value not in ACTIONS[key]:
            raise option.wrong(f"Parameter '{key}' does not accept value '{value}'", value)
        line.run.setdefault("action", {})[key] = value


def watchdog_action(line: Line, option: Option) -> None:
    if option.value not in ACTIONS["watchdog"]:
        raise option.wrong(f"Parameter 'watchdog' does not accept value '{option.value}'", str(option.value))
    line.run.setdefault("action", {})["watchdog"] = option.value


_CHECKED = {
    "overcommit": ("mem-lock", "cpu-pm"),
    "msg": ("timestamp", "guest-name"),
    "sandbox": ("enable", "obsolete", "elevateprivileges", "spawn", "resourcecontrol"),
}


def checked(line: Line, option: Option) -> None:
    """Without effect, but not anything will do."""
    given = settings(option, "enable" if option.name == "sandbox" else "")
    only(option, given, _CHECKED[option.name])
    for key in given.keys() & {"enable", "mem-lock", "cpu-pm", "timestamp", "guest-name"}:
        boolean(option, key, given[key])


def finish(line: Line) -> None:
    line.file.setdefault("machine", newest())
    if line.accel:
        line.file["accel"] = line.accel
    elif not line.old:
        line.file["accel"] = ["soft"]  # QEMU's own default is TCG; qemu-kvm's is KVM, which is ours
    for key in ("initrd", "append"):
        if line.has(key) and not line.has("kernel"):
            raise line.given[key][-1].wrong(f"-{key} only allowed with -kernel option")


OPTIONS = (
    Opt("M", True, machine, "machine type (and properties)"),
    Opt("machine", True, machine, "machine type and properties: machine, accel, kernel_irqchip"),
    Opt("accel", True, accel, "accelerator: accel"),
    Opt("enable-kvm", False, enable_kvm, "use KVM: accel"),
    Opt("no-kvm", False, no_kvm, "use no KVM: accel: soft"),
    Opt("no-kvm-irqchip", False, no_kvm_irqchip, "interrupt controllers outside the kernel: kernel_irqchip: off"),
    Opt("no-kvm-pit", False, None, "host policy; vmrun chooses"),
    Opt("no-kvm-pit-reinjection", False, None, "host policy; vmrun chooses"),
    Opt("enable-nesting", False, no_equal, "nested virtualisation"),
    Opt("m", True, memory, "amount of RAM: memory"),
    Opt("smp", True, smp, "processors and their topology: cpus"),
    Opt("cpu", True, cpu, "processor model and features: cpus.model, cpus.features"),
    Opt("rtc", True, rtc, "clock: rtc"),
    Opt("localtime", False, localtime, "clock in local time: rtc.base"),
    Opt("startdate", True, startdate, "start of the clock: rtc.base"),
    Opt("rtc-td-hack", False, td_hack, "make up for lost clock ticks: rtc.driftfix: slew"),
    Opt("tdf", False, no_equal, "make up for lost timer ticks"),
    Opt("boot", True, boot, "boot order and menu: boot"),
    Opt("name", True, name, "name"),
    Opt("uuid", True, uuid, "uuid"),
    Opt("smbios", True, smbios, "SMBIOS fields: smbios"),
    Opt("acpitable", True, no_equal, "an ACPI table of your own"),
    Opt("no-acpi", False, no_equal, "no power management device"),
    Opt("no-hpet", False, no_hpet, "no HPET"),
    Opt("no-fd-bootchk", False, no_equal, "boot floppies without a signature"),
    Opt("win2k-hack", False, no_equal, "slow disk interrupts for Windows 2000"),
    Opt("bios", True, bios, "firmware image: firmware.bios"),
    Opt("L", True, data_dir, "directory of firmware: firmware.dirs"),
    Opt("option-rom", True, no_equal, "an option ROM of your own"),
    Opt("fw_cfg", True, no_equal, "a fw_cfg file of your own"),
    Opt("kernel", True, kernel, "kernel"),
    Opt("initrd", True, kernel, "initrd"),
    Opt("append", True, kernel, "kernel's command line: cmdline"),
    Opt("dtb", True, no_equal, "device tree"),
    Opt("S", False, paused, "do not start: paused"),
    Opt("no-reboot", False, process, "end when the guest resets"),
    Opt("no-shutdown", False, process, "stay when the guest powers off"),
    Opt("action", True, action, "what to do at events"),
    Opt("watchdog-action", True, watchdog_action, "what a watchdog does"),
    Opt("daemonize", False, process, "run in the background"),
    Opt("pidfile", True, process, "write the process id"),
    Opt("nodefaults", False, process, "no default devices"),
    Opt("no-user-config", False, None, "vmrun reads no configuration of its own"),
    Opt("nodefconfig", False, None, "vmrun reads no configuration of its own"),
    Opt("sandbox", True, checked, "host policy"),
    Opt("runas", True, no_equal, "user to run as"),
    Opt("chroot", True, no_equal, "root directory"),
    Opt("incoming", True, no_equal, "wait for migration"),
    Opt("loadvm", True, no_equal, "start from a snapshot"),
    Opt("overcommit", True, checked, "host policy"),
    Opt("realtime", True, None, "host policy"),
    Opt("mem-path", True, None, "host policy"),
    Opt("mem-prealloc", False, None, "host policy"),
    Opt("redhat-disable-KSM", False, None, "host policy"),
    Opt("kvm-shadow-memory", True, None, "host policy"),
    Opt("enable-fips", False, None, "host policy"),
    Opt("only-migratable", False, None, "host policy"),
    Opt("msg", True, checked, "form of messages"),
    Opt("D", True, None, "QEMU's log"),
    Opt("d", True, None, "QEMU's log"),
    Opt("trace", True, None, "QEMU's log"),
    Opt("seed", True, no_equal, "seed of QEMU's random numbers"),
    Opt("icount", True, no_equal, "virtual time by instructions"),
    Opt("clock", True, None, "host timer"),
    Opt("gdb", True, no_equal, "debugger's port"),
    Opt("s", False, no_equal, "debugger's port"),
    Opt("qtest-log", True, process, "log of the qtest protocol"),
    Opt("dfilter", True, None, "QEMU's log"),
    Opt("singlestep", False, None, "host policy"),
    Opt("async-teardown", False, None, "host policy"),
    Opt("enable-sync-profile", False, None, "host policy"),
    Opt("tb-size", True, None, "host policy"),
    Opt("perfmap", False, None, "host policy"),
    Opt("compat", True, no_equal, "policy for deprecated parts of the interface"),
    Opt("plugin", True, no_equal, "a plug-in of QEMU's"),
    Opt("preconfig", False, no_equal, "wait for commands before there is a machine"),
    Opt("dump-vmstate", True, no_equal, "write QEMU's own description of devices"),
    Opt("fake-machine", False, no_equal, "a machine without memory"),
    Opt("xen-attach", False, no_equal, "Xen"),
    Opt("xen-domid", True, no_equal, "Xen"),
    Opt("xen-domid-restrict", False, no_equal, "Xen"),
    Opt("writeconfig", True, no_equal, "write QEMU's configuration"),
    Opt("version", False, process, "say the version"),
    Opt("h", False, process, "say the options"),
    Opt("help", False, process, "say the options"),
)
