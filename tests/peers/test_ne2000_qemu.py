"""ne2k_pci beside QEMU's: registers, remote DMA, frames out and in."""

from __future__ import annotations

import pathlib
import random
from typing import Any

import pytest

from tests.peers.nics import PORTS, STATION, ask, both, frame
from tests.peers.oracle import needs_qemu

pytestmark = [needs_qemu, pytest.mark.peer]

BARS = (0, None)
READ, WRITE, START, STOP, SEND = 0x0A, 0x12, 0x22, 0x21, 0x26


def outs(side: Any, *writes: tuple[int, int]) -> None:
    side.q.ask_all([f"outb {PORTS + at:#x} {value:#x}" for at, value in writes])


def pages() -> list[str]:
    """All four pages."""
    lines = []
    for page in range(4):
        lines.append(f"outb {PORTS:#x} {page << 6 | START:#x}")
        lines += [f"inb {PORTS + n:#x}" for n in range(1, 16)]
    return lines


def start(side: Any, rcr: int = 0x0C) -> None:
    outs(side, (0, STOP), (0x0E, 0x49), (1, 0x46), (2, 0x80), (3, 0x46), (0x0C, rcr), (0x0F, 0), (0, 0x61))
    outs(side, (7, 0x47), *((8 + n, 0x5A) for n in range(8)), (0, START))


def put(side: Any, at: int, data: bytes) -> None:
    outs(side, (0x0A, len(data) & 0xFF), (0x0B, len(data) >> 8), (8, at & 0xFF), (9, at >> 8), (0, WRITE))
    words = [int.from_bytes(data[n : n + 2], "little") for n in range(0, len(data), 2)]
    side.q.ask_all([f"outw {PORTS + 16:#x} {word:#x}" for word in words])


def get(side: Any, at: int, count: int) -> list[Any]:
    outs(side, (0x0A, count & 0xFF), (0x0B, count >> 8), (8, at & 0xFF), (9, at >> 8), (0, READ))
    return ask(side, [f"inw {PORTS + 16:#x}"] * (count // 2))


def test_registers_and_memory_are_qemus(tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(1)
        found: list[Any] = [ask(side, pages())]
        for _ in range(60):
            at, value = chosen.randrange(1, 16), chosen.choice([0, 0xFF, 0x46, 0x80, 0x60, chosen.randrange(256)])
            outs(side, (0, chosen.choice([0, 1]) << 6 | START), (at, value))
            found.append(ask(side, pages()))
        start(side)
        put(side, 0x4000, bytes(range(64)))
        found += [get(side, at, count) for at, count in ((0x4000, 32), (0, 40), (0x3FFC, 8), (0x7FF0, 32))]
        return [*found, ask(side, [f"inb {PORTS + 0x1F:#x}", *pages()])]

    both(tmp_path, steps, "ne2k_pci", BARS)


def test_frames_go_out_and_come_in_as_qemus_do(tmp_path: pathlib.Path) -> None:
    def steps(side: Any) -> list[Any]:
        chosen = random.Random(2)
        found: list[Any] = []
        start(side)
        for length in (60, 100, 300):
            put(side, 0x4000, frame(length, seed=length))
            outs(side, (4, 0x40), (5, length & 0xFF), (6, length >> 8), (0, SEND))
            found += [side.sent(), ask(side, pages())]
        for n in range(12):
            to = chosen.choice([STATION, STATION, b"\xff" * 6, b"\x01\0\x5e\0\0\1", bytes(6)])
            side.deliver(frame(chosen.choice([14, 60, 64, 300, 1514]), to, n))
            found.append(ask(side, pages()))
            if n & 1:
                outs(side, (0, 0x62))
                now = side.q.inb(PORTS + 7)
                outs(side, (0, START), (3, now - 1 if now > 0x46 else 0x7F))
        for n in range(0x4600, 0x8000, 0x400):
            found.append(get(side, n, 64))
        return found

    both(tmp_path, steps, "ne2k_pci", BARS)
