from accel.api cimport u8, u32, u64
from accel.threads cimport pthread_cond_t, pthread_mutex_t
from vmrun.backends.block.bitmap cimport Bitmap
from vmrun.backends.block.node cimport Cursor, Extent, Filter, Node
from vmrun.backends.block.qcow2 cimport Qcow2Node

cdef enum:
    MOST_MARKS = 64

cdef struct Range:
    u64 offset, end
    bint alone                      # nobody else changes anything in it
    Range *next


cdef class TapNode(Filter):
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t moved
    cdef Range *ranges
    cdef readonly list bitmaps      # that note what is written
    cdef void *marks[MOST_MARKS]    # the same
    cdef u32 mark_count
    cdef Node saved_to              # a backup's target, while one is under way
    cdef Qcow2Node packed_to        # the same, when what is copied is compressed
    cdef Bitmap to_save             # what has to be copied there before it may be overwritten
    cdef readonly int save_error
    cdef bint must_save             # a write whose copy fails, fails
    cdef public bint target_failed  # the last error was the target's
    cdef Node twin                  # a mirror's target that gets each write at once
    cdef Bitmap twin_dirty
    cdef void enter(self, Range *range, u64 offset, u64 bytes, bint alone) noexcept nogil
    cdef void leave(self, Range *range) noexcept nogil
    cdef void note(self, u64 offset, u64 bytes) noexcept nogil
    cdef int save(self, u64 offset, u64 bytes) noexcept nogil
    cdef int save_run(self, u64 at, u64 bytes, u64 grain, u8 *memory) noexcept nogil
    cdef int pack(self, u64 offset, u64 bytes, u8 *memory) noexcept nogil
    cdef int copy_to(self, Node target, u64 offset, u64 bytes, u8 *memory) noexcept nogil
    cdef int pull(self, u64 offset, u64 bytes) noexcept nogil


cdef class CopyOnReadNode(TapNode):
    cdef readonly u64 grain
