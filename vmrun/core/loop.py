"""The main thread's event loop: descriptors, callbacks from other threads, delays, signals. Timers of devices, and what
else must not wait for Python, belong to the I/O thread (accel.aio).

asyncio would cost 50 ms of imports before the first guest instruction, and nothing here needs coroutines; so
this is epoll, a queue and a heap. Everything but call_soon belongs to the thread that runs the loop.

A callback that raises is reported and the loop goes on. Callbacks run without the device lock.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # `signal` itself brings enum in: 3 ms
import heapq
import select
from time import monotonic_ns

from accel.api import Notifier

from vmrun.core.timerfd import TimerFd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.api import DeviceLock
    Callback = Callable[[], object]

# Waiting shorter than this is not worth a system call.
SHORTEST_WAIT = 1_000


class Delay:
    """A pending call_later; `cancel()` forgets it."""

    __slots__ = ("callback", "deadline", "number")

    def __init__(self, deadline: int, number: int, callback: Callback) -> None:
        self.deadline, self.number = deadline, number
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        self.callback = None

    def __lt__(self, other: Delay) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class Loop:
    """`on_error(where, exception)` is told what callbacks raise; the default prints to standard error."""

    def __init__(self, lock: DeviceLock | None = None) -> None:
        self.lock = lock
        self.on_error: Callable[[str, BaseException], object] = _print_error
        self._epoll = select.epoll()
        self._notifier = Notifier()
        self._timerfd = TimerFd()
        self._armed = 0  # when it fires; 0: not set
        self._readers: dict[int, Callback | None] = {}
        self._writers: dict[int, Callback | None] = {}
        self._hangups: dict[int, Callback | None] = {}
        self._always: dict[int, None] = {}  # regular files: epoll refuses them, they never block
        self._soon: list[Callback] = []
        self._delays: list[Delay] = []
        self._number = 0
        self._signals: dict[int, tuple[Callback, Any]] = {}
        self._signal_pipe: tuple[int, int] | None = None
        self._old_wakeup_fd = -1
        self._running = False
        self._stopping = False
        self._epoll.register(self._notifier.fileno(), select.EPOLLIN)
        self._epoll.register(self._timerfd.fileno(), select.EPOLLIN)

    # --- descriptors ----------------------------------------------------------------------------------------

    def add_fd(
        self,
        fd: int,
        on_readable: Callback | None = None,
        on_writable: Callback | None = None,
        on_hangup: Callback | None = None,
    ) -> None:
        """Call back while `fd` is ready; called again for the same fd it replaces all. None: not interested.

        A closed or failed descriptor counts as readable and writable: the read or write then says what
        happened. `on_hangup` is for who does not read at the moment: it is called instead of on_readable
        when the peer is gone.
        """
        known = fd in self._readers
        mask = (select.EPOLLIN if on_readable else 0) | (select.EPOLLOUT if on_writable else 0)
        mask |= select.EPOLLRDHUP if on_hangup else 0
        self._readers[fd], self._writers[fd], self._hangups[fd] = on_readable, on_writable, on_hangup
        if fd in self._always:
            return
        try:
            if known and mask:
                self._epoll.modify(fd, mask)
            elif known:
                # A descriptor that nobody wants would still report its hang-up, for ever.
                self._epoll.unregister(fd)
            elif mask:
                self._epoll.register(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        except PermissionError:
            self._always[fd] = None
        except OSError:
            del self._readers[fd], self._writers[fd], self._hangups[fd]
            raise
        if not mask:
            del self._readers[fd], self._writers[fd], self._hangups[fd]

    def remove_fd(self, fd: int) -> None:
        """Forget `fd`; before it is closed. Harmless when it is not known."""
        if self._readers.pop(fd, self) is self:
            return
        del self._writers[fd], self._hangups[fd]
        if self._always.pop(fd, self) is self:
            try:
                self._epoll.unregister(fd)
            except OSError:
                pass

    # --- calls ----------------------------------------------------------------------------------------------

    def call_soon(self, callback: Callback) -> None:
        """Run on the loop's thread, in order. From any thread."""
        self._soon.append(callback)
        self._notifier.notify()

    def call_later(self, seconds: float, callback: Callback) -> Delay:
        """Run once, after at least `seconds`."""
        self._number += 1
        delay = Delay(monotonic_ns() + max(0, int(seconds * 1e9)), self._number, callback)
        heapq.heappush(self._delays, delay)
        return delay

    # --- signals --------------------------------------------------------------------------------------------

    def add_signal(self, number: int, callback: Callback) -> None:
        """Run `callback` on the loop when the process gets the signal. On the main thread only."""
        import os

        if self._signal_pipe is None:
            self._signal_pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._old_wakeup_fd = signal.set_wakeup_fd(self._signal_pipe[1], warn_on_full_buffer=False)
            self.add_fd(self._signal_pipe[0], self._on_signals)
        old = signal.signal(number, _ignore)
        signal.siginterrupt(number, False)
        if number in self._signals:
            old = self._signals[number][1]
        self._signals[number] = (callback, old)

    def remove_signal(self, number: int) -> None:
        entry = self._signals.pop(number, None)
        if entry is not None:
            signal.signal(number, entry[1] if entry[1] is not None else signal.SIG_DFL)

    def _on_signals(self) -> None:
        import os

        assert self._signal_pipe is not None
        try:
            numbers = os.read(self._signal_pipe[0], 256)
        except BlockingIOError:
            return
        for number in dict.fromkeys(numbers):
            entry = self._signals.get(number)
            if entry is not None:
                self._call(f"signal {number}", entry[0])

    # --- running --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until stop(). May be run again afterwards."""
        self._running = True
        try:
            while not self._stopping:
                self._turn(-1)
        finally:
            self._running = self._stopping = False

    def run_once(self, seconds: float = 0.0) -> None:
        """One turn: wait for something at most `seconds`, do what is due."""
        self._turn(max(0, int(seconds * 1e9)))

    def stop(self) -> None:
        """Let run() return after the present turn. From any thread."""
        self._stopping = True
        self._notifier.notify()

    def close(self) -> None:
        """Give the descriptors and signals back."""
        for number in list(self._signals):
            self.remove_signal(number)
        if self._signal_pipe is not None:
            import os

            signal.set_wakeup_fd(self._old_wakeup_fd)
            self.remove_fd(self._signal_pipe[0])
            os.close(self._signal_pipe[0])
            os.close(self._signal_pipe[1])
            self._signal_pipe = None
        self._timerfd.close()
        self._epoll.close()

    def _turn(self, limit: int) -> None:
        """Wait up to `limit` ns (-1: for ever) and do what is due."""
        wait = self._wait_time(limit)
        if wait == 0:
            events = self._epoll.poll(0)
        else:
            if wait > 0:
                self._arm(wait)
            events = self._epoll.poll(-1)
        for fd, event in events:
            if fd == self._notifier.fileno():
                self._notifier.drain()
            elif fd == self._timerfd.fileno():
                self._timerfd.clear()
                self._armed = 0
            else:
                self._dispatch(fd, event)
        for fd in list(self._always):
            self._dispatch(fd, select.EPOLLIN | select.EPOLLOUT)
        # Callbacks of callbacks wait for the next turn, so that descriptors get theirs.
        # Other threads append meanwhile: only what has been seen is taken off.
        count = len(self._soon)
        if count:
            soon = self._soon[:count]
            del self._soon[:count]
            for callback in soon:
                self._call("callback", callback)
        if self._delays:
            now = monotonic_ns()
            while self._delays and self._delays[0].deadline <= now:
                delay = heapq.heappop(self._delays)
                if delay.callback is not None:
                    self._call("delayed callback", delay.callback)

    def _arm(self, wait: int) -> None:
        """Wake up in `wait` ns, or a little earlier: a timer that is set for before then is left alone, which
        saves a system call in most turns.
        """
        now = monotonic_ns()
        if not now < self._armed <= now + wait:
            self._timerfd.set(wait)
            self._armed = now + wait

    def _dispatch(self, fd: int, event: int) -> None:
        broken = event & (select.EPOLLHUP | select.EPOLLERR)
        # Each look-up anew: the first callback may have removed the descriptor.
        reader = self._readers.get(fd)
        hangup = self._hangups.get(fd)
        if reader is not None and (event & select.EPOLLIN or broken):
            self._call(f"descriptor {fd}", reader)
        elif reader is None and hangup is not None and (event & select.EPOLLRDHUP or broken):
            self._call(f"descriptor {fd}", hangup)
        writer = self._writers.get(fd)
        if writer is not None and (event & select.EPOLLOUT or broken):
            self._call(f"descriptor {fd}", writer)

    def _wait_time(self, limit: int) -> int:
        """ns until something is due by time; -1 for ever."""
        if self._soon or self._stopping:
            return 0
        for fd in self._always:
            if self._readers.get(fd) or self._writers.get(fd):
                return 0
        wait = limit
        while self._delays and self._delays[0].callback is None:
            heapq.heappop(self._delays)
        if self._delays:
            wait = _sooner(wait, self._delays[0].deadline - monotonic_ns())
        return 0 if 0 <= wait < SHORTEST_WAIT else wait

    def _call(self, where: str, callback: Callback) -> None:
        try:
            callback()
        except Exception as exc:
            try:
                self.on_error(where, exc)
            except Exception as second:
                _print_error(where, second)


def _sooner(wait: int, other: int) -> int:
    other = max(other, 0)
    return other if wait < 0 or other < wait else wait


def _ignore(number: int, frame: object) -> None:
    """The wake-up descriptor carries the signal; Python only needs some handler."""


def _print_error(where: str, exc: BaseException) -> None:
    """Never raises: a process without a descriptor left cannot even import what would print more."""
    import sys

    text = f"vmrun: internal error in {where}:\n"
    try:
        import traceback

        text += "".join(traceback.format_exception(exc))
    except Exception:
        text += f"{type(exc).__name__}: {exc}\n"
    try:
        sys.stderr.write(text)
    except (AttributeError, OSError, ValueError):
        pass  # closed, or its reader is gone
