from accel.api cimport u8, u32, u64
from vmrun.backends.block.qcow2_cache cimport Slot
from vmrun.backends.block.qcow2_image cimport Qcow2Image

cdef enum:
    ENOUGH_FREED = 1024

cdef struct Freed:
    u64 offset, count               # bytes of the file, clusters


cdef class Qcow2Counts(Qcow2Image):
    cdef u64 hint                       # where to look for a free cluster first
    cdef u64 byte_hint                  # where compressed data may go on, 0: nowhere
    cdef Freed *freed
    cdef u32 freed_count, freed_room

    cdef int refcount_slot(self, u64 cluster, Slot **found, bint make) noexcept nogil
    cdef int get_refcount(self, u64 cluster, u64 *count) noexcept nogil
    cdef int change_refcount(self, u64 cluster, u64 count, int step, bint now) noexcept nogil
    cdef int new_refblock(self, u64 index, u64 cluster) noexcept nogil
    cdef int grow_reftable(self, u64 index, u64 cluster) noexcept nogil
    cdef int allocate(self, u64 wanted, bint exactly, u64 *offset, u64 *got) noexcept nogil
    cdef int allocate_bytes(self, u64 bytes, u64 *offset) noexcept nogil
    cdef int free_clusters(self, u64 offset, u64 count) noexcept nogil
    cdef int free_entry(self, u64 entry) noexcept nogil
    cdef int apply_freed(self) noexcept nogil
    cdef int settle(self) noexcept nogil
