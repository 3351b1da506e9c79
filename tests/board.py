"""A whole machine without a processor, for tests that drive its ports and memory."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from vmrun.config.resolve import resolve_file
from vmrun.machine.builder import build
from vmrun.machine.machine import Machine


class Driven:
    """`with Driven(tmp_path, machine="rhel6.3.0") as pc: pc.inb(0x71)`. Images are real files."""

    def __init__(self, directory: pathlib.Path, **keys: Any) -> None:
        path = directory / "driven.json"
        path.write_text(json.dumps({"schema": "vmrun/machine/1", "name": "driven", **keys}))
        self.machine: Machine = build(resolve_file(str(path)).data, accel=["qtest"])
        self.board = self.machine.board

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *exc: object) -> None:
        self.machine.close()

    def port(self, port: int, size: int, value: int | None = None) -> int:
        """One access; a write returns its Action."""
        with self.board.lock:
            if value is None:
                return int(self.board.io.read(port, size))
            return int(self.board.io.write(port, size, value))

    def inb(self, port: int) -> int:
        return self.port(port, 1)

    def outb(self, port: int, value: int) -> int:
        return self.port(port, 1, value)

    def inw(self, port: int) -> int:
        return self.port(port, 2)

    def outw(self, port: int, value: int) -> int:
        return self.port(port, 2, value)

    def inl(self, port: int) -> int:
        return self.port(port, 4)

    def outl(self, port: int, value: int) -> int:
        return self.port(port, 4, value)

    def config(self, slot: int, function: int, offset: int, value: int | None = None) -> int:
        """A dword of PCI configuration space through 0xcf8 and 0xcfc."""
        self.outl(0xCF8, 0x80000000 | slot << 11 | function << 8 | offset)
        if value is None:
            return self.inl(0xCFC)
        return self.outl(0xCFC, value)

    def read(self, addr: int, count: int) -> bytes:
        with self.board.lock:
            return bytes(self.board.memory.read_bytes(addr, count))

    def write(self, addr: int, data: bytes) -> None:
        with self.board.lock:
            self.board.memory.write_bytes(addr, data)

    def settle(self) -> None:
        """Wait for all disk I/O to be over."""
        for drive in self.board.drives.values():
            drive.drain()
