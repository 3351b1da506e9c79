# A namespace of an NVMe controller. The documentation is in nvme_space.pyx.
from accel.api cimport u8, u32, u64


cdef class NvmeSpace:
    cdef readonly u32 nsid
    cdef readonly object backend
    cdef void *drive
    cdef readonly u64 size
    cdef readonly bint shared
    cdef readonly u32 block_shift, own_shift
    cdef readonly u64 granularity, eui64
    cdef u8 uuid[16]
    cdef readonly bint has_uuid
    cdef readonly u32 most_copied, most_ranges, most_range
    cdef public u64 reads, writes, blocks_read, blocks_written
    cdef public u32 recovery
    cdef bint has_own(self) noexcept nogil
    cdef u64 blocks(self) noexcept nogil
    cdef void fill(self, u8 *data) noexcept nogil
    cdef void describe(self, u8 *data) noexcept nogil
    cdef bint has_format(self, u32 format) noexcept nogil
    cdef void choose(self, u32 format) noexcept nogil
