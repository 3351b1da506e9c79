"""iothread and main-loop: names for the threads that a machine has anyway.

Devices' descriptors and completions are all served by the machine's one I/O thread, which holds no GIL; an `iothread`
is a handle to it. Polling parameters are kept and told; the thread never polls.
"""

from __future__ import annotations

import os

from vmrun.core.props import named
from vmrun.core.userobject import UserObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

_MOST = (1 << 63) - 1


class MainLoop(UserObject):
    driver = "main-loop"
    changeable = ("aio-max-batch", "thread-pool-min", "thread-pool-max")

    aio_max_batch = named("aio-max-batch", "uint64", 0, "requests per batch; 0: the default", max=_MOST)
    thread_pool_min = named("thread-pool-min", "uint64", 0, "threads kept", max=_MOST)
    thread_pool_max = named("thread-pool-max", "uint64", 64, "most threads", max=_MOST)


class IoThreadObject(UserObject):
    driver = "iothread"
    changeable = (
        "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch", "thread-pool-min", "thread-pool-max"
    )  # fmt: skip

    poll_max_ns = named("poll-max-ns", "uint64", 32768, "longest busy wait", unit="ns", max=_MOST)
    poll_grow = named("poll-grow", "uint64", 0, "factor of its growth", max=_MOST)
    poll_shrink = named("poll-shrink", "uint64", 0, "divisor of its shrinking", max=_MOST)
    aio_max_batch = named("aio-max-batch", "uint64", 0, "requests per batch; 0: the default", max=_MOST)
    thread_pool_min = named("thread-pool-min", "uint64", 0, "threads kept", max=_MOST)
    thread_pool_max = named("thread-pool-max", "uint64", 64, "most threads", max=_MOST)

    def complete(self, platform: Platform) -> None:
        self.thread_name = platform.iothread.name

    def shown(self) -> dict[str, Any]:
        return {**self.get_props(), "thread-id": thread_of(self.thread_name)}


def thread_of(name: str) -> int:
    """The thread of this process that has that name; that of the main loop before it has begun."""
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/comm", encoding="ascii", errors="replace") as file:
                if file.read().strip() == name:
                    return int(thread)
        except OSError:
            pass  # ended meanwhile
    return os.getpid()
