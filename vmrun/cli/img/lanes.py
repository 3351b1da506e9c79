"""Work on many pieces of a disk by several threads; the main thread is one of them."""

from __future__ import annotations

import _thread

from vmrun.backends.block.copy import Lane

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeVar

    T = TypeVar("T")


def share(tasks: Iterable[T], work: Callable[[Lane, int, T], None], lanes: int) -> None:
    """work(lane, n, task) of each, numbered as they come; the first failure ends it and is raised.

    `tasks` is walked by one thread at a time. Every task that was handed out has come back when this returns.
    """
    source = iter(tasks)
    lock = _thread.allocate_lock()
    failures: list[BaseException] = []
    count = 0

    def run() -> None:
        nonlocal count
        try:
            lane = Lane()
            while True:
                with lock:
                    if failures:
                        return
                    try:
                        task = next(source)
                    except StopIteration:
                        return
                    number, count = count, count + 1
                work(lane, number, task)
        except BaseException as error:
            failures.append(error)

    def run_and_tell(over: _thread.LockType) -> None:
        run()
        over.release()

    others = []
    for _ in range(lanes - 1):
        over = _thread.allocate_lock()
        over.acquire()
        try:
            _thread.start_new_thread(run_and_tell, (over,))
        except RuntimeError:
            break  # a host without threads: better slow than never
        others.append(over)
    run()
    for over in others:
        over.acquire()
    if failures:
        raise failures[0]


def lanes(asked: int) -> int:
    """How many are of use: those that wait for the host's disk cost little, but each has its memory."""
    import os

    return max(1, min(asked, 2 * len(os.sched_getaffinity(0))))
