from accel.api cimport u8, u32, u64
from accel.dma cimport Scatter
from vmrun.backends.protocols cimport BlockRequest
from vmrun.bus.virtio.device cimport MOST_QUEUES, VirtioChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue

ctypedef struct Pending:        # a request that the drive has
    Chain chain
    u64 status                  # address of the status byte
    u32 queue
    BlockRequest *request       # NULL: this place is free
    Pending *next


cdef class BlkChip(VirtioChip):
    cdef readonly object backend
    cdef void *drive            # borrowed
    cdef u32 first[MOST_QUEUES + 1]     # place of each queue in `pending`
    cdef Pending *pending       # those of all queues, each queue's together; the free ones of a queue are its `places`
    cdef public u32 block_size, most_discard, most_zeroes
    cdef u8 serial[20]
    cdef public object on_start, on_config, on_stop
    cdef int begin(self, VirtQueue queue, Chain *chain, int op, u32 flags, u64 offset, u64 length, bint data) noexcept nogil
    cdef void answer(self, VirtQueue queue, Chain *chain, u64 status, u8 value) noexcept nogil
    cdef void done(self, VirtQueue queue, Pending *place) noexcept nogil
    cdef void over(self, VirtQueue queue, Pending *place) noexcept nogil
    cdef bint fits(self, u64 sector, u64 length) noexcept nogil
