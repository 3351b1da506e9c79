"""What the rows of tests/devices/holds.py share: a row is a function that drives one device's largest command."""

from __future__ import annotations

import os
import pathlib
import struct
import time
from collections.abc import Callable

from accel import errands
from vmrun.testing import QTest

MIB = 1 << 20
LONG = 20_000  # ns: shorter holds are not told apart
RINGS, DATA = 0x100000, 0x200000
ROWS: dict[str, Callable[[pathlib.Path], None]] = {}


def row(function: Callable[[pathlib.Path], None]) -> Callable[[pathlib.Path], None]:
    ROWS[function.__name__.replace("_", " ")] = function
    return function


def image(directory: pathlib.Path, size: int = 32 * MIB) -> pathlib.Path:
    path = directory / "disk.img"
    path.write_bytes(os.urandom(MIB) * (size // MIB))
    return path


def watch(q: QTest) -> None:
    """From here on; with the I/O thread, as on a machine that runs, and memory that the host has given already."""
    ram = q.machine.board.ram
    for at in range(0, ram.size, 4096):
        ram.write(at, ram.read(at, 1))
    q.machine.board.iothread.start()
    errands.watch(LONG)


class Ring:
    """A modern driver of a virtio device at 05.0 and one of its queues, 256 entries."""

    def __init__(self, q: QTest, queue: int, features: int = 0) -> None:
        self.q, self.queue, self.index = q, queue, 0
        common = 0xE0000000
        q.pci_write(5, 0, 0x20, common)
        q.pci_write(5, 0, 0x24, 0)
        q.pci_write(5, 0, 4, 6, 2)
        q.writeb(common + 0x14, 3)
        for word, value in ((0, features), (1, 1)):
            q.writel(common + 0x08, word)
            q.writel(common + 0x0C, value)
        q.writeb(common + 0x14, 11)
        q.writew(common + 0x16, queue)
        q.writew(common + 0x18, 256)
        for n, offset in enumerate((0x20, 0x28, 0x30)):
            q.writel(common + offset, RINGS + n * 0x4000)
        q.writew(common + 0x1C, 1)
        q.writeb(common + 0x14, 15)

    def put(self, *pieces: tuple[int, int, int], first: int = 0) -> None:
        for n, (addr, length, flags) in enumerate(pieces):
            more = n < len(pieces) - 1
            row = struct.pack("<QIHH", addr, length, flags | more, first + n + 1)
            self.q.write(RINGS + 16 * (first + n), row)
        self.q.writew(RINGS + 0x4004 + 2 * (self.index % 256), first)
        self.index += 1

    def wait(self, count: int) -> None:
        while self.q.readw(RINGS + 0x8002) != count:
            time.sleep(0.001)

    def kick(self) -> None:
        self.q.writew(RINGS + 0x4002, self.index)
        self.q.writew(0xE0003000 + 4 * self.queue, self.queue)
        self.q.settle()
