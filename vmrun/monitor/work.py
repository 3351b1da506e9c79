"""The long part of a command, on a thread of its own: the main loop goes on meanwhile, the command's client waits."""

from __future__ import annotations

import _thread
from time import sleep

from vmrun.monitor.errors import QmpError, of_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.machine.machine import Machine


class Work:
    """What a handler returns instead of its answer. `function(work)` runs on the thread; it looks at `work.ended` now
    and then, which the end of the machine sets. `then` makes the answer of what it returned.
    """

    def __init__(
        self, machine: Machine, function: Callable[[Work], Any], then: Callable[[Any], Any] = lambda value: value
    ) -> None:
        self.machine, self.function, self.then = machine, function, then
        self.ended = False
        self.told: Callable[[QmpError], Any] | None = None  # an answer made of an error
        self.after: Callable[[QmpError | None], object] = lambda error: None  # before the answer, on the main loop
        self._over = _thread.allocate_lock()

    def map(self, then: Callable[[Any], Any]) -> Work:
        """The same, with its answer made into another."""
        before = self.then
        self.then = lambda value: then(before(value))
        return self

    def start(self, done: Callable[[Any, QmpError | None], object]) -> None:
        """`done(answer, error)` on the main loop; not at all when the machine ended first."""
        self._over.acquire()
        self.machine.works.append(self)

        def finish(value: Any, error: QmpError | None) -> None:
            self.machine.works.remove(self)
            self.after(error)
            if error is None:
                try:
                    value = self.then(value)
                except QmpError as late:
                    error = late
            if error is not None and self.told is not None:
                value, error = self.told(error), None
            done(value, error)

        def run() -> None:
            value, error = None, None
            try:
                value = self.function(self)
            except Exception as fault:  # a fault of ours must not end the guest
                error = of_fault(fault)
            finally:
                if not self.ended:
                    self.machine.loop.call_soon(lambda: finish(value, error))
                self._over.release()

        _thread.start_new_thread(run, ())

    def end(self) -> None:
        """Wait until the thread has noticed."""
        self.ended = True
        with self._over:
            pass


def apart(work: Work, function: Callable[[], Any]) -> Any:
    """What a function gives that cannot be told to end: the end of the machine does not wait for it."""
    found: list[tuple[Any, BaseException | None]] = []

    def run() -> None:
        try:
            found.append((function(), None))
        except BaseException as fault:
            found.append((None, fault))

    _thread.start_new_thread(run, ())
    while not found and not work.ended:
        sleep(0.01)
    value, fault = found[0] if found else (None, None)
    if fault is not None:
        raise fault
    return value


class Promise(Work):
    """An answer without a thread: it comes when somebody calls `keep`, on the main loop."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine, lambda work: None)

    def start(self, done: Callable[[Any, QmpError | None], object]) -> None:
        self.done = done

    def keep(self) -> None:
        self.done(self.then(None), None)
