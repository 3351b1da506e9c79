"""Tables of the user's own, from files of the host: ACPI tables (`firmware.acpi-tables`, QEMU's -acpitable) and SMBIOS
structures (`smbios.files`, QEMU's -smbios file=).

Ref: ACPI specification 6.4, 5.2.6 (header); DMTF DSP0134, 6.1.2. What a header without words of its own says is QEMU's.
"""

from __future__ import annotations

import struct

from vmrun.errors import BackendError, about

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vmrun.config.sections import MachineData

HEADER = struct.Struct("<4sIBB6s8sI4sI")  # signature, length, revision, checksum, OEM's names, who compiled it
PLAIN = (b"QEMU", 0, 1, 0, b"QEMUQE", b"QEMUQEMU", 1, b"QEMU", 1)
FIELDS = {"sig": 0, "rev": 2, "oem_id": 4, "oem_table_id": 5, "oem_rev": 6, "asl_compiler_id": 7, "asl_compiler_rev": 8}
LENGTH, CHECKSUM = 1, 3
MOST = 0xFFFF  # bytes of a table: fw_cfg says it in 16 bits
STRUCTURE = struct.Struct("<BBH")  # an SMBIOS structure's type, length and handle


def acpi_tables(machine: MachineData) -> list[bytes]:
    """Each table with its header. BackendError: a file that cannot be read, or is no table."""
    found = []
    for n, given in enumerate(machine["firmware"].get("acpi-tables", ())):
        with about(f"firmware.acpi-tables.{n}", "VR0632"):
            found.append(_acpi_table(given))
    return found


def fw_cfg_item(tables: list[bytes]) -> bytes:
    """Their number, and each behind its length: what a firmware that makes the others is given."""
    return struct.pack("<H", len(tables)) + b"".join(struct.pack("<H", len(table)) + table for table in tables)


def _acpi_table(given: Mapping[str, Any]) -> bytes:
    data = b"".join(_read(name) for name in given.get("file") or given["data"])
    values, body = list(PLAIN), data
    if "file" in given:
        if len(data) < HEADER.size:
            raise BackendError(f"an ACPI table of {len(data)} bytes: its header alone has {HEADER.size}")
        values, body = list(HEADER.unpack_from(data)), data[HEADER.size :]
    size = HEADER.size + len(body)
    if size > MOST:
        raise BackendError(f"an ACPI table of {size} bytes; at most {MOST} are possible")
    for name, at in FIELDS.items():
        if name in given:
            values[at] = given[name].encode() if isinstance(given[name], str) else int(given[name])
    values[LENGTH], values[CHECKSUM] = size, 0
    table = bytearray(HEADER.pack(*values) + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)


def smbios_structures(machine: MachineData) -> list[bytes]:
    """One structure from each file, with its texts."""
    found = []
    for n, name in enumerate((machine.get("smbios") or {}).get("files", ())):
        with about(f"smbios.files.{n}", "VR0632"):
            data = _read(name)
            if len(data) < STRUCTURE.size:
                raise BackendError(f"Cannot read SMBIOS file {name}: it has {len(data)} bytes")
            found.append(data)
    return found


def _read(name: str) -> bytes:
    try:
        with open(name, "rb") as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise BackendError(f"can't open file {name}: {error.strerror}", code="VR0620") from None
    if len(data) > MOST:
        raise BackendError(f"{name} has more than {MOST} bytes, and no table has")
    return data
