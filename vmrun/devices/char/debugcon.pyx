"""isa-debugcon's port, the chip alone: what is written is output, a read tells that the port is there."""

from accel.api cimport ACTION_NONE, IoRegion, u8, u32, u64
from vmrun.backends.protocols cimport CharBackend


cdef class DebugPort(IoRegion):
    """A byte that the back end has no room for is lost; waiting would stop firmware that only wants to log."""

    cdef readonly CharBackend backend
    cdef readonly u32 readback
    cdef readonly u64 lost

    def __init__(self, CharBackend backend=None, u32 readback=0xE9):
        self.max_access = 1
        self.backend = backend
        self.readback = readback

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.readback

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if self.backend is not None and not self.backend.put(value & 0xFF):
            self.lost += 1
        return ACTION_NONE
