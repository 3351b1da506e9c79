"""rtl8139 beside QEMU's: registers, EEPROM, frames out and in, in C and in C+ mode."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.peers.nics import PORTS, STATION, ask, both, frame
from tests.peers.oracle import needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

BARS = (0, 1)
CR, CAPR, IMR, ISR, TCR, RCR, TIMER, MPC, CR9346, TPPOLL, CPCR = (
    0x37, 0x38, 0x3C, 0x3E, 0x40, 0x44, 0x48, 0x4C, 0x50, 0xD9, 0xE0,
)  # fmt: skip
TX_RING, RX_RING, TX_DATA, RX_DATA, TALLY = 0x100000, 0x110000, 0x200000, 0x300000, 0x120000
TIMED = (TIMER, TIMER + 1, TIMER + 2, TIMER + 3, 0x54, 0x55, 0x56, 0x57)


def outs(side: Any, *writes: tuple[str, int, int]) -> None:
    for width, at, value in writes:
        side.q.ask(f"out{width} {PORTS + at:#x} {value:#x}")


def everything() -> list[str]:
    return [
        f"in{width} {PORTS + at:#x}"
        for width, size in (("b", 1), ("w", 2), ("l", 4))
        for at in range(0, 0xF0, size)
        if at not in TIMED
    ]


@pytest.mark.parametrize("seed", range(1, 4))
def test_registers_are_qemus_after_any_write(seed: int, tmp_path: pathlib.Path) -> None:
    def lines() -> list[str]:
        chosen = random.Random(seed)
        found = everything()
        for _ in range(500):
            width = chosen.choice("bbwl")
            at = chosen.randrange(0xF0 if seed > 2 else 0x60)
            if at & {"b": 0, "w": 1, "l": 3}[width] or at in TIMED or (width != "b" and at in (0x34, 0xD8)):
                continue
            value = chosen.choice([0, 0xFFFFFFFF, chosen.getrandbits(32), 0xC0, 0x80, 8])
            if CR9346 - 3 <= at <= CR9346:  # a wire that nobody drives is high here and low there
                width, at, value = "b", CR9346, chosen.choice([0, 0xC0])
            if at in (CR, 0x36) and value & 0x10000010 and chosen.random() < 0.8:
                value = 0x0C
            found.append(f"out{width} {PORTS + at:#x} {value & {'b': 0xFF, 'w': 0xFFFF, 'l': 0xFFFFFFFF}[width]:#x}")
            found += [f"in{width} {PORTS + at:#x}", f"inw {PORTS + ISR:#x}", f"inl {PORTS + 0x10:#x}"]
        return found + everything()

    both(tmp_path, lambda side: ask(side, lines()), "rtl8139", BARS)


def word(side: Any, address: int) -> int:
    """16 bits out of the EEPROM as Linux's driver clocks them."""
    outs(side, ("b", CR9346, 0x80), ("b", CR9346, 0x88))
    for n in range(8, -1, -1):
        bit = 2 if (6 << 6 | address) >> n & 1 else 0
        outs(side, ("b", CR9346, 0x88 | bit), ("b", CR9346, 0x8C | bit))
    outs(side, ("b", CR9346, 0x88))
    found = 0
    for _ in range(16):
        outs(side, ("b", CR9346, 0x8C))
        found = found << 1 | side.q.inb(PORTS + CR9346) & 1
        outs(side, ("b", CR9346, 0x88))
    outs(side, ("b", CR9346, 0))
    return found


def test_the_eeprom_says_the_same_over_its_wires(tmp_path: pathlib.Path) -> None:
    both(tmp_path, lambda side: [word(side, n) for n in (0, 1, 2, 7, 8, 9, 63)], "rtl8139", BARS)


def seen(side: Any) -> list[Any]:
    lines = [f"inl {PORTS + at:#x}" for at in (0x10, 0x14, 0x18, 0x1C, 0x38, MPC)]
    return [ask(side, [*lines, f"inw {PORTS + ISR:#x}", f"inw {PORTS + 0x60:#x}", f"inb {PORTS + CR:#x}"]), side.sent()]


