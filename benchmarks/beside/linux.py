"""A stock kernel and an initramfs made of Debian's static busybox: guests that are real, and small."""

from __future__ import annotations

import glob
import os
import pathlib
import shutil
import stat

BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")
APPLETS = (
    "sh",
    "mount",
    "poweroff",
    "cat",
    "echo",
    "ls",
    "sleep",
    "dmesg",
    "nproc",
    "uname",
    "reboot",
    "grep",
    "dd",
    "time",
)
NO_KERNEL = "no kernel in /boot: apt-get install linux-image-cloud-amd64"
NO_BUSYBOX = "no busybox: apt-get install busybox-static"

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
echo GUEST-UP $(nproc)
{script}
echo GUEST-DOWN
poweroff -f
"""


class Missing(Exception):
    """The host has no kernel or no busybox; says what to install."""


def kernel(cloud: bool = True) -> str:
    """Path of Debian's kernel: the cloud flavour when there is one and it is wanted. May raise Missing."""
    found = sorted(glob.glob("/boot/vmlinuz-*"))
    chosen = [path for path in found if ("cloud" in path) == cloud] or found
    if not chosen:
        raise Missing(NO_KERNEL)
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
    files = {"dev": (stat.S_IFDIR | 0o755, b""), **files}
    parts = [_entry(name, mode, data, n + 1) for n, (name, mode, data) in enumerate((k, *v) for k, v in files.items())]
    # The kernel opens its console before anything is mounted.
    parts.append(_entry("dev/console", stat.S_IFCHR | 0o600, b"", len(parts) + 1, (5, 1)))
    return b"".join(parts) + _entry("TRAILER!!!", 0, b"", 0)


def initramfs(directory: pathlib.Path, script: str = "", extra: dict[str, tuple[int, bytes]] | None = None) -> str:
    """Path of an archive whose /init says GUEST-UP, runs `script`, says GUEST-DOWN and powers off, or Missing."""
    busybox = next((path for path in BUSYBOX if os.path.exists(path)), None) or shutil.which("busybox")
    if busybox is None:
        raise Missing(NO_BUSYBOX)
    files = {name: (stat.S_IFDIR | 0o755, b"") for name in ("bin", "dev", "proc", "sys", "tmp")}
    files["bin/busybox"] = (stat.S_IFREG | 0o755, pathlib.Path(busybox).read_bytes())
    for name in APPLETS:
        files[f"bin/{name}"] = (stat.S_IFLNK | 0o777, b"busybox")
    files["init"] = (stat.S_IFREG | 0o755, INIT.format(script=script).encode())
    files.update(extra or {})
    path = directory / "initramfs.cpio"
    path.write_bytes(archive(files))
    return str(path)
