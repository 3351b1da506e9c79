"""Clocks and timers, in nanoseconds.

A queue of timers belongs to one clock. Whoever drives the clock (the main loop for host time, the soft CPU or
qtest for virtual time) asks for the next deadline and runs what has expired, with the device lock held. Timers
fire in the order of their deadlines, each once per arming; a handler may arm its timer again.
"""

cimport cython
from libc.stdlib cimport free, realloc
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

from accel.api import _report


cdef i64 NEVER = 0x7FFFFFFFFFFFFFFF


cdef i64 clock_read(int which) noexcept nogil:
    cdef timespec t
    clock_gettime(which, &t)
    return <i64>t.tv_sec * 1000000000 + t.tv_nsec


cdef class Clock:
    """now() in ns since the clock's own epoch."""

    cdef i64 now(self) noexcept nogil:
        return clock_read(CLOCK_MONOTONIC)

    cdef bint ticks(self) noexcept nogil:
        """Whether it moves by itself now."""
        return True

    cdef bint wall(self) noexcept nogil:
        """Whether it is the host's wall clock, which can be set."""
        return False

    def time(self):
        return self.now()


cdef class VirtualClock(Clock):
    """The machine's time: starts at 0, stands still while the machine is stopped."""

    def __cinit__(self):
        self.running = False
        self.stopped_at = 0
        self.offset = 0

    cdef i64 now(self) noexcept nogil:
        return clock_read(CLOCK_MONOTONIC) + self.offset if self.running else self.stopped_at

    cdef bint ticks(self) noexcept nogil:
        return self.running

    def start(self):
        """Timers run again; with the device lock held, or before anybody else knows the clock. So with stop."""
        if not self.running:
            self.offset = self.stopped_at - clock_read(CLOCK_MONOTONIC)
            self.running = True
            if self.notifier is not None:
                self.notifier.signal()

    def stop(self):
        if self.running:
            self.stopped_at = clock_read(CLOCK_MONOTONIC) + self.offset
            self.running = False

    def set_time(self, i64 value):
        """Jump to `value` (loading a state)."""
        if self.running:
            self.offset = value - clock_read(CLOCK_MONOTONIC)
        self.stopped_at = value
        if self.notifier is not None:
            self.notifier.signal()


cdef class HostClock(Clock):
    """Wall-clock time of the host: ns since 1970, UTC."""

    cdef bint wall(self) noexcept nogil:
        return True

    cdef i64 now(self) noexcept nogil:
        return clock_read(CLOCK_REALTIME)


cdef class SteppedClock(Clock):
    """Virtual time that only moves by hand (qtest, unit tests) or with the soft CPU."""

    def __cinit__(self, i64 value=0):
        self.value = value

    cdef i64 now(self) noexcept nogil:
        return self.value

    cdef bint ticks(self) noexcept nogil:
        return False

    def set_time(self, i64 value):
        self.value = value

    def start(self):
        pass

    def stop(self):
        pass


