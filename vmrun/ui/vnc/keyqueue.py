"""Viewers' keys on their way to the guest: no faster than it reads them.

A viewer that types a page of text sends it in one piece, and a keyboard holds sixteen bytes. The next key goes when
`delay` has passed (QEMU's key-delay-ms) and the guest has read the last one, or when it has not for PATIENCE: a guest
need not have a driver. All viewers of a server share one queue, and one that has gone leaves its keys there: a program
that types and hangs up is followed by the next one, whose keys come behind.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.loop import Loop

MOST_KEYS = 4096  # that wait; what comes then is dropped, as a keyboard drops it
PATIENCE = 0.5  # seconds


class KeyQueue:
    """`hungry()` tells that the guest has read what it got; `delay` in seconds, with 0 nothing waits."""

    def __init__(self, loop: Loop, delay: float, hungry: Callable[[], bool]) -> None:
        self.loop, self.delay, self.hungry = loop, delay, hungry
        self._waiting: list[Callable[[], object]] = []
        self._last = 0.0
        self._timer: Any = None

    def put(self, press: Callable[[], object], always: bool = False) -> bool:
        """`press()` is called in its turn: at once, when none waits and the guest is ready. False: too many wait, which
        does not hinder what must happen `always`.
        """
        if self.delay <= 0:
            press()
        elif always or len(self._waiting) < MOST_KEYS:
            self._waiting.append(press)
            if self._timer is None:
                self._next()
        else:
            return False
        return True

    def _next(self) -> None:
        self._timer = None
        now = time.monotonic()
        if now - self._last >= (self.delay if self.hungry() else PATIENCE):
            self._last = now
            self._waiting.pop(0)()
        if self._waiting:
            self._timer = self.loop.call_later(self.delay, self._next)

    def close(self) -> None:
        """What still waits is not pressed, and what comes now does not wait."""
        self.delay = 0.0
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
