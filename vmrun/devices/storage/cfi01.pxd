from accel.api cimport IoRegion, u8, u32, u64
from accel.ram cimport RamBlock

cdef enum:
    BUFFER = 256


cdef class CfiFlash(IoRegion):
    cdef readonly RamBlock block
    cdef readonly object backend
    cdef object show_array
    cdef void *drive
    cdef readonly bytes query
    cdef u8 *query_data
    cdef u32 query_size, sector
    cdef readonly bint readonly
    cdef public u8 command, cycle, status
    cdef public u32 counter, buffer_at
    cdef u8 gathered[BUFFER]        # what a buffered write will store
    cdef u64 low, high              # what is not in the image yet; nothing when low == high
    cdef bint writing
    cdef readonly u64 failures
    cdef void array_mode(self) noexcept nogil
    cdef void io_mode(self) noexcept nogil
    cdef void show(self, bint array) noexcept with gil
    cdef void changed(self, u64 offset, u64 size) noexcept nogil
    cdef void write_back(self) noexcept nogil
    cdef void first(self, u64 offset, u8 command) noexcept nogil
    cdef void second(self, u64 offset, u32 size, u64 value) noexcept nogil
    cdef void buffered(self, u64 offset, u32 size, u64 value) noexcept nogil
