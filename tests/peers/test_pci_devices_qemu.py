"""Test cards and bridges beside QEMU's: configuration space, registers, windows."""

from __future__ import annotations

import pathlib
import random
import sys

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestCommands, QtestProgram

pytestmark = [needs_qemu, pytest.mark.peer]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
OPTIONS = ["-m", "64", "-display", "none", "-nodefaults"]
BAR = 0xF0000000
ALL_ONES = "0x00000000ffffffff"


def theirs(*devices: str) -> QtestProgram:
    more = [word for device in devices for word in ("-device", device)]
    return QtestProgram([str(QEMU), "-M", "pc-i440fx-2.0,smm=off", "-accel", "tcg", "-S", *OPTIONS, *more])


def ours(*devices: str) -> QtestProgram:
    more = [word for device in devices for word in ("-device", device)]
    return QtestProgram([sys.executable, str(PROGRAM), "-M", "pc-i440fx-2.0", "-accel", "qtest", *OPTIONS, *more])


def same(lines: list[str], *devices: str) -> None:
    """Both answer all lines alike. What nobody answers reads as zeros from QEMU's memory and as ones from ours."""
    with theirs(*devices) as q:
        wanted = q.ask_all(lines)
    with ours(*devices) as q:
        found = q.ask_all(lines)
    wrong = []
    for n, (line, want, got) in enumerate(zip(lines, wanted, found, strict=True)):
        nobody = line.startswith("readl") and got == ALL_ONES and int(want, 0) == 0
        if want != got and not nobody:
            wrong.append((lines[max(0, n - 2) : n + 1], want, got))
    assert wrong == []


def select(bus: int, slot: int, offset: int) -> str:
    return f"outl 0xcf8 {0x80000000 | bus << 16 | slot << 11 | offset & 0xFC:#x}"


def config(bus: int, slot: int, offset: int, value: int, width: str = "l") -> list[str]:
    return [select(bus, slot, offset), f"out{width} {0xCFC + (offset & 3):#x} {value:#x}"]


CARDS = [
    "edu",
    "pci-testdev",
    "pci-testdev,membar=1M",
    "i82801b11-bridge",
    "pci-bridge,chassis_nr=1",
    "pci-bridge,chassis_nr=2,msi=off",
    "pci-bridge,chassis_nr=3,shpc=off",
    "e1000e,romfile=",
    "vmxnet3,romfile=",
    "vmxnet3,romfile=,x-old-msi-offsets=on",
    "i82551,romfile=",
    "i82557a,romfile=",
    "i82559c,romfile=",
    "i82801,romfile=",
]


@pytest.mark.parametrize("card", CARDS)
def test_configuration_space_is_qemus_after_any_write(card: str) -> None:
    lines = []
    for value in (None, 0xFFFFFFFF, 0, 0x5A5A5A5A):
        for offset in range(0, 256, 4):
            lines += [select(0, 5, offset)] if value is None else config(0, 5, offset, value)
            lines.append("inl 0xcfc")
    same(lines, f"{card},addr=5")


def test_edus_registers_are_qemus_in_every_width() -> None:
    chosen = random.Random(7)
    lines = config(0, 5, 0x10, BAR) + config(0, 5, 4, 7, "w")
    registers = (0, 4, 0x20, 0x24, 0x28, 0x60, 0x64, 0x80, 0x84, 0x88, 0x90, 0x98, 0x9C)
    for _ in range(1500):
        offset = chosen.choice(registers)
        width = chosen.choice("lllbwq")
        if chosen.random() < 0.5:
            lines.append(f"read{width} {BAR + offset:#x}")
        elif not (offset == 4 and width == "q"):  # would start a factorial, which takes time there
            value = chosen.choice([0, 2, 4, 0x80, 0x100, 0x40000, chosen.randrange(1 << 32) & ~1])
            lines.append(f"write{width} {BAR + offset:#x} {value:#x}")
    same(lines, "edu,addr=5")


def compute(q: QtestCommands, n: int) -> int:
    q.pci_write(5, 0, 0x10, BAR)
    q.pci_write(5, 0, 4, 7, 2)
    q.writel(BAR + 8, n)
    while q.readl(BAR + 0x20) & 1:
        pass
    return q.readl(BAR + 8)


def test_edu_computes_qemus_factorials() -> None:
    numbers = [0, 1, 2, 12, 13, 20, 33, 34, 35, 1000]
    with theirs("edu,addr=5") as q:
        wanted = [compute(q, n) for n in numbers]
    with ours("edu,addr=5") as q:
        assert [compute(q, n) for n in numbers] == wanted


def test_pci_testdev_counts_as_qemus() -> None:
    chosen = random.Random(3)
    lines = config(0, 5, 0x10, BAR) + config(0, 5, 0x14, 0xC000) + config(0, 5, 4, 3, "w")
    for number in (*range(7), 200, 1):
        lines += [f"writeb {BAR:#x} {number}", f"outb 0xc000 {number}"][number & 1 :]
        for _ in range(60):
            value, width = chosen.choice([0xFA, 0xCE, 0, 0xFAFA]), chosen.choice("bbwl")
            lines.append(f"write{width} {BAR + 2048 + chosen.randrange(5):#x} {value:#x}")
            lines.append(f"out{width} {0xC080 + chosen.randrange(7):#x} {value:#x}")
        lines += [f"read {BAR:#x} 48", *(f"inb {0xC000 + n:#x}" for n in range(48))]
    same(lines, "pci-testdev,addr=5")


