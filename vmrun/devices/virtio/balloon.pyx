"""virtio-balloon's chip: pages that the guest gives back go to the host; its statistics are kept as it tells them.

Ref: Virtual I/O Device (VIRTIO) 1.1, 5.5; 1.2, 5.5.6.7 (free page reporting).

A page that was given is all zeros when the guest touches it again, and costs the host nothing until then. Giving is the
host's work, and the guest says how much: so many pages are given at one go, the queue's thread does the rest a moment later.
What is half done when the machine is saved is done once more where it goes on.

Locks: the device lock.
"""

from libc.string cimport memcpy

from accel.api cimport i64, u8, u16, u32, u64
from accel.dma cimport IoVec, dma_unmap
from vmrun.bus.virtio.device cimport VirtioChip
from vmrun.bus.virtio.ring cimport Chain, VirtQueue

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)
    int MADV_DONTNEED
    int MADV_REMOVE

cdef enum:
    PAGE_BITS = 12
    PAGE = 1 << PAGE_BITS
    INFLATE = 0                 # queues
    DEFLATE = 1
    STATS = 2
    CALL = 64                   # page numbers that are read at one go
    TURN = 2048                 # pages that are given at one go, …
    ONE_CALL = 8                # … as which each call of the host's counts at least
    STAT = 10                   # bytes: tag, value
    KINDS = 10
    MOST_STATS = 64             # of one message; more are not looked at
    PIECES = 16                 # of the host's memory, for one range of the guest's
    # configuration
    NUM_PAGES = 0
    ACTUAL = 4
    POISON = 12

cdef u64 UNKNOWN = <u64>-1
cdef i64 NO_END = 1 << 62

cdef struct Work:
    bint held                   # there is a request under way
    Chain chain
    u64 done                    # of its bytes


