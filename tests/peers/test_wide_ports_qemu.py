"""Words and dwords read from the PC's byte ports, beside QEMU's: whose bytes they are, and which nobody answers."""

from __future__ import annotations

import pathlib
import sys

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestProgram

pytestmark = [needs_qemu, pytest.mark.peer]

OPTIONS = ["-m", "64", "-display", "none", "-nodefaults", "-vga", "std", "-parallel", "null", "-serial", "null"]
PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
OURS = [sys.executable, str(PROGRAM), "-M", "pc-i440fx-2.0", "-accel", "qtest", *OPTIONS]
THEIRS = [str(QEMU), "-M", "pc-i440fx-2.0,smm=off", "-accel", "tcg", "-S", *OPTIONS]
PORTS = [*range(0x600), *range(0xAF00, 0xB010)]
MOVING = {0x40, 0x41, 0x42, 0x43, 0x61, 0x71, 0x3BA, 0x3DA}  # counters, the clock, the beam
MOVING |= {*range(0x3F0, 0x3F8)}  # the floppy controller has tests of its own
# Departures, of whole bytes: the 8237's masks are at 0Fh and DEh, the PEL mask exists
BYTES = {0x9, 0xF, 0xD2, 0xD3, 0xDE, 0xDF, 0x3C6}
# QEMU has no dword at the selector of fw_cfg; an ISA bus makes bytes of it
SELECTOR = 0x510


@pytest.mark.parametrize(("letter", "size"), [("b", 1), ("w", 2), ("l", 4)])
def test_wide_reads_find_the_bytes_that_qemus_find(letter: str, size: int) -> None:
    ports = [
        port
        for port in PORTS
        if not (MOVING | BYTES) & set(range(port, port + size))
        and (size, port) != (4, SELECTOR)
    ]
    lines = [f"in{letter} {port:#x}" for port in ports]
    with QtestProgram(THEIRS) as theirs:
        wanted = theirs.ask_all(lines)
    with QtestProgram(OURS) as ours:
        found = ours.ask_all(lines)
    assert [row for row in zip(lines, wanted, found, strict=True) if row[1] != row[2]] == []
