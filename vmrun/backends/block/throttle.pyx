"""The driver throttle: a node whose transfers wait until the limits of its group let them pass.

A group's limits are one budget for all its nodes: bytes and requests per second, of all, of reads, of writes. What is
within a burst passes at once.
"""

from libc.errno cimport EAGAIN, EOPNOTSUPP
from posix.time cimport nanosleep, timespec

from accel.api cimport u32, u64
from accel.threads cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.node cimport NODE_NOWAIT, Cursor, Filter
from vmrun.backends.block.pool cimport pool_now

cdef enum:
    LIMITS = 6

# in the order of the budgets: bytes of all, reads, writes; requests of all, reads, writes
NAMES = ("bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write")


cdef class Group:
    """`limits`: NAMES per second, each with -max (what may come at once) and -max-length; iops-size."""

    cdef pthread_mutex_t mutex
    cdef double rates[LIMITS]
    cdef double bursts[LIMITS]
    cdef u64 free_at[LIMITS]
    cdef u64 unit
    cdef bint limited
    cdef readonly dict limits

    def __cinit__(self):
        pthread_mutex_init(&self.mutex, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    def set_limits(self, dict limits):
        """ValueError in QEMU's words."""
        cdef int n
        for unit in ("bps", "iops"):
            for end in ("", "-max"):
                if limits.get(f"{unit}-total{end}") and (limits.get(f"{unit}-read{end}") or limits.get(f"{unit}-write{end}")):
                    raise ValueError("bps/iops/max total values and read/write values cannot be used at the same time")
        for name in NAMES:
            if limits.get(name + "-max") and not limits.get(name):
                raise ValueError("bps_max/iops_max require corresponding bps/iops values")
            if limits.get(name + "-max") and limits[name + "-max"] < limits[name]:
                raise ValueError("bps_max/iops_max cannot be lower than bps/iops")
        pthread_mutex_lock(&self.mutex)
        self.limited = False
        for n, name in enumerate(NAMES):
            rate = limits.get(name) or 0
            self.rates[n] = rate
            self.bursts[n] = max((limits.get(name + "-max") or 0) * (limits.get(name + "-max-length") or 1), rate / 10)
            self.free_at[n] = 0
            self.limited = self.limited or rate != 0
        self.unit = limits.get("iops-size") or 0
        pthread_mutex_unlock(&self.mutex)
        self.limits = {name: value for name, value in limits.items() if value}

    cdef u64 admit(self, bint write, u64 bytes) noexcept nogil:
        """When a transfer may go, in ns of the pool's clock; 0: at once."""
        cdef u64 now = pool_now(), due = 0, start, burst
        cdef int n, kind = 2 if write else 1
        cdef double cost
        pthread_mutex_lock(&self.mutex)
        for n in range(LIMITS):
            if self.rates[n] == 0 or n % 3 != 0 and n % 3 != kind:
                continue
            cost = <double>bytes
            if n >= 3:
                cost = <double>bytes / self.unit if self.unit and bytes > self.unit else 1
            start = max(now, self.free_at[n])
            self.free_at[n] = start + <u64>(cost / self.rates[n] * 1e9)
            burst = <u64>(self.bursts[n] / self.rates[n] * 1e9)
            if start > now + burst:
                due = max(due, start - burst)
        pthread_mutex_unlock(&self.mutex)
        return due


cdef class ThrottleNode(Filter):
    cdef readonly Group group

    def __init__(self, file, Group group not None):
        Filter.__init__(self, file)
        self.driver, self.group = "throttle", group

    cdef void wait(self, bint write, u64 bytes) noexcept nogil:
        cdef u64 due = self.group.admit(write, bytes), now
        cdef timespec rest
        while due:
            now = pool_now()
            if now >= due:
                return
            rest.tv_sec, rest.tv_nsec = (due - now) // 1_000_000_000, (due - now) % 1_000_000_000
            nanosleep(&rest, NULL)

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        if self.group.limited:
            if flags & NODE_NOWAIT:
                return EAGAIN
            self.wait(False, bytes)
        return self.file.readv(offset, bytes, to, flags)

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        if self.group.limited:
            self.wait(True, bytes)
        return self.file.writev(offset, bytes, source, flags)

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return EOPNOTSUPP if self.group.limited else self.file.write_now(offset, bytes, source, flags)

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return not self.group.limited and self.file.begin(transfer)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        if self.group.limited:
            self.wait(True, bytes)
        return self.file.zero(offset, bytes, flags)

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        if self.group.limited:
            self.wait(True, bytes)
        return self.file.discard(offset, bytes)
