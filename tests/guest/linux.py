"""A stock kernel and a small initramfs (benchmarks/beside/linux.py) as a guest; skips where the host has none."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import pytest

from benchmarks.beside import linux
from benchmarks.beside.linux import archive
from tests.guest.machines import Guest

__all__ = ["LinuxGuest", "archive", "initramfs", "kernel"]

COMPLAINTS = re.compile(  # of the kernel about what it finds; "bug" is also in a boot without any
    r"WARNING:|BUG:|Oops|Call Trace|[Kk]ernel panic|[^0] FAIL|failed self.?test|unhandled|soft lockup"
    r"|rcu_.*(stall|kthread)|clocksource: .*unstable|TSC.*(unstable|warp)|exited unexpectedly|unexpected"
    r"|[Ss]purious|[Ff]irmware [Bb]ug"
)


def kernel(cloud: bool = True) -> str:
    try:
        return linux.kernel(cloud)
    except linux.Missing as why:
        pytest.skip(str(why))


def initramfs(directory: pathlib.Path, script: str = "", extra: dict[str, tuple[int, bytes]] | None = None) -> str:
    try:
        return linux.initramfs(directory, script, extra)
    except linux.Missing as why:
        pytest.skip(str(why))


class LinuxGuest(Guest):
    """A kernel booted directly, its console on the serial port."""

    def __init__(self, directory: pathlib.Path, accel: str, cmdline: str = "", **keys: Any) -> None:
        super().__init__(
            directory,
            accel,
            chardevs={"serial": {"type": "ringbuf", "size": 1 << 20}, **keys.pop("chardevs", {})},
            devices=[{"id": "com1", "driver": "isa-serial", "chardev": "serial"}, *keys.pop("devices", [])],
            cmdline=f"console=ttyS0 panic=-1 {cmdline}",
            **{"memory": "256MiB", **keys},
        )

    def console(self) -> str:
        return self.output("serial").replace("\r\n", "\n")

    def complaints(self) -> list[str]:
        return [line for line in self.console().splitlines() if COMPLAINTS.search(line)]
