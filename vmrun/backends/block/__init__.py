"""Drives: image files behind disks.

`open_drive(name, spec, lock)` opens what a machine file calls a drive: file, format (raw), cache, readonly, snapshot.
An image that somebody writes is locked the way qemu-kvm locks it, so that vmrun, QEMU and qemu-img keep out of each
other's way. `snapshot: true` keeps the image as it is: what the guest writes lies in a temporary file and is
gone with it.
"""

from __future__ import annotations

import errno
import os
import stat

from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.backends.block.drive import Drive
    from vmrun.backends.block.node import Node

# QEMU's image locking (docs/interop): a byte for each permission somebody holds from 100 on, and from 200 on one for
# each that it does not share. Shared locks mark; the test is whether anybody marks the opposite byte.
PERMISSIONS, UNSHARED = 100, 200
CONSISTENT_READ, WRITE, RESIZE = 0, 1, 3
CACHES = ("writeback", "writethrough", "none", "directsync", "unsafe")


def open_drive(name: str, spec: dict[str, Any], lock: DeviceLock) -> Drive:
    """The back end of drive `name`. BackendError says why the image cannot be had and what to do."""
    from vmrun.backends.block.drive import Drive

    path = spec.get("file")
    if not path:
        raise BackendError(f"drive {name}: no file is given", remedy="add `file:` to the drive")
    cache = spec.get("cache", "writeback")
    readonly = bool(spec.get("readonly", False))
    if spec.get("format", "raw") != "raw":
        raise BackendError(f"drive {name}: format {spec['format']} is not modelled yet", remedy="use format: raw")
    snapshot = bool(spec.get("snapshot", False)) and not readonly
    node = _file(name, path, readonly or snapshot, cache)
    if snapshot:
        node = _overlay(name, node)
    drive = Drive(name, node, lock)
    drive.ignore_flush = cache == "unsafe" or snapshot
    drive.write_cache = cache not in ("writethrough", "directsync")
    drive.set_errors(spec.get("rerror") or "report", spec.get("werror") or "enospc")
    drive.serial = spec.get("serial")
    return drive


def _file(name: str, path: str, readonly: bool, cache: str) -> Node:
    from vmrun.backends.block.file import FileNode

    fd = _open(name, path, readonly, cache)
    try:
        _size(name, path, fd)
        _lock(name, path, fd, readonly)
        node: Node = FileNode(fd, path, readonly, cache in ("none", "directsync"))
    except BaseException:
        os.close(fd)
        raise
    return node


def _overlay(name: str, base: Node) -> Node:
    """`base` under a temporary file that takes the writes; base is closed when there can be none."""
    from vmrun.backends.block.file import FileNode
    from vmrun.backends.block.overlay import OverlayNode

    try:
        file = FileNode(_temporary(name), "")
        try:
            return OverlayNode(base, file)
        except BaseException:
            file.close()
            raise
    except BaseException:
        base.close()
        raise


def _open(name: str, path: str, readonly: bool, cache: str) -> int:
    flags = os.O_CLOEXEC | (os.O_RDONLY if readonly else os.O_RDWR)
    if cache in ("none", "directsync"):
        flags |= os.O_DIRECT
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise BackendError(
            f"drive {name}: {path} does not exist",
            remedy=f"create it, for example: qemu-img create -f raw {path} 10G",
        ) from None
    except PermissionError:
        wanted = "read" if readonly else "read and written"
        raise BackendError(
            f"drive {name}: {path} may not be {wanted}",
            remedy="change its permissions" + ("" if readonly else ", or add `readonly: true` to the drive"),
        ) from None
    except IsADirectoryError:
        raise BackendError(f"drive {name}: {path} is a directory, not an image") from None
    except OSError as exc:
        if flags & os.O_DIRECT and exc.errno == errno.EINVAL:
            raise BackendError(
                f"drive {name}: {path} lies on a file system without O_DIRECT, which cache: {cache} asks for",
                remedy="use `cache: writeback`",
            ) from None
        raise BackendError(f"drive {name}: {path}: {exc.strerror}") from None


def _temporary(name: str) -> int:
    """A file without a name in $TMPDIR, else /var/tmp, where there is room for disks."""
    import tempfile

    directory = os.environ.get("TMPDIR") or "/var/tmp"
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return os.dup(file.fileno())
    except OSError as exc:
        raise BackendError(
            f"drive {name}: no temporary file in {directory}: {exc.strerror}",
            remedy="set TMPDIR to a directory with room for what the guest writes",
        ) from None


def _size(name: str, path: str, fd: int) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISDIR(mode):
        raise BackendError(f"drive {name}: {path} is a directory, not an image")
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise BackendError(f"drive {name}: {path} is neither a file nor a block device")
    size = os.lseek(fd, 0, os.SEEK_END)
    if size == 0:
        raise BackendError(
            f"drive {name}: {path} is empty", remedy=f"give it a size, for example: truncate -s 10G {path}"
        )
    return (size + 511) & ~511


def _lock(name: str, path: str, fd: int, readonly: bool) -> None:
    import fcntl
    import struct

    def lock(kind: int, start: int, command: int) -> bytes:
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)
        return fcntl.fcntl(fd, command, request)

    set_lock, get_lock = 37, 36  # F_OFD_SETLK, F_OFD_GETLK: they belong to the open file, not to the process
    held = [CONSISTENT_READ] if readonly else [CONSISTENT_READ, WRITE]
    unshared = [] if readonly else [WRITE, RESIZE]
    try:
        for byte in held:
            lock(fcntl.F_RDLCK, PERMISSIONS + byte, set_lock)
        for byte in unshared:
            lock(fcntl.F_RDLCK, UNSHARED + byte, set_lock)
        against = [UNSHARED + byte for byte in held] + [PERMISSIONS + byte for byte in unshared]
        for start in against:
            found = struct.unpack("hhqqi4x", lock(fcntl.F_WRLCK, start, get_lock))
            if found[0] != fcntl.F_UNLCK:
                raise BackendError(
                    f"drive {name}: {path} is in use by another process",
                    remedy="stop the other machine, or add `readonly: true` to both",
                )
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EAGAIN):
            raise BackendError(
                f"drive {name}: {path} is locked by another process", remedy="stop the other machine first"
            ) from None
        # File systems without locks exist; QEMU goes on there as well.
