"""A viewer's keys on their way to the guest: no faster than it reads them.

A viewer that types a page of text sends it in one piece, and a keyboard holds sixteen bytes. The next key goes when
`delay` has passed (QEMU's key-delay-ms) and the guest has read the last one, or when it has not for PATIENCE: a guest
need not have a driver.
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
    """`press(down, keysym, code)` does one; `hungry()` tells that the guest has read what it got; `delay` in seconds,
    with 0 nothing waits.
    """

    def __init__(
        self, loop: Loop, delay: float, hungry: Callable[[], bool], press: Callable[[bool, int, int | None], object]
    ) -> None:
        self.loop, self.delay, self.hungry, self.press = loop, delay, hungry, press
        self._waiting: list[tuple[bool, int, int | None]] = []
        self._last = 0.0
        self._timer: Any = None

    def put(self, down: bool, keysym: int, code: int | None) -> None:
        """At once, when none waits and the guest is ready."""
        if self.delay <= 0:
            self.press(down, keysym, code)
        elif len(self._waiting) < MOST_KEYS:
            self._waiting.append((down, keysym, code))
            if self._timer is None:
                self._next()

    def _next(self) -> None:
        self._timer = None
        now = time.monotonic()
        if now - self._last >= (self.delay if self.hungry() else PATIENCE):
            self._last = now
            self.press(*self._waiting.pop(0))
        if self._waiting:
            self._timer = self.loop.call_later(self.delay, self._next)

    def close(self) -> None:
        """What still waits is not pressed."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
