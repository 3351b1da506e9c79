"""What `-machine help` and its like print, in QEMU's form."""

from __future__ import annotations

from vmrun.cli.qemu_line import ALIASES, DEFAULT_TYPE, catalogue, creatable
from vmrun.cli.qemu_options import FLAGS, WITH_VALUE, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

CATEGORIES = {
    "chipset": "Controller/Bridge/Hub",
    "usb": "USB",
    "storage": "Storage",
    "net": "Network",
    "input": "Input",
    "char": "Input",
    "display": "Display",
    "audio": "Sound",
    "misc": "Misc",
}


def version() -> str:
    from vmrun.monitor.commands.introspect import version as found

    number = "{major}.{minor}.{micro}".format(**found()["qemu"])
    return f"QEMU emulator version {number} ({found()['package']})\nThis is vmrun, which takes QEMU's command line\n"


def usage(program: str) -> str:
    names = [f"-{name} ARG" for name in WITH_VALUE] + [f"-{name}" for name in FLAGS]
    lines = [version() + f"usage: {program} [options] [disk_image]", ""]
    lines += ["'disk_image' is a raw hard disk image for IDE hard disk 0", "", "Options:"]
    return "\n".join([*lines, *sorted(names)]) + "\n"


def lists(options: list[Option]) -> str | None:
    """The text of the first option that only asks; None when none does."""
    for option in options:
        value = option.value or ""
        asked = value in ("help", "?") or value.split(",")[0] in ("help", "?")
        name = {"M": "machine"}.get(option.name, option.name)
        if name == "device" and not asked and value.split(",")[-1] in ("help", "?"):
            return device(option, value.split(",")[0])
        if asked and name in LISTS:
            return LISTS[name]()
    return None


def machines() -> str:
    from vmrun.config.machinetypes import load_type, type_names

    alias = {full: short for short, full in ALIASES.items()}
    rows = []
    for name in type_names():
        text = load_type(name).text("description") or ""
        if name in alias:
            rows.append((alias[name], f"{text} (alias of {name})"))
        rows.append((name, text + (" (default)" if name == DEFAULT_TYPE else "")))
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


def devices() -> str:
    from vmrun.monitor.qom import drivers

    groups: dict[str, list[str]] = {name: [] for name in CATEGORIES.values()}
    for name in creatable():
        row = drivers()[name]
        folder = row["module"].split(".")[2]
        category = "Misc" if name == "isa-debugcon" else CATEGORIES.get(folder, "Misc")
        groups[category].append(_line(name, row))
    return "\n".join(f"{title} devices:\n{''.join(lines)}" for title, lines in groups.items() if lines)


def _line(name: str, row: dict[str, Any]) -> str:
    bus = f", bus {row['bus']}" if row["bus"] else ""
    text = f', desc "{row["description"]}"' if row["description"] else ""
    return f'name "{name}"{bus}{text}\n'


def device(option: Option, driver: str) -> str:
    """The properties of a driver."""
    from vmrun.monitor.errors import QmpError
    from vmrun.monitor.qom import type_properties

    try:
        rows = type_properties(driver)
    except QmpError:
        refusal = option.wrong(f"Device '{driver}' not found")
        refusal.code = 0  # as QEMU, to which asking is no failure
        raise refusal from None
    lines = [f"{driver} options:"]
    for row in sorted(rows, key=lambda row: str(row["name"])):
        head = f"  {row['name']}=<{row['type']}>"
        text = row.get("description", "")
        if "default-value" in row:
            value = row["default-value"]
            shown = str(value).lower() if isinstance(value, bool) else value if value != "" else '""'
            text += f" (default: {shown})"
        lines.append(f"{head:<24} - {text}" if text else head)
    return "\n".join(lines) + "\n"


def accelerators() -> str:
    return "Accelerators supported in QEMU binary:\ntcg\nkvm\nqtest\n"


def chardevs() -> str:
    names = [name for name, row in catalogue().chardevs.items() if not row.get("planned")]
    return "Available chardev backend types: \n" + "".join(f"  {name}\n" for name in names)


LISTS: dict[str, Callable[[], str]] = {
    "machine": machines,
    "cpu": cpus,
    "device": devices,
    "accel": accelerators,
    "chardev": chardevs,
    "display": lambda: "Available display backend types:\nnone\n",
    "vga": lambda: "none                 no graphic card\nstd                  standard VGA (default)\n",
}
