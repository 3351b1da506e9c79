"""e1000 beside QEMU's: registers, PHY, EEPROM; frames out and in through rings of every kind, good and bad."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.peers.nics import BAR, STATION, ask, both, frame
from tests.peers.oracle import needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

TX_RING, RX_RING, TX_DATA, RX_DATA = 0x100000, 0x110000, 0x200000, 0x300000
CTRL, STATUS, EERD, MDIC, VET, ICR, IMS, RCTL, TCTL = 0, 8, 0x14, 0x20, 0x38, 0xC0, 0xD0, 0x100, 0x400
RDBAL, RDLEN, RDH, RDT, TDBAL, TDLEN, TDH, TDT = 0x2800, 0x2808, 0x2810, 0x2818, 0x3800, 0x3808, 0x3810, 0x3818
MTA, RA, VFTA = 0x5200, 0x5400, 0x5600
ASKED = [*range(0, 0x6000, 4), *range(0x9000, 0x9C00, 4), 0x10000, 0x10004, 0x1FFFC]
COUNTERS = range(0x4000, 0x4100, 4)


BARS = (1, 0)


@pytest.mark.parametrize(
    ("driver", "props"),
    [
        ("e1000", {}),
        ("e1000-82544gc", {}),
        ("e1000-82545em", {}),
        ("e1000", {"extra_mac_registers": False, "mitigation": False, "autonegotiation": False, "init-vet": False}),
    ],
)
def test_registers_are_qemus_after_reset_and_any_write(
    driver: str, props: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    lines = [f"readl {BAR + at:#x}" for at in ASKED]
    for value in (0xFFFFFFFF, 0x12345678, 0):
        for at in ASKED:
            if at not in (RCTL, TCTL, TDT, MDIC, 0x10):
                lines += [f"writel {BAR + at:#x} {value:#x}", f"readl {BAR + at:#x}"]
        lines += [f"readl {BAR + at:#x}" for at in ASKED]
    for word in range(70):
        lines += [f"writel {BAR + EERD:#x} {word << 8 | 1:#x}", f"readl {BAR + EERD:#x}"]
    for phy in (1, 2):
        for number in range(32):
            for value in (0x08000000, 0x0400FDFF, 0x08000000):
                lines += [f"writel {BAR + MDIC:#x} {value | phy << 21 | number << 16:#x}", f"readl {BAR + MDIC:#x}"]
    both(tmp_path, lambda side: ask(side, lines), driver, BARS, **props)


def word(side: Any, opcode: int, address: int) -> int:
    """16 bits out of the EEPROM as Linux's driver clocks them."""
    side.q.writel(BAR + 0x10, 2)
    for n in range(8, -1, -1):
        bit = (opcode << 6 | address) >> n & 1
        for value in (2 | bit << 2, 3 | bit << 2, 2 | bit << 2):
            side.q.writel(BAR + 0x10, value)
    found = 0
    for _ in range(16):
        side.q.writel(BAR + 0x10, 3)
        found = found << 1 | side.q.readl(BAR + 0x10) >> 3 & 1
        side.q.writel(BAR + 0x10, 2)
    side.q.writel(BAR + 0x10, 0)
    return found


def test_the_eeprom_says_the_same_over_its_wires(tmp_path: pathlib.Path) -> None:
    both(tmp_path, lambda side: [word(side, 6, n) for n in (0, 1, 2, 11, 48, 63)], "e1000", BARS)


def rings(side: Any, tx: int = 8, rx: int = 16) -> None:
    for at, value in (
        (TDBAL, TX_RING), (TDBAL + 4, 0), (TDLEN, 16 * tx), (TDH, 0), (TDT, 0),
        (RDBAL, RX_RING), (RDBAL + 4, 0), (RDLEN, 16 * rx), (RDH, 0), (RDT, 0),
    ):  # fmt: skip
        side.q.writel(BAR + at, value)


def seen(side: Any) -> list[Any]:
    """Registers that may change, and what went out."""
    names = [TDH, TDT, RDH, RDT, 0xC8, STATUS, *COUNTERS]
    return [ask(side, [f"readl {BAR + at:#x}" for at in names]), side.sent()]


CONTEXTS = [
    # ipcss ipcso ipcse tucss tucso tucse paylen cmd hdrlen mss
    (14, 24, 33, 34, 50, 0, 3000, 0x27, 54, 536),  # TCP over IPv4, segments
    (14, 24, 33, 34, 50, 0, 3000, 0x25, 54, 1000),  # over IPv6, more or less
    (14, 24, 33, 34, 40, 0, 3000, 0x26, 42, 700),  # UDP
    (14, 24, 33, 34, 50, 0, 0, 0x23, 0, 0),  # sums only
    (255, 255, 65535, 255, 255, 65535, 0xFFFFF, 0x27, 255, 40),
    (0, 0, 0, 0, 0, 0, 0, 0x27, 20, 0),
    (0, 10, 0, 200, 16, 20, 5, 0x22, 60, 65535),
]


def context(*values: int) -> bytes:
    paylen, cmd, head, mss = values[6:]
    return struct.pack("<BBHBBH", *values[:6]) + struct.pack("<IBBH", cmd << 24 | paylen, 0, head, mss)


