# I/O commands of an NVMe controller. The documentation is in nvme_io.pyx.
from accel.api cimport u8, u32, u64
from vmrun.backends.protocols cimport BlockRequest
from vmrun.devices.storage.nvme_queues cimport Command, NvmeQueues, Place

cdef enum:
    EVERY = 0xFFFFFFFF              # nsid of all namespaces
    MOST_NAMESPACES = 256


cdef class NvmeIo(NvmeQueues):
    cdef readonly u32 mdts, block_shift, own_shift
    cdef readonly u64 size
    cdef public u64 reads, writes, blocks_read, blocks_written
    cdef u64 page(self) noexcept nogil
    cdef u64 blocks(self) noexcept nogil
    cdef int gather(self, Command *c, u64 length, bint to_memory, void *scatter) noexcept nogil
    cdef int add_piece(self, void *scatter, u64 address, u64 length, int *owner) noexcept nogil
    cdef int gather_list(self, Command *c, u64 length, void *scatter) noexcept nogil
    cdef int io(self, u32 queue, Command *c) noexcept nogil
    cdef BlockRequest *request(self, u32 queue) noexcept nogil
    cdef Place *take(self, u32 queue, Command *c, BlockRequest *request) noexcept nogil
    cdef int submit(self, u32 queue, Command *c, BlockRequest *request) noexcept nogil
    cdef int start(self, u32 queue, Command *c, int op, u64 offset, u64 length, u32 flags, bint data) noexcept nogil
    cdef int trim(self, u32 queue, Command *c) noexcept nogil
    cdef int compare(self, u32 queue, Command *c, u64 offset, u64 length) noexcept nogil
    cdef bint next_range(self, Place *place) noexcept nogil
