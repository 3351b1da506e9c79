# I/O commands of an NVMe controller. The documentation is in nvme_io.pyx.
from accel.api cimport u8, u32, u64
from vmrun.backends.protocols cimport BlockRequest
from vmrun.devices.storage.nvme_queues cimport Command, NvmeQueues, Place
from vmrun.devices.storage.nvme_space cimport NvmeSpace

cdef enum:
    EVERY = 0xFFFFFFFF              # nsid of all namespaces
    MOST_NAMESPACES = 256


cdef class NvmeIo(NvmeQueues):
    cdef readonly u32 mdts, vsl
    cdef void *spaces[MOST_NAMESPACES + 1]      # NvmeSpace by number: what is attached; NULL: nothing is
    cdef u64 page(self) noexcept nogil
    cdef int gather(self, Command *c, u64 length, bint to_memory, void *scatter) noexcept nogil
    cdef int add_piece(self, void *scatter, u64 address, u64 length, int *owner) noexcept nogil
    cdef int gather_list(self, Command *c, u64 length, void *scatter) noexcept nogil
    cdef int io(self, u32 queue, Command *c, u32 *result) noexcept nogil
    cdef int io_to(self, u32 queue, Command *c, NvmeSpace space) noexcept nogil
    cdef BlockRequest *request(self, u32 queue, void *drive) noexcept nogil
    cdef Place *take(self, u32 queue, Command *c, NvmeSpace space, BlockRequest *request) noexcept nogil
    cdef int submit(self, u32 queue, Command *c, NvmeSpace space, BlockRequest *request) noexcept nogil
    cdef int start(
        self, u32 queue, Command *c, NvmeSpace space, int op, u64 offset, u64 length, u32 flags, bint data
    ) noexcept nogil
    cdef int start_all(self, u32 queue, Command *c, int op, u32 flags) noexcept nogil
    cdef int ranges(self, u32 queue, Command *c, u32 count, u32 size) noexcept nogil
    cdef int trim(self, u32 queue, Command *c, NvmeSpace space) noexcept nogil
    cdef int copy(self, u32 queue, Command *c, NvmeSpace space, u32 *result) noexcept nogil
    cdef int compare(self, u32 queue, Command *c, NvmeSpace space, u64 offset, u64 length) noexcept nogil
    cdef bint next_range(self, Place *place) noexcept nogil
    cdef bint next_piece(self, Place *place) noexcept nogil
    cdef bint next_space(self, Place *place) noexcept nogil