def test_pc_testdev_keeps_what_qemus_keeps() -> None:
    chosen = random.Random(5)
    lines = []
    for _ in range(400):
        width = chosen.choice("bwl")
        step = {"b": 1, "w": 2, "l": 4}[width]
        port = chosen.choice([0xE0, 0xE8]) + chosen.randrange(0, 4, step)
        lines.append(f"out{width} {port:#x} {chosen.randrange(1 << 32):#x}")
        lines.append(f"in{chosen.choice('bwl')} {chosen.choice([0xE0, 0xE8]):#x}")
        memory = 0xFF000000 + chosen.randrange(64) * 4
        lines.append(f"write{width} {memory:#x} {chosen.randrange(1 << 32):#x}")
        lines.append(f"read{width} {memory:#x}")
    same(lines, "pc-testdev")


BRIDGED = [
    "i82801b11-bridge,id=br,addr=4",
    "i82801b11-bridge,id=br2,bus=br,addr=3",
    "edu,bus=br,addr=1",
    "pci-testdev,bus=br2,addr=2",
    "pci-testdev,addr=6",
]
WINDOWS = {
    0x1C: (0xD0C0, 0xC0D0, 0xC0C0, 0xF000),
    0x20: (0xE010E000, 0xE000E010, 0xE0F0E000, 0),
    0x24: (0xF010F000, 0xF000F010, 0xE030E020, 0x00010001),
    0x28: (0, 0, 1),
    0x2C: (0, 0, 1),
}
PLACES = (0xE0000000, 0xE0100000, 0xF0000000, 0xE0200000, 0xF0100000)
PORTS = (0xC000, 0xD000, 0xC100)


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_bridges_show_what_qemus_show(seed: int) -> None:
    chosen = random.Random(seed)
    lines = config(0, 4, 0x18, 0x020100) + config(1, 3, 0x18, 0x020201)
    for _ in range(250):
        bridge, kind = chosen.choice([(0, 4), (1, 3)]), chosen.random()
        if kind < 0.1:
            lines += config(*bridge, 4, chosen.choice([7, 7, 7, 3, 1, 0, 6]), "w")
        elif kind < 0.45:
            offset = chosen.choice(list(WINDOWS))
            lines += config(*bridge, offset, chosen.choice(WINDOWS[offset]), "w" if offset == 0x1C else "l")
        elif kind < 0.5:
            lines += config(*bridge, 0x3E, chosen.choice([0, 8, 0x18, 0, 0x40]), "w")
        elif kind < 0.55:
            lines += config(*bridge, 0x18, chosen.choice([0x020100, 0x020201, 0x030100, 0, 0x050402, 0x060301]))
        elif kind < 0.7:
            bus, slot, bar = chosen.choice([(1, 1, 0x10), (2, 2, 0x10), (2, 2, 0x14), (0, 6, 0x10), (0, 6, 0x14)])
            lines += config(bus, slot, 4, chosen.choice([3, 3, 3, 0]), "w")
            lines += config(bus, slot, bar, chosen.choice(PORTS if bar == 0x14 else PLACES))
        else:
            for _ in range(3):
                bus, slot = chosen.randrange(4), chosen.choice([1, 2, 3, 4, 6])
                lines += [select(bus, slot, chosen.choice([0, 4, 0x10, 0x18])), "inl 0xcfc"]
        for place in PLACES:
            lines += [f"writeb {place:#x} 1", f"readl {place:#x}"]
        for port in PORTS:
            lines += [f"outb {port:#x} 1", f"inl {port:#x}"]
    same(lines, *BRIDGED)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_hot_plug_controller_of_a_bridge_is_qemus(seed: int) -> None:
    chosen = random.Random(seed)
    lines = config(0, 5, 0x10, BAR) + config(0, 5, 0x14, 0) + config(0, 5, 4, 6, "w")
    for _ in range(300):
        kind = chosen.random()
        if kind < 0.5:
            code = chosen.choice([chosen.randrange(0x50), chosen.randrange(256), 0x0F, 0x3B, 6, 7, 0x0E])
            lines.append(f"writew {BAR + 0x14:#x} {code | chosen.choice([1, 2, 3, 3, 31, 0]) << 8:#x}")
        elif kind < 0.7:
            lines.append(f"writel {BAR + 0x20:#x} {chosen.choice([0, 1, 4, 5, 0xF, 0x10000, 0x3000F]):#x}")
        elif kind < 0.8:
            lines.append(f"writel {BAR + 0x24 + 4 * chosen.randrange(31):#x} {chosen.getrandbits(32):#x}")
        elif kind < 0.9:
            lines += config(0, 5, 0x42, chosen.randrange(64), "b") + ["inl 0xcfc", select(0, 5, 0x44), "inl 0xcfc"]
        else:
            lines.append(f"write{chosen.choice('bwl')} {BAR + chosen.randrange(0xA0):#x} {chosen.getrandbits(32):#x}")
        lines += [f"read {BAR:#x} 168", select(0, 5, 4), "inl 0xcfc"]
    same(lines, "pci-bridge,id=pb,chassis_nr=1,addr=5", "edu,bus=pb,addr=3", "edu,bus=pb,addr=0x1f")


@pytest.mark.parametrize("order", [(5, 6), (6, 5)])
def test_of_two_bars_at_one_address_the_one_that_came_later_answers(order: tuple[int, int]) -> None:
    looks = [f"readl {BAR + offset:#x}" for offset in (0, 4, 0x1000)]
    lines = [line for slot in order for line in (*config(0, slot, 0x10, BAR), *config(0, slot, 4, 2, "w"), *looks)]
    for slot in order:  # away and back: then it is the later one
        lines += config(0, slot, 0x10, BAR + 0x1000000) + looks + config(0, slot, 0x10, BAR) + looks
    lines += config(0, order[0], 4, 0, "w") + looks + config(0, order[0], 4, 2, "w") + looks
    same(lines, "edu,addr=5", "pci-testdev,addr=6")
