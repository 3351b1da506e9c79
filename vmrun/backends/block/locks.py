"""Whom an image keeps out: the locks of qemu-kvm, bytes of the file that stand for what somebody does, and does not
share.
"""

from __future__ import annotations

import errno
import os
import struct

from vmrun.backends.block.errors import ImageError

# QEMU's image locking (docs/interop): a byte for each permission somebody holds from 100 on, and from 200 on one for
# each that it does not share. Shared locks mark; the test is whether anybody marks the opposite byte.
PERMISSIONS, UNSHARED = 100, 200
CONSISTENT_READ, WRITE, RESIZE = 0, 1, 3


def lock_file(path: str, fd: int, readonly: bool, resize: bool = False) -> None:
    """ImageError when another process writes the image, or reads one that is to be written."""
    import fcntl

    def lock(kind: int, start: int, command: int) -> bytes:
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, 1, 0)
        return fcntl.fcntl(fd, command, request)

    set_lock, get_lock = 37, 36  # F_OFD_SETLK, F_OFD_GETLK: they belong to the open file, not to the process
    held = [CONSISTENT_READ] if readonly else [CONSISTENT_READ, WRITE]
    unshared = [WRITE, RESIZE]
    if resize:
        held.append(RESIZE)
    names = {CONSISTENT_READ: "consistent read", WRITE: "write", RESIZE: "resize"}
    try:
        for byte in held:
            lock(fcntl.F_RDLCK, PERMISSIONS + byte, set_lock)
        for byte in unshared:
            lock(fcntl.F_RDLCK, UNSHARED + byte, set_lock)
        against = [(UNSHARED, byte) for byte in held] + [(PERMISSIONS, byte) for byte in unshared]
        for base, byte in against:
            found = struct.unpack("hhqqi4x", lock(fcntl.F_WRLCK, base + byte, get_lock))
            if found[0] != fcntl.F_UNLCK:
                share = "shared " if base == PERMISSIONS else ""
                raise ImageError(
                    f"Could not open '{path}': Failed to get {share}\"{names[byte]}\" lock",
                    f"Is another process using the image [{path}]?",
                )
    except OSError as exc:
        if exc.errno in (errno.EACCES, errno.EAGAIN):
            raise ImageError(
                f"Could not open '{path}': Failed to lock byte 100", f"Is another process using the image [{path}]?"
            ) from None
        # File systems without locks exist; QEMU goes on there as well.


def unlock_file(fd: int) -> None:
    """Nothing is kept from others by this descriptor any more."""
    import fcntl

    try:
        for base in (PERMISSIONS, UNSHARED):
            fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_UNLCK, os.SEEK_SET, base, 64, 0))
    except OSError:
        pass  # a file system without locks
