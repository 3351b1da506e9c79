"""Where a command line's devices without `bus` go, and what buses of controllers without `id` are called: as QEMU's."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest

from tests.peers.oracle import QEMU, converse, needs_qemu
from vmrun.config.importers.export import command_line
from vmrun.config.importers.line import parse_command_line

pytestmark = needs_qemu
LINE = ["-M", "pc-i440fx-7.2", "-display", "none", "-nodefaults", "-S", "-qmp", "stdio"]
TREE = {"execute": "human-monitor-command", "arguments": {"command-line": "info qtree"}}
DISKS = ("a", "b")
LINES = (
    "-device ide-hd,drive=a,id=A -device ide-hd,drive=b,id=B",
    "-device ide-hd,drive=a,id=A,bus=ide.1,unit=1 -device ide-hd,drive=b,id=B",
    "-device virtio-scsi-pci -device scsi-hd,drive=a,id=A,bus=scsi.0 -device scsi-hd,drive=b,id=B",
    "-device virtio-scsi-pci -device lsi53c895a -device scsi-hd,drive=a,id=A -device scsi-hd,drive=b,id=B,bus=scsi.0",
    "-device lsi53c895a,id=x -device megasas -device scsi-hd,drive=a,id=A,bus=scsi.0"
    " -device scsi-hd,drive=b,id=B,bus=x.0",
    "-device megasas -device scsi-hd,drive=a,id=A -device virtio-scsi-pci,id=y -device scsi-hd,drive=b,id=B",
    "-device pci-bridge,chassis_nr=1 -device pci-bridge,chassis_nr=2,id=z"
    " -device virtio-blk-pci,drive=a,id=A,bus=pci.1,addr=2 -device virtio-blk-pci,drive=b,id=B,bus=z,addr=3",
)


def places(program: list[str], line: list[str]) -> dict[str, str]:
    """Device → the bus that it is on, by `info qtree`."""
    (answer,) = converse([*program, *LINE, *line], [TREE])
    found, buses = {}, []
    for row in answer["return"].splitlines():
        depth = len(row) - len(row.lstrip())
        if bus := re.match(r" *bus: (\S+)", row):
            buses = [one for one in buses if one[0] < depth] + [(depth, bus[1])]
        elif device := re.match(r' *dev: \S+, id "([AB])"', row):
            found[device[1]] = next(name for level, name in reversed(buses) if level < depth)
    return found


@pytest.mark.parametrize("line", LINES)
def test_devices_without_a_bus_go_where_qemu_puts_them(line: str, tmp_path: pathlib.Path) -> None:
    drives = []
    for id in DISKS:
        (tmp_path / id).write_bytes(bytes(1 << 20))
        drives += ["-drive", f"if=none,id={id},file={tmp_path / id},format=raw"]
    words = [*drives, *line.split()]
    theirs = places([QEMU or ""], words)
    assert theirs.keys() == {"A", "B"}
    assert places([sys.executable, "-m", "vmrun", "qemu"], words) == theirs
    back, _ = command_line(parse_command_line([*LINE[:2], *words], defaults=False).machine())
    devices = [word for word in back if word not in ("-S",)]
    assert places([QEMU or ""], devices) == theirs
