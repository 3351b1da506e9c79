"""SMBIOS as each form of machine hands it over: fields that the firmware puts into its own tables (key
0x8001).

Types after pc-i440fx-2.0 make whole tables instead: `smbios_tables`.
Ref: DMTF DSP0134 (System Management BIOS), types 0 and 1; the form of the fields is QEMU's.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

# name of a setting → offset in the structure, in the order in which they are handed over
STRINGS = {
    0: {"vendor": 4, "version": 5, "date": 8},
    1: {"manufacturer": 4, "product": 5, "version": 6, "serial": 7, "sku": 0x19, "family": 0x1A},
}
UUID_OFFSET, RELEASE_OFFSET = 8, 0x14
LONGEST = 0xFFFF - 6  # bytes of a field: its length, with the head, is a 16-bit number


def fields(machine: MachineData) -> bytes | None:
    """The value of key 0x8001, or None where the type has no such key."""
    own: dict[str, Any] = {**(machine["firmware"].get("smbios") or {"form": "none"})}
    form = own.get("form", "none")
    if form != "fields":
        return None
    given = machine.get("smbios") or {}
    more = [kind for kind in given if kind not in ("type0", "type1", "files")]
    if more:
        raise BuildError(
            f"smbios.{more[0]}: the firmware of {machine.get('machine', 'this machine type')} makes the SMBIOS tables, "
            "and takes no more than fields of type0 and type1",
            code="VR0712",
            path=f"smbios.{more[0]}",
            remedy="leave it out, or take pc-i440fx-2.1 or newer",
        )
    entries: list[bytes] = []
    taken: set[int] = set()
    if given.get("files"):
        from vmrun.firmware.user_tables import smbios_structures

        ready = smbios_structures(machine)
        entries += [struct.pack("<HB", 3 + len(data), 1) + data for data in ready]
        taken = {data[0] for data in ready}
    kinds = [kind for kind in (0, 1) if kind not in taken]
    if machine.get("family") == "rhel6":
        # The user's first; the firmware takes the first that it finds of each.
        for settings in (given, own):
            for kind in kinds:
                entries += _entries(kind, settings.get(f"type{kind}") or {})
    else:
        for kind in kinds:
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
    if len(data) > LONGEST:
        raise BuildError(
            f"a field of SMBIOS type {kind} has {len(data)} bytes; at most {LONGEST} are possible",
            code="VR0716",
            path=f"smbios.type{kind}",
        )
    return struct.pack("<HBBH", 6 + len(data), 0, kind, offset) + data


def uuid(machine: MachineData) -> str | None:
    """The machine's UUID: one given for the system structure counts for all."""
    given = (machine.get("smbios") or {}).get("type1") or {}
    return given.get("uuid") or machine.get("uuid")


def uuid_bytes(uuid: str | None) -> bytes:
    """Sixteen bytes in the order of the text; zeros for None."""
    return bytes.fromhex(uuid.replace("-", "")) if uuid else bytes(16)
