"""I/O commands of an NVM Express controller, and the guest's memory that they move.

Ref: NVM Express 1.4, 4.3 (PRP), 4.4 (SGL), 6 (commands). What a guest gives (PRP and SGL lists, ranges) is bounded and checked
when it is used. Data moves between image and guest memory directly.
Locks: the queue's (nvme_queues.pyx); what commands here read of the whole controller changes only with the locks of all.
"""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from accel.api cimport u16
from accel.dma cimport Scatter
from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_FUA, BLOCK_READ, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO, BlockRequest, block_buffer,
    block_release, block_request, block_submit, block_take,
)
from vmrun.devices.storage.nvme_queues cimport (
    COMPARE_FAILED, DNR, INTERNAL_ERROR, INVALID_CMB, INVALID_FIELD, INVALID_FORMAT, INVALID_NSID, INVALID_OPCODE, INVALID_PRP,
    INVALID_SGL_COUNT, INVALID_SGL_TYPE, LATER, LBA_RANGE, OK, RANGES, READ_ERROR, SGL_LENGTH, SIZE_LIMIT, TRANSFER_ERROR, WRITE_FAULT,
    Command, NvmeQueues, Place, Range, Side,
)
from vmrun.devices.storage.nvme_space cimport NvmeSpace

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
    COPY_DESCRIPTOR = 32        # bytes
    PIECE = 1 << 20             # the most that a copy moves at one go
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
    """What is attached is in `spaces`, which changes with the locks of all queues."""

    cdef u64 page(self) noexcept nogil:
        return <u64>4096 << (self.cc >> 7 & 15)

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

    cdef int io(self, u32 queue, Command *c, u32 *result) noexcept nogil:
        if not c.nsid or c.nsid > MOST_NAMESPACES and c.nsid != EVERY:
            return INVALID_NSID
        if c.nsid == EVERY:
            return self.start_all(queue, c, BLOCK_FLUSH, 0) if c.opcode == FLUSH else INVALID_FIELD
        if self.spaces[c.nsid] == NULL:
            return INVALID_FIELD
        if c.opcode == COPY:
            return self.copy(queue, c, <NvmeSpace>self.spaces[c.nsid], result)
        return self.io_to(queue, c, <NvmeSpace>self.spaces[c.nsid])

    cdef int io_to(self, u32 queue, Command *c, NvmeSpace space) noexcept nogil:
        cdef u64 first = c.cdw10 | <u64>c.cdw11 << 32, count = (c.cdw12 & 0xFFFF) + 1
        cdef u32 shift = space.block_shift
        cdef u64 total = space.blocks(), length = count << shift
        cdef u8 op = c.opcode
        if op == FLUSH:
            return self.start(queue, c, space, BLOCK_FLUSH, 0, 0, 0, False)
        if op == TRIM:
            return self.trim(queue, c, space)
        if op not in (WRITE, READ, COMPARE, ZEROES, VERIFY):
            return INVALID_OPCODE
        if op == VERIFY:
            if length > self.page() << self.vsl:
                return INVALID_FIELD
        elif op != ZEROES and length > self.page() << self.mdts and self.mdts:
            return INVALID_FIELD
        if first > total or count > total - first:
            return LBA_RANGE
        if op == WRITE:
            vr_count(&space.writes, 1)
            vr_count(&space.blocks_written, length >> 9)
            return self.start(
                queue, c, space, BLOCK_WRITE, first << shift, length, BLOCK_FUA if c.cdw12 & FUA else 0, True
            )
        if op == ZEROES:
            return self.start(
                queue, c, space, BLOCK_ZERO, first << shift, length,
                (BLOCK_UNMAP if c.cdw12 & DEALLOCATE else 0) | (BLOCK_FUA if c.cdw12 & FUA else 0), False,
            )
        vr_count(&space.reads, 1)
        vr_count(&space.blocks_read, length >> 9)
        if op == READ:
            return self.start(queue, c, space, BLOCK_READ, first << shift, length, 0, True)
        return self.compare(queue, c, space, first << shift, length)

    cdef BlockRequest *request(self, u32 queue, void *drive) noexcept nogil:
        cdef BlockRequest *request = block_request(drive, <void *>self, drive_done)
        if request != NULL:
            request.lock = self.side[self.submission[queue].completion].lock
        return request

    cdef Place *take(self, u32 queue, Command *c, NvmeSpace space, BlockRequest *request) noexcept nogil:
        """The place that serve() has for this command: from now on it is under way."""
        cdef Side *side = &self.side[self.submission[queue].completion]
        cdef Place *place = side.place
        side.place = NULL
        side.waiting += 1
        place.id, place.opcode, place.step, place.count = c.id, c.opcode, 0, 0
        place.queue, place.request, place.every = queue, request, False
        place.space, place.drive = <void *>space, space.drive
        return place

    cdef int submit(self, u32 queue, Command *c, NvmeSpace space, BlockRequest *request) noexcept nogil:
        cdef Place *place = self.take(queue, c, space, request)
        request.tag = <u64><size_t>place
        if block_submit(place.drive, request):
            self.over(place)
        return LATER

    cdef int start(
        self, u32 queue, Command *c, NvmeSpace space, int op, u64 offset, u64 length, u32 flags, bint data
    ) noexcept nogil:
        """Give it to the drive. LATER, or what is wrong."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef BlockRequest *request
        cdef int status = OK
        request = self.request(queue, space.drive)
        if request == NULL:
            return INTERNAL_ERROR
        if data:
            self.side[side].moved += length
            status = self.gather(c, length, op == BLOCK_READ, scatter)
            if status == OK and block_take(request, <Scatter>scatter) != 0:
                status = INTERNAL_ERROR
            if status != OK:
                (<Scatter>scatter).finish(0)
                block_release(space.drive, request)
                return status
        else:
            request.length = length
        request.op, request.flags, request.offset = op, flags, offset
        return self.submit(queue, c, space, request)

    cdef int start_all(self, u32 queue, Command *c, int op, u32 flags) noexcept nogil:
        """The whole of each namespace that is attached, one after the other."""
        cdef u32 n
        cdef BlockRequest *request
        cdef Place *place
        for n in range(1, MOST_NAMESPACES + 1):
            if self.spaces[n] != NULL:
                break
        else:
            return OK
        request = self.request(queue, (<NvmeSpace>self.spaces[n]).drive)
        if request == NULL:
            return INTERNAL_ERROR
        place = self.take(queue, c, <NvmeSpace>self.spaces[n], request)
        place.every = True
        request.op, request.flags, request.offset = op, flags, 0
        request.length = (<NvmeSpace>place.space).size if op == BLOCK_ZERO else 0
        request.tag = <u64><size_t>place
        if block_submit(place.drive, request):
            self.over(place)
        return LATER

    cdef bint next_space(self, Place *place) noexcept nogil:
        """The same with the next namespace. False: there is none, or it cannot be (`place.request` is NULL, or tells)."""
        cdef BlockRequest *request = place.request
        cdef u32 nsid = (<NvmeSpace>place.space).nsid + 1, flags = request.flags
        cdef int op = request.op
        for nsid in range(nsid, MOST_NAMESPACES + 1):
            if self.spaces[nsid] == NULL:
                continue
            block_release(place.drive, place.request)
            place.space = self.spaces[nsid]
            place.drive = (<NvmeSpace>place.space).drive
            request = place.request = self.request(place.queue, place.drive)
            if request == NULL:
                return False
            request.op, request.flags, request.offset = op, flags, 0
            request.length = (<NvmeSpace>place.space).size if op == BLOCK_ZERO else 0
            request.tag = <u64><size_t>place
            if not block_submit(place.drive, request):
                return True
            if request.error:
                return False
        return False

    cdef int compare(self, u32 queue, Command *c, NvmeSpace space, u64 offset, u64 length) noexcept nogil:
        """COMPARE and VERIFY read into memory of the request's own."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef Place *place = self.side[side].place
        cdef BlockRequest *request
        cdef int status
        if length > self.page() << 7:
            length = self.page() << 7                           # of a verify: enough to see that it can be read
        request = self.request(queue, space.drive)
        if request == NULL or block_buffer(request, length) == NULL:
            block_release(space.drive, request)
            return INTERNAL_ERROR
        self.side[side].moved += length
        if c.opcode == COMPARE:
            free(place.ranges)
            place.ranges = <Range *>malloc(length)              # what the host has
            status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, length, False, scatter)
            if status != OK:
                (<Scatter>scatter).finish(0)
                free(place.ranges)
                place.ranges = NULL
                block_release(space.drive, request)
                return status
            (<Scatter>scatter).get(0, <u8 *>place.ranges, length)
            (<Scatter>scatter).finish(0)
        request.op, request.offset = BLOCK_READ, offset
        return self.submit(queue, c, space, request)

    cdef int ranges(self, u32 queue, Command *c, u32 count, u32 size) noexcept nogil:
        """`count` descriptors of `size` bytes, as the guest has them, into the place's memory. OK, or what is wrong."""
        cdef u32 side = self.submission[queue].completion
        cdef void *scatter = self.side[side].scatter
        cdef Place *place = self.side[side].place
        cdef int status
        free(place.ranges)                                      # of a copy that could not be
        place.ranges = <Range *>malloc(RANGES * size)
        status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, count * size, False, scatter)
        if status != OK:
            (<Scatter>scatter).finish(0)
            free(place.ranges)
            place.ranges = NULL
            return status
        (<Scatter>scatter).get(0, <u8 *>place.ranges, count * size)
        (<Scatter>scatter).finish(0)
        return OK

    cdef int trim(self, u32 queue, Command *c, NvmeSpace space) noexcept nogil:
        """Dataset management: ranges that nobody needs any more, one after the other."""
        cdef Place *place
        cdef u32 count = (c.cdw10 & 0xFF) + 1
        cdef int status
        if not c.cdw11 & 4:
            return OK
        status = self.ranges(queue, c, count, sizeof(Range))
        if status != OK:
            return status
        place = self.take(queue, c, space, self.request(queue, space.drive))
        place.count = count
        if place.request == NULL or not self.next_range(place):
            self.over(place)
        return LATER

    cdef bint next_range(self, Place *place) noexcept nogil:
        """Submit the next range that can be. False: there is none, or all that there were are over."""
        cdef Range *range
        cdef u64 total = (<NvmeSpace>place.space).blocks()
        cdef u32 shift = (<NvmeSpace>place.space).block_shift
        cdef BlockRequest *request = place.request
        while place.step < place.count:
            range = &place.ranges[place.step]
            place.step += 1
            if not range.blocks or range.first > total or range.blocks > total - range.first:
                continue
            request.op, request.offset = BLOCK_DISCARD, range.first << shift
            request.length, request.tag, request.error = <u64>range.blocks << shift, <u64><size_t>place, 0
            if not block_submit(place.drive, request):
                return True
            if request.error:
                return False
        return False

    cdef int copy(self, u32 queue, Command *c, NvmeSpace space, u32 *result) noexcept nogil:
        """Ranges of the namespace's own blocks, one after the other, to where the command says. `result`: the range that is
        wrong.
        """
        cdef u64 to = c.cdw10 | <u64>c.cdw11 << 32, total = space.blocks(), sum = 0
        cdef u32 count = (c.cdw12 & 0xFF) + 1, n
        cdef u8 *rows
        cdef Range row
        cdef BlockRequest *request
        cdef Place *place = self.side[self.submission[queue].completion].place
        cdef int status
        if count > space.most_ranges + 1 or not space.most_range:
            return SIZE_LIMIT
        if c.cdw12 >> 8 & 15:                                   # descriptors that protection needs, or nobody knows
            return INVALID_FORMAT if c.cdw12 >> 8 & 15 == 1 else INVALID_FIELD
        status = self.ranges(queue, c, count, COPY_DESCRIPTOR)
        if status != OK:
            return status
        rows = <u8 *>place.ranges
        for n in range(count):
            memcpy(&row.first, rows + COPY_DESCRIPTOR * n + 8, 8)
            row.blocks = (rows[COPY_DESCRIPTOR * n + 16] | <u32>rows[COPY_DESCRIPTOR * n + 17] << 8) + 1
            sum += row.blocks
            result[0] = n
            if row.blocks > space.most_range or sum > space.most_copied:
                return SIZE_LIMIT
            if row.first > total or row.blocks > total - row.first:
                return LBA_RANGE
            place.ranges[n] = row
        result[0] = 0
        if to > total or sum > total - to:
            return LBA_RANGE
        request = self.request(queue, space.drive)
        if request == NULL:
            return INTERNAL_ERROR
        request.op, request.flags = BLOCK_WRITE, BLOCK_FUA if c.cdw12 & FUA else 0
        request.length, request.tag = 0, <u64><size_t>place
        place = self.take(queue, c, space, request)
        place.count, place.done, place.to = count, 0, to << space.block_shift
        vr_count(&space.reads, 1)
        vr_count(&space.writes, 1)
        vr_count(&space.blocks_read, sum << space.block_shift >> 9)
        vr_count(&space.blocks_written, sum << space.block_shift >> 9)
        if not self.next_piece(place):
            self.over(place)
        return LATER

    cdef bint next_piece(self, Place *place) noexcept nogil:
        """What was read is written, what was written is done: on with the next. False: all is, or something went wrong."""
        cdef BlockRequest *request = place.request
        cdef Range *range
        cdef u64 length, size
        cdef u32 shift = (<NvmeSpace>place.space).block_shift
        while True:
            length = request.length
            if request.op == BLOCK_WRITE:                       # or it has just begun, with nothing written
                place.to += length
                place.done += length
                while place.step < place.count and place.done >= <u64>place.ranges[place.step].blocks << shift:
                    place.step += 1
                    place.done = 0
                if place.step == place.count:
                    return False
                range = &place.ranges[place.step]
                size = <u64>range.blocks << shift
                length = min(size - place.done, <u64>PIECE)
                request.op, request.offset = BLOCK_READ, (range.first << shift) + place.done
            else:
                request.op, request.offset = BLOCK_WRITE, place.to
            request.error = 0
            if block_buffer(request, length) == NULL:
                request.error = ENOMEM
                return False
            if not block_submit(place.drive, request):
                return True
            if request.error:
                return False

    cdef void over(self, Place *place) noexcept nogil:
        """The drive is done with a request."""
        cdef BlockRequest *request = place.request
        cdef u32 queue = place.queue, completion = self.submission[queue].completion
        cdef u32 status = OK, result = 0
        cdef u8 opcode = place.opcode
        cdef u16 id = place.id
        cdef void *drive
        if request != NULL and not request.error:
            if place.every:
                if self.next_space(place):
                    return
            elif queue and (opcode == TRIM and self.next_range(place) or opcode == COPY and self.next_piece(place)):
                return
            request = place.request
        if request == NULL:
            status = INTERNAL_ERROR
        elif request.error:
            if queue == 0 or opcode == FLUSH or opcode == TRIM:
                status = INTERNAL_ERROR & ~DNR
            elif opcode == COPY:
                status, result = WRITE_FAULT if request.op == BLOCK_WRITE else READ_ERROR, place.step
            else:
                status = WRITE_FAULT if opcode == WRITE or opcode == ZEROES else READ_ERROR
        elif opcode == COMPARE and queue and memcmp(request.own, place.ranges, request.length) != 0:
            status = COMPARE_FAILED
        self.side[completion].waiting -= 1
        drive = place.drive
        self.put_back(place)
        block_release(drive, request)                           # marks what was read as written
        self.post(queue, id, status, result)
        if not self.side[completion].serving:
            self.tell(completion)
            if self.submission[queue].head != self.submission[queue].tail:
                self.serve(queue)
