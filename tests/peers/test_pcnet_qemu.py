"""pcnet beside QEMU's: CSRs, BCRs, frames out and in with descriptors of each software style."""

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
RDP, RAP, RESET, BDP = 0x10, 0x12, 0x14, 0x16
BLOCK, TX_RING, RX_RING, TX_DATA, RX_DATA = 0x100000, 0x110000, 0x120000, 0x200000, 0x300000
POLLED = (46, 60, 61, 62, 63)  # QEMU counts time in CSR46; what was transmitted before tells nothing


def csr(side: Any, n: int, value: int | None = None) -> Any:
    side.q.outw(PORTS + RAP, n)
    return side.q.inw(PORTS + RDP) if value is None else side.q.outw(PORTS + RDP, value)


def bcr(side: Any, n: int, value: int) -> None:
    side.q.outw(PORTS + RAP, n)
    side.q.outw(PORTS + BDP, value)


def everything(csrs: bool = True) -> list[str]:
    lines = []
    for n in range(128):
        lines.append(f"outw {PORTS + RAP:#x} {n}")
        if csrs and n not in POLLED:
            lines.append(f"inw {PORTS + RDP:#x}")
        lines.append(f"inw {PORTS + BDP:#x}")
    return lines


def test_registers_are_qemus(tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(1)
        found: list[Any] = [ask(side, [f"inb {PORTS + n:#x}" for n in range(16)] + [f"inw {PORTS + RESET:#x}"])]
        found.append(ask(side, everything()))
        for _ in range(120):
            n = chosen.randrange(1, 128)
            if n in (58, 20, *POLLED, 47):
                continue
            value = chosen.choice([0, 0xFFFF, chosen.getrandbits(16)])
            csr(side, n, value) if chosen.random() < 0.7 else bcr(side, n & 31, value & ~0x80)
        return [*found, ask(side, everything()), ask(side, [f"inl {PORTS + n:#x}" for n in range(0, 0x20, 4)])]

    both(tmp_path, steps, "pcnet", BARS)


class Rings:
    """Eight descriptors each way in one of the styles."""

    def __init__(self, side: Any, style: int, mode: int) -> None:
        self.side, self.style, self.size = side, style, 16 if style else 8
        side.q.inw(PORTS + RESET)
        bcr(side, 20, style)
        ladrf = bytes.fromhex("f0f0f0f00f0f0f0f")
        if style:
            block = struct.pack("<HBB", mode, 3 << 4, 3 << 4) + STATION + b"\0\0" + ladrf
            block += struct.pack("<II", RX_RING, TX_RING)
        else:
            block = struct.pack("<H", mode) + STATION + ladrf + struct.pack("<II", RX_RING | 3 << 29, TX_RING | 3 << 29)
        side.q.write(BLOCK, block)
        for n in range(8):
            self.descriptor(RX_RING, n, RX_DATA + 0x1000 * n, 0x8000, (-1536 if n & 1 else -200) & 0xFFFF)
            self.descriptor(TX_RING, n, 0, 0, 0xF000)
        csr(side, 1, BLOCK & 0xFFFF)
        csr(side, 2, BLOCK >> 16)
        csr(side, 3, 0)
        csr(side, 4, 0x1115)
        csr(side, 0, 1)
        csr(side, 0, 0x142)

    def descriptor(self, ring: int, n: int, address: int, status: int, length: int) -> None:
        if not self.style:
            data = struct.pack("<IHH", address | status >> 8 << 24, length, 0)
        elif self.style == 3:
            data = struct.pack("<IHHII", 0, length, status, address, 0x77)
        else:
            data = struct.pack("<IHHII", address, length, status, 0, 0x77)
        self.side.q.write(ring + self.size * n, data)

    def seen(self) -> list[Any]:
        lines = []
        for n in (0, 4, 5, 28, 29, 72, 74, 112):
            lines += [f"outw {PORTS + RAP:#x} {n}", f"inw {PORTS + RDP:#x}"]
        read = self.side.q.read
        values = [int(answer, 16) for _, answer in ask(self.side, lines)]
        values[0] &= ~8  # TDMD, which QEMU forgets at other times
        return [values, self.side.sent(), read(TX_RING, 128), read(RX_RING, 128)]


@pytest.mark.parametrize("style", [0, 2, 3])
def test_frames_go_out_and_come_in_as_qemus_do(style: int, tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(style)
        rings = Rings(side, style, 0)
        side.q.write(TX_DATA, chosen.randbytes(0x4000))
        found, place = rings.seen(), 0
        for _ in range(12):
            for _ in range(chosen.randrange(1, 4)):
                status = chosen.choice([0x8300, 0x8300, 0x8200, 0x8100, 0x8000])
                length = -chosen.choice([60, 100, 1000, 1400]) & 0xFFFF
                rings.descriptor(TX_RING, place, TX_DATA + chosen.randrange(0x2000), status, length)
                place = (place + 1) % 8
            csr(side, 0, 0x48)
            found += rings.seen()
            if not csr(side, 0) & 0x10:  # an underflow switched it off
                rings = Rings(side, style, 0)
                place = 0
        rings = Rings(side, style, 0x8000 if style == 2 else 0)
        for n in range(14):
            to = chosen.choice([STATION, STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\1", bytes(6)])
            side.deliver(frame(chosen.choice([14, 60, 64, 190, 300, 1514]), to, n))
            found += rings.seen()
            if n == 6:
                for k in range(8):
                    rings.descriptor(RX_RING, k, RX_DATA + 0x1000 * k, 0x8000, -1536 & 0xFFFF)
        return [*found, *(side.q.read(RX_DATA + 0x1000 * n, 0x600) for n in range(8))]

    both(tmp_path, steps, "pcnet", BARS)
