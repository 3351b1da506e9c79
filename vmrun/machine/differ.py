"""What changes for a guest between two machines, each change with a severity and in the guest's terms.

Severities: `invisible` (the guest cannot tell), `re-detected` (the guest notices at its next boot; a saved guest goes
on), `breaks resume` (a guest saved on the one cannot go on with the other).
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
}
# leaves whose severity is not their section's
LEAVES = {
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
    ("nics", "addr"): BREAKS,
}
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
    """Every change between two sets of sections (visible.visible), the gravest first, then by section."""
    found = list(_changes(old, new))
    order = list(SECTIONS)
    return sorted(found, key=lambda c: (-SEVERITIES.index(c.severity), order.index(c.section), c.key))


def _changes(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> Iterator[Change]:
    for section in SECTIONS:
        before, after = old.get(section, {}), new.get(section, {})
        for key in sorted({*before, *after}):
            a, b = before.get(key, _MISSING), after.get(key, _MISSING)
            if a == b:
                continue
            if a is _MISSING or b is _MISSING:
                yield _one_sided(section, key, None if a is _MISSING else a, None if b is _MISSING else b)
            else:
                yield from _leaves(section, key, a, b)


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
        text = f"{there['driver']} at {key} {verb}"
    else:
        text = f"{what}: {key} {verb}"
    return Change(section, key, old, new, severity, text)


def _leaves(section: str, key: str, old: Any, new: Any, leaf: str = "") -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            if old.get(name) != new.get(name):
                yield from _leaves(section, key, old.get(name), new.get(name), f"{leaf}.{name}" if leaf else name)
        return
    last = leaf.rpartition(".")[2]
    severity = LEAVES.get((section, last or key), SECTIONS[section][0])
    path = f"{key}.{leaf}" if leaf else key
    yield Change(section, path, old, new, severity, _explain(section, key, leaf, old, new))


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
    if section == "cpuid":
        return f"CPUID leaf {key} (eax ebx ecx edx): {values}"
    if section == "firmware" and last == "sha256":
        return f"{key} is another image: {str(old)[:12]}… → {str(new)[:12]}…"
    if section == "disks" and last == "serial":
        return f"disk '{key}' has another serial number: {values}; /dev/disk/by-id changes"
    if section == "devices":
        return f"{key}: {leaf.removeprefix('props.')} {values}"
    return f"{SECTIONS[section][1]}: {key}{f' {leaf}' if leaf else ''} {values}"


def _called(card: dict[str, Any]) -> str:
    return f"{card['eth']} ({card['udev']} with udev)" if "udev" in card else str(card["eth"])


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
