"""Waiting for one descriptor, whatever its number: select(2) knows none above 1023, and large machines have more."""

from __future__ import annotations

import select


def ready(fd: int, seconds: float | None = None, writing: bool = False) -> bool:
    """Whether it can be read (or written; or has failed: reading tells) within so many seconds. None: it waits."""
    waiting = select.poll()
    waiting.register(fd, select.POLLOUT if writing else select.POLLIN)
    return bool(waiting.poll(None if seconds is None else seconds * 1000))