cdef class TimerQueue:
    """A binary heap of armed timers; the device lock guards it. `drive` says who runs them."""

    def __cinit__(self, Clock clock, Notifier notifier=None):
        self.clock = clock
        self.armed = NEVER
        self.room = 32
        self.heap = <TimerNode **>realloc(NULL, self.room * sizeof(TimerNode *))
        if self.heap == NULL:
            raise MemoryError
        self.drive(notifier)

    def __dealloc__(self):
        free(self.heap)

    def drive(self, Notifier notifier):
        """Who runs the timers sleeps until `armed` of the clock; `notifier` is signalled when one is due before, and
        when the clock starts. None: nobody sleeps.
        """
        self.notifier = notifier
        self.armed = NEVER
        if isinstance(self.clock, VirtualClock):
            (<VirtualClock>self.clock).notifier = notifier

    cdef i64 next_deadline(self) noexcept nogil:
        return self.heap[0].deadline if self.used else -1

    cdef u32 run_expired(self, i64 now) noexcept nogil:
        cdef u32 count = 0
        cdef TimerNode *node
        while self.used and self.heap[0].deadline <= now and count < 100000:
            node = self.heap[0]
            self.remove(node)
            node.fire(node.owner)
            count += 1
        return count

    cdef void sift_up(self, u32 i) noexcept nogil:
        cdef TimerNode *node = self.heap[i]
        cdef u32 parent
        while i > 0:
            parent = (i - 1) // 2
            if self.heap[parent].deadline <= node.deadline:
                break
            self.heap[i] = self.heap[parent]
            self.heap[i].slot = i
            i = parent
        self.heap[i] = node
        node.slot = i

    cdef void sift_down(self, u32 i) noexcept nogil:
        cdef TimerNode *node = self.heap[i]
        cdef u32 child
        while True:
            child = 2 * i + 1
            if child >= self.used:
                break
            if child + 1 < self.used and self.heap[child + 1].deadline < self.heap[child].deadline:
                child += 1
            if self.heap[child].deadline >= node.deadline:
                break
            self.heap[i] = self.heap[child]
            self.heap[i].slot = i
            i = child
        self.heap[i] = node
        node.slot = i

    cdef void insert(self, TimerNode *node) noexcept nogil:
        cdef TimerNode **grown
        if self.used == self.room:
            grown = <TimerNode **>realloc(self.heap, 2 * self.room * sizeof(TimerNode *))
            if grown == NULL:
                node.deadline = -1
                return
            self.heap = grown
            self.room *= 2
        self.heap[self.used] = node
        self.used += 1
        self.sift_up(self.used - 1)
        if node.slot == 0 and node.deadline < self.armed and self.notifier is not None:
            self.notifier.signal()

    cdef void remove(self, TimerNode *node) noexcept nogil:
        cdef u32 i = node.slot
        self.used -= 1
        node.deadline = -1
        if i != self.used:
            self.heap[i] = self.heap[self.used]
            self.heap[i].slot = i
            self.sift_down(i)
            self.sift_up(i)

    def deadline(self):
        """Deadline of the first timer in ns, -1 when none is armed."""
        return self.next_deadline()

    def run(self):
        """Run all that has expired by the clock; the number of timers run. The device lock is held."""
        cdef u32 count
        with nogil:
            count = self.run_expired(self.clock.now())
        return count


cdef void _fire(Timer timer) noexcept nogil:
    timer.expire()


@cython.no_gc_clear  # __dealloc__ needs the queue
cdef class Timer:
    """Subclass and override `expire`, or use PyTimer. An armed timer is alive as long as its owner keeps it."""

    def __cinit__(self, TimerQueue queue, *args, **kwargs):
        self.queue = queue
        self.node.deadline = -1
        self.node.owner = <void *>self
        self.node.fire = <void (*)(void *) noexcept nogil>_fire

    def __dealloc__(self):
        if self.node.deadline >= 0:
            self.queue.remove(&self.node)

    cdef void arm(self, i64 deadline) noexcept nogil:
        if self.node.deadline == deadline:
            return
        if self.node.deadline >= 0:
            self.queue.remove(&self.node)
        self.node.deadline = deadline if deadline > 0 else 0
        self.queue.insert(&self.node)

    cdef void cancel(self) noexcept nogil:
        if self.node.deadline >= 0:
            self.queue.remove(&self.node)

    cdef bint pending(self) noexcept nogil:
        return self.node.deadline >= 0

    cdef void expire(self) noexcept nogil:
        pass

    def schedule(self, i64 deadline):
        """Fire at `deadline` ns of the queue's clock."""
        self.arm(deadline)

    def stop(self):
        self.cancel()

    @property
    def deadline(self):
        return self.node.deadline


cdef class PyTimer(Timer):
    """A timer with a Python callback(), called with the device lock held."""

    def __init__(self, TimerQueue queue, callback):
        self.callback = callback

    cdef void expire(self) noexcept nogil:
        self.call()

    cdef void call(self) noexcept with gil:
        try:
            self.callback()
        except Exception as exc:
            _report("timer", exc)
