"""I/O commands of an NVM Express controller, and the guest's memory that they move.

Ref: NVM Express 1.4, 4.3 (PRP), 4.4 (SGL), 6 (commands). What a guest gives (PRP and SGL lists, ranges) is bounded and checked
when it is used. Data moves between image and guest memory directly.
Locks: the queue's (nvme_queues.pyx); what commands here read of the whole controller changes only with the locks of all.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

from accel.api cimport u16
from accel.dma cimport Scatter
from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_FUA, BLOCK_READ, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO, BlockRequest, block_buffer,
    block_release, block_request, block_submit, block_take,
)
from vmrun.devices.storage.nvme_queues cimport (
    COMPARE_FAILED, DNR, INTERNAL_ERROR, INVALID_CMB, INVALID_FIELD, INVALID_NSID, INVALID_OPCODE, INVALID_PRP,
    INVALID_SGL_COUNT, INVALID_SGL_TYPE, LATER, LBA_RANGE, OK, RANGES, READ_ERROR, SGL_LENGTH, SIZE_LIMIT, TRANSFER_ERROR, WRITE_FAULT,
    Command, NvmeQueues, Place, Range, Side,
)

cdef extern from *:
    """
    #define vr_count(p, n) __atomic_fetch_add((p), (n), __ATOMIC_RELAXED)
    """
    void vr_count(u64 *, u64) nogil

cdef enum:
    # I/O commands
    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    COMPARE = 0x05
    ZEROES = 0x08
    TRIM = 0x09
    VERIFY = 0x0C
    COPY = 0x19
    FUA = 1 << 30
    DEALLOCATE = 1 << 25
    MOST_SEGMENTS = 256


cdef void drive_done(BlockRequest *request) noexcept nogil:
    """With the lock that guards the queue."""
    cdef Place *place = <Place *><size_t>request.tag
    cdef void *owner = request.owner                        # what is over() is the drive's again, or gone
    if request.lock == NULL:
        (<NvmeIo>owner).over(place)
        return
    (<NvmeIo>owner).dma.space.enter()
    (<NvmeIo>owner).over(place)
    (<NvmeIo>owner).dma.space.leave()


cdef class NvmeIo(NvmeQueues):
    """One namespace: `size` bytes, in blocks of 1 << block_shift."""

    cdef u64 page(self) noexcept nogil:
        return <u64>4096 << (self.cc >> 7 & 15)

    cdef u64 blocks(self) noexcept nogil:
        return self.size >> self.block_shift

    # --- data ---------------------------------------------------------------------------------------------------

    cdef int gather(self, Command *c, u64 length, bint to_memory, void *scatter) noexcept nogil:
        """The guest's memory of a command into a Scatter."""
        cdef u64 page = self.page(), at = c.prp1, part, list_at, entry
        cdef u32 known = 0, left_in_page
        cdef int owner = -1, error
        (<Scatter>scatter).finish(0)
        (<Scatter>scatter).begin(to_memory)
        if c.flags >> 6:
            return self.gather_list(c, length, scatter)
        part = min(length, page - (at & (page - 1)))
        error = self.add_piece(scatter, at, part, &owner)
        length -= part
        if error or not length:
            return error
        if length <= page:
            if c.prp2 & (page - 1):
                return INVALID_PRP
            return self.add_piece(scatter, c.prp2, length, &owner)
        list_at = c.prp2
        if list_at & 7:
            return INVALID_PRP
        while length:
            left_in_page = <u32>((page - (list_at & (page - 1))) // 8)
            if self.dma.read_into(self.at(list_at), <u8 *>&entry, 8) != 0:
                return TRANSFER_ERROR
            if entry & (page - 1):
                return INVALID_PRP
            if left_in_page == 1 and length > page:             # the last of a page leads to the next list
                known += 1
                if known > MOST_SEGMENTS or not entry:
                    return INVALID_PRP
                list_at = entry
                continue
            part = min(length, page)
            error = self.add_piece(scatter, entry, part, &owner)
            if error:
                return error
            length -= part
            list_at += 8
        return OK

    cdef int add_piece(self, void *scatter, u64 address, u64 length, int *owner) noexcept nogil:
        """One more of a command's pieces. All lie in the same memory: the guest's, or one of the controller's (CMBLOC.CDMMMS
        is 0); `owner` is which, less than 0 before the first.
        """
        cdef int whose = 0 if self.memory is None else self.memory.holds(address)
        if owner[0] >= 0 and owner[0] != whose:
            return INVALID_CMB
        owner[0] = whose
        return OK if (<Scatter>scatter).add(self.at(address), length) == 0 else TRANSFER_ERROR

    cdef int gather_list(self, Command *c, u64 length, void *scatter) noexcept nogil:
        """The same for a scatter-gather list: one descriptor in the command, which may lead to segments of them."""
        cdef u64 addr = c.prp1, at, next_at
        cdef u32 size = <u32>c.prp2, kind = <u32>(c.prp2 >> 60), count, n, segments = 0, next_size
        cdef u64 descriptor[2]
        cdef bint last = False
        cdef u64 part
        cdef int owner = -1, error
        if c.prp2 >> 56 & 15:
            return INVALID_SGL_TYPE
        if kind == 0:
            if size < length:
                return SGL_LENGTH
            return self.add_piece(scatter, addr, length, &owner)
        if kind != 2 and kind != 3:
            return INVALID_SGL_TYPE
        last = kind == 3
        while length:
            segments += 1
            if not size or size & 15 or segments > MOST_SEGMENTS or size > 65536:
                return INVALID_SGL_COUNT
            count = size // 16
            next_size = 0
            next_at = 0
            for n in range(count):
                if self.dma.read_into(self.at(addr + 16 * n), <u8 *>descriptor, 16) != 0:
                    return TRANSFER_ERROR
                kind = <u32>(descriptor[1] >> 60)
                if descriptor[1] >> 56 & 15:
                    return INVALID_SGL_TYPE
                if kind == 0:
                    part = min(length, <u64><u32>descriptor[1])
                    error = self.add_piece(scatter, descriptor[0], part, &owner) if part else OK
                    if error:
                        return error
                    length -= part
                elif (kind == 2 or kind == 3) and n == count - 1 and not last:
                    next_at, next_size, last = descriptor[0], <u32>descriptor[1], kind == 3
                    if not next_size:
                        return INVALID_SGL_COUNT
                else:
                    return INVALID_SGL_TYPE
            if length and not next_size:
                return SGL_LENGTH
            addr, size = next_at, next_size
        return OK

    # --- I/O commands ---------------------------------------------------------------------------------------------

    cdef int io(self, u32 queue, Command *c) noexcept nogil:
        cdef u64 first = c.cdw10 | <u64>c.cdw11 << 32, count = (c.cdw12 & 0xFFFF) + 1
        cdef u64 total = self.blocks(), length = count << self.block_shift
        cdef u8 op = c.opcode
        if not c.nsid or c.nsid > MOST_NAMESPACES and c.nsid != EVERY:
            return INVALID_NSID
        if op == FLUSH and (c.nsid == EVERY or c.nsid == 1):
            return self.start(queue, c, BLOCK_FLUSH, 0, 0, 0, False)
        if c.nsid != 1:
            return INVALID_FIELD
        if op == TRIM:
            return self.trim(queue, c)
        if op == COPY:
            return SIZE_LIMIT
        if op not in (WRITE, READ, COMPARE, ZEROES, VERIFY):
            return INVALID_OPCODE
        if op != ZEROES and op != VERIFY and length > self.page() << self.mdts and self.mdts:
            return INVALID_FIELD
        if first > total or count > total - first:
            return LBA_RANGE
        if op == READ:
            vr_count(&self.reads, 1)
            vr_count(&self.blocks_read, length >> 9)
            return self.start(queue, c, BLOCK_READ, first << self.block_shift, length, 0, True)
        if op == WRITE:
            vr_count(&self.writes, 1)
            vr_count(&self.blocks_written, length >> 9)
            return self.start(
                queue, c, BLOCK_WRITE, first << self.block_shift, length, BLOCK_FUA if c.cdw12 & FUA else 0, True
            )
        if op == ZEROES:
            return self.start(
                queue, c, BLOCK_ZERO, first << self.block_shift, length,
                (BLOCK_UNMAP if c.cdw12 & DEALLOCATE else 0) | (BLOCK_FUA if c.cdw12 & FUA else 0), False,
            )
        return self.compare(queue, c, first << self.block_shift, length)

    cdef BlockRequest *request(self, u32 queue) noexcept nogil:
        cdef BlockRequest *request = block_request(self.drive, <void *>self, drive_done)
        if request != NULL:
            request.lock = self.side[self.submission[queue].completion].lock
        return request

    cdef Place *take(self, u32 queue, Command *c, BlockRequest *request) noexcept nogil:
        """The place that serve() has for this command: from now on it is under way."""
        cdef Side *side = &self.side[self.submission[queue].completion]
        cdef Place *place = side.place
        side.place = NULL
        side.waiting += 1
        place.id, place.opcode, place.step, place.count = c.id, c.opcode, 0, 0
        place.queue, place.request = queue, request
        return place

    cdef int submit(self, u32 queue, Command *c, BlockRequest *request) noexcept nogil:
        cdef Place *place = self.take(queue, c, request)
        request.tag = <u64><size_t>place
        if block_submit(self.drive, request):
            self.over(place)
        return LATER

    cdef int start(self, u32 queue, Command *c, int op, u64 offset, u64 length, u32 flags, bint data) noexcept nogil:
        """Give it to the drive. LATER, or what is wrong."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef BlockRequest *request
        cdef int status = OK
        request = self.request(queue)
        if request == NULL:
            return INTERNAL_ERROR
        if data:
            self.side[side].moved += length
            status = self.gather(c, length, op == BLOCK_READ, scatter)
            if status == OK and block_take(request, <Scatter>scatter) != 0:
                status = INTERNAL_ERROR
            if status != OK:
                (<Scatter>scatter).finish(0)
                block_release(self.drive, request)
                return status
        else:
            request.length = length
        request.op, request.flags, request.offset = op, flags, offset
        return self.submit(queue, c, request)

    cdef int compare(self, u32 queue, Command *c, u64 offset, u64 length) noexcept nogil:
        """COMPARE and VERIFY read into memory of the request's own."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef Place *place = self.side[side].place
        cdef BlockRequest *request
        cdef int status
        if length > self.page() << 7:
            length = self.page() << 7                           # of a verify: enough to see that it can be read
        request = self.request(queue)
        if request == NULL or block_buffer(request, length) == NULL:
            block_release(self.drive, request)
            return INTERNAL_ERROR
        self.side[side].moved += length
        if c.opcode == COMPARE:
            place.ranges = <Range *>malloc(length)              # what the host has
            status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, length, False, scatter)
            if status != OK:
                (<Scatter>scatter).finish(0)
                free(place.ranges)
                place.ranges = NULL
                block_release(self.drive, request)
                return status
            (<Scatter>scatter).get(0, <u8 *>place.ranges, length)
            (<Scatter>scatter).finish(0)
        request.op, request.offset = BLOCK_READ, offset
        return self.submit(queue, c, request)

    cdef int trim(self, u32 queue, Command *c) noexcept nogil:
        """Dataset management: ranges that nobody needs any more, one after the other."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef Place *place = self.side[side].place
        cdef u32 count = (c.cdw10 & 0xFF) + 1
        cdef int status
        if not c.cdw11 & 4:
            return OK
        place.ranges = <Range *>malloc(RANGES * sizeof(Range))
        status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, count * sizeof(Range), False, scatter)
        if status != OK:
            (<Scatter>scatter).finish(0)
            free(place.ranges)
            place.ranges = NULL
            return status
        (<Scatter>scatter).get(0, <u8 *>place.ranges, count * sizeof(Range))
        (<Scatter>scatter).finish(0)
        self.take(queue, c, self.request(queue))
        place.count = count
        if place.request == NULL or not self.next_range(place):
            self.over(place)
        return LATER

    cdef bint next_range(self, Place *place) noexcept nogil:
        """Submit the next range that can be. False: there is none, or all that there were are over."""
        cdef Range *range
        cdef u64 total = self.blocks(), most = <u64>1 << 30
        cdef BlockRequest *request = place.request
        while place.step < place.count:
            range = &place.ranges[place.step]
            place.step += 1
            if not range.blocks or range.first > total or range.blocks > total - range.first:
                continue
            request.op, request.offset = BLOCK_DISCARD, range.first << self.block_shift
            request.length, request.tag, request.error = <u64>range.blocks << self.block_shift, <u64><size_t>place, 0
            if not block_submit(self.drive, request):
                return True
            if request.error:
                return False
        return False

    cdef void over(self, Place *place) noexcept nogil:
        """The drive is done with a request."""
        cdef BlockRequest *request = place.request
        cdef u32 queue = place.queue, completion = self.submission[queue].completion
        cdef u32 status = OK
        cdef u8 opcode = place.opcode
        cdef u16 id = place.id
        if request == NULL:
            status = INTERNAL_ERROR
        elif request.error:
            if queue == 0 or opcode == FLUSH or opcode == TRIM:
                status = INTERNAL_ERROR & ~DNR
            else:
                status = WRITE_FAULT if opcode == WRITE or opcode == ZEROES else READ_ERROR
        elif opcode == TRIM and queue and self.next_range(place):
            return
        elif opcode == COMPARE and queue and memcmp(request.own, place.ranges, request.length) != 0:
            status = COMPARE_FAILED
        self.side[completion].waiting -= 1
        self.put_back(place)
        block_release(self.drive, request)                      # marks what was read as written
        self.post(queue, id, status, 0)
        if not self.side[completion].serving:
            self.tell(completion)
            if self.submission[queue].head != self.submission[queue].tail:
                self.serve(queue)
