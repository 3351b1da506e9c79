"""The guest's side of a virtio disk, in Python, over qtest: rings in the guest's memory, split and packed."""

from __future__ import annotations

import pathlib
import struct
from typing import Any

from vmrun.testing import QTest

COMMON, NOTIFY, CONFIG = 0xE0000000, 0xE0003000, 0xE0002000
RINGS, DATA = 0x100000, 0x200000
VERSION_1, PACKED, INDIRECT, EVENT_IDX = 1 << 32, 1 << 34, 1 << 28, 1 << 29
IN, OUT, FLUSH, GET_ID, DISCARD, ZEROES = 0, 1, 4, 8, 11, 13
NEXT, WRITE, TABLE = 1, 2, 4


class Disk:
    """A modern virtio-blk-pci at 05.0 with one queue of `size` entries, set up as a driver does it."""

    def __init__(self, path: pathlib.Path, features: int = VERSION_1, size: int = 16, **props: Any) -> None:
        """`iothread`: its queue is served there."""
        thread = {"t0": {"type": "iothread"}} if "iothread" in props else {}
        device = {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "addr": "05.0", "packed": True, **props}
        self.q = QTest(
            {
                "machine": "pc-i440fx-7.2",
                "memory": "16MiB",
                "objects": thread,
                "drives": {"d0": {"file": str(path), "format": "raw"}},
                "devices": [{**device, "num-queues": 1}],
            }
        )
        self.features, self.size = features, size
        self.packed = bool(features & PACKED)
        self.q.pci_write(5, 0, 0x20, COMMON)
        self.q.pci_write(5, 0, 0x24, 0)
        self.q.pci_write(5, 0, 4, 6, 2)
        self.start()

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *exc: object) -> None:
        self.q.close()

    @property
    def chip(self) -> Any:
        return self.q.machine.devices["disk"].chip

    def start(self) -> None:
        q = self.q
        q.writeb(COMMON + 0x14, 0)
        q.writeb(COMMON + 0x14, 3)
        for word in (0, 1):
            q.writel(COMMON + 0x08, word)
            q.writel(COMMON + 0x0C, self.features >> (32 * word) & 0xFFFFFFFF)
        q.writeb(COMMON + 0x14, 11)
        q.writew(COMMON + 0x18, self.size)
        self.desc, self.avail, self.used = RINGS, RINGS + 0x4000, RINGS + 0x8000
        q.memset(RINGS, 0x10000)
        for offset, value in ((0x20, self.desc), (0x28, self.avail), (0x30, self.used)):
            q.writel(COMMON + offset, value)
            q.writel(COMMON + offset + 4, 0)
        q.writew(COMMON + 0x1C, 1)
        q.writeb(COMMON + 0x14, 15)
        self.index = self.seen = 0
        self.wrap = self.used_wrap = 1

    def status(self) -> int:
        return self.q.readb(COMMON + 0x14)

    def pause(self) -> None:
        """Hold the threads that serve the queue, as a machine that stops does."""
        for thread in self.q.machine.board.iothreads[1:]:
            thread.pause()

    def resume(self) -> None:
        for thread in self.q.machine.board.iothreads[1:]:
            thread.resume()

    def kick(self) -> None:
        self.q.writew(NOTIFY, 0)
        self.q.settle()

    # --- putting requests in --------------------------------------------------------------------------------

    def put(self, pieces: list[tuple[int, int, int]], indirect: bool = False) -> None:
        """(address, length, flags WRITE or 0) of one request."""
        if indirect:
            table = DATA + 0x80000
            self.q.write(table, b"".join(self._rows(pieces)))
            pieces = [(table, 16 * len(pieces), TABLE)]
        if self.packed:
            self._put_packed(pieces)
        else:
            self._put_split(pieces)

    def _rows(self, pieces: list[tuple[int, int, int]]) -> list[bytes]:
        """An indirect table."""
        last = len(pieces) - 1
        if self.packed:
            return [struct.pack("<QIHH", addr, length, 0, flags) for addr, length, flags in pieces]
        return [
            struct.pack("<QIHH", addr, length, flags | (NEXT if n < last else 0), n + 1 if n < last else 0)
            for n, (addr, length, flags) in enumerate(pieces)
        ]

    def _put_split(self, pieces: list[tuple[int, int, int]]) -> None:
        for n, row in enumerate(self._rows(pieces)):
            self.q.write(self.desc + 16 * n, row)
        self.q.writew(self.avail + 4 + 2 * (self.index % self.size), 0)
        self.index = (self.index + 1) & 0xFFFF
        self.q.writew(self.avail + 2, self.index)

    def _put_packed(self, pieces: list[tuple[int, int, int]]) -> None:
        rows = []
        for n, (addr, length, flags) in enumerate(pieces):
            flags |= NEXT if n < len(pieces) - 1 else 0
            flags |= 0x80 if self.wrap else 0x8000
            rows.append((self.index, struct.pack("<QIHH", addr, length, 7, flags)))
            self.index += 1
            if self.index == self.size:
                self.index, self.wrap = 0, self.wrap ^ 1
        for place, row in reversed(rows):
            self.q.write(self.desc + 16 * place, row)

    # --- answers --------------------------------------------------------------------------------------------

    def answer(self, slots: int = 1) -> int | None:
        """Bytes written of the next request that is done, which had so many places in the ring; None: none is."""
        if self.packed:
            _, length, _, flags = struct.unpack("<QIHH", self.q.read(self.desc + 16 * self.seen, 16))
            if (flags >> 15 & 1) != self.used_wrap or (flags >> 7 & 1) != self.used_wrap:
                return None
            self.seen += slots
            if self.seen >= self.size:
                self.seen, self.used_wrap = self.seen - self.size, self.used_wrap ^ 1
            return int(length)
        if self.q.readw(self.used + 2) == self.seen:
            return None
        _, length = struct.unpack("<II", self.q.read(self.used + 4 + 8 * (self.seen % self.size), 8))
        self.seen = (self.seen + 1) & 0xFFFF
        return int(length)

    def request(
        self, type: int, sector: int, data: bytes | int = 0, cut: int = 0, indirect: bool = False
    ) -> tuple[int | None, bytes]:
        """One request and its end: (status, or None when there is none; data read). `data`: bytes to write, or how
        many to read. `cut`: lengths of all pieces but the last.
        """
        q = self.q
        q.write(DATA, struct.pack("<IIQ", type, 0, sector))
        q.write(DATA + 0xF0, b"\xaa")
        size = data if isinstance(data, int) else len(data)
        if not isinstance(data, int):
            q.write(DATA + 0x1000, data)
        flag = WRITE if isinstance(data, int) else 0
        pieces, at = [(DATA, 16, 0)], 0
        while at < size:
            part = min(cut or size, size - at)
            pieces.append((DATA + 0x1000 + at, part, flag))
            at += part
        pieces.append((DATA + 0xF0, 1, WRITE))
        self.put(pieces, indirect)
        self.kick()
        written = self.answer(1 if indirect else len(pieces))
        if written is None:
            return None, b""
        return q.readb(DATA + 0xF0), q.read(DATA + 0x1000, size) if flag and size else b""
