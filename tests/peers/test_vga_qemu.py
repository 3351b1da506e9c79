"""The same accesses given to QEMU's VGA and to vmrun's: registers, the window and video memory must agree."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.ram import RamBlock
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_regions import VbePorts, VgaPorts, VgaWindow

from tests.peers.oracle import Qemu, Running, needs_qemu, wait_for
from vmrun.devices.display.textscreen import TextScreen
from vmrun.ui.screen import plain

pytestmark = [pytest.mark.peer, needs_qemu]

# Input status reads differ by design (vmrun follows the beam), and QEMU has no PEL mask register at 0x3c6.
PORTS_WRITTEN = [
    0x3B4,
    0x3B5,
    0x3BA,
    0x3C0,
    0x3C2,
    0x3C4,
    0x3C5,
    0x3C7,
    0x3C8,
    0x3C9,
    0x3CE,
    0x3CF,
    0x3D4,
    0x3D5,
    0x3DA,
]
PORTS_READ = [0x3B4, 0x3B5, *range(0x3C0, 0x3C6), *range(0x3C7, 0x3D0), 0x3D4, 0x3D5]
VBE_SENSIBLE = [1, 4, 8, 15, 16, 24, 32, 320, 640, 800, 1024, 0x41, 0xE1, 0xC1, 0x40, 0, 3, 0x21]


class Pair:
    """Both machines; `run` gives both the same accesses and compares the answers of the reads."""

    def __init__(self, qemu: Qemu) -> None:
        self.qemu = qemu
        self.block = RamBlock("vga.vram", 16 << 20)
        self.vga = Vga(self.block, SteppedClock())
        self.ports, self.window, self.vbe = VgaPorts(self.vga), VgaWindow(self.vga), VbePorts(self.vga)

    def own(self, kind: str, addr: int, value: int) -> int | None:
        size = {"b": 1, "w": 2, "l": 4}[kind[-1]]
        if kind.startswith("out"):
            if addr >= 0x3B0:
                for i in range(size):
                    self.ports.store(addr - 0x3B0 + i, 1, value >> 8 * i & 0xFF)
            else:
                self.vbe.store(addr - 0x1CE, size, value)
        elif kind.startswith("in"):
            return self.ports.load(addr - 0x3B0, 1) if addr >= 0x3B0 else self.vbe.load(addr - 0x1CE, size)
        elif kind.startswith("write"):
            self.window.store(addr - 0xA0000, size, value)
        else:
            return self.window.load(addr - 0xA0000, size)
        return None

    def state(self) -> dict[str, object]:
        return {name: value for name, value in self.vga.save().items() if name not in ("palette", "cr", "ar")}

    def run(self, steps: list[tuple[str, int, int]]) -> None:
        lines = [
            f"{kind} {addr:#x} {value:#x}" if kind[0] in "ow" else f"{kind} {addr:#x}"
            for kind, addr, value in steps
        ]
        theirs = self.qemu.ask_all(lines)
        for index, (step, answer) in enumerate(zip(steps, theirs, strict=True)):
            own = self.own(*step)
            if own is not None:
                mask = (1 << 8 * {"b": 1, "w": 2, "l": 4}[step[0][-1]]) - 1
                assert own == int(answer, 0) & mask, (
                    index,
                    step,
                    self.state(),
                    steps[max(0, index - 12) : index],
                )


@pytest.fixture
def pair() -> object:
    with Qemu("pc-i440fx-2.0", "-m", "64", "-device", "VGA,addr=2,romfile=") as qemu:
        qemu.pci_write(2, 0, 0x10, 0xE0000000)
        qemu.pci_write(2, 0, 0x04, 7, 2)
        yield Pair(qemu)


def random_step(rng: random.Random) -> tuple[str, int, int]:
    what = rng.random()
    if what < 0.35:
        return "outb", rng.choice(PORTS_WRITTEN), rng.randrange(256)
    if what < 0.5:
        return "outw", rng.choice([0x3C4, 0x3CE, 0x3D4, 0x3B4]), rng.randrange(0x10) | rng.randrange(256) << 8
    if what < 0.6:
        return "inb", rng.choice(PORTS_READ), 0
    if what < 0.7:
        kind = rng.choice("bwl")
        return f"read{kind}", 0xA0000 + rng.choice([0, 0x10000, 0x18000]) + 4 * rng.randrange(0x1000), 0
    if what < 0.95:
        kind = rng.choice("bwl")
        return (
            f"write{kind}",
            0xA0000 + rng.choice([0, 0x10000, 0x18000]) + 4 * rng.randrange(0x1000),
            rng.getrandbits(32),
        )
    return (
        "outw",
        rng.choice([0x3C4, 0x3CE]),
        rng.choice([0x0F02, 0x0604, 0x0005, 0x1005, 0x0105, 0x0205, 0x0305, 0x0506, 0x0C06]),
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_accesses_give_the_same_answers_and_memory(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    pair.run([("outb", 0x3C2, 0x67), *(random_step(rng) for _ in range(8000))])
    # a real monitor of all the memory that the window reaches
    assert pair.block.read(0, 1 << 18) == pair.qemu.read(0xE0000000, 1 << 18)


@pytest.mark.parametrize("seed", range(4))
def test_random_vbe_modes_give_the_same_registers(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    steps: list[tuple[str, int, int]] = [("outb", 0x3C2, 0x67)]
    for _ in range(300):
        index = rng.randrange(12)
        value = rng.choice(VBE_SENSIBLE) if rng.random() < 0.8 else rng.getrandbits(16)
        if index == 4:
            value |= 0x80 if rng.random() < 0.9 else 0  # clearing megabytes takes QEMU's time too
        steps += [("outw", 0x1CE, index), ("outw", 0x1D0, value)]
        for readable in range(12):
            steps += [("outw", 0x1CE, readable), ("inw", 0x1D0, 0)]
        for register in (0x01, 0x07, 0x09, 0x12, 0x13, 0x17, 0x18):
            steps += [("outb", 0x3D4, register), ("inb", 0x3D5, 0)]
    pair.run(steps)


def test_banked_writes_land_in_the_frame_buffer(pair: Pair) -> None:
    # Random mode changes are not mixed with window accesses: QEMU leaves its shortcut to the memory on the
    # old bank when a mode is switched off.
    steps = [("outb", 0x3C2, 0x67)]
    for index, value in ((1, 800), (2, 600), (3, 8), (4, 0x41)):
        steps += [("outw", 0x1CE, index), ("outw", 0x1D0, value)]
    rng = random.Random(7)
    for bank in range(8):
        steps += [("outw", 0x1CE, 5), ("outw", 0x1D0, bank)]
        for _ in range(50):
            where = 0xA0000 + 4 * rng.randrange(0x4000)
            steps += [("writel", where, rng.getrandbits(32)), ("readw", where, 0)]
    pair.run(steps)
    assert pair.block.read(0, 1 << 19) == pair.qemu.read(0xE0000000, 1 << 19)


def test_the_screen_of_real_firmware_is_read_as_text(tmp_path: Path) -> None:
    """SeaBIOS and its VGA BIOS run in QEMU; vmrun's card given their state shows the same."""
    vga = Vga(RamBlock("vga.vram", 1 << 20), SteppedClock())
    ports, window = VgaPorts(vga, 0), VgaWindow(vga)
    with Running("pc-i440fx-2.0", "-m", "64", "-vga", "std") as qemu:

        def characters() -> bytes:
            return qemu.memory(0xB8000, 4000, str(tmp_path))[0::2]

        assert wait_for(lambda: b"No bootable" in characters(), 30)
        ports.store(0x3C2, 1, qemu.port(0x3CC))
        for port, count in ((0x3C4, 5), (0x3CE, 9), (0x3D4, 25)):
            for index in range(count):
                value = qemu.port(port, index)
                ports.store(port, 1, index)
                ports.store(port + 1, 1, value)
        screen = qemu.memory(0xB8000, 4000, str(tmp_path))
    for value in (0x10, 0x0C, 0x20):
        ports.store(0x3C0, 1, value)
    for offset, byte in enumerate(screen):
        window.store(0x18000 + offset, 1, byte)
    shot = TextScreen(vga, DeviceLock()).snapshot()
    assert (shot.columns, len(shot.rows)) == (80, 25)
    assert b"".join(shot.rows) == screen
    lines = plain(shot.rows).splitlines()
    assert any("SeaBIOS" in line for line in lines)
    assert (
        shot.cursor is not None and 0 <= shot.cursor[0] - max(n for n, line in enumerate(lines) if line) <= 1
    )