def transmit_steps(seed: int) -> Any:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        rings(side)
        side.q.writel(BAR + TCTL, 2)
        side.q.writel(BAR + CTRL, 0x140240 | chosen.choice([0, 1 << 30]))
        side.q.write(TX_DATA, chosen.randbytes(0x20000))
        side.q.write(TX_RING, context(*CONTEXTS[0]))
        side.q.writel(BAR + TDT, 1)
        tail = 1
        for _ in range(40):
            for _ in range(chosen.randrange(1, 6)):
                if chosen.random() < 0.3:
                    data = context(*chosen.choice(CONTEXTS))
                else:
                    # QEMU's wire sends no frame of 0 bytes, and none after it
                    length = chosen.choice([1, 14, 60, 100, 900, 1514, 3054, 9000])
                    cmd = chosen.choice([0x01, 0x01, 0, 0x41, 0x09, 0x21, 0x25, 0x20, 0x29, 0x69, 0x65, 0x89])
                    kind = 0x00100000 if cmd & 0x20 else 0
                    upper = chosen.choice([0, 0x100, 0x200, 0x300]) | chosen.choice([0, 0x01230000])
                    at = TX_DATA + chosen.randrange(0x8000)
                    data = struct.pack("<QII", at, cmd << 24 | kind | length, upper)
                side.q.write(TX_RING + 16 * tail, data)
                tail = (tail + 1) % 8
            side.q.writel(BAR + TDT, tail)
            found += seen(side)
            found.append(side.q.read(TX_RING, 128))
            if chosen.random() < 0.3:
                found.append(side.q.readl(BAR + ICR))
        return found

    return steps


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_descriptors_send_is_what_qemu_sends(seed: int, tmp_path: pathlib.Path) -> None:
    both(tmp_path, transmit_steps(seed), "e1000", BARS)


@pytest.mark.parametrize(
    ("length", "head", "tail"), [(0, 0, 3), (128, 100, 2), (128, 3, 200), (0x80, 0xFFFF, 0), (0xFFF80, 7, 9)]
)
def test_rings_that_make_no_sense(length: int, head: int, tail: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        rings(side)
        for n in range(16):
            side.q.write(TX_RING + 16 * n, struct.pack("<QII", TX_DATA + 64 * n, 0x09000040, 0))
        side.q.write(TX_DATA, frame(1024))
        side.q.writel(BAR + TCTL, 2)
        side.q.writel(BAR + TDLEN, length)
        side.q.writel(BAR + TDH, head)
        side.q.writel(BAR + TDT, tail)
        found = seen(side)
        for at, value in ((RDLEN, length), (RDH, head), (RDT, tail), (RCTL, 0x801A), (IMS, 0xFFFF)):
            side.q.writel(BAR + at, value)
        side.wait(1.0)
        side.deliver(frame(100))
        return found + seen(side) + [side.q.read(RX_RING, 256), side.q.readl(BAR + ICR)]

    both(tmp_path, steps, "e1000", BARS)


RCTLS = [0x8002, 0x801A, 0x2, 0x48002, 0x4008022, 0x3800A, 0x203801A, 0x803002, 0xB002, 0x801E, 0x803E, 0x28302]


def receive_steps(seed: int) -> Any:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(seed)
        found: list[Any] = []
        rings(side)
        for n in range(16):
            where = RX_DATA + 0x4000 * n if chosen.random() < 0.9 else 0
            side.q.write(RX_RING + 16 * n, struct.pack("<QQ", where, chosen.choice([0, 0xFF << 32])))
        for at, value in ((MTA + 4 * chosen.randrange(128), 0xFFFFFFFF), (VFTA + 12, 8), (RA + 8, 0x44332211)):
            side.q.writel(BAR + at, value)
        side.q.writel(BAR + RA + 12, 0x80006655)
        side.q.writel(BAR + CTRL, 0x140240 | chosen.choice([0, 1 << 30]))
        side.q.writel(BAR + RCTL, chosen.choice(RCTLS))
        side.q.writel(BAR + RDT, 15)
        side.wait(1.0)
        for n in range(30):
            to = chosen.choice([STATION, STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\1", b"\x11\x22\x33\x44Uf", bytes(6)])
            if chosen.random() < 0.3:
                to = bytes((1,)) + chosen.randbytes(5)
            length = chosen.choice([14, 42, 60, 64, 200, 512, 1024, 1514, 1518, 1522, 1523, 4000, 9000, 16384, 16385])
            tag = chosen.choice([b"\x08\0", b"\x86\xdd", b"\x81\0\x40\x63", b"\x81\0\0\x01"])
            if side.q.readl(BAR + RDH) == side.q.readl(BAR + RDT):  # QEMU's wire would keep it for later
                side.q.writel(BAR + RDT, (side.q.readl(BAR + RDH) + 2) % 16)
            side.deliver(frame(length, to, n, tag))
            found += [to, length, tag, *seen(side), side.q.read(RX_RING, 256)]
            if chosen.random() < 0.7:
                side.q.writel(BAR + RDT, (side.q.readl(BAR + RDH) + chosen.randrange(15)) % 16)
            if chosen.random() < 0.3:
                found.append(side.q.readl(BAR + ICR))
        found += [side.q.read(RX_DATA + 0x4000 * n, 0x4000) for n in range(16)]
        return found

    return steps


@pytest.mark.parametrize("seed", range(1, 4))
def test_what_arrives_is_where_qemu_puts_it(seed: int, tmp_path: pathlib.Path) -> None:
    both(tmp_path, receive_steps(seed), "e1000", BARS)
