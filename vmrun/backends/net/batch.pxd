from accel.api cimport u8, u32, u64
from accel.dma cimport IoVec
from vmrun.backends.uring cimport SharedRing

cdef enum:
    BATCH_SLOT = 2048           # bytes of a frame with its header that may be gathered


cdef class WriteBatch:
    cdef SharedRing ring
    cdef u8 *slots
    cdef u32 count
    cdef bint add(self, int fd, const void *head, u32 head_size, IoVec *pieces, u32 count) noexcept nogil
    cdef u32 flush(self) noexcept nogil
