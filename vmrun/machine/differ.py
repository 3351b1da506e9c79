"""What changes for a guest between two machines, each change with a severity and in the guest's terms.

Severities: `invisible` (the guest cannot tell: names, the host's alone), `re-detected` (the guest notices at
its next boot; a saved guest goes on), `breaks resume` (a guest saved on the one cannot go on with the other).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

INVISIBLE, REDETECTED, BREAKS = "invisible", "re-detected", "breaks resume"
SEVERITIES = (INVISIBLE, REDETECTED, BREAKS)
_MISSING = object()

# section → severity of a change in it, and what the section is to a guest
SECTIONS: dict[str, tuple[str, str]] = {
    "machine": (BREAKS, "the machine as a whole"),
    "pci": (BREAKS, "PCI"),
    "ports": (BREAKS, "I/O ports"),
    "memory": (BREAKS, "the memory map"),
    "irqs": (BREAKS, "interrupts and DMA channels"),
    "cpuid": (BREAKS, "CPUID: a running program may have chosen instructions by it"),
    "firmware": (REDETECTED, "a firmware image: used from the next reset on"),
    "fw_cfg": (REDETECTED, "what the firmware is told at boot"),
    "cmos": (REDETECTED, "CMOS memory as the firmware finds it"),
    "acpi": (REDETECTED, "ACPI: read by the system when it boots"),
    "smbios": (REDETECTED, "SMBIOS: licences and inventories look at it"),
    "disks": (REDETECTED, "disks"),
    "nics": (REDETECTED, "network cards"),
    "devices": (BREAKS, "a device's properties"),
    "host": (INVISIBLE, "on the host only"),
}
LOCKED = tuple(name for name in SECTIONS if name != "host")  # the sections of a lock file
# leaves whose severity is not their section's
LEAVES = {
    ("machine", "type"): INVISIBLE,
    ("machine", "cpu model"): INVISIBLE,  # its CPUID is what counts
    ("firmware", "name"): INVISIBLE,
    ("machine", "uuid"): REDETECTED,
    ("machine", "clock base"): REDETECTED,
    ("machine", "hw-version"): REDETECTED,
    ("disks", "bytes"): BREAKS,
    ("disks", "geometry"): BREAKS,
    ("disks", "readonly"): BREAKS,
    ("devices", "mac"): REDETECTED,
    ("devices", "serial"): REDETECTED,
    ("devices", "bootindex"): REDETECTED,
    ("devices", "romfile"): REDETECTED,
    ("nics", "driver"): BREAKS,
}
BY_ID = ("disks", "nics", "devices")  # sections whose keys are ids of devices
HOST = "host"  # a register of CPUID that the machine type leaves to the host
NAME_LEAVES = ("80000002", "80000003", "80000004")
CONFIG_FIELDS = {
    "00": "vendor and device id",
    "04": "command and status",
    "08": "class code and revision",
    "0c": "header type",
    "2c": "subsystem id",
    "30": "ROM address",
    "34": "capability list",
    "3c": "interrupt line and pin",
}
FW_CFG_ITEMS = {
    "0001": "features",
    "0002": "UUID",
    "0003": "size of RAM",
    "0005": "processors",
    "0007": "kernel's address",
    "0008": "kernel's size",
    "000b": "initrd's size",
    "000d": "NUMA nodes",
    "000e": "boot menu",
    "000f": "most processors",
    "0011": "kernel",
    "0012": "initrd",
    "0015": "kernel's command line",
    "8001": "SMBIOS",
    "8002": "override of IRQ 0",
    "8004": "HPET",
}
CMOS_CELLS = {
    **dict.fromkeys(("15", "16"), "base memory"),
    **dict.fromkeys(("17", "18", "30", "31"), "memory above 1 MiB"),
    **dict.fromkeys(("34", "35"), "memory above 16 MiB"),
    **dict.fromkeys(("5b", "5c", "5d"), "memory above 4 GiB"),
    **dict.fromkeys(("38", "3d"), "boot order"),
    "10": "floppy drives",
    "12": "hard disks",
    "14": "equipment",
    "39": "disk translation",
    "5f": "processors",
}
COMMANDS = {"eth": "kernel order", "udev": "udev name", "path": "path name"}


class Change:
    """One difference. `old` or `new` is None where there is nothing."""

    __slots__ = ("key", "new", "old", "section", "severity", "text")

    def __init__(self, section: str, key: str, old: Any, new: Any, severity: str, text: str) -> None:
        self.section, self.key, self.old, self.new = section, key, old, new
        self.severity, self.text = severity, text

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("section", "key", "severity", "text", "old", "new")}


def compare(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[Change]:
    """Every change between two sets of sections (visible.visible; `host`, if both have it: hostside.host_side), the
    gravest first, then by section.
    """
    renamed = _renamed(old.get("devices", {}), new.get("devices", {}))
    found = [
        Change("devices", to, was, to, INVISIBLE, f"device '{was}' is called '{to}' now") for to, was in renamed.items()
    ]
    found += _changes(old, _under_old_names(new, renamed))
    order = list(SECTIONS)
    return sorted(found, key=lambda c: (-SEVERITIES.index(c.severity), order.index(c.section), c.key))


def _renamed(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """New id → old id of devices that are the same in all but their ids."""
    gone = {id: old[id] for id in old if id not in new}
    result = {}
    for id in sorted(new):
        if id not in old:
            match = next((was for was, value in gone.items() if value == new[id]), None)
            if match is not None:
                del gone[match]
                result[id] = match
    return result


def _under_old_names(new: dict[str, dict[str, Any]], renamed: dict[str, str]) -> dict[str, dict[str, Any]]:
    if not renamed:
        return new
    result = dict(new)
    for section in BY_ID:
        result[section] = {renamed.get(id, id): value for id, value in new.get(section, {}).items()}
    if "host" in new:
        ids = {f"devices.{id}": f"devices.{was}" for id, was in renamed.items()}
        result["host"] = {ids.get(key, key): value for key, value in new["host"].items()}
    return result


def _changes(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> Iterator[Change]:
    for section in SECTIONS:
        if section == "host" and (section not in old or section not in new):
            continue  # a lock file has none
        before, after = old.get(section, {}), new.get(section, {})
        for key in sorted({*before, *after}):
            a, b = before.get(key, _MISSING), after.get(key, _MISSING)
            if a == b:
                continue
            if a is _MISSING or b is _MISSING:
                yield _one_sided(section, key, None if a is _MISSING else a, None if b is _MISSING else b)
            elif section in ("pci", "devices", "nics") and a["driver"] != b["driver"]:
                yield _replaced(section, key, a, b)
            else:
                owner = f"{b['driver']} at {key}" if section == "pci" else b["driver"] if section == "devices" else ""
                yield from _leaves(section, key, a, b, owner=owner)


def _replaced(section: str, key: str, old: dict[str, Any], new: dict[str, Any]) -> Change:
    what = {"pci": f"PCI device at {key}", "nics": f"network card '{key}'"}.get(section, f"device '{key}'")
    text = f"{what} is another one: {old['driver']} → {new['driver']}"
    return Change(section, key, old, new, BREAKS, text)


def _one_sided(section: str, key: str, old: Any, new: Any) -> Change:
    verb = "appears" if old is None else "is gone"
    there = new if old is None else old
    severity = SECTIONS[section][0]
    what = SECTIONS[section][1]
    if section == "devices":
        text = f"device '{key}' ({there['driver']}) {verb}"
    elif section == "nics":
        text = f"network card '{key}' ({there['driver']}, {there.get('mac')}) {verb}; Linux calls it {_called(there)}"
    elif section == "pci":
        text = f"PCI device at {key} ({there['driver']}) {verb}"
    elif section == "host":
        text = f"{what}: {key} {verb}"
        return Change(section, key, old, new, INVISIBLE, text)
    elif section in ("ports", "memory"):
        text = f"{what} {key} ({there}) {verb}"
    elif section == "irqs":
        text = f"{key} → {there} {verb}"
    else:
        text = f"{what}: {_named(section, key)} {verb}"
    return Change(section, key, old, new, severity, text)


def _named(section: str, key: str) -> str:
    """A key with what it means, where it is a number."""
    names = {"fw_cfg": FW_CFG_ITEMS, "cmos": CMOS_CELLS}.get(section, {})
    name = names.get(key.removeprefix("item "))
    return f"{key} ({name})" if name else key


def _leaves(section: str, key: str, old: Any, new: Any, leaf: str = "", owner: str = "") -> Iterator[Change]:
    """owner: the driver of the thing under that key; of PCI functions, what the messages call them."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name) and (section, name) != ("nics", "addr"):  # the device's own line says so
                below = f"{leaf}.{name}" if leaf else name
                yield from _leaves(section, key, old.get(name), new.get(name), below, owner)
        return
    last = leaf.rpartition(".")[2]
    severity = LEAVES.get((section, last or key), SECTIONS[section][0])
    path = f"{key}.{leaf}" if leaf else key
    if section == "devices" and old is None and _is_default(owner, last, new):
        severity = INVISIBLE  # a property that vmrun had no name for when the lock was made
    called = owner if section == "pci" else key
    yield Change(section, path, old, new, severity, _explain(section, called, leaf, old, new))


