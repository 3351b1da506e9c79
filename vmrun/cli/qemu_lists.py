"""What `-machine help` and its like print, in QEMU's form."""

from __future__ import annotations

from vmrun.cli.qemu_machine import catalogue
from vmrun.cli.qemu_start import QemuError
from vmrun.config.importers.line import OPTIONS
from vmrun.config.importers.runopts import LOG_ITEMS
from vmrun.config.importers.screenopts import ADAPTERS
from vmrun.config.machinetypes import newest_type
from vmrun.monitor.devicelist import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.config.importers.qemuopts import Option

def version() -> str:
    from vmrun.monitor.commands.introspect import version as found

    number = "{major}.{minor}.{micro}".format(**found()["qemu"])
    return f"QEMU emulator version {number} ({found()['package']})\nThis is vmrun, which takes QEMU's command line\n"


def usage(program: str) -> str:
    lines = [version() + f"usage: {program} [options] [disk_image]", ""]
    lines += ["'disk_image' is a raw hard disk image for IDE hard disk 0", ""]
    for name, opt in sorted(OPTIONS.items(), key=lambda row: row[0].lower()):
        head = f"-{name} {name.lower()}" if opt.has_arg else f"-{name}"
        lines.append(f"{head:<15} {opt.help}" if len(head) < 16 else f"{head}\n{'':<15} {opt.help}")
    return "\n".join(lines) + "\n"


def told(options: list[Option], program: str) -> str | None:
    """The text of -version or -help, whichever comes first."""
    for option in options:
        if option.name == "version":
            return version()
        if option.name in ("h", "help"):
            return usage(program)
    return None


def lists(options: list[Option]) -> str | None:
    """The text of the first option that only asks; None when none does."""
    for option in options:
        value = str(option.value or "")
        first, *rest = value.split(",")
        name = {"M": "machine"}.get(option.name, option.name)
        if first in _ASKED and name in LISTS:
            return LISTS[name]()
        if name == "device" and any(word in _ASKED for word in rest):
            return device(option, first.removeprefix("driver="))
        if name == "machine" and any(word in _ASKED for word in rest):
            return properties(f"{first.removeprefix('type=')}-machine", MACHINE_PROPERTIES)
        if name in ("nic", "net") and any(word in ("model=help", "model=?") for word in (first, *rest)):
            return models()
        if name == "drive" and any(word in ("format=help", "format=?") for word in (first, *rest)):
            formats = " ".join(name for name, row in catalogue().drives["formats"].items() if not row.get("planned"))
            return f"Supported formats: {formats}\n"
        if name == "object" and any(word in _ASKED for word in rest):
            return properties(first.removeprefix("qom-type="), {})
        if name in REFUSED and first in _ASKED:
            # as QEMU, which says it and fails
            raise QemuError(f"{option.shown()}: {REFUSED[name]}")
    return None


def properties(name: str, rows: dict[str, str]) -> str:
    return f"{name} options:\n" + "".join(f"  {key}\n" for key in sorted(rows.values()))


def models() -> str:
    names = [name for name in catalogue().modelled_names() if "netdev" in catalogue().driver(name).props]
    return "Supported NIC models:\n" + "".join(f"{name}\n" for name in names)


def machines() -> str:
    from vmrun.config.machinetypes import load_type, type_names

    alias = {newest_type(short): short for short in ("pc", "rhel6")}
    rows = []
    for name in type_names():
        text = load_type(name).text("description") or ""
        if name in alias:
            rows.append((alias[name], f"{text} (alias of {name})"))
        rows.append((name, text + (" (default)" if name == newest_type() else "")))
    rows.append(("none", "empty machine"))
    return "Supported machines are:\n" + "".join(f"{name:<20} {text}\n" for name, text in rows)


def cpus() -> str:
    from vmrun.config.cpumodels import feature_names, model_names

    lines = ["Available CPUs:", *(f"x86 {name:<20}" for name in model_names("qemu"))]
    lines += ["", "Recognized CPUID flags:"]
    row = " "
    for flag in sorted(feature_names([])):
        if len(row) + len(flag) + 1 > 78:
            lines.append(row)
            row = " "
        row += f" {flag}"
    return "\n".join([*lines, row]) + "\n"


