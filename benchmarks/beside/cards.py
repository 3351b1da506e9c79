"""Drivers of network cards for benchmarks: rings in memory that the machine shares, registers over qtest.

What a driver looks at (descriptors, indexes) it reads in the shared memory, so that waiting costs the machine nothing;
it rings only where the card wants that. No interrupts: it polls.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Callable
from typing import Any

from vmrun.testing import QtestProgram

MEMORY = 64 << 20
ENTRIES = 256
RING_OUT, RING_IN, DATA, ROOM = 0x100000, 0x110000, 0x200000, 0x400000
BUFFER = 2048  # bytes of one on the way in
MAC = bytes.fromhex("525400123456")
PATIENCE = 20.0


def wait(condition: Callable[[], Any], seconds: float = PATIENCE) -> bool:
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            return False
    return True


class Card:
    """`kicks`: registers written so far."""

    def __init__(self, q: QtestProgram, memory: mmap.mmap) -> None:
        self.q, self.memory, self.kicks = q, memory, 0
        q.pci_write(5, 0, 0x10, self.BASE)
        q.pci_write(5, 0, 4, 7, 2)

    NAME, BASE = "", 0

    def nothing(self) -> None:
        """Write a register without effect."""


class E1000(Card):
    NAME, BASE = "e1000", 0xF0000000
    DONE = 1

    def __init__(self, q: QtestProgram, memory: mmap.mmap) -> None:
        super().__init__(q, memory)
        self.tail = self.next = 0
        memory[RING_IN : RING_IN + 16 * ENTRIES] = b"".join(
            struct.pack("<QQ", ROOM + BUFFER * n, 0) for n in range(ENTRIES)
        )
        registers = (
            (0x3800, RING_OUT), (0x3808, 16 * ENTRIES), (0x400, 2), (0x2800, RING_IN), (0x2808, 16 * ENTRIES),
            (0x100, 0x801A), (0x2818, ENTRIES - 1),
        )  # fmt: skip
        for at, value in registers:
            self._write(at, value)
        time.sleep(1.2)  # it receives a second after it is let

    def _write(self, at: int, value: int) -> None:
        self.kicks += 1
        self.q.writel(self.BASE + at, value)

    def nothing(self) -> None:
        self._write(0x38, 0x8100)  # VET, as it is

    def out(self, frame: bytes, count: int) -> None:
        """So many go out at one go; it ends when the ring is empty again."""
        self.memory[DATA : DATA + len(frame)] = frame
        first = self.tail
        for n in range(count):
            command = 0x09000000 if n == count - 1 else 0x01000000  # RS: the last says when it is done
            word = struct.pack("<QII", DATA, command | len(frame), 0)
            at = RING_OUT + 16 * ((first + n) % ENTRIES)
            self.memory[at : at + 16] = word
        self.tail = (first + count) % ENTRIES
        self._write(0x3818, self.tail)
        if not wait(lambda: self.memory[at + 12] & self.DONE):
            raise SystemExit("e1000: a frame does not go out")

    def take(self) -> int:
        """How many have come; their buffers are free again."""
        count = 0
        while self.memory[at := RING_IN + 16 * self.next + 12] & self.DONE:
            self.memory[at] = 0
            self.next = (self.next + 1) % ENTRIES
            count += 1
        if count:
            self._write(0x2818, (self.next - 1) % ENTRIES)
        return count

    def came(self) -> bool:
        return bool(self.memory[RING_IN + 16 * self.next + 12] & self.DONE)


class Virtio(Card):
    """A legacy card with event indexes: queues of 256, a header of 10 bytes before each frame."""

    NAME, BASE = "virtio-net-pci", 0xC000
    EVENT_IDX, CSUM, TSO4 = 1 << 29, 1, 1 << 11

    def __init__(self, q: QtestProgram, memory: mmap.mmap) -> None:
        super().__init__(q, memory)
        self.sent = self.taken = 0
        self.words = memoryview(memory).cast("H")
        for value in (0, 1, 3):
            q.outb(self.BASE + 0x12, value)
        offered = q.inl(self.BASE)
        self.cuts = offered & self.TSO4 != 0
        q.outl(self.BASE + 4, offered & (self.EVENT_IDX | self.CSUM | self.TSO4))
        room = b"".join(struct.pack("<QIHH", ROOM + BUFFER * n, BUFFER, 2, 0) for n in range(ENTRIES))
        for queue, at, table in ((0, RING_IN, room), (1, RING_OUT, bytes(16 * ENTRIES))):
            memory[at : at + 0x4000] = (table + struct.pack("<HH256H", 1, 0, *range(256))).ljust(0x4000, b"\0")
            q.outw(self.BASE + 14, queue)
            q.outl(self.BASE + 8, at >> 12)
        q.outb(self.BASE + 0x12, 7)
        self._word(RING_IN + 4096 + 2, ENTRIES)
        q.outw(self.BASE + 16, 0)

    def _word(self, at: int, value: int) -> None:
        self.words[at // 2] = value & 0xFFFF  # at one go: struct would write byte by byte

    def _read(self, at: int) -> int:
        return self.words[at // 2]

    def _ring(self, queue: int, at: int, old: int, new: int) -> None:
        event = self._read(at + 8192 + 4 + 8 * ENTRIES)
        if (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF:
            self.kicks += 1
            self.q.outw(self.BASE + 16, queue)

    def nothing(self) -> None:
        self.kicks += 1
        self.q.outw(self.BASE + 14, 0)

    def out(self, frame: bytes, count: int, header: bytes = bytes(10)) -> None:
        whole = header + frame
        self.memory[DATA : DATA + len(whole)] = whole
        self.memory[RING_OUT : RING_OUT + 16 * ENTRIES] = struct.pack("<QIHH", DATA, len(whole), 0, 0) * ENTRIES
        old, self.sent = self.sent, (self.sent + count) & 0xFFFF
        self._word(RING_OUT + 4096 + 2, self.sent)
        self._ring(1, RING_OUT, old, self.sent)
        if not wait(lambda: self._read(RING_OUT + 8192 + 2) == self.sent):
            raise SystemExit("virtio-net: a frame does not go out")

    def take(self) -> int:
        used = self._read(RING_IN + 8192 + 2)
        count = (used - self.taken) & 0xFFFF
        if count:
            old, new = (self.taken + ENTRIES) & 0xFFFF, (used + ENTRIES) & 0xFFFF
            self.taken = used
            self._word(RING_IN + 4096 + 2, new)
            self._ring(0, RING_IN, old, new)
        return count

    def came(self) -> bool:
        return self._read(RING_IN + 8192 + 2) != self.taken
