"""A machine of one QEMU command line on both sides: vmrun's in this process, from what its reader makes of the line,
and QEMU's. No processor runs in either, and QEMU's own defaults are left away (-nodefaults).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.peers.oracle import QEMU
from vmrun.config.importers.line import object_values, parse_command_line
from vmrun.testing import QTest, QtestCommands, QtestProgram

CONTROL, BUFFER = 0x10000, 0x20000  # where nothing else is
READ, SELECT = 2, 8


def ours(*words: str) -> QTest:
    parsed = parse_command_line(["-nodefaults", *words], defaults=False)
    assert not parsed.lost, parsed.lost
    given = [values for _, values in parsed.run.get("objects", ())]
    made = {str(values["id"]): {"type": values["qom-type"], **object_values(values)} for values in given}
    return QTest({**parsed.machine(), **({"objects": made} if made else {})})


def theirs(*words: str) -> QtestProgram:
    common = ["-accel", "tcg", "-S", "-display", "none", "-nodefaults"]
    return QtestProgram([QEMU or "qemu-system-x86_64", *common, *words])


def made(side: str, *words: str) -> QtestCommands:
    return ours(*words) if side == "vmrun" else theirs(*words)


def fw_cfg(q: QtestCommands, key: int, count: int) -> bytes:
    """The first bytes of an item, by DMA (pc-i440fx-2.4 and newer)."""
    q.write(CONTROL, struct.pack(">IIQ", key << 16 | SELECT | READ, count, BUFFER))
    q.outl(0x514, 0)
    q.outl(0x518, int.from_bytes(CONTROL.to_bytes(4, "big"), "little"))
    assert q.read(CONTROL, 4) == bytes(4)
    return q.read(BUFFER, count)


def directory(q: QtestCommands) -> dict[str, tuple[int, int]]:
    """fw_cfg file → its key and its bytes."""
    (count,) = struct.unpack(">I", fw_cfg(q, 0x19, 4))
    rows = fw_cfg(q, 0x19, 4 + 64 * count)[4:]
    return {
        name.split(b"\0")[0].decode(): (key, size) for size, key, _, name in struct.iter_unpack(">IHH56s", rows)
    }


def file(q: QtestCommands, name: str, most: int = 1 << 16) -> bytes:
    key, size = directory(q)[name]
    return fw_cfg(q, key, min(size, most))


def tables(q: QtestCommands) -> Iterator[tuple[str, bytes]]:
    """The ACPI tables, with their names, from the first on."""
    data, at = file(q, "etc/acpi/tables"), 0
    while at + 8 <= len(data) and data[at]:
        (size,) = struct.unpack_from("<I", data, at + 4)
        yield data[at : at + 4].decode(), data[at : at + size]
        at += size
