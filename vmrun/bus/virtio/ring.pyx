"""Virtqueues, split and packed, compiled: requests taken off, answers put back, and when to interrupt.

Ref: Virtual I/O Device (VIRTIO) 1.1, 2.6 (split) and 2.7 (packed).

Everything in a ring is the guest's and may be anything. A ring that makes no sense (indexes too far ahead, descriptors
outside, loops, indirect tables in indirect tables) is `broken` until the device is reset: nothing more is taken off it.
A request has at most 1024 pieces; nothing is allocated for one.

Locks: the device lock is held, or the queue has a lock of its own (VirtioChip.serve_on) and that is: `enter` and `leave`.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from vmrun.core.state import KEEP, U16, U64, Flag, Number, Table
from vmrun.errors import StateError

cdef extern from *:
    """
    static inline void ring_fence(void) { __sync_synchronize(); }
    """
    void ring_fence() noexcept nogil

cdef enum:
    NO_INTERRUPT = 1            # avail.flags
    NO_KICK = 1                 # used.flags
    # packed
    AVAILABLE = 1 << 7
    USED = 1 << 15
    EVENT_ENABLE = 0
    EVENT_DISABLE = 1
    EVENT_DESC = 2


cdef class VirtQueue:
    """Queue `number` with up to `most` entries. `dma`: the device's way to memory."""

    state = Table(
        "virtqueue", 1,
        Number("size", 1, MOST, KEEP), U64("desc"), U64("avail"), U64("used"), Flag("ready"), Flag("broken"),
        U16("vector", 0xFFFF), U16("last_avail"), U16("used_idx"), U16("signalled"),
        Flag("avail_wrap", True), Flag("used_wrap", True), Flag("signalled_valid"),
    )
    save, load_state = state.methods()[1:]

    def __cinit__(self, Dma dma, u32 number, u32 most):
        if not 0 < most <= MOST or most & (most - 1):
            raise ValueError(f"a queue has a power of two of entries up to {MOST}, not {most}")
        self.dma, self.number, self.most = dma, number, most
        self.pieces = <Desc *>calloc(MOST, sizeof(Desc))
        if self.pieces == NULL:
            raise MemoryError
        self.reset()

    def __dealloc__(self):
        free(self.pieces)

    def reset(self):
        self.size = self.most
        self.desc = self.avail = self.used = 0
        self.ready = self.broken = False
        self.vector = 0xFFFF
        self.last_avail = self.used_idx = self.signalled = 0
        self.avail_wrap = self.used_wrap = True
        self.signalled_valid = False
        self.in_flight = 0
        self.quiet = False

    cdef void enter(self) noexcept nogil:
        """With a lock of its own: take it, and look memory up without the device lock."""
        if self.lock is not None:
            self.lock.acquire()
            self.dma.space.enter()

    cdef void leave(self) noexcept nogil:
        if self.lock is not None:
            self.dma.space.leave()
            self.lock.release()

    cdef int fail(self) noexcept nogil:
        self.broken = True
        return -1

    cdef int fetch(self, u64 table, u32 index, Desc *out) noexcept nogil:
        return self.dma.read_into(table + 16 * <u64>index, <u8 *>out, 16)

    cdef void listen(self, bint on) noexcept nogil:
        """Whether the driver shall kick for what it puts in from now on. It may have put something in before it learns
        that it shall: look again. A device that never calls this is kicked always.
        """
        cdef u16 event[2]
        cdef u16 flags = 0 if on else NO_KICK
        self.quiet = not on
        if self.broken or not self.ready:
            return
        if self.packed:
            event[0] = self.last_avail | (<u16>0x8000 if self.avail_wrap else 0)
            event[1] = EVENT_DISABLE if not on else EVENT_DESC if self.event_idx else EVENT_ENABLE
            self.dma.write_from(self.used, <const u8 *>event, 4)
        elif not self.event_idx:
            self.dma.write_from(self.used, <const u8 *>&flags, 2)
        elif on:
            self.dma.write_from(self.used + 4 + 8 * <u64>self.size, <const u8 *>&self.last_avail, 2)
        if on:
            ring_fence()

    # --- taking requests off ------------------------------------------------------------------------------

    cdef int pop(self, Chain *chain) noexcept nogil:
        """1: `chain` and self.pieces[:chain.count] are the next request; 0: there is none; -1: the ring is broken."""
        if self.broken:
            return -1
        if not self.ready:
            return 0
        memset(chain, 0, sizeof(Chain))
        return self.pop_packed(chain) if self.packed else self.pop_split(chain)

    cdef int take_piece(self, Chain *chain, Desc *piece) noexcept nogil:
        """Append a piece. -1: too many, an empty one, or one to read after one to write."""
        if chain.count >= MOST or piece.len == 0:
            return -1
        if piece.flags & DESC_WRITE:
            chain.write_size += piece.len
        elif chain.readable < chain.count:
            return -1
        else:
            chain.readable += 1
            chain.read_size += piece.len
        self.pieces[chain.count] = piece[0]
        chain.count += 1
        return 0

    cdef int take_table(self, Chain *chain, Desc *indirect) noexcept nogil:
        """The pieces of an indirect table."""
        cdef Desc piece
        cdef u32 entries = indirect.len // 16, index = 0, n
        if indirect.len == 0 or indirect.len & 15 or (not self.packed and indirect.flags & DESC_NEXT):
            return -1
        if entries > MOST:
            return -1
        for n in range(entries):
            if self.fetch(indirect.addr, index, &piece) != 0:
                return -1
            if self.packed:
                piece.flags = piece.next & DESC_WRITE           # id and flags are the other way round there
                index += 1
            if piece.flags & DESC_INDIRECT or self.take_piece(chain, &piece) != 0:
                return -1
            if not self.packed:
                if not piece.flags & DESC_NEXT:
                    return 0
                index = piece.next
                if index >= entries:
                    return -1
        return 0 if self.packed else -1                         # a loop

    cdef int pop_split(self, Chain *chain) noexcept nogil:
        cdef u16 index = 0, head = 0
        cdef Desc piece
        cdef u32 n
        if self.dma.read_into(self.avail + 2, <u8 *>&index, 2) != 0:
            return self.fail()
        if index == self.last_avail:
            return 0
        if <u16>(index - self.last_avail) > self.size:
            return self.fail()
        ring_fence()
        if self.dma.read_into(self.avail + 4 + 2 * (self.last_avail % self.size), <u8 *>&head, 2) != 0:
            return self.fail()
        if head >= self.size:
            return self.fail()
        self.last_avail += 1
        if self.event_idx and not self.quiet:
            self.dma.write_from(self.used + 4 + 8 * <u64>self.size, <const u8 *>&self.last_avail, 2)
        chain.id, chain.slots = head, 1
        for n in range(self.size):
            if self.fetch(self.desc, head, &piece) != 0:
                return self.fail()
            if piece.flags & DESC_INDIRECT:
                if chain.count or self.take_table(chain, &piece) != 0:
                    return self.fail()
                break
            if self.take_piece(chain, &piece) != 0:
                return self.fail()
            if not piece.flags & DESC_NEXT:
                break
            head = piece.next
            if head >= self.size:
                return self.fail()
        else:
            return self.fail()                                  # a loop
        self.in_flight += 1
        return 1

    cdef int pop_packed(self, Chain *chain) noexcept nogil:
        cdef Desc piece
        cdef u16 event[2]
        cdef u16 flags, index = self.last_avail
        cdef u32 n
        cdef bint wrap = self.avail_wrap
        for n in range(self.size):
            if self.fetch(self.desc, index, &piece) != 0:
                return self.fail()
            flags = piece.next                                  # the last word of a packed descriptor
            if n == 0:
                if (flags & AVAILABLE != 0) != wrap or (flags & USED != 0) == wrap:
                    return 0
                ring_fence()
                if self.fetch(self.desc, index, &piece) != 0:
                    return self.fail()
                flags = piece.next
            chain.id = piece.flags                              # and the one before is the buffer's id
            piece.flags = flags & (DESC_NEXT | DESC_WRITE | DESC_INDIRECT)
            index += 1
            if index == self.size:
                index = 0
                wrap = not wrap
            if piece.flags & DESC_INDIRECT:
                if n or self.take_table(chain, &piece) != 0:
                    return self.fail()
                break
            if self.take_piece(chain, &piece) != 0:
                return self.fail()
            if not flags & DESC_NEXT:
                break
        else:
            return self.fail()
        chain.slots = n + 1
        self.last_avail, self.avail_wrap = index, wrap
        if self.event_idx and not self.quiet:
            event[0] = index | (<u16>0x8000 if wrap else 0)
            event[1] = EVENT_DESC
            self.dma.write_from(self.used, <const u8 *>event, 4)
            ring_fence()
        self.in_flight += 1
        return 1

    # --- answers ------------------------------------------------------------------------------------------

    cdef void push(self, Chain *chain, u32 written) noexcept nogil:
        """The request is done; the device wrote so many bytes into it."""
        cdef u32 element[2]
        cdef u16 flags
        if self.in_flight:
            self.in_flight -= 1
        if self.broken or not self.ready:
            return
        if not self.packed:
            element[0], element[1] = chain.id, written
            self.dma.write_from(self.used + 4 + 8 * <u64>(self.used_idx % self.size), <const u8 *>element, 8)
            ring_fence()
            self.used_idx += 1
            if self.used_idx == self.signalled:                 # a whole turn without an interrupt
                self.signalled_valid = False
            self.dma.write_from(self.used + 2, <const u8 *>&self.used_idx, 2)
            return
        element[0], element[1] = written, chain.id
        self.dma.write_from(self.desc + 16 * <u64>self.used_idx + 8, <const u8 *>element, 6)
        ring_fence()
        flags = (AVAILABLE | USED) if self.used_wrap else 0
        if written:
            flags |= DESC_WRITE
        self.dma.write_from(self.desc + 16 * <u64>self.used_idx + 14, <const u8 *>&flags, 2)
        self.used_idx += chain.slots
        if self.used_idx >= self.size:
            self.used_idx -= self.size
            self.used_wrap = not self.used_wrap
            self.signalled_valid = False

    cdef void push_many(self, Chain *chains, u32 *written, u32 count) noexcept nogil:
        """Several at once: the driver sees all of them or none (the buffers of one frame)."""
        cdef u32 element[2]
        cdef u32 n, place, first
        cdef bint wrap, first_wrap
        if count == 1:
            self.push(chains, written[0])
            return
        self.in_flight -= min(self.in_flight, count)
        if self.broken or not self.ready or not count:
            return
        if not self.packed:
            for n in range(count):
                element[0], element[1] = chains[n].id, written[n]
                self.dma.write_from(
                    self.used + 4 + 8 * <u64>(<u16>(self.used_idx + n) % self.size), <const u8 *>element, 8
                )
            ring_fence()
            if <u16>(self.signalled - self.used_idx - 1) < count:
                self.signalled_valid = False
            self.used_idx += <u16>count
            self.dma.write_from(self.used + 2, <const u8 *>&self.used_idx, 2)
            return
        first, first_wrap = self.used_idx, self.used_wrap
        place, wrap = first, first_wrap
        for n in range(count):
            if n:
                self.mark_used(place, wrap, &chains[n], written[n])
            place += chains[n].slots
            if place >= self.size:
                place -= self.size
                wrap = not wrap
                self.signalled_valid = False
        self.used_idx, self.used_wrap = <u16>place, wrap
        ring_fence()
        self.mark_used(first, first_wrap, chains, written[0])

    cdef void mark_used(self, u32 place, bint wrap, Chain *chain, u32 written) noexcept nogil:
        """A packed descriptor becomes a used one."""
        cdef u32 element[2]
        cdef u16 flags = (AVAILABLE | USED) if wrap else 0
        element[0], element[1] = written, chain.id
        self.dma.write_from(self.desc + 16 * <u64>place + 8, <const u8 *>element, 6)
        ring_fence()
        if written:
            flags |= DESC_WRITE
        self.dma.write_from(self.desc + 16 * <u64>place + 14, <const u8 *>&flags, 2)

    cdef void pop_back(self, Chain *chain) noexcept nogil:
        """The request that was popped last was not taken: it comes again."""
        self.in_flight -= min(self.in_flight, <u32>1)
        if not self.packed:
            self.last_avail -= 1
            return
        if self.last_avail < chain.slots:
            self.last_avail += self.size
            self.avail_wrap = not self.avail_wrap
        self.last_avail -= chain.slots

    cdef bint needs(self, u16 event, u16 old) noexcept nogil:
        """Whether `event` lies in what was used since `old`."""
        return <u16>(self.used_idx - event - 1) < <u16>(self.used_idx - old)

    cdef bint should_notify(self) noexcept nogil:
        """Whether the driver wants an interrupt for what was pushed since this was asked last."""
        cdef u16 event[2]
        cdef u16 word = 0, index = 0
        cdef u16 old = self.signalled
        cdef bint valid = self.signalled_valid
        if self.broken or not self.ready:
            return False
        ring_fence()
        if self.packed:
            if self.dma.read_into(self.avail, <u8 *>event, 4) != 0 or event[1] == EVENT_DISABLE:
                return False
            self.signalled, self.signalled_valid = self.used_idx, True
            if event[1] != EVENT_DESC or not self.event_idx or not valid:
                return True
            word = event[0] & 0x7FFF
            if (event[0] >> 15 != 0) != self.used_wrap:
                word -= self.size
            return self.needs(word, old)
        if self.notify_on_empty and not self.in_flight:
            if self.dma.read_into(self.avail + 2, <u8 *>&index, 2) == 0 and index == self.last_avail:
                return True
        if not self.event_idx:
            return self.dma.read_into(self.avail, <u8 *>&word, 2) == 0 and not word & NO_INTERRUPT
        self.signalled, self.signalled_valid = self.used_idx, True
        if self.dma.read_into(self.avail + 4 + 2 * <u64>self.size, <u8 *>&word, 2) != 0:
            return False
        return not valid or self.needs(word, old)

    # --- the pieces of the request that was popped last ---------------------------------------------------

    cdef int gather(self, Chain *chain, bint to_memory, u64 skip, u64 drop, Scatter scatter) noexcept nogil:
        """The pieces that are read (or written, to_memory) without their first `skip` and last `drop` bytes. 0 or a DMA_…"""
        cdef u32 n, first = chain.readable if to_memory else 0, end = chain.count if to_memory else chain.readable
        cdef u64 total = chain.write_size if to_memory else chain.read_size
        cdef u64 left, part, addr
        cdef int result
        scatter.begin(to_memory)
        if skip + drop > total:
            return -1
        left = total - skip - drop
        for n in range(first, end):
            addr, part = self.pieces[n].addr, self.pieces[n].len
            if skip >= part:
                skip -= part
                continue
            addr += skip
            part -= skip
            skip = 0
            if part > left:
                part = left
            if not part:
                break
            result = scatter.add(addr, part)
            if result != 0:
                return result
            left -= part
        return 0

    cdef int copy_out(self, Chain *chain, u64 offset, u8 *data, u32 count) noexcept nogil:
        """Bytes of what the device reads. -1: there are not so many."""
        cdef u32 n, part
        if offset + count > chain.read_size:
            return -1
        for n in range(chain.readable):
            if offset >= self.pieces[n].len:
                offset -= self.pieces[n].len
                continue
            part = min(count, self.pieces[n].len - <u32>offset)
            if self.dma.read_into(self.pieces[n].addr + offset, data, part) != 0:
                return -1
            data += part
            count -= part
            offset = 0
            if not count:
                break
        return 0

    cdef int copy_in(self, Chain *chain, u64 offset, const u8 *data, u32 count) noexcept nogil:
        """Bytes into what the device writes. -1: there is no room."""
        cdef u32 n, part
        if offset + count > chain.write_size:
            return -1
        for n in range(chain.readable, chain.count):
            if offset >= self.pieces[n].len:
                offset -= self.pieces[n].len
                continue
            part = min(count, self.pieces[n].len - <u32>offset)
            if self.dma.write_from(self.pieces[n].addr + offset, data, part) != 0:
                return -1
            data += part
            count -= part
            offset = 0
            if not count:
                break
        return 0

    # --- state --------------------------------------------------------------------------------------------

    def check_state(self, values):
        if values["size"] > self.most:
            raise StateError(f"a queue of {self.most} entries cannot have {values['size']}")

    def settle(self):
        self.in_flight = 0
