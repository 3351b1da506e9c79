"""The path of a unix socket that listens, and what may be in its way there."""

from __future__ import annotations

import _socket  # `socket` itself brings in enum and selectors: 5 ms
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def bind(listener: Any, path: str | bytes) -> None:
    """What is `stale` there makes way; `bytes`: an abstract name, which nothing is left at. OSError."""
    try:
        listener.bind(path)
    except OSError:
        if isinstance(path, bytes) or not stale(path):
            raise
        os.unlink(path)
        listener.bind(path)


def stale(path: str) -> bool:
    """True for a socket that nobody listens on, left behind by a program that died, and for an empty file: mkstemp(3)
    and its like keep a name free by one. QEMU takes away whatever is there.
    """
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        found = os.stat(path)
        if not stat.S_ISSOCK(found.st_mode):
            return stat.S_ISREG(found.st_mode) and not found.st_size
        probe.settimeout(1.0)
        probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    finally:
        probe.close()
    return False
