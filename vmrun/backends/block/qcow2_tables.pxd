from accel.api cimport u8, u32, u64
from vmrun.backends.block.qcow2_cache cimport Slot
from vmrun.backends.block.qcow2_counts cimport Qcow2Counts

# what a piece of the disk is
cdef enum:
    UNALLOCATED = 0
    ZERO_PLAIN = 1
    ZERO_ALLOCATED = 2
    NORMAL = 3
    COMPRESSED = 4

cdef struct Mapping:
    int type
    bint copied                     # nobody else refers to the cluster
    u64 length                      # bytes from the offset on that are all like this, contiguous in the file
    u64 host                        # where, of NORMAL and ZERO_ALLOCATED
    u64 entry                       # the first L2 entry


cdef class Qcow2Tables(Qcow2Counts):
    cdef int find_l2(self, u64 offset, Slot **found, u32 *at, bint nowait) noexcept nogil
    cdef int write_l1(self, u64 index) noexcept nogil
    cdef int own_l2(self, u64 offset, Slot **found, u32 *at) noexcept nogil
    cdef int keep_table(self, const u8 *table, u64 offset) noexcept nogil
    cdef int map(self, u64 offset, u64 bytes, Mapping *found, bint nowait, bint writing=*) noexcept nogil
    cdef int kind(self, u64 entry, u64 bitmap, u32 sub) noexcept nogil
    cdef bint placed(self, u64 entry) noexcept nogil
