"""iothread: a thread for the queues of devices that name it (`iothread=`), beside the machine's own I/O thread, which
serves all others. main-loop: a name for what a machine has anyway. Polling parameters are kept and told; nobody polls.
"""

from __future__ import annotations

from vmrun.core.interfaces import ThreadOwner
from vmrun.core.props import named
from vmrun.core.userobject import UserObject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

_MOST = (1 << 63) - 1
_SLEEPS = "the thread sleeps until there is something to do"
_IDLE = "images have worker threads that all of a machine shares"


class MainLoop(UserObject):
    driver = "main-loop"
    changeable = ("aio-max-batch", "thread-pool-min", "thread-pool-max")

    aio_max_batch = named("aio-max-batch", "uint64", 0, "requests per batch; 0: the default", max=_MOST, idle=_IDLE)
    thread_pool_min = named("thread-pool-min", "uint64", 0, "threads kept", max=_MOST, idle=_IDLE)
    thread_pool_max = named("thread-pool-max", "uint64", 64, "most threads", max=_MOST, idle=_IDLE)


class IoThreadObject(UserObject, ThreadOwner):
    driver = "iothread"
    changeable = (
        "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch", "thread-pool-min", "thread-pool-max"
    )  # fmt: skip

    poll_max_ns = named("poll-max-ns", "uint64", 32768, "longest busy wait", unit="ns", max=_MOST, idle=_SLEEPS)
    poll_grow = named("poll-grow", "uint64", 0, "factor of its growth", max=_MOST, idle=_SLEEPS)
    poll_shrink = named("poll-shrink", "uint64", 0, "divisor of its shrinking", max=_MOST, idle=_SLEEPS)
    aio_max_batch = named("aio-max-batch", "uint64", 0, "requests per batch; 0: the default", max=_MOST, idle=_IDLE)
    thread_pool_min = named("thread-pool-min", "uint64", 0, "threads kept", max=_MOST, idle=_IDLE)
    thread_pool_max = named("thread-pool-max", "uint64", 64, "most threads", max=_MOST, idle=_IDLE)

    def complete(self, platform: Platform) -> None:
        self.platform = platform
        self.thread = platform.add_iothread(f"IO {self.name}")

    def release(self) -> None:
        self.platform.remove_iothread(self.thread)

    def shown(self) -> dict[str, Any]:
        return {**self.get_props(), "thread-id": self.thread.tid}
