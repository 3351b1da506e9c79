from accel.api cimport u8, u32, u64
from vmrun.backends.block.node cimport Cursor
from vmrun.backends.block.qcow2_reading cimport Qcow2Reader

cdef struct Allocation:
    u64 first, last                     # clusters of the disk that are being given a place
    Allocation *next


cdef class Qcow2Node(Qcow2Reader):
    cdef Allocation *allocations
    cdef public list bitmaps            # Kept, of qcow2_bitmaps.pyx; None: not looked at yet
    cdef public list gone               # rows of removed ones that the file still has
    cdef public list marked
    cdef void **marks                   # the Bitmaps of `marked`
    cdef u32 mark_count
    cdef void note(self, u64 offset, u64 bytes) noexcept nogil
    cdef int inner_write(self, u64 offset, u64 bytes, Cursor *source) noexcept nogil
    cdef int write_piece(self, u64 offset, u64 bytes, Cursor *source, u64 *done) noexcept nogil
    cdef int write_new(self, u64 offset, u64 bytes, Cursor *source, u64 host, bint fresh, u64 start, u64 end) noexcept nogil
    cdef int inner_zero(self, u64 offset, u64 bytes, u32 flags, bint discard, bint full) noexcept nogil
    cdef bint is_hollow(self, u64 offset, u64 start, u64 stop) noexcept nogil
    cdef int zero_slowly(self, u64 offset, u64 bytes, u32 flags) noexcept nogil
    cdef int deflate_cluster(self, u64 offset, const u8 *data, u64 size) noexcept nogil
