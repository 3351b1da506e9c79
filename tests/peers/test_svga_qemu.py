"""vmware-svga beside QEMU's: configuration space, registers, fills, copies and what a ring does to them, the picture.

QEMU reads on behind the writer after commands of no length; those are not among the commands here.
"""

from __future__ import annotations

import base64
import pathlib
import random
import sys
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.monitor.client import QmpClient
from vmrun.testing import QtestProgram

pytestmark = [pytest.mark.peer, needs_qemu]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
IO, FRAME_BUFFER, RING = 0xC000, 0xE0000000, 0xE8000000
(ID, ENABLE, WIDTH, HEIGHT, BITS, CAPABILITIES, CONFIG_DONE, SYNC, BUSY) = (0, 1, 2, 3, 7, 17, 20, 21, 22)
UPDATE, RECT_FILL, RECT_COPY, DEFINE_CURSOR = 1, 2, 3, 19
CURSORS = 0xE0  # of the capabilities: QEMU has them where a viewer looks
FIRST = 16


class Card:
    """One of both, its BARs mapped."""

    def __init__(self, program: QtestProgram, monitor: str) -> None:
        self.program, self.monitor = program, monitor
        self.next = FIRST
        for offset, value in ((0x10, IO), (0x14, FRAME_BUFFER), (0x18, RING), (4, 7)):
            self.config(offset, value)

    def config(self, offset: int, value: int | None = None) -> int:
        self.program.outl(0xCF8, 0x80002800 | offset)
        if value is not None:
            self.program.outl(0xCFC, value)
        return self.program.inl(0xCFC)

    def get(self, register: int) -> int:
        self.program.outl(IO, register)
        return self.program.inl(IO + 1)

    def set(self, register: int, value: int) -> None:
        self.program.outl(IO, register)
        self.program.outl(IO + 1, value)

    def start(self, width: int, height: int, first: int = FIRST, behind: int = 0x10000) -> None:
        self.first, self.behind, self.next = first, behind, first
        for n, value in enumerate((first, behind, first, first)):
            self.program.writel(RING + 4 * n, value)
        for register, value in ((WIDTH, width), (HEIGHT, height), (BITS, 32), (ENABLE, 1), (CONFIG_DONE, 1)):
            self.set(register, value)

    def send(self, *words: int) -> None:
        for word in words:
            self.program.writel(RING + self.next, word)
            self.next += 4
            if self.next >= self.behind:
                self.next = self.first
        self.program.writel(RING + 8, self.next)

    def sync(self) -> tuple[int, int]:
        """(BUSY, where the reader is)."""
        self.set(SYNC, 1)
        for _ in range(1000):
            if not self.get(BUSY):
                break
        return self.get(BUSY), self.program.readl(RING + 12)

    def picture(self, file: pathlib.Path) -> bytes:
        with QmpClient(self.monitor) as qmp:
            qmp.execute("screendump", filename=str(file))
        return file.read_bytes()


@pytest.fixture
def cards(tmp_path: pathlib.Path) -> Iterator[list[Card]]:
    options = ["-m", "64", "-display", "none", "-nodefaults", "-device", "vmware-svga,addr=5,romfile="]
    theirs = [str(QEMU), "-M", "pc-i440fx-2.0,smm=off", "-accel", "tcg", "-S"]
    ours = [sys.executable, str(PROGRAM), "-M", "pc-i440fx-2.0", "-accel", "qtest"]
    programs, monitors = [], [str(tmp_path / name) for name in ("theirs", "ours")]
    for command, monitor in zip((theirs, ours), monitors, strict=True):
        programs.append(QtestProgram([*command, *options, "-qmp", f"unix:{monitor},server=on,wait=off"]))
    try:
        yield [Card(*pair) for pair in zip(programs, monitors, strict=True)]
    finally:
        for program in programs:
            program.close()



