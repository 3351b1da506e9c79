"""Every form of access to the PCI configuration ports, beside QEMU's: sizes, alignments, CONFADD's low bits."""

from __future__ import annotations

import pathlib
import random
import sys

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestProgram

pytestmark = [needs_qemu, pytest.mark.peer]

OPTIONS = ["-m", "64", "-display", "none", "-nodefaults"]
PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
OURS = [sys.executable, str(PROGRAM), "-M", "pc-i440fx-2.0", "-accel", "qtest", *OPTIONS]
THEIRS = [str(QEMU), "-M", "pc-i440fx-2.0,smm=off", "-accel", "tcg", "-S", *OPTIONS]
PLACES = (0x80000000, 0x80000800, 0x80000900, 0x80000B00, 0, 0x80010000, 0x80008000)
REGISTERS = (0, 0x2C, 0x3C, 0xFC)


def commands(seed: int) -> list[str]:
    chosen = random.Random(seed)
    lines = []
    for _ in range(1500):
        kind = chosen.random()
        if kind < 0.4:
            latch = chosen.choice(PLACES) | chosen.choice((*REGISTERS, chosen.randrange(256))) | chosen.randrange(4)
            lines.append(f"outl 0xcf8 {latch:#x}")
        elif kind < 0.9:
            lines.append(f"in{chosen.choice('bwl')} {chosen.choice([0xCF8, *range(0xCFA, 0xD00)]):#x}")
        else:
            lines.append(f"out{chosen.choice('bwl')} {chosen.randrange(0xCFC, 0xD00):#x} {chosen.randrange(256):#x}")
    return lines


@pytest.mark.parametrize("seed", [1, 2])
def test_configuration_ports_answer_as_qemus(seed: int) -> None:
    lines = commands(seed)
    with QtestProgram(THEIRS) as theirs:
        wanted = theirs.ask_all(lines)
    with QtestProgram(OURS) as ours:
        found = ours.ask_all(lines)
    wrong = [(lines[max(0, n - 2) : n + 1], w, f) for n, (w, f) in enumerate(zip(wanted, found, strict=True)) if w != f]
    assert wrong == []


def test_low_bits_of_confadd_count() -> None:
    with QtestProgram(OURS) as ours:
        ours.outl(0xCF8, 0x80000002)
        assert ours.inw(0xCFC) == 0x1237
