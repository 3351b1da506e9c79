"""Which firmware <os firmware='efi'> means on this host: the first that fits of those that describe themselves.

Ref: QEMU docs/interop/firmware.json (the descriptions and where they are), libvirt's formatdomain, "BIOS bootloader".
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# where descriptions are, the first that has one of a name wins
DIRECTORIES = ("~/.config/qemu/firmware", "/etc/qemu/firmware", "/usr/share/qemu/firmware")
KINDS = {"efi": "uefi", "bios": "bios"}
MOST = 1 << 16  # bytes of a description


class Firmware:
    """flash: whether it is one of two chips, code and variables, of which `template` are those to begin with."""

    def __init__(self, code: str, template: str, flash: bool) -> None:
        self.code, self.template, self.flash = code, template, flash


def find(kind: str, machine: str, features: dict[str, bool], smm: bool) -> Firmware | None:
    """kind: efi or bios. features: those that it must have, or must not. smm: whether the machine has SMM on."""
    for given in _descriptions():
        try:
            found = _fitting(given, kind, machine, features, smm)
        except (AttributeError, TypeError):  # it is no description, whatever its name says
            continue
        if found is not None:
            return found
    return None


def _fitting(
    given: dict[str, Any], kind: str, machine: str, features: dict[str, bool], smm: bool
) -> Firmware | None:
    """What a description is of, when it fits."""
    from fnmatch import fnmatchcase

    has = given.get("features", [])
    targets = [row for row in given.get("targets", []) if row.get("architecture") == "x86_64"]
    if KINDS.get(kind) not in given.get("interface-types", []):
        return None
    if not any(fnmatchcase(machine, pattern) for row in targets for pattern in row.get("machines", [])):
        return None
    if "requires-smm" in has and not smm or any((name in has) is not wanted for name, wanted in features.items()):
        return None
    mapping = given.get("mapping", {})
    if mapping.get("device") == "memory" and mapping.get("filename"):
        return Firmware(str(mapping["filename"]), "", False)
    code, template = mapping.get("executable", {}), mapping.get("nvram-template", {})
    if mapping.get("device") == "flash" and code.get("format") == "raw" and code.get("filename"):
        return Firmware(str(code["filename"]), str(template.get("filename", "")), True)
    return None


def _descriptions() -> Iterator[dict[str, Any]]:
    """In the order of their names, whichever directory they are in."""
    import json

    found: dict[str, str] = {}
    for directory in map(os.path.expanduser, DIRECTORIES):
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        for name in names:
            if name.endswith(".json"):
                found.setdefault(name, os.path.join(directory, name))
    for _, path in sorted(found.items()):
        try:
            with open(path, "rb") as file:
                given = json.loads(file.read(MOST))
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(given, dict):
            yield given
