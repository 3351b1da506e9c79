"""Running a machine inside a test: build it from a file's text, run the main loop until something is seen."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest

from accel.accelerator import find
from vmrun.config.resolve import resolve_file
from vmrun.machine.builder import build
from vmrun.machine.machine import Machine
from vmrun.ui.screen import plain

PATIENCE = 90.0  # seconds; the loaded CI machine is slow, a working guest is not


# What a test that names `accel` runs on, one after the other.
ACCELERATORS = [pytest.param("kvm", marks=pytest.mark.kvm), "soft"]


def need(accel: str) -> None:
    works, why, remedy = find(accel).probe()
    if not works:
        pytest.skip(f"{accel} does not run a processor here: {why}; {remedy}")


def need_kvm() -> None:
    need("kvm")


def write_machine(directory: pathlib.Path, **keys: Any) -> pathlib.Path:
    """A machine file in JSON, which is a machine file too."""
    import json

    path = directory / "machine.json"
    path.write_text(json.dumps({"schema": "vmrun/machine/1", "name": "guest", **keys}))
    return path


class Guest:
    """A machine with its firmware's debug console kept in memory."""

    def __init__(self, directory: pathlib.Path, accel: str = "kvm", **keys: Any) -> None:
        need(accel)
        chardevs = {"debug": {"type": "ringbuf", "size": 1 << 20}, **keys.pop("chardevs", {})}
        devices = [
            {"id": "debug", "driver": "isa-debugcon", "iobase": 0x402, "chardev": "debug"},
            *keys.pop("devices", []),
        ]
        path = write_machine(directory, accel=[accel], chardevs=chardevs, devices=devices, **keys)
        self.machine: Machine = build(resolve_file(str(path)).data)
        self.log = ""

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.machine.close()

    def output(self, name: str = "debug") -> str:
        with self.machine.board.lock:
            return str(self.machine.board.chardevs[name].output.peek(1 << 20).decode("latin-1"))

    def screen(self) -> str:
        for console in self.machine.board.consoles:
            return plain(console.characters().rows)
        return ""

    def run_until(self, seen: Any, patience: float = PATIENCE) -> bool:
        """Run until `seen()` is true (looked at ten times a second), the machine ends, or patience does."""
        found = []
        deadline = time.monotonic() + patience

        def look() -> None:
            if seen():
                found.append(True)
                self.machine.loop.stop()
            elif time.monotonic() > deadline:
                self.machine.loop.stop()
            else:
                self.machine.loop.call_later(0.1, look)

        self.machine.loop.call_later(0.1, look)
        self.machine.resume()
        self.machine.loop.run()
        return bool(found)

    def run_to_end(self, patience: float = PATIENCE) -> str:
        """Run until the machine ends by itself; the reason, or 'patience'."""
        self.run_until(lambda: False, patience)
        return self.machine.outcome.reason if self.machine.outcome else "patience"

    def keep(self) -> None:
        """Stop the processors so that a test can look around."""
        self.machine.pause()