cdef class BalloonChip(VirtioChip):
    """`stats`: values by tag, all ones for what the guest did not tell. `on_actual()`: it has another size; `on_stats()`:
    a message came. Both on a processor's thread, the device lock held.
    """

    cdef u64 values[KINDS]
    cdef Work work[2]           # of the queues INFLATE and of free pages
    cdef VirtQueue messages
    cdef Chain message          # the guest's, which it has back when it is asked again
    cdef bint has_message
    cdef readonly u64 given     # pages that went to the host
    cdef public object on_actual, on_stats
    cdef int reporting          # the queue of free pages, -1 for none

    def __init__(self, dma, sizes, int reporting):
        cdef int n
        super().__init__(dma, sizes)
        self.messages = self.queues[STATS]
        self.reporting = reporting
        for n in range(KINDS):
            self.values[n] = UNKNOWN

    @property
    def stats(self):
        return [self.values[n] for n in range(KINDS)]

    cdef void kicked(self, u32 queue) noexcept nogil:
        if queue == STATS:
            self.take_message()
        elif queue == INFLATE or <int>queue == self.reporting:
            self.take_pages(<VirtQueue>self.queue_of[queue], &self.work[queue != INFLATE])
        else:
            self.serve_queue(<VirtQueue>self.queue_of[queue])

    cdef int serve_chain(self, VirtQueue queue, Chain *chain) noexcept nogil:
        """Pages that the guest takes back, or tells of unasked: it touches them."""
        queue.push(chain, 0)
        return 1

    # --- pages that the guest gives -----------------------------------------------------------------------

    cdef void take_pages(self, VirtQueue queue, Work *work) noexcept nogil:
        """What a queue of such pages holds; with a thread so many of them at a time."""
        cdef i64 budget = TURN if self.has_thread() else NO_END
        cdef int result
        cdef bint some = False
        while self.running:
            if not work.held:
                work.chain.count = 0
                result = queue.pop(&work.chain)
                if result < 0:
                    self.fault()
                if result <= 0:
                    break
                work.held, work.done = True, 0
            if queue.number == INFLATE:
                self.inflate(queue, work, &budget)
            else:
                self.report(queue, work, &budget)
            if work.held:
                self.serve_later(queue.number)
                break
            queue.push(&work.chain, 0)
            some = True
        if some:
            self.interrupt(queue)

    cdef void inflate(self, VirtQueue queue, Work *work, i64 *budget) noexcept nogil:
        """Page numbers, 32 bits each; those beside each other are given at once. `done`: bytes of them."""
        cdef u32 numbers[CALL]
        cdef u64 first = 0, count = 0, page
        cdef u32 part, n
        while work.done + 4 <= work.chain.read_size and budget[0] > 0:
            part = <u32>min((work.chain.read_size - work.done) // 4, <u64>CALL)
            if queue.copy_out(&work.chain, work.done, <u8 *>numbers, 4 * part) != 0:
                work.done = work.chain.read_size
                break
            for n in range(part):
                page = numbers[n]
                if count and page == first + count and count < TURN:
                    count += 1
                elif count and page + 1 == first and count < TURN:
                    first, count = page, count + 1
                else:
                    self.give_pages(first, count, budget)
                    first, count = page, 1
            work.done += 4 * part
        self.give_pages(first, count, budget)
        work.held = work.done + 4 <= work.chain.read_size

    cdef void report(self, VirtQueue queue, Work *work, i64 *budget) noexcept nogil:
        """Free ranges: the pieces that could be written. Not while they have to keep a pattern. `done`: bytes of them."""
        cdef u64 skip = work.done, part
        cdef u32 n, poison = 0
        if self.config_size >= POISON + 4:
            memcpy(&poison, self.config + POISON, 4)
        for n in range(work.chain.readable, 0 if poison else work.chain.count):
            if skip >= queue.pieces[n].len:
                skip -= queue.pieces[n].len
                continue
            while skip < queue.pieces[n].len:
                if budget[0] <= 0:
                    return
                part = min(queue.pieces[n].len - skip, <u64>TURN << PAGE_BITS)
                if not (queue.pieces[n].addr | queue.pieces[n].len) & (PAGE - 1):
                    self.give(queue.pieces[n].addr + skip, part)
                budget[0] -= max(<i64>(part >> PAGE_BITS), <i64>ONE_CALL)
                work.done += part
                skip += part
            skip = 0
        work.held = False

    cdef bint give(self, u64 addr, u64 size) noexcept nogil:
        """Whole pages of memory go to the host. False, and nothing done, when some are no memory."""
        cdef IoVec pieces[PIECES]
        cdef void *blocks[PIECES]
        cdef int count, n
        count = self.dma.map(addr, size, True, pieces, blocks, PIECES)
        if count < 0:
            return False
        for n in range(count):
            if madvise(pieces[n].base, pieces[n].length, MADV_REMOVE) != 0:         # memory shared with others
                madvise(pieces[n].base, pieces[n].length, MADV_DONTNEED)
        self.given += size >> PAGE_BITS
        dma_unmap(pieces, blocks, count, True, size)
        return True

    cdef void give_pages(self, u64 first, u64 count, i64 *budget) noexcept nogil:
        """Neighbours at once, or, with holes among them, each by itself."""
        cdef u64 n
        budget[0] -= max(<i64>count, <i64>ONE_CALL)
        if not count or self.give(first << PAGE_BITS, count << PAGE_BITS):
            return
        budget[0] -= <i64>count * ONE_CALL
        for n in range(count if count > 1 else 0):
            self.give((first + n) << PAGE_BITS, PAGE)

    # --- statistics ---------------------------------------------------------------------------------------

    cdef void take_message(self) noexcept nogil:
        cdef Chain chain
        cdef int result, n
        cdef u32 count
        cdef u16 tag
        cdef u8 row[STAT]
        chain.count = 0
        result = self.messages.pop(&chain)
        if result <= 0:
            if result < 0:
                self.fault()
            return
        if self.has_message:                                    # a second one: the first goes back
            self.messages.push(&self.message, 0)
            self.interrupt(self.messages)
        self.message, self.has_message = chain, True
        for n in range(KINDS):
            self.values[n] = UNKNOWN
        count = <u32>min(chain.read_size // STAT, <u64>MOST_STATS)
        for n in range(<int>count):
            if self.messages.copy_out(&chain, n * STAT, row, STAT) != 0:
                break
            memcpy(&tag, row, 2)
            if tag < KINDS:
                memcpy(&self.values[tag], row + 2, 8)
        if self.on_stats is not None:
            with gil:
                self.on_stats()

    def ask(self):
        """Have the guest tell its statistics again, if it has told any yet."""
        with nogil:
            if self.running and self.has_message:
                self.has_message = False
                self.messages.push(&self.message, 0)
                self.interrupt(self.messages)
            elif self.running:
                self.take_message()                             # one that was put back when the machine was saved

    def before_save(self):
        super().before_save()
        if self.has_message:
            self.messages.pop_back(&self.message)
            self.has_message = False
        for n, number in enumerate((INFLATE, self.reporting)):
            if self.work[<int>n].held:
                (<VirtQueue>self.queues[number]).pop_back(&self.work[<int>n].chain)
                self.work[<int>n].held = False

    cdef void stopped(self) noexcept nogil:
        self.has_message = self.work[0].held = self.work[1].held = False

    cdef void queue_stopped(self, u32 queue) noexcept nogil:
        if queue == STATS:
            self.has_message = False
        elif queue == INFLATE or <int>queue == self.reporting:
            self.work[queue != INFLATE].held = False

    # --- configuration ------------------------------------------------------------------------------------

    cdef void config_written(self, u32 offset, u32 size, u32 value) noexcept nogil:
        """What the driver may write: how much it has given, and the pattern of its free pages."""
        cdef u32 before, now
        memcpy(&before, self.config + ACTUAL, 4)
        if offset >= ACTUAL and offset + size <= ACTUAL + 4 or offset >= POISON:
            memcpy(self.config + offset, &value, size)
        memcpy(&now, self.config + ACTUAL, 4)
        if now != before and self.on_actual is not None:
            with gil:
                self.on_actual()

    @property
    def wanted(self):
        """Pages that the guest is asked for."""
        return int.from_bytes(self.config[NUM_PAGES:NUM_PAGES + 4], "little")

    @wanted.setter
    def wanted(self, u32 pages):
        memcpy(self.config + NUM_PAGES, &pages, 4)
        self.tell_config_changed()

    @property
    def actual(self):
        """Pages that it says to have given."""
        return int.from_bytes(self.config[ACTUAL:ACTUAL + 4], "little")

