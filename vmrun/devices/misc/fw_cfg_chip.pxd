from accel.aio cimport IoThread
from accel.api cimport IoRegion, u8, u32, u64
from accel.dma cimport Dma, Scatter
from accel.turns cimport Turn

ctypedef struct Item:
    u8 *data                # NULL: there is none
    u32 size
    bint writable           # by the guest
    bint computed           # a callback gives the contents when the item is selected


cdef class FwCfg(IoRegion):
    cdef Item *items
    cdef u32 per_side, slots
    cdef dict contents      # key → bytes, or a bytearray that the guest can write
    cdef dict callbacks     # key → callable
    cdef dict files         # name → [order, number, data, callback]
    cdef Dma dma
    cdef Scatter target             # of the transfer under way
    cdef readonly u32 left          # bytes that a long read still moves; no other begins meanwhile
    cdef u64 left_to, left_block    # where to; the request, to be answered
    cdef IoThread thread            # None: every read is done at once
    cdef Turn later
    cdef readonly object dma_port
    cdef readonly bint dma_enabled
    cdef public bint by_name
    cdef public u32 selected, offset
    cdef public u64 dma_address
    cdef Item *item(self, u32 key) noexcept nogil
    cdef void select(self, u32 key) noexcept nogil
    cdef void compute(self, u32 key) noexcept with gil
    cdef void run_dma(self) noexcept nogil
    cdef void answer(self, u64 block, u32 result) noexcept nogil
    cdef u32 move(self, u64 address, u32 length) noexcept nogil
    cdef void go_on(self, u32 most) noexcept nogil
    cdef u32 transfer(self, u32 control, u64 address, u32 length) noexcept nogil