def _is_default(driver: str, name: str, value: Any) -> bool:
    from vmrun.config.catalogue import load_catalogue

    entry = load_catalogue().driver(driver)
    prop = entry.props.get(name) if entry is not None else None
    return prop is not None and prop.get("default") == value


def _explain(section: str, key: str, leaf: str, old: Any, new: Any) -> str:
    last = leaf.rpartition(".")[2]
    values = f"{_shown(old)} → {_shown(new)}"
    if section == "nics" and last in COMMANDS:
        return f"network card '{key}': {COMMANDS[last]} under Linux {values}"
    if section == "nics" and last == "mac":
        return f"network card '{key}' has another MAC address: {values}; leases and udev rules go by it"
    if section == "pci" and leaf.startswith("config."):
        field = "BAR" if "10" <= last < "28" else CONFIG_FIELDS.get(last, "register")
        return f"PCI configuration space of {key}: {field} at {last}: {values}"
    if section == "pci" and leaf.startswith("bars."):
        return f"PCI device {key}: {'ROM BAR' if last == 'rom' else f'BAR {last}'} {values}"
    if section == "cpuid":
        return _explain_cpuid(key, str(old), str(new))
    if section == "firmware" and last == "sha256":
        return f"{key} is another image: {str(old)[:12]}… → {str(new)[:12]}…"
    if section == "disks" and last == "serial":
        return f"disk '{key}' has another serial number: {values}; /dev/disk/by-id changes"
    if section == "devices" and leaf in ("addr", "bus"):
        return f"device '{key}' moves: {leaf} {values}"
    if section == "devices":
        return f"{key}: {leaf.removeprefix('props.')} {values}"
    return f"{SECTIONS[section][1]}: {_named(section, key)}{f' {leaf}' if leaf else ''} {values}"


