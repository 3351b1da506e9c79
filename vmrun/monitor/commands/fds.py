"""Descriptors that a client sends along (SCM_RIGHTS): names of its own, and numbered sets for everybody."""

from __future__ import annotations

import os

from vmrun.core import fdsets
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

struct("AddfdInfo", {"fdset-id": "int", "fd": "int"})
struct("FdsetFdInfo", {"fd": "int", "opaque?": "str"})
struct("FdsetInfo", {"fdset-id": "int", "fds": "[FdsetFdInfo]"})
MOST_NAMES = 256


def _received(monitor: Any) -> int:
    fd = monitor.received()
    if fd < 0:
        raise QmpError("No file descriptor supplied via SCM_RIGHTS")
    return int(fd)


@command("getfd", {"fdname": "str"})
def getfd(monitor: Any, fdname: str) -> None:
    """Keep the descriptor that came with this command under a name."""
    fd = _received(monitor)
    if fdname[:1].isdigit() or len(monitor.fds) >= MOST_NAMES:
        os.close(fd)
        raise QmpError("Parameter 'fdname' expects a name not starting with a digit")
    old = monitor.fds.pop(fdname, None)
    if old is not None:
        os.close(old)
    monitor.fds[fdname] = fd


@command("closefd", {"fdname": "str"})
def closefd(monitor: Any, fdname: str) -> None:
    """Close a descriptor that getfd kept."""
    fd = monitor.fds.pop(fdname, None)
    if fd is None:  # a number is none of these
        raise QmpError(f"File descriptor named '{fdname}' not found")
    os.close(fd)


def take(monitor: Any, name: str, missing: str = "File descriptor named '{}' has not been found") -> int:
    """A descriptor by its name, which is free again; or of a number, one that the process has."""
    if name.isdecimal():
        return int(name)
    fd: int | None = monitor.fds.pop(name, None)
    if fd is None:
        raise QmpError(missing.format(name))
    return fd


@command("add-fd", {"fdset-id?": "int", "opaque?": "str"}, "AddfdInfo")
def add_fd(monitor: Any, fdset_id: int | None = None, opaque: str | None = None) -> dict[str, int]:
    """Put the descriptor that came with this command into a set; /dev/fdset/N opens it from now on."""
    fd = _received(monitor)
    if fdset_id is not None and fdset_id < 0:
        os.close(fd)
        raise QmpError("Parameter 'fdset-id' expects a non-negative value")
    try:
        number, fd = fdsets.add(fdset_id, fd, opaque)
    except ValueError:
        os.close(fd)
        raise QmpError("Too many descriptors are kept already") from None
    return {"fdset-id": number, "fd": fd}


@command("remove-fd", {"fdset-id": "int", "fd?": "int"})
def remove_fd(monitor: Any, fdset_id: int, fd: int | None = None) -> None:
    """Close a descriptor of a set, or all of them."""
    if not fdsets.remove(fdset_id, fd):
        name = f"fdset-id:{fdset_id}" + (f", fd:{fd}" if fd is not None else "")
        raise QmpError(f"File descriptor named '{name}' not found")


@command("query-fdsets", returns="[FdsetInfo]")
def query_fdsets(monitor: Any) -> list[dict[str, Any]]:
    """The sets and what is in them."""
    return [
        {
            "fdset-id": number,
            "fds": [{"fd": fd, **({"opaque": opaque} if opaque is not None else {})} for fd, opaque in held],
        }
        for number, held in sorted(fdsets.sets.items(), reverse=True)
    ]
