"""SMBIOS as each form of machine hands it over: fields that the firmware puts into its own tables (key
0x8001).

Ref: DMTF DSP0134 (System Management BIOS), types 0 and 1; the form of the fields is QEMU's.
Not modelled: whole tables made by the machine (`form: tables`, types after pc-i440fx-2.0).
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# name of a setting → offset in the structure, in the order in which they are handed over
STRINGS = {
    0: {"vendor": 4, "version": 5, "date": 8},
    1: {"manufacturer": 4, "product": 5, "version": 6, "serial": 7, "sku": 0x19, "family": 0x1A},
}
UUID_OFFSET, RELEASE_OFFSET = 8, 0x14


def fields(machine: dict[str, Any]) -> bytes | None:
    """The value of key 0x8001, or None where the type has no such key."""
    own = machine["firmware"].get("smbios") or {"form": "none"}
    form = own.get("form", "none")
    if form == "none":
        return None
    if form != "fields":
        raise BuildError(
            "SMBIOS tables made by the machine (firmware.smbios.form: tables) are not modelled yet"
        )
    given = machine.get("smbios") or {}
    entries: list[bytes] = []
    if machine.get("family") == "rhel6":
        # The user's first; the firmware takes the first that it finds of each.
        for settings in (given, own):
            for kind in (0, 1):
                entries += _entries(kind, settings.get(f"type{kind}") or {})
    else:
        for kind in (0, 1):
            merged = {**(own.get(f"type{kind}") or {}), **(given.get(f"type{kind}") or {})}
            if kind == 1 and machine.get("uuid"):
                merged.setdefault("uuid", machine["uuid"])
            entries += _entries(kind, merged)
    return struct.pack("<H", len(entries)) + b"".join(entries)


def _entries(kind: int, settings: dict[str, Any]) -> list[bytes]:
    found = [
        _field(kind, offset, str(settings[name]).encode() + b"\0")
        for name, offset in STRINGS[kind].items()
        if settings.get(name) is not None
    ]
    if kind == 0 and settings.get("release"):
        major, _, minor = str(settings["release"]).partition(".")
        for n, part in enumerate((major, minor or "0")):
            found.append(_field(kind, RELEASE_OFFSET + n, bytes([int(part) & 0xFF])))
    if kind == 1 and settings.get("uuid"):
        found.append(_field(kind, UUID_OFFSET, uuid_bytes(str(settings["uuid"]))))
    return found


def _field(kind: int, offset: int, data: bytes) -> bytes:
    return struct.pack("<HBBH", 6 + len(data), 0, kind, offset) + data


def uuid_bytes(uuid: str | None) -> bytes:
    """Sixteen bytes in the order of the text; zeros for None."""
    return bytes.fromhex(uuid.replace("-", "")) if uuid else bytes(16)