def _explain_cpuid(key: str, old: str, new: str) -> str:
    """The features that a leaf gains and loses; the numbers of registers that hold something else."""
    from vmrun.machine.cpuid import REGISTERS, features

    function, _, index = key.partition(".")
    if function in NAME_LEAVES:
        return f"the processor's name, in part: {_ascii(old)} → {_ascii(new)} (CPUID leaf {function})"
    gained: dict[str, None] = {}
    lost: dict[str, None] = {}
    plain = []
    for register, a, b in zip(REGISTERS, old.split(), new.split(), strict=True):
        row = _feature_row(features()["names"], int(function, 16), int(index, 16), register)
        if HOST in (a, b):
            row = []
        for bit in range(32) if row else ():
            if (int(a, 16) ^ int(b, 16)) >> bit & 1:
                (gained if int(b, 16) >> bit & 1 else lost)[row[bit] or f"bit {bit} of {register}"] = None
        if a != b and not row:
            plain.append(f"{register} {a} → {b}")
    parts = [f"{verb} {', '.join(names)}" for verb, names in (("gains", gained), ("loses", lost)) if names]
    what = f"the processor {' and '.join(parts)}" if parts else "the processor"
    return f"{what}{'; ' if parts and plain else ' ' if plain else ''}{', '.join(plain)} (CPUID leaf {key})"


def _ascii(registers: str) -> str:
    data = b"".join(int(word, 16).to_bytes(4, "little") for word in registers.split())
    return repr(data.rstrip(b"\0").decode("latin-1"))


def _feature_row(names: dict[str, list[str]], function: int, index: int, register: str) -> list[str]:
    """The names of a register's bits, 32 of them; empty when they are no features."""
    row = names.get(f"{function:x}.{register}") or names.get(f"{function:x}.{index:x}.{register}") or []
    return [*row, *[""] * 32][:32] if row else []


def _called(card: dict[str, Any]) -> str:
    return f"{card['eth']} ({card['udev']} with udev)" if "udev" in card else str(card["eth"])


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    text, mark, digest = str(value).partition(" sha256 ")
    return f"{text} sha256 {digest[:12]}…" if mark else text
