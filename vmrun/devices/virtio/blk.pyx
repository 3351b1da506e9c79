"""virtio-blk's chip: requests of the guest's driver become requests of the drive, any number in flight.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.2.

A request is a header (type, sector), data, and a status byte at its end. What is out of protocol (no room for the
status, a header cut short) breaks the device until its reset; what is only wrong (a sector outside, an unknown type)
gets its status. Data moves between image and guest memory directly.

Locks: the device lock is held, or the queue's own; the drive's completions take the same.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO, block_release, block_request,
    block_submit, block_take,
)

from accel.dma import Scatter as _Scatter

cdef enum:
    SECTOR = 512
    HEADER = 16
    # types
    T_IN = 0
    T_OUT = 1
    T_FLUSH = 4
    T_GET_ID = 8
    T_DISCARD = 11
    T_WRITE_ZEROES = 13
    T_BARRIER = 0x80000000
    ID_SIZE = 20
    # status
    S_OK = 0
    S_IOERR = 1
    S_UNSUPP = 2
    RANGE = 16                  # of discard and write zeroes: sector, count, flags
    RANGE_UNMAP = 1
    WCE_OFFSET = 32
    MOST_PIECES = 1026          # of one request, its memory not being in one block

cdef u64 F_DISCARD = <u64>1 << 13
cdef u64 F_WRITE_ZEROES = <u64>1 << 14

ctypedef struct Header:
    u32 type
    u32 priority
    u64 sector

ctypedef struct Range:
    u64 sector
    u32 count
    u32 flags


cdef void add_place(VirtQueue queue, Pending *place) noexcept nogil:
    place.next = <Pending *>queue.places
    queue.places = <void *>place


cdef void drive_done(BlockRequest *request) noexcept nogil:
    """On the drive's worker, with the lock that guards the queue."""
    cdef Pending *place = <Pending *><size_t>request.tag
    (<BlkChip>request.owner).done(<VirtQueue>(<BlkChip>request.owner).queue_of[place.queue], place)