@pytest.mark.parametrize("seed", range(1, 4))
def test_c_mode_sends_what_qemu_sends(seed: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        side.q.write(TX_DATA, chosen.randbytes(0x8000))
        outs(side, ("b", CR, 0x0C), ("l", RCR, 0x8F), ("l", 0x30, RX_DATA))
        if seed == 3:
            outs(side, ("l", TCR, 0x60000))  # loopback
        for n in range(30):
            which = n % 4 if chosen.random() < 0.9 else chosen.randrange(4)
            outs(side, ("l", 0x20 + 4 * which, TX_DATA + chosen.randrange(0x4000)))
            sizes = [60, 100, 1514, 1792, 0x1FFF if seed < 3 else 4, 1, 0x203C, 0x3F0064]
            outs(side, ("l", 0x10 + 4 * which, chosen.choice(sizes)))
            found += seen(side)
            if chosen.random() < 0.3:
                outs(side, ("w", ISR, 0xFFFF))
        return found

    both(tmp_path, steps, "rtl8139", BARS)


@pytest.mark.parametrize(("seed", "rcr"), [(2, 0x0E), (3, 0x0A | 3 << 11), (4, 0x8E | 1 << 11), (5, 0x00)])
def test_c_mode_puts_frames_where_qemu_puts_them(seed: int, rcr: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        outs(side, ("b", CR, 0x0C), ("l", RCR, rcr), ("l", 0x30, RX_DATA), ("w", IMR, 0x10))
        outs(side, ("l", 8, 0xF0F0F0F0), ("l", 12, 0x0F0F0F0F))
        for n in range(60):
            group = b"\x01" + chosen.randbytes(5)
            to = chosen.choice([STATION, STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\1", group, bytes(6)])
            length = chosen.choice([14, 42, 60, 61, 64, 200, 1000, 1514, 1518, 4000])
            side.deliver(frame(length, to, n))
            found += [to, length, *seen(side)]
            if chosen.random() < 0.5:
                outs(side, ("w", CAPR, (side.q.inw(PORTS + 0x3A) - 16) & 0xFFFF))
            if chosen.random() < 0.3:
                outs(side, ("w", ISR, 0xFFFF))
        return [*found, side.q.read(RX_DATA, 0x14000)]

    both(tmp_path, steps, "rtl8139", BARS)


def packet(chosen: random.Random, length: int) -> bytes:
    """TCP or UDP over IPv4, its length right most of the time. No PSH or FIN: QEMU's last segment lacks them."""
    protocol = chosen.choice([6, 6, 17, 1])
    said = length - 14 if chosen.random() < 0.9 else chosen.randrange(0x10000)
    options = chosen.choice([0, 0, 2])
    ip = struct.pack(">BBHHHBBHII", 0x45 + options, 0, said & 0xFFFF, 0x1234, 0, 64, protocol, 0x5555, 1 << 24, 2)
    ip += bytes(4 * options)
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 0x1000, 0, 0x50, 0x10, 100, 0xAAAA, 0)
    kind = b"\x08\0" if chosen.random() < 0.9 else b"\x86\xdd"
    return (b"\x02" * 12 + kind + ip + tcp + chosen.randbytes(length))[:length]


@pytest.mark.parametrize("seed", range(1, 4))
def test_cplus_mode_sends_what_qemu_sends(seed: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        outs(side, ("w", CPCR, 0x6B), ("b", CR, 0x0C), ("l", 0x20, TX_RING), ("l", 0x24, 0))
        place = 0
        for _ in range(30):
            for _ in range(chosen.randrange(1, 4)):
                length = chosen.choice([60, 100, 1000, 1514, 4000])
                side.q.write(TX_DATA + 0x2000 * place, packet(chosen, length))
                word0 = 0x80000000 | length
                pieces = chosen.random() < 0.2
                word0 |= 0x20000000 if pieces else 0x30000000
                if chosen.random() < 0.4:
                    word0 |= 0x08000000 | chosen.choice([0, 100, 536, 1460]) << 16
                else:
                    word0 |= chosen.choice([0, 0x40000, 0x70000, 0x10000, 0x20000])
                last = place == 15
                word1 = chosen.choice([0, 0, 0x26300])
                side.q.write(TX_RING + 16 * place, struct.pack(
                    "<IIQ", word0 | (0x40000000 if last else 0), word1, TX_DATA + 0x2000 * place
                ))  # fmt: skip
                place = 0 if last else place + 1
            outs(side, ("b", TPPOLL, 0x40))
            found += seen(side)
            found.append(side.q.read(TX_RING, 256))
        outs(side, ("l", 0x14, 0), ("l", 0x10, TALLY | 8))
        return [*found, side.q.read(TALLY, 64), *seen(side)]

    both(tmp_path, steps, "rtl8139", BARS)


@pytest.mark.parametrize(("seed", "cpcr"), [(1, 0x6B), (2, 0x0B), (3, 0x4B)])
def test_cplus_mode_puts_frames_where_qemu_puts_them(seed: int, cpcr: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        for n in range(16):
            size = chosen.choice([0x1FFF, 1600, 200])
            side.q.write(RX_RING + 16 * n, struct.pack(
                "<IIQ", 0x80000000 | size | (0x40000000 if n == 15 else 0), 0xFFFFFFFF, RX_DATA + 0x2000 * n
            ))  # fmt: skip
        outs(side, ("w", CPCR, cpcr), ("l", 0xE4, RX_RING), ("l", 0xE8, 0), ("b", CR, 0x0C), ("l", RCR, 0x8E))
        outs(side, ("l", 8, 0xF0F0F0F0), ("l", 12, 0x0F0F0F0F))
        for n in range(30):
            to = chosen.choice([STATION, STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\1", bytes(6)])
            tag = chosen.choice([b"\x08\0", b"\x81\0\x40\x63"])
            length = chosen.choice([14, 42, 60, 61, 62, 64, 200, 1000, 1514, 1518, 4000])
            side.deliver(frame(length, to, n, tag))
            found += [to, length, *seen(side), side.q.read(RX_RING, 256)]
        outs(side, ("l", 0x14, 0), ("l", 0x10, TALLY | 8))
        found += [side.q.read(RX_DATA + 0x2000 * n, 0x2000) for n in range(16)]
        return [*found, side.q.read(TALLY, 64)]

    both(tmp_path, steps, "rtl8139", BARS)
