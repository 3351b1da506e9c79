"""What a disk wants of its requests: whole blocks, not too many bytes at once.

A request that is not of whole blocks is widened: what is around it is read first, and written again with it, while no
other request is about these blocks. `part_…` is what subclasses make of the pieces.

Ref: QEMU qapi/block-core.json, BlockdevOptionsBlkdebug; what comes out of qemu-io over such a node.
"""

from libc.errno cimport EAGAIN, ENOMEM, EOPNOTSUPP
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.node cimport (
    EVENT_PWRITEV, EVENT_PWRITEV_DONE, EVENT_PWRITEV_RMW_AFTER_HEAD, EVENT_PWRITEV_RMW_AFTER_TAIL,
    EVENT_PWRITEV_RMW_HEAD, EVENT_PWRITEV_RMW_TAIL, EVENT_PWRITEV_ZERO, EXTENT_ALLOCATED, EXTENT_DATA, NODE_FUA,
    NODE_NOWAIT, Extent, cursor_advance, cursor_memory,
)

cdef enum:
    ZEROS = 1 << 20             # bytes of zeros that are written at once


cdef u64 smaller(u64 a, u64 b) noexcept nogil:
    return a if a < b else b


cdef class BoundedNode(Filter):

    def __cinit__(self, *args, **kwargs):
        self.align = 1
        pthread_mutex_init(&self.tracking, NULL)
        pthread_cond_init(&self.over, NULL)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.tracking)
        pthread_cond_destroy(&self.over)

    # --- requests under way ---------------------------------------------------------------------------------

    cdef void enter(self, Track *track, u64 offset, u64 bytes, bint alone) noexcept nogil:
        """Wait for those under way that are about the same blocks, when it or one of them is to be alone there; not for
        those that wait themselves.
        """
        cdef Track *other
        cdef bint clash = True
        track.start = offset & ~(self.align - 1)
        track.end = (offset + bytes + self.align - 1) & ~(self.align - 1)
        track.alone, track.waits = alone, False
        pthread_mutex_lock(&self.tracking)
        track.next = self.tracks
        self.tracks = track
        while clash:
            clash = False
            other = self.tracks
            while other != NULL:
                if (alone or other.alone) and other.start < track.end and track.start < other.end:
                    clash = clash or other != track and not other.waits
                other = other.next
            track.waits = clash
            if clash:
                pthread_cond_wait(&self.over, &self.tracking)
        pthread_mutex_unlock(&self.tracking)

    cdef void leave(self, Track *track) noexcept nogil:
        cdef Track **at = &self.tracks
        pthread_mutex_lock(&self.tracking)
        while at[0] != track:
            at = &at[0].next
        at[0] = track.next
        pthread_cond_broadcast(&self.over)
        pthread_mutex_unlock(&self.tracking)

    # --- whole blocks ---------------------------------------------------------------------------------------

    cdef int pad(self, Padded *padded, u64 offset, u64 bytes, Cursor *cursor) noexcept nogil:
        """The vectors of a request with room for what is missing around it. The caller frees memory and vectors."""
        cdef u64 n = 0, mask = self.align - 1, left = bytes, skip = cursor.skip
        cdef const IoVec *at = cursor.at
        padded.head = offset & mask
        padded.tail = (self.align - (offset + bytes & mask)) & mask
        padded.offset, padded.bytes = offset - padded.head, padded.head + bytes + padded.tail
        padded.memory = <u8 *>malloc(2 * self.align)
        padded.vectors = <IoVec *>calloc(cursor.left + 2, sizeof(IoVec))
        if padded.memory == NULL or padded.vectors == NULL:
            return ENOMEM
        if padded.head:
            padded.vectors[0].base, padded.vectors[0].length = padded.memory, padded.head
            n = 1
        while left:
            padded.vectors[n].base = <u8 *>at.base + skip
            padded.vectors[n].length = smaller(at.length - skip, left)
            left -= padded.vectors[n].length
            at += 1
            n += 1
            skip = 0
        if padded.tail:
            padded.vectors[n].base = padded.memory + 2 * self.align - padded.tail
            padded.vectors[n].length = padded.tail
            n += 1
        padded.cursor.at, padded.cursor.left, padded.cursor.skip = padded.vectors, <u32>n, 0
        return 0

    cdef int fill(self, Padded *padded) noexcept nogil:
        """Read what lies around it: where that is one block, once."""
        cdef IoVec vector
        cdef Cursor cursor
        cdef int error = 0
        cdef u8 *last = padded.memory + self.align
        cdef bint one = padded.bytes == self.align
        if padded.head:
            self.event(EVENT_PWRITEV_RMW_HEAD)
            if one and padded.tail:
                self.event(EVENT_PWRITEV_RMW_TAIL)
            cursor_memory(&cursor, &vector, padded.memory, self.align)
            error = self.part_read(padded.offset, self.align, &cursor, 0)
            if error:
                return error
            self.event(EVENT_PWRITEV_RMW_AFTER_HEAD)
            if one and padded.tail:
                memcpy(last, padded.memory, self.align)
                self.event(EVENT_PWRITEV_RMW_AFTER_TAIL)
        if padded.tail and not (one and padded.head):
            self.event(EVENT_PWRITEV_RMW_TAIL)
            cursor_memory(&cursor, &vector, last, self.align)
            error = self.part_read(padded.offset + padded.bytes - self.align, self.align, &cursor, 0)
            if error == 0:
                self.event(EVENT_PWRITEV_RMW_AFTER_TAIL)
        return error

    cdef int write_parts(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        """Whole blocks."""
        cdef u64 step
        cdef int error = 0
        self.event(EVENT_PWRITEV)
        while bytes and error == 0:
            step = smaller(bytes, self.max_transfer) if self.max_transfer else bytes
            error = self.part_write(offset, step, source, flags)
            offset += step
            bytes -= step
        self.event(EVENT_PWRITEV_DONE)
        return error

    cdef int zero_parts(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        """Whole blocks, in pieces that begin and end where it is best; what is less than that is written."""
        cdef u64 best = self.opt_zero if self.opt_zero else self.align, most = self.max_zero // best * best
        cdef u64 step, piece, done
        cdef u8 *memory = NULL
        cdef IoVec vector
        cdef Cursor cursor
        cdef int error = 0
        self.event(EVENT_PWRITEV_ZERO)
        while bytes and error == 0:
            if offset % best:
                step = smaller(bytes, best - offset % best)
            elif bytes > best:
                step = bytes - bytes % best
            else:
                step = bytes
            if most:
                step = smaller(step, most)
            if step % best == 0:
                error = self.part_zero(offset, step, flags)
            else:
                piece = smaller(step, smaller(ZEROS, self.max_transfer) if self.max_transfer else ZEROS)
                if memory == NULL:
                    memory = <u8 *>calloc(1, ZEROS)
                    if memory == NULL:
                        error = ENOMEM
                done = 0
                while done < step and error == 0:
                    cursor_memory(&cursor, &vector, memory, smaller(piece, step - done))
                    error = self.part_write(offset + done, smaller(piece, step - done), &cursor, flags & NODE_FUA)
                    done += smaller(piece, step - done)
            offset += step
            bytes -= step
        free(memory)
        self.event(EVENT_PWRITEV_DONE)
        return error

    # --- pieces, for subclasses -----------------------------------------------------------------------------

    cdef int part_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        return self.file.readv(offset, bytes, to, flags)

    cdef int part_write(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return self.file.writev(offset, bytes, source, flags)

    cdef int part_zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        return self.file.zero(offset, bytes, flags)

    cdef int part_discard(self, u64 offset, u64 bytes) noexcept nogil:
        return self.file.discard(offset, bytes)

    # --- the node -------------------------------------------------------------------------------------------

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef Track track
        cdef Padded padded
        cdef u64 at = offset, left = bytes, step
        cdef int error = 0
        cdef Cursor *into = to
        if flags & NODE_NOWAIT:
            return EAGAIN
        self.enter(&track, offset, bytes, False)
        padded.memory, padded.vectors = NULL, NULL
        if (offset | bytes) & (self.align - 1):
            error = self.pad(&padded, offset, bytes, to)
            at, left, into = padded.offset, padded.bytes, &padded.cursor
        while left and error == 0:
            step = smaller(left, self.max_transfer) if self.max_transfer else left
            error = self.part_read(at, step, into, flags)
            at += step
            left -= step
        free(padded.memory)
        free(padded.vectors)
        self.leave(&track)
        if into != to and error == 0:
            cursor_advance(to, bytes)
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef Track track
        cdef Padded padded
        cdef bint odd = (offset | bytes) & (self.align - 1) != 0
        cdef int error
        self.enter(&track, offset, bytes, odd)
        if odd:
            error = self.pad(&padded, offset, bytes, source)
            if error == 0:
                error = self.fill(&padded)
            if error == 0:
                error = self.write_parts(padded.offset, padded.bytes, &padded.cursor, flags)
            free(padded.memory)
            free(padded.vectors)
            cursor_advance(source, bytes)
        else:
            error = self.write_parts(offset, bytes, source, flags)
        self.leave(&track)
        return error

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return EOPNOTSUPP

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return False

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef Track track
        cdef Padded padded
        cdef Cursor nothing, cursor
        cdef IoVec vector
        cdef u64 mask = self.align - 1, first = (offset + mask) & ~mask, last = (offset + bytes) & ~mask
        cdef u8 *end
        cdef int error
        if bytes == 0:
            return 0
        self.enter(&track, offset, bytes, (offset | bytes) & mask != 0)
        if not (offset | bytes) & mask:
            error = self.zero_parts(offset, bytes, flags)
            self.leave(&track)
            return error
        nothing.at, nothing.left, nothing.skip = NULL, 0, 0
        padded.memory, padded.vectors = NULL, NULL
        error = self.pad(&padded, offset, 0, &nothing)
        # of the blocks at both ends what is asked for becomes zeros
        padded.bytes = (offset + bytes + mask & ~mask) - padded.offset
        padded.tail = padded.offset + padded.bytes - (offset + bytes)
        end = padded.memory + self.align
        if error == 0:
            error = self.fill(&padded)
        if error == 0 and padded.head:
            memset(padded.memory + padded.head, 0, smaller(bytes, self.align - padded.head))
            cursor_memory(&cursor, &vector, padded.memory, self.align)
            error = self.write_parts(padded.offset, self.align, &cursor, flags & NODE_FUA)
        if error == 0 and last > first:
            error = self.zero_parts(first, last - first, flags)
        if error == 0 and padded.tail and not (padded.head and padded.bytes == self.align):
            memset(end, 0, self.align - padded.tail)
            cursor_memory(&cursor, &vector, end, self.align)
            error = self.write_parts(last, self.align, &cursor, flags & NODE_FUA)
        free(padded.memory)
        free(padded.vectors)
        self.leave(&track)
        return error

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        """Of blocks that are given up in part nothing is."""
        cdef Track track
        cdef u64 mask = self.align - 1, best = self.opt_discard if self.opt_discard else self.align, step
        cdef u64 first = (offset + mask) & ~mask, last = (offset + bytes) & ~mask
        cdef u64 most = self.max_discard // best * best
        cdef int error = 0
        if last <= first:
            return 0
        self.enter(&track, first, last - first, False)
        while first < last and error == 0:
            step = last - first
            if first % best:
                step = smaller(step, best - first % best)
            elif step > best:
                step -= step % best
            if most:
                step = smaller(step, most)
            error = self.part_discard(first, step)
            first += step
        self.leave(&track)
        return error

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        """Of whole blocks: one that is this and that is data."""
        cdef u64 mask = self.align - 1, within = offset & mask
        cdef int error = self.file.status(offset - within, (bytes + within + mask) & ~mask, found)
        if error:
            return error
        if found.length < self.align:
            found.length, found.flags, found.host = self.align, EXTENT_DATA | EXTENT_ALLOCATED, 0
        found.length = smaller((found.length & ~mask) - within, bytes)
        found.host += within
        return 0