cdef class BlkChip(VirtioChip):
    """`backend`: the drive. `on_start(flush)`, `on_config(wce)` and `on_stop()` tell the glue what the driver settled."""

    def __init__(self, dma, sizes, backend):
        cdef u32 n
        cdef VirtQueue queue
        super().__init__(dma, sizes)
        self.backend = backend
        self.drive = <void *>backend
        self.block_size = SECTOR
        self.pending = <Pending *>calloc(sum(sizes), sizeof(Pending))
        if self.pending == NULL:
            raise MemoryError
        for queue in self.queues:
            queue.scatter = _Scatter(dma, MOST_PIECES)
            self.first[queue.number + 1] = self.first[queue.number] + sizes[queue.number]
            for n in range(self.first[queue.number], self.first[queue.number + 1]):
                add_place(queue, &self.pending[n])

    def __dealloc__(self):
        free(self.pending)

    def set_serial(self, bytes text):
        memset(self.serial, 0, ID_SIZE)
        memcpy(self.serial, <const u8 *>text, min(len(text), ID_SIZE))

    # --- the driver's side --------------------------------------------------------------------------------

    cdef void started(self) noexcept nogil:
        with gil:
            if self.on_start is not None:
                self.on_start(bool(self.accepted >> 9 & 1))

    cdef void stopped(self) noexcept nogil:
        cdef u32 n
        for n in range(self.queue_count):
            self.queue_stopped(n)
        with gil:
            if self.on_stop is not None:
                self.on_stop()

    cdef void queue_stopped(self, u32 queue) noexcept nogil:
        cdef u32 n
        for n in range(self.first[queue], self.first[queue + 1]):
            if self.pending[n].request != NULL:
                block_release(self.drive, self.pending[n].request)
                self.pending[n].request = NULL
                add_place(<VirtQueue>self.queue_of[queue], &self.pending[n])

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """Only the write-cache byte can be written."""
        if offset <= WCE_OFFSET < offset + size:
            with gil:
                if self.on_config is not None:
                    self.on_config(bool(value >> (8 * (WCE_OFFSET - offset)) & 0xFF))

    cdef void kicked(self, u32 number) noexcept nogil:
        self.serve_queue(<VirtQueue>self.queue_of[number])

    cdef int serve_chain(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """1: it is answered; 0: the drive has it; -1: out of protocol."""
        cdef Header header
        cdef Range span
        cdef u64 status, length
        cdef u32 type
        cdef int op
        if queue.copy_out(chain, 0, <u8 *>&header, HEADER) != 0 or not chain.write_size:
            queue.broken = True
            return -1
        status = queue.pieces[chain.count - 1].addr + queue.pieces[chain.count - 1].len - 1
        type = header.type & ~<u32>T_BARRIER
        if type == T_IN or type == T_OUT:
            op = BLOCK_WRITE if type == T_OUT else BLOCK_READ
            length = chain.read_size - HEADER if type == T_OUT else chain.write_size - 1
            if not self.fits(header.sector, length):
                self.answer(queue, chain, status, S_IOERR)
                return 1
            return self.begin(queue, chain, op, 0, header.sector * SECTOR, length, True)
        if type == T_FLUSH:
            return self.begin(queue, chain, BLOCK_FLUSH, 0, 0, 0, False)
        if type == T_GET_ID:
            length = min(chain.write_size - 1, <u64>ID_SIZE)
            if queue.copy_in(chain, 0, self.serial, <u32>length) != 0:
                self.answer(queue, chain, status, S_IOERR)
            else:
                self.answer(queue, chain, status, S_OK)
            return 1
        if type == T_DISCARD and self.offered & F_DISCARD or type == T_WRITE_ZEROES and self.offered & F_WRITE_ZEROES:
            if queue.copy_out(chain, HEADER, <u8 *>&span, RANGE) != 0:
                queue.broken = True
                return -1
            if chain.read_size > HEADER + RANGE or span.flags & ~<u32>(RANGE_UNMAP if type == T_WRITE_ZEROES else 0):
                self.answer(queue, chain, status, S_UNSUPP)
                return 1
            length = <u64>span.count * SECTOR
            if span.count > (self.most_discard if type == T_DISCARD else self.most_zeroes):
                self.answer(queue, chain, status, S_IOERR)
                return 1
            if not self.fits(span.sector, length):
                self.answer(queue, chain, status, S_IOERR)
                return 1
            op = BLOCK_DISCARD if type == T_DISCARD else BLOCK_ZERO
            return self.begin(
                queue, chain, op, BLOCK_UNMAP if span.flags & RANGE_UNMAP else 0, span.sector * SECTOR, length, False
            )
        self.answer(queue, chain, status, S_UNSUPP)
        return 1

    cdef bint fits(self, u64 sector, u64 length) noexcept nogil:
        """Whole blocks, inside the disk."""
        cdef u64 sectors
        memcpy(&sectors, self.config, 8)
        if length % self.block_size or sector % (self.block_size // SECTOR):
            return False
        return sector <= sectors and length // SECTOR <= sectors - sector

    cdef int begin(self, VirtQueue queue, Chain *chain, int op, u32 flags, u64 offset, u64 length, bint data) noexcept nogil:
        """Give it to the drive. 0, or 1 when it is answered already; `data`: the pieces hold what is moved."""
        cdef Pending *place = <Pending *>queue.places
        cdef u64 status = queue.pieces[chain.count - 1].addr + queue.pieces[chain.count - 1].len - 1
        cdef BlockRequest *request
        cdef int failed = 0
        if place == NULL:                                       # more than the queues hold: they lied
            queue.broken = True
            return -1
        request = block_request(self.drive, <void *>self, drive_done)
        if request == NULL:
            self.answer(queue, chain, status, S_IOERR)
            return 1
        if data and length:
            failed = queue.gather(
                chain, op == BLOCK_READ, 0 if op == BLOCK_READ else HEADER, 1 if op == BLOCK_READ else 0, queue.scatter
            )
            if failed == 0:
                failed = block_take(request, queue.scatter)
        if failed != 0:
            queue.scatter.finish(0)
            block_release(self.drive, request)
            self.answer(queue, chain, status, S_IOERR)
            return 1
        queue.places = <void *>place.next
        place.chain, place.status, place.queue, place.request = chain[0], status, queue.number, request
        request.op, request.flags, request.offset = op, flags, offset
        if not data:
            request.length = length
        request.tag = <u64><size_t>place
        if queue.lock is not None:
            request.lock = <void *>queue.lock
        if not block_submit(self.drive, request):
            return 0
        self.over(queue, place)
        return 1

    cdef void answer(self, VirtQueue queue, Chain *chain, u64 status, u8 value) noexcept nogil:
        queue.dma.write_from(status, &value, 1)
        queue.push(chain, <u32>chain.write_size)

    # --- the drive's side ---------------------------------------------------------------------------------

    cdef void over(self, VirtQueue queue, Pending *place) noexcept nogil:
        """The drive is done with a request: status and used ring."""
        cdef u8 value = S_IOERR if place.request.error else S_OK
        block_release(self.drive, place.request)                # marks what was read as written
        place.request = NULL
        add_place(queue, place)
        self.answer(queue, &place.chain, place.status, value)

    cdef void done(self, VirtQueue queue, Pending *place) noexcept nogil:
        self.dma.space.enter()
        self.over(queue, place)
        self.interrupt(queue)
        self.dma.space.leave()

    @property
    def in_flight(self):
        """Requests that the drive has."""
        cdef u32 n, count = 0
        for n in range(self.first[self.queue_count]):
            count += self.pending[n].request != NULL
        return count
