"""Descriptors that clients hand over, in numbered sets: /dev/fdset/N opens like a file (QEMU's add-fd).

A set holds several descriptors of one file, each opened in another way; who opens the set gets a copy of the one that
fits. Of the whole process, as descriptors are.
"""

from __future__ import annotations

import fcntl
import os

PREFIX = "/dev/fdset/"
MOST = 1024

sets: dict[int, list[tuple[int, str | None]]] = {}


def add(number: int | None, fd: int, opaque: str | None = None) -> tuple[int, int]:
    """Keep a descriptor in a set, a new one for None; (the set, the descriptor). ValueError for too many."""
    if sum(len(held) for held in sets.values()) >= MOST:
        raise ValueError("too many descriptors")
    if number is None:
        number = next(n for n in range(len(sets) + 1) if n not in sets)
    sets.setdefault(number, []).append((fd, opaque))
    return number, fd


def remove(number: int, fd: int | None = None) -> bool:
    """Close one descriptor of a set, or all; False when there is none such."""
    held = sets.get(number, [])
    gone = [one for one, _ in held if fd in (None, one)]
    if not gone:
        return False
    for one in gone:
        os.close(one)
    left = [row for row in held if row[0] not in gone]
    if left:
        sets[number] = left
    else:
        del sets[number]
    return True


def open_file(path: str, flags: int, mode: int = 0o666) -> int:
    """As os.open; a path of PREFIX is a copy of a descriptor of that set."""
    if not path.startswith(PREFIX):
        return os.open(path, flags, mode)
    number = path.removeprefix(PREFIX)
    wanted = flags & os.O_ACCMODE
    for fd, _ in sets.get(int(number), ()) if number.isdecimal() else ():
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE in (wanted, os.O_RDWR):
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    raise FileNotFoundError(2, "No such file or directory", path)