def test_configuration_space_and_registers_are_the_same(cards: list[Card]) -> None:
    looks = []
    for card in cards:
        q = card.program
        found: list[object] = [(hex(offset), card.config(offset)) for offset in range(0, 256, 4)]
        for register in (*range(50), 1023, 1024, 1500, 1791, 1792, 1792 + 0x7FFF, 1792 + 0x8000):
            before = card.get(register)
            apart = register in (WIDTH, HEIGHT, BITS, ENABLE, CONFIG_DONE, SYNC)
            values = [] if apart else [0x12345678, 0x90000001, 1, 0]
            after = []
            for value in values:
                card.set(register, value)
                after.append(card.get(register))
            wrong = CURSORS if register == CAPABILITIES else 0
            found.append((register, before & ~wrong, [value & ~wrong for value in after]))
        steps = (
            (WIDTH, 2368), (WIDTH, 2369), (WIDTH, 0), (WIDTH, 800), (HEIGHT, 1771), (HEIGHT, 1770), (CONFIG_DONE, 5),
            (BITS, 32), (BITS, 16), (ENABLE, 2), (ENABLE, 0), (ID, 0x90000003), (ID, 0x90000002),
        )  # fmt: skip
        for register, value in steps:
            card.set(register, value)
            found.append((register, value, [card.get(n) for n in (ID, ENABLE, WIDTH, HEIGHT, 6, 7, 12, CONFIG_DONE)]))
        found.append([q.inl(IO), q.inl(IO + 2), q.inl(IO + 3), q.inl(IO + 12), q.inb(IO), q.inw(IO), q.inb(IO + 1)])
        q.outw(IO, 7)
        found.append(q.inl(IO))
        looks.append(found)
    assert [pair for pair in zip(*looks, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize("ring", [(16, 0x10000), (0x400, 0x400 + 10240)])
def test_fills_and_copies_give_the_same_picture(
    cards: list[Card], ring: tuple[int, int], tmp_path: pathlib.Path
) -> None:
    looks = []
    noise = base64.b64encode(random.Random(3).randbytes(320 * 200 * 4)).decode()
    for card in cards:
        rng = random.Random(4)
        card.start(320, 200, *ring)
        card.program.ask(f"b64write {FRAME_BUFFER:#x} {320 * 200 * 4:#x} {noise}")
        card.picture(tmp_path / "first.ppm")  # QEMU takes the size when it is looked at
        found: list[object] = []
        for n in range(60):
            for _ in range(4):
                x, y, width, height = rng.randrange(330), rng.randrange(205), rng.randrange(200), rng.randrange(150)
                if rng.random() < 0.5:
                    card.send(RECT_FILL, rng.getrandbits(32), x, y, width, height)
                else:
                    card.send(RECT_COPY, rng.randrange(320), rng.randrange(200), x, y, width // 2, height // 2)
            card.send(UPDATE, 0, 0, 320, 200)
            found.append((n, card.sync()))
        found.append(card.picture(tmp_path / "own.ppm"))
        looks.append(found)
    assert looks[0] == looks[1]
    assert looks[0][-1][:15] == b"P6\n320 200\n255\n"


def test_rings_that_cannot_be_are_left_alone(cards: list[Card]) -> None:
    size = 10240
    rings = (
        (16, 0x10000, 40, 16), (12, 0x10000, 40, 16), (16, 16 + size - 4, 40, 16), (16, 16 + size, 40, 16),
        (18, 0x10000, 40, 16), (16, 0x10004, 40, 16), (16, 0x10000, 0x10000, 16), (16, 0x10000, 42, 16),
        (0xFFFFFFFC, 0x10000, 40, 16), (16, 0xFFFFFFFC, 40, 16), (16, 0x10000, 40, 0xFFFFFFFC),
        (16, 0x10000, 36, 16), (16, 0x10000, 16, 16),
    )  # fmt: skip
    looks = []
    for card in cards:
        card.start(320, 200)
        found = []
        for ring in rings:
            card.send(RECT_FILL, 1, 0, 0, 4, 4)
            card.next = FIRST
            for n, value in enumerate(ring):
                card.program.writel(RING + 4 * n, value)
            found.append((ring, card.sync()))
        looks.append(found)
    assert [pair for pair in zip(*looks, strict=True) if pair[0] != pair[1]] == []


def test_masks_of_a_pointer_have_the_same_length(cards: list[Card]) -> None:
    shapes = [(1, 1, 1), (33, 2, 1), (32, 32, 1), (64, 64, 32), (33, 2, 8), (256, 1, 16), (5, 9, 24)]
    looks = []
    for card in cards:
        found = []
        for width, height, bits in shapes:
            words = (width + 31) // 32 * height + (width * bits + 31) // 32 * height
            card.start(320, 200)
            card.send(DEFINE_CURSOR, 1, 0, 0, width, height, 1, bits, *([0xFFFFFFFF] * (words - 1)))
            found.append((width, height, bits, card.sync()))
            card.send(0xFFFFFFFF)
            found.append((width, height, bits, card.sync()))
        looks.append(found)
    assert looks[0] == looks[1]


def test_the_vga_is_shown_until_the_picture_is_enabled(cards: list[Card], tmp_path: pathlib.Path) -> None:
    looks = []
    for card in cards:
        q, found = card.program, []
        for index, value in ((1, 640), (2, 480), (3, 32), (4, 0x41)):  # VBE
            q.outw(0x1CE, index)
            q.outw(0x1CF, value)
        q.inb(0x3DA)
        q.outb(0x3C0, 0x20)
        q.ask(f"memset {FRAME_BUFFER:#x} 0x100000 0x5a")
        found.append(card.picture(tmp_path / "vga.ppm"))
        card.start(320, 200)
        found.append(card.picture(tmp_path / "svga.ppm"))
        card.set(ENABLE, 0)
        found.append(card.picture(tmp_path / "vga.ppm"))
        looks.append(found)
    assert [data[:15] for data in looks[0]] == [data[:15] for data in looks[1]]
    assert looks[0] == looks[1]
