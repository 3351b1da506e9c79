"""The driver throttle: a node whose transfers wait until the limits of its group let them pass (limits.pyx)."""

from libc.errno cimport EAGAIN, EOPNOTSUPP
from posix.time cimport nanosleep, timespec

from accel.api cimport u32, u64
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.limits cimport LimitGroup
from vmrun.backends.block.node cimport NODE_NOWAIT, Cursor, Filter
from vmrun.backends.block.pool cimport pool_now

cdef u64 NAP = 20_000_000            # ns: after as much it is seen that the limits have changed


cdef class ThrottleNode(Filter):
    cdef readonly LimitGroup group
    cdef int hurried

    def __init__(self, file, LimitGroup group not None):
        Filter.__init__(self, file)
        self.driver, self.group = "throttle", group
        group.members.append(self)

    def move(self, LimitGroup group not None):
        """To another group; nothing is under way."""
        self.group.members.remove(self)
        group.members.append(self)
        self.group = group

    def weigh(self):
        """The group's: its limits have changed. Who waits sees it."""

    def hurry(self, bint begin):
        self.hurried += 1 if begin else -1
        Filter.hurry(self, begin)

    def shut(self):
        self.group.members.remove(self)

    cdef void wait(self, bint write, u64 bytes) noexcept nogil:
        cdef u64 due = 0, now
        cdef u32 changes = self.group.changes - 1
        cdef timespec rest
        rest.tv_sec = 0
        while not self.hurried:
            if self.group.changes != changes:
                changes, due = self.group.changes, self.group.admit(write, bytes)
            now = pool_now()
            if now >= due:
                return
            rest.tv_nsec = min(due - now, NAP)
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
