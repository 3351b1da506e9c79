"""The eepro100 family beside QEMU's: EEPROM, PHY, command blocks, frames out and in."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.peers.nics import BAR, STATION, ask, both, frame
from tests.peers.oracle import needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

BARS = (1, 0)
STATUS, COMMAND, POINTER, PORT, EEPROM, MDI = 0, 2, 4, 8, 14, 16
BLOCKS, FRAMES, DATA, COUNTERS = 0x100000, 0x110000, 0x200000, 0x120000
EL, S, TELL, SF = 0x8000, 0x4000, 0x2000, 8
CONFIGURE = bytes((22, 8, 0, 1, 0, 0, 0x32, 3, 1, 0, 0x2E, 0, 0x60, 0, 0xF2, 0x48, 0, 0x40, 0xF2, 0x80, 0x3F, 5))
ALONE = 0xFFFFFFFF


def word(side: Any, address: int) -> int:
    """16 bits out of the EEPROM, as Linux's driver clocks them."""
    side.q.writew(BAR + EEPROM, 2)
    for n in range(8, -1, -1):
        bit = (6 << 6 | address) >> n & 1
        for value in (2 | bit << 2, 3 | bit << 2, 2 | bit << 2):
            side.q.writew(BAR + EEPROM, value)
    found = 0
    for _ in range(16):
        side.q.writew(BAR + EEPROM, 3)
        found = found << 1 | side.q.readw(BAR + EEPROM) >> 3 & 1
        side.q.writew(BAR + EEPROM, 2)
    side.q.writew(BAR + EEPROM, 0)
    return found


def test_the_eeprom_and_the_phy_are_qemus(tmp_path: pathlib.Path) -> None:
    lines = []
    for number in range(7):
        lines += [f"writel {BAR + MDI:#x} {2 << 26 | 1 << 21 | number << 16:#x}", f"readl {BAR + MDI:#x}"]

    def steps(side: Any) -> list[Any]:
        found = [[(line, hex(int(value, 16) & 0xFFFF)) for line, value in ask(side, lines)]]
        return [*found, *(word(side, n) for n in (0, 1, 2, 5, 6, 10, 63))]

    both(tmp_path, steps, "i82551", BARS)


def block(side: Any, n: int, what: int, data: bytes = b"") -> None:
    side.q.write(BLOCKS + 0x800 * n, struct.pack("<HHI", 0, what, BLOCKS + 0x800 * (n + 1)) + data)


def start(side: Any, command: int, pointer: int) -> None:
    side.q.writel(BAR + POINTER, pointer)
    side.q.writeb(BAR + COMMAND, command)


def ready(side: Any, config: bytes = CONFIGURE) -> None:
    """Address and configuration are given, as every driver begins."""
    block(side, 0, 1, STATION)
    block(side, 1, EL | 2, config)
    start(side, 0x60, 0)
    start(side, 6, 0)
    start(side, 0x10, BLOCKS)
    side.q.writeb(BAR + 1, 0xFF)


def buffers(side: Any, count: int, size: int = 1520) -> None:
    for n in range(count):
        what = EL if n == count - 1 else 0
        side.q.write(FRAMES + 0x800 * n, struct.pack("<HHIIHH", 0, what, FRAMES + 0x800 * (n + 1), ALONE, 0, size))


@pytest.mark.parametrize("driver", ["i82557b", "i82559c"])
def test_command_blocks_send_what_qemus_send(driver: str, tmp_path: pathlib.Path) -> None:
    """Simplified and flexible blocks; suspended in between, resumed."""

    def steps(side: Any) -> list[Any]:
        chosen = random.Random(4)
        found: list[Any] = []
        ready(side)
        side.q.write(DATA, chosen.randbytes(0x4000))
        for turn in range(20):
            for n in range(3):
                what = 4 | chosen.choice([0, TELL]) | (S if n == 2 and turn % 2 else EL if n == 2 else 0)
                if chosen.random() < 0.5:
                    length = chosen.choice([60, 61, 200, 1000, 1514])
                    data = struct.pack("<IHBB", ALONE, 0x8000 | length, 0, 0) + frame(length, seed=turn * 3 + n)
                else:
                    count = chosen.randrange(1, 4)
                    parts = [struct.pack("<IHH", DATA + chosen.randrange(0x3000), 300, 0) for _ in range(count)]
                    parts[-1] = parts[-1][:6] + b"\1\0"
                    side.q.write(DATA + 0x5000 + 64 * n, b"".join(parts))
                    data, what = struct.pack("<IHBB", DATA + 0x5000 + 64 * n, 0x8000, 0, count), what | SF
                block(side, n, what, data)
            start(side, 0x10, BLOCKS)
            found += [side.sent(), side.q.readb(BAR + STATUS) & 0xC0, side.q.readb(BAR + 1) & 0xA0]
            found += [side.q.readw(BLOCKS + 0x800 * n) for n in range(3)]
            side.q.writeb(BAR + 1, 0xFF)
        return found

    both(tmp_path, steps, driver, BARS)


def test_what_arrives_is_where_qemu_puts_it(tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        found: list[Any] = []
        group = b"\x01\0\x5e\0\0\1"
        ready(side)
        block(side, 0, EL | 3, struct.pack("<H", 6) + group)
        start(side, 0x10, BLOCKS)
        buffers(side, 8)
        start(side, 1, FRAMES)
        other, everyone = b"\x52\x54\0\0\0\x99", b"\xff" * 6
        came = [(STATION, 60), (everyone, 200), (group, 1514), (other, 100), (STATION, 1000), (STATION, 61)]
        for n, (to, length) in enumerate(came):
            side.deliver(frame(length, to, n, b"\x08\0"))
            found += [to, length, side.q.readb(BAR + 1) & 0x50, side.q.readb(BAR) & 0x3C]
        for n in range(8):
            status, what, link, _, count, size = struct.unpack("<HHIIHH", side.q.read(FRAMES + 0x800 * n, 16))
            data = side.q.read(FRAMES + 0x800 * n + 16, 1514) if status else b""
            found += [(n, status & 0xA000, what, link, count & 0x3FFF, size), data]  # QEMU sets neither EOF nor F
        start(side, 0x40, COUNTERS)
        start(side, 0x50, 0)
        found += [side.q.readl(COUNTERS), side.q.readl(COUNTERS + 36)]
        return found

    both(tmp_path, steps, "i82557b", BARS)


def test_what_comes_without_resources_is_lost_and_does_not_fill_the_list_anew(tmp_path: pathlib.Path) -> None:
    """A driver that is out of memory restarts the unit at frames that it has given away: iPXE, under a flood."""

    def steps(side: Any) -> list[Any]:
        found: list[Any] = []
        ready(side)
        buffers(side, 2)
        start(side, 1, FRAMES)
        for n in range(5):
            side.deliver(frame(100 + n, STATION, n, b"\x08\0"))
            side.wait(0.001)
            found.append(side.q.readb(BAR) & 0x3C)
        buffers(side, 2)
        start(side, 1, FRAMES)
        found += [side.q.readb(BAR) & 0x3C, *(side.q.readw(FRAMES + 0x800 * n) & 0xA000 for n in range(2))]
        side.deliver(frame(300, STATION, 9, b"\x08\0"))
        found += [side.q.readw(FRAMES) & 0xA000, side.q.readw(FRAMES + 12) & 0x3FFF, side.q.read(FRAMES + 16, 300)]
        start(side, 0x40, COUNTERS)
        start(side, 0x50, 0)
        return [*found, side.q.readl(COUNTERS + 36)]

    both(tmp_path, steps, "i82557b", BARS)