def device(option: Option, driver: str) -> str:
    """The properties of a driver."""
    from vmrun.monitor.errors import QmpError
    from vmrun.monitor.qom import help_of

    try:
        return help_of(driver)
    except QmpError:
        refusal = QemuError(f"{option.shown()}: Device '{driver}' not found")
        refusal.code = 0  # as QEMU, to which asking is no failure
        raise refusal from None


def accelerators() -> str:
    return "Accelerators supported in QEMU binary:\ntcg\nkvm\nqtest\n"


def objects() -> str:
    from vmrun.config.importers.deviceopts import object_kinds

    return "List of user creatable objects:\n" + "".join(f"  {name}\n" for name in object_kinds())


def chardevs() -> str:
    names = [name for name, row in catalogue().chardevs.items() if not row.get("planned")]
    return "Available chardev backend types: \n" + "".join(f"  {name}\n" for name in names)


def adapters() -> str:
    titles = {"std": "standard VGA", "cirrus": "Cirrus VGA", "qxl": "QXL VGA", "vmware": "VMWare SVGA"}
    titles["virtio"] = "Virtio VGA"
    there = {kind: titles[kind] for kind, driver in ADAPTERS.items() if not catalogue().driver(driver).planned}
    rows = [("none", "no graphic card"), *there.items()]
    return "".join(f"{kind:<20} {title}{' (default)' if kind == 'std' else ''}\n" for kind, title in rows)


def options_of(name: str, *rows: str) -> Callable[[], str]:
    return lambda: f"{name} options:\n" + "".join(f"  {row}\n" for row in rows)


_ASKED = ("help", "?")
REFUSED = {"blockdev": "Help is not available for this option"}
MACHINE_PROPERTIES = {
    "accel": "accel=<string>         - Accelerator list",
    "kernel_irqchip": "kernel_irqchip=<on|off|split> - Configure KVM in-kernel irqchip",
    "usb": "usb=<bool>             - Set on/off to enable/disable usb",
}
_NUM, _STR, _BOOL = "<num>", "<str>", "<bool (on/off)>"
LISTS: dict[str, Callable[[], str]] = {
    "machine": machines,
    "cpu": cpus,
    "device": devices,
    "accel": accelerators,
    "chardev": chardevs,
    "display": lambda: "Available display backend types:\nnone\ngtk\nsdl\ncurses\n",
    "vga": adapters,
    "netdev": lambda: "Available netdev backend types:\n"
    + "".join(f"{name}\n" for name, row in catalogue().netdevs.items() if not row.get("planned")),
    "object": objects,
    "audiodev": lambda: "Available audio drivers:\nnone\n",
    "audio": lambda: "Available audio drivers:\nnone\n",
    "soundhw": lambda: "No sound cards are there yet\n",
    "watchdog": lambda: "",
    "L": lambda: "".join(f"{path}\n" for path in _firmware_dirs()),
    "smp": options_of("smp-opts", *(f"{key}={_NUM}" for key in ("cores", "cpus", "maxcpus", "sockets", "threads"))),
    "boot": options_of(
        "boot-opts", f"menu={_BOOL}", f"once={_STR}", f"order={_STR}", f"reboot-timeout={_NUM}", f"strict={_BOOL}"
    ),
    "rtc": options_of("rtc", f"base={_STR}", f"clock={_STR}", f"driftfix={_STR}"),
    "global": options_of("global", f"driver={_STR}", f"property={_STR}", f"value={_STR}"),
    "m": options_of("memory", "size=<size>"),
    "d": lambda: "Log items (comma separated):\nnone            remove all logs\n"
    + "".join(f"{name:<16}{text}\n" for name, text in LOG_ITEMS.items()),
    "trace": lambda: "",
    "tpmdev": lambda: "",
}


def _firmware_dirs() -> list[str]:
    from vmrun.firmware.images import directories

    return directories()
