"""A stock kernel and an initramfs made of Debian's static busybox: guests that are real, and small."""

from __future__ import annotations

import glob
import os
import pathlib
import re
import shutil
import stat
from typing import Any

import pytest

from tests.guest.machines import Guest

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
COMPLAINTS = re.compile(  # of the kernel about what it finds; "bug" is also in a boot without any
    r"WARNING:|BUG:|Oops|Call Trace|[Kk]ernel panic|FAIL|failed self.?test|unhandled|soft lockup|rcu_.*(stall|kthread)"
    r"|clocksource: .*unstable|TSC.*(unstable|warp)|exited unexpectedly|unexpected|Spurious|spurious|[Ff]irmware [Bb]ug"
)
APPLETS = (
    "sh", "mount", "poweroff", "cat", "echo", "ls", "sleep", "dmesg", "nproc", "uname", "reboot", "grep", "dd", "time",
)

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
echo GUEST-UP $(nproc)
{script}
echo GUEST-DOWN
poweroff -f
"""


def kernel(cloud: bool = True) -> str:
    """Path of Debian's kernel: the cloud flavour when it is there and wanted, else the generic one."""
    found = sorted(glob.glob("/boot/vmlinuz-*"))
    chosen = [path for path in found if ("cloud" in path) == cloud] or found
    if not chosen:
        pytest.skip("no kernel in /boot: apt-get install linux-image-cloud-amd64")
    return chosen[-1]


def _entry(name: str, mode: int, data: bytes, inode: int, device: tuple[int, int] = (0, 0)) -> bytes:
    """One member of a cpio archive in the 'newc' form (Linux Documentation/driver-api/early-userspace)."""
    raw = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + raw
    head += bytes(-len(head) % 4)
    return head + data + bytes(-len(data) % 4)


def archive(files: dict[str, tuple[int, bytes]]) -> bytes:
    """cpio of {name: (mode, contents)}; directories and links by their mode."""
    parts = [_entry(name, mode, data, n + 1) for n, (name, mode, data) in enumerate((k, *v) for k, v in files.items())]
    # The kernel opens its console before anything is mounted.
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, b"", len(parts) + 1, (5, 1)))
    return b"".join(parts) + _entry("TRAILER!!!", 0, b"", 0)


def initramfs(directory: pathlib.Path, script: str = "", extra: dict[str, tuple[int, bytes]] | None = None) -> str:
    """An archive whose /init says GUEST-UP, runs `script`, says GUEST-DOWN and powers off. Returns its path."""
    busybox = next((path for path in BUSYBOX if os.path.exists(path)), None) or shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox: apt-get install busybox-static")
    files = {name: (stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "sys", "tmp")}
    files["bin/busybox"] = (stat.S_IFREG | 0o755, pathlib.Path(busybox).read_bytes())
    for name in APPLETS:
        files[f"bin/{name}"] = (stat.S_IFLNK | 0o777, b"busybox")
    files["init"] = (stat.S_IFREG | 0o755, INIT.format(script=script).encode())
    files.update(extra or {})
    path = directory / "initramfs.cpio"
    path.write_bytes(archive(files))
    return str(path)


class LinuxGuest(Guest):
    """A kernel booted directly, its console on the serial port."""

    def __init__(self, directory: pathlib.Path, accel: str, cmdline: str = "", **keys: Any) -> None:
        super().__init__(
            directory,
            accel,
            chardevs={"serial": {"type": "ringbuf", "size": 1 << 20}},
            devices=[{"id": "com1", "driver": "isa-serial", "chardev": "serial"}],
            cmdline=f"console=ttyS0 panic=-1 {cmdline}",
            **{"memory": "256MiB", **keys},
        )

    def console(self) -> str:
        return self.output("serial").replace("\r\n", "\n")

    def complaints(self) -> list[str]:
        return [line for line in self.console().splitlines() if COMPLAINTS.search(line)]
