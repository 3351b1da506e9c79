"""The guest's side of a virtio-scsi adapter, over qtest: one command at a time, on vmrun's or on QEMU's."""

from __future__ import annotations

import pathlib
import struct
import time
from typing import Any

from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

COMMON, NOTIFY, CONFIG = 0xE0000000, 0xE0003000, 0xE0002000
RINGS, HEAD, ANSWER, DATA = 0x100000, 0x180000, 0x190000, 0x200000
MODERN = 1 << 32
SIZE = 64
NEXT, WRITE = 1, 2
CONTROL, EVENTS, COMMANDS = 0, 1, 2
UNIT = bytes((1, 0, 0, 0, 0, 0, 0, 0))


def unit(target: int, lun: int = 0) -> bytes:
    return bytes((1, target, 0x40 | lun >> 8 if lun > 255 else 0, lun & 0xFF, 0, 0, 0, 0))


def machine(side: str, drives: dict[str, dict[str, Any]], devices: list[dict[str, Any]], **props: Any) -> Any:
    """A pc-i440fx-7.2 with a virtio-scsi adapter at 05.0 and these units."""
    if side == "vmrun":
        adapter = {"driver": "virtio-scsi-pci", "id": "s", "addr": "05.0", "num_queues": 1, **props}
        return QTest(
            {"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": [adapter, *devices]}
        )
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    command += ["-device", "virtio-scsi-pci,id=s,addr=5,num_queues=1" + "".join(f",{k}={v}" for k, v in props.items())]
    for id, drive in drives.items():
        words = {"if": "none", "id": id, **drive}
        command += ["-drive", ",".join(f"{key}={_word(value)}" for key, value in words.items())]
    for device in devices:
        rest = {key: value for key, value in device.items() if key != "driver"}
        command += ["-device", ",".join([device["driver"], *(f"{key}={_word(value)}" for key, value in rest.items())])]
    return QtestProgram(command)


def _word(value: Any) -> Any:
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


class Adapter:
    """A modern driver of the adapter at 05.0 of `q`, with rings of 64 entries."""

    def __init__(self, q: Any, features: int = MODERN | 6) -> None:
        self.q, self.features = q, features
        q.pci_write(5, 0, 0x20, COMMON)
        q.pci_write(5, 0, 0x24, 0)
        q.pci_write(5, 0, 4, 6, 2)
        self.start()

    def start(self) -> None:
        q = self.q
        q.writeb(COMMON + 0x14, 0)
        q.writeb(COMMON + 0x14, 3)
        for word in (0, 1):
            q.writel(COMMON + 0x08, word)
            q.writel(COMMON + 0x0C, self.features >> (32 * word) & 0xFFFFFFFF)
        q.writeb(COMMON + 0x14, 11)
        q.memset(RINGS, 0x30000)
        self.index, self.seen = [0, 0, 0], [0, 0, 0]
        for queue in range(3):
            q.writew(COMMON + 0x16, queue)
            q.writew(COMMON + 0x18, SIZE)
            for n, offset in enumerate((0x20, 0x28, 0x30)):
                q.writel(COMMON + offset, self.ring(queue, n))
                q.writel(COMMON + offset + 4, 0)
            q.writew(COMMON + 0x1C, 1)
        q.writeb(COMMON + 0x14, 15)

    def ring(self, queue: int, part: int) -> int:
        return RINGS + 0x4000 * queue + 0x1000 * part

    def status(self) -> int:
        return int(self.q.readb(COMMON + 0x14))

    def put(self, queue: int, pieces: list[tuple[int, int, int]], first: int = 0) -> None:
        """(address, length, flags) of one request, in descriptors from `first` on."""
        for n, (addr, length, flags) in enumerate(pieces):
            more = NEXT if n < len(pieces) - 1 else 0
            row = struct.pack("<QIHH", addr, length, flags | more, first + n + 1 if more else 0)
            self.q.write(self.ring(queue, 0) + 16 * (first + n), row)
        self.q.writew(self.ring(queue, 1) + 4 + 2 * (self.index[queue] % SIZE), first)
        self.index[queue] = (self.index[queue] + 1) & 0xFFFF
        self.q.writew(self.ring(queue, 1) + 2, self.index[queue])

    def kick(self, queue: int) -> None:
        self.q.writew(NOTIFY + 4 * queue, queue)

    def answered(self, queue: int, patience: int = 4000) -> bool:
        """Wait for the next answer of a queue."""
        for _ in range(patience):
            if self.q.readw(self.ring(queue, 2) + 2) != self.seen[queue]:
                self.seen[queue] = (self.seen[queue] + 1) & 0xFFFF
                return True
            if hasattr(self.q, "settle"):
                self.q.settle()
            else:
                time.sleep(0.001)
        return False

    def command(
        self, cdb: bytes, data: bytes | int = 0, where: bytes = UNIT, tag: int = 1, cut: int = 0
    ) -> tuple[int, int, bytes, int, bytes]:
        """(response, status, sense, residual, data): `data` is what is written, or how many bytes may be read; `cut`:
        the longest piece.
        """
        q = self.q
        q.write(HEAD, where + struct.pack("<Q", tag) + bytes(3) + cdb.ljust(32, b"\0"))
        q.memset(ANSWER, 108, 0xEE)
        size = data if isinstance(data, int) else len(data)
        if not isinstance(data, int):
            for at in range(0, size, 4096):
                q.write(DATA + at, data[at : at + 4096])
        elif size:
            q.memset(DATA, size, 0xDD)
        flag = WRITE if isinstance(data, int) else 0
        pieces, at = [], 0
        while at < size:
            part = min(cut or size, size - at)
            pieces.append((DATA + at, part, flag))
            at += part
        whole = [(HEAD, 51, 0)] + ([] if flag else pieces) + [(ANSWER, 108, WRITE)] + (pieces if flag else [])
        self.put(COMMANDS, whole)
        self.kick(COMMANDS)
        assert self.answered(COMMANDS), "no answer"
        length, residual, _, status, response = struct.unpack("<IIHBB", q.read(ANSWER, 12))
        sense = q.read(ANSWER + 12, length) if response == 0 and length else b""
        return response, status, sense, residual, q.read(DATA, size) if flag and size else b""

    def manage(self, subtype: int, where: bytes = UNIT, tag: int = 1) -> int:
        """The response to a task management request."""
        self.q.write(HEAD + 0x800, struct.pack("<II", 0, subtype) + where + struct.pack("<Q", tag))
        self.q.writeb(ANSWER + 0x800, 0xEE)
        self.put(CONTROL, [(HEAD + 0x800, 24, 0), (ANSWER + 0x800, 1, WRITE)])
        self.kick(CONTROL)
        assert self.answered(CONTROL), "no answer"
        return int(self.q.readb(ANSWER + 0x800))

    def offer_event(self, n: int = 0) -> None:
        self.put(EVENTS, [(ANSWER + 0x1000 + 16 * n, 16, WRITE)], first=n)
        self.kick(EVENTS)

    def event(self, n: int = 0) -> tuple[int, bytes, int]:
        """(event, unit, reason)"""
        event, where, reason = struct.unpack("<I8sI", self.q.read(ANSWER + 0x1000 + 16 * n, 16))
        return event, where, reason

    def ready(self, where: bytes = UNIT) -> Adapter:
        """Past the unit attentions of power-on."""
        for _ in range(4):
            if self.command(bytes(6), where=where)[1] == 0:
                break
        return self


def image(path: pathlib.Path, size: int = 1 << 20) -> pathlib.Path:
    path.write_bytes(b"".join(struct.pack("<I", n) * 128 for n in range(size // 512)))
    return path
