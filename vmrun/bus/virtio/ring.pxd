from accel.api cimport DeviceLock, u8, u16, u32, u64
from accel.dma cimport Dma, Scatter

cdef enum:
    MOST = 1024                 # descriptors of a queue, and of one request

ctypedef struct Desc:           # a piece of a request; `flags` have DESC_WRITE when the device writes
    u64 addr
    u32 len
    u16 flags
    u16 next

cdef enum:
    DESC_NEXT = 1
    DESC_WRITE = 2
    DESC_INDIRECT = 4

ctypedef struct Chain:          # a request that was taken off a queue
    u32 id
    u32 slots                   # places in the ring that it had (packed)
    u32 count                   # pieces, those that are read first
    u32 readable                # how many of them are read
    u64 read_size, write_size   # bytes


cdef class VirtQueue:
    cdef Dma dma
    cdef public DeviceLock lock                 # the queue's own, or what several share; None: the device lock
    cdef bint attended                          # whoever serves it just now has the device lock too
    cdef Scatter scatter                        # the device's, for this queue's requests
    cdef void *places                           # likewise: where it keeps them
    cdef readonly u32 number, most
    cdef public u32 size
    cdef public u64 desc, avail, used           # guest addresses; packed: ring, driver's and device's event areas
    cdef public bint ready, packed, event_idx, notify_on_empty
    cdef public u32 vector
    cdef public bint broken
    cdef public u16 last_avail, used_idx, signalled
    cdef public bint avail_wrap, used_wrap, signalled_valid
    cdef readonly u32 in_flight
    cdef bint quiet                             # the driver need not kick: see `listen`
    cdef Desc *pieces
    cdef void enter(self) noexcept nogil
    cdef void leave(self) noexcept nogil
    cdef void listen(self, bint on) noexcept nogil
    cdef int fetch(self, u64 table, u32 index, Desc *out) noexcept nogil
    cdef int take_piece(self, Chain *chain, Desc *piece) noexcept nogil
    cdef int take_table(self, Chain *chain, Desc *indirect) noexcept nogil
    cdef int fail(self) noexcept nogil
    cdef int pop(self, Chain *chain) noexcept nogil
    cdef int pop_split(self, Chain *chain) noexcept nogil
    cdef int pop_packed(self, Chain *chain) noexcept nogil
    cdef void push(self, Chain *chain, u32 written) noexcept nogil
    cdef void push_many(self, Chain *chains, u32 *written, u32 count) noexcept nogil
    cdef void mark_used(self, u32 place, bint wrap, Chain *chain, u32 written) noexcept nogil
    cdef void pop_back(self, Chain *chain) noexcept nogil
    cdef bint should_notify(self) noexcept nogil
    cdef bint needs(self, u16 event, u16 old) noexcept nogil
    cdef int gather(self, Chain *chain, bint to_memory, u64 skip, u64 drop, Scatter scatter) noexcept nogil
    cdef int copy_out(self, Chain *chain, u64 offset, u8 *data, u32 count) noexcept nogil
    cdef int copy_in(self, Chain *chain, u64 offset, const u8 *data, u32 count) noexcept nogil
