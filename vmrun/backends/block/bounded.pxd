from accel.api cimport u8, u32, u64
from accel.threads cimport pthread_cond_t, pthread_mutex_t
from vmrun.backends.block.node cimport Cursor, Filter
from vmrun.backends.protocols cimport IoVec

# A request under way, on the stack of who makes it.
cdef struct Track:
    u64 start, end                  # in whole blocks
    bint alone                      # it reads and writes again what lies around it
    bint waits
    Track *next

# A request with what is missing to whole blocks around it.
cdef struct Padded:
    u64 offset, bytes
    u64 head, tail                  # of these bytes, before and behind what was asked for
    u8 *memory                      # two blocks: the first, the last
    IoVec *vectors
    Cursor cursor


cdef class BoundedNode(Filter):
    cdef public u64 align           # bytes of a block, a power of two
    cdef public u64 max_transfer    # bytes; 0: as many as one likes
    cdef public u64 opt_zero, max_zero, opt_discard, max_discard
    cdef Track *tracks
    cdef pthread_mutex_t tracking
    cdef pthread_cond_t over
    cdef void enter(self, Track *track, u64 offset, u64 bytes, bint alone) noexcept nogil
    cdef void leave(self, Track *track) noexcept nogil
    cdef int pad(self, Padded *padded, u64 offset, u64 bytes, Cursor *cursor) noexcept nogil
    cdef int fill(self, Padded *padded) noexcept nogil
    cdef int write_parts(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil
    cdef int zero_parts(self, u64 offset, u64 bytes, u32 flags) noexcept nogil
    cdef int part_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil
    cdef int part_write(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil
    cdef int part_zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil
    cdef int part_discard(self, u64 offset, u64 bytes) noexcept nogil
