from accel.api cimport DeviceLock, u8, u32, u64
from vmrun.backends.protocols cimport BlockBackend, BlockRequest

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef enum:
    QUEUE = 1024

ctypedef struct Job:
    void *request
    u32 generation


cdef class RawImage(BlockBackend):
    cdef readonly int fd
    cdef readonly DeviceLock lock
    cdef readonly str path
    cdef bint nowait, ignore_flush
    cdef int overlay                # descriptor of the file that takes the writes; -1: the image does
    cdef u8 *written                # a bit for each sector that the overlay has
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t work, settled
    cdef Job queue[QUEUE]
    cdef u32 head, tail
    cdef void *running[8]
    cdef u32 workers, writing
    cdef u32 completing             # transfers that are over, whose done() has not returned yet
    cdef u32 alive
    cdef bint closing
    cdef void worker(self, u32 slot) noexcept nogil
    cdef int transfer(self, BlockRequest request, int flags) noexcept nogil
    cdef bint is_written(self, u64 sector) noexcept nogil
    cdef u64 run_length(self, u64 offset, bint *there) noexcept nogil
    cdef void note_written(self, u64 offset, u64 count) noexcept nogil
