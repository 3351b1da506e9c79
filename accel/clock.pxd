from accel.api cimport i64, u32, Notifier

ctypedef struct TimerNode:
    i64 deadline                                # ns of the queue's clock; -1 while idle
    u32 slot
    void (*fire)(void *owner) noexcept nogil
    void *owner


cdef i64 clock_read(int which) noexcept nogil


cdef class Clock:
    cdef i64 now(self) noexcept nogil
    cdef bint ticks(self) noexcept nogil
    cdef bint wall(self) noexcept nogil


cdef class VirtualClock(Clock):
    cdef i64 offset, stopped_at
    cdef readonly bint running
    cdef public Notifier notifier               # of whoever sleeps until a timer is due


cdef class HostClock(Clock):
    pass


cdef class SteppedClock(Clock):
    cdef i64 value


cdef class TimerQueue:
    cdef readonly Clock clock
    cdef readonly Notifier notifier
    cdef i64 armed                              # the driver is up by then; an earlier head has to wake it
    cdef TimerNode **heap
    cdef u32 used, room
    cdef i64 next_deadline(self) noexcept nogil
    cdef u32 run_expired(self, i64 now) noexcept nogil
    cdef void insert(self, TimerNode *node) noexcept nogil
    cdef void remove(self, TimerNode *node) noexcept nogil
    cdef void sift_up(self, u32 i) noexcept nogil
    cdef void sift_down(self, u32 i) noexcept nogil


cdef class Timer:
    cdef TimerNode node
    cdef readonly TimerQueue queue
    cdef void arm(self, i64 deadline) noexcept nogil
    cdef void cancel(self) noexcept nogil
    cdef bint pending(self) noexcept nogil
    cdef void expire(self) noexcept nogil


cdef class PyTimer(Timer):
    cdef object callback
    cdef void call(self) noexcept with gil
