"""An NVM Express controller with one namespace, the chip alone.

Ref: NVM Express 1.4. Registers, opcodes and fields are called as there. Status values are those of a completion, without
the phase: 0x4000 is 'do not retry'.
Not modelled: metadata and protection (formats that have them are listed and refused), namespaces that come and go,
copies (the namespace's limit for them is 0), reservations, firmware download, memory buffers, virtual functions.

A doorbell is served at once, on the processor that rings it, with the device lock held; or, when the driver has given the
addresses of shadow doorbells (command 7Ch) and the accelerator makes signals of them, on the I/O thread, which finds in
the shadow how far the queue goes: the value that was written is nobody's then. A command is fetched when its
completion queue has room for the answer, and data moves between image and guest memory directly. Everything that a
guest gives (queue addresses, PRP and SGL lists, ranges) is bounded and checked when it is used.
"""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_FUA, BLOCK_READ, BLOCK_UNMAP, BLOCK_WRITE, BLOCK_ZERO, block_buffer,
    block_release, block_request, block_submit, block_take,
)
from vmrun.core.cells cimport cells

from accel.dma import Scatter as _Scatter

from vmrun.core.state import U8, U32, U64, Bytes, Flag, Rows, Table

cdef enum:
    # registers
    R_CAP = 0x00
    R_VS = 0x08
    R_INTMS = 0x0C
    R_INTMC = 0x10
    R_CC = 0x14
    R_CSTS = 0x1C
    R_AQA = 0x24
    R_ASQ = 0x28
    R_ACQ = 0x30
    DOORBELLS = 0x1000
    VERSION = 0x00010400
    CSTS_READY = 1
    CSTS_FATAL = 2
    CSTS_SHUT = 8
    MOST_ENTRIES = 0x800
    # status
    OK = 0
    DNR = 0x4000
    INVALID_OPCODE = 0x4001
    INVALID_FIELD = 0x4002
    TRANSFER_ERROR = 0x4004
    INTERNAL_ERROR = 0x4006
    INVALID_NSID = 0x400B
    SEQUENCE_ERROR = 0x400C
    INVALID_SGL_COUNT = 0x400D + 1
    SGL_LENGTH = 0x400F
    INVALID_PRP = 0x4013
    INVALID_SGL_TYPE = 0x4011
    LBA_RANGE = 0x4080
    INVALID_CQID = 0x4100
    INVALID_QID = 0x4101
    QUEUE_SIZE = 0x4102
    EVENT_LIMIT = 0x0105
    INVALID_VECTOR = 0x4108
    INVALID_FORMAT = 0x410A
    QUEUE_IN_USE = 0x010C
    NOT_SAVEABLE = 0x410D
    NOT_CHANGEABLE = 0x410E
    ALREADY_ATTACHED = 0x4118
    SIZE_LIMIT = 0x4183
    WRITE_FAULT = 0x0280
    READ_ERROR = 0x0281
    COMPARE_FAILED = 0x0285
    LATER = -1                  # no answer yet
    # admin commands
    A_DELETE_SQ = 0x00
    A_CREATE_SQ = 0x01
    A_LOG = 0x02
    A_DELETE_CQ = 0x04
    A_CREATE_CQ = 0x05
    A_IDENTIFY = 0x06
    A_ABORT = 0x08
    A_SET_FEATURE = 0x09
    A_GET_FEATURE = 0x0A
    A_EVENT = 0x0C
    A_ATTACH = 0x15
    A_SHADOW = 0x7C
    A_FORMAT = 0x80
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
    EVERY = 0xFFFFFFFF          # nsid of all namespaces
    MOST_NAMESPACES = 256
    TEMPERATURE = 0x143         # kelvin
    WARNING_TEMPERATURE = 0x157
    MOST_PIECES = 1040
    MOST_SEGMENTS = 256
    GRANULARITY = 4096          # of discards

cdef u64 CAPABILITIES = <u64>0x00401820 << 32 | 0x0F0107FF


cdef u8 METADATA[4]                 # bytes per block of the formats
METADATA[0], METADATA[1], METADATA[2], METADATA[3] = 0, 8, 16, 64
cdef u8 EFFECTS[512]                # of admin commands, of I/O commands: 1 supported, 2 changes blocks, 8 namespaces
memset(EFFECTS, 0, 512)
for _n in (0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 0x1C, 0x7C, 256 + 2, 256 + 5, 256 + 12):
    EFFECTS[_n] = 1
for _n in (0x80, 256, 256 + 1, 256 + 8, 256 + 9, 256 + 0x19):
    EFFECTS[_n] = 3
EFFECTS[0x15] = 9


cdef u64 _half(u64 old, u32 value, bint high) noexcept nogil:
    """A 64-bit register of which a half was written."""
    (<u32 *>&old)[1 if high else 0] = value
    return old


cdef void drive_done(BlockRequest *request) noexcept nogil:
    (<NvmeChip>request.owner).over(<Place *><size_t>request.tag)


cdef class NvmeDoorbell(EventHandler):
    """A doorbell that is rung without an exit, on the I/O thread with the device lock held."""

    def __init__(self, NvmeChip chip, u32 number):
        EventHandler.__init__(self, locked=True)
        self.chip, self.number = <void *>chip, number

    cdef void kicked(self) noexcept nogil:
        (<NvmeChip>self.chip).ring(self.number)


cdef class NvmeChip(IoRegion):
    """`controller`: the 4096 bytes of Identify Controller. `intx`: the pin. `msix` is set by the glue."""

    state = Table(
        "nvme", 1,
        Rows("submission", QUEUES, Flag("used"), U64("addr"), U32("size", most=MOST_ENTRIES), U32("head", most=MOST_ENTRIES),
             U32("tail", most=MOST_ENTRIES), U32("completion", most=QUEUES - 1)),
        Rows("completion", QUEUES, Flag("used"), Flag("interrupts"), Flag("phase"), U64("addr"),
             U32("size", most=MOST_ENTRIES), U32("head", most=MOST_ENTRIES), U32("tail", most=MOST_ENTRIES), U32("vector", most=63 + 1)),
        U32("cc"), U32("csts"), U32("aqa"), U32("mask"), U32("raised"), U64("asq"), U64("acq"), U64("shadow"),
        U64("event_index"), U32("hot", WARNING_TEMPERATURE), U32("cold"), U32("event_config"), U32("cache", 1, most=1),
        U32("event_count", most=EVENTS), U32("waiting_events", most=AER_MOST), U32("masked_events"), U64("timestamp"),
        Bytes("event_identifiers", 2 * AER_MOST), Bytes("event_words", 4 * EVENTS),
        U64("reads"), U64("writes"), U64("blocks_read"), U64("blocks_written"), U8("block_exponent", 9, least=9, most=12),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, Dma dma, backend, bytes controller, IrqLine intx, u32 queues, u32 vectors, u32 mdts, u32 block_size):
        cdef u32 n
        self.name = "nvme"
        self.max_access, self.min_access = 8, 1
        self.dma, self.backend, self.drive, self.intx = dma, backend, <void *>backend, intx
        self.scatter = _Scatter(dma, MOST_PIECES)
        self.controller, self.controller_data = controller, <u8 *>controller
        self.queue_count, self.vectors, self.mdts = queues, vectors, mdts
        self.own_shift = self.block_shift = block_size.bit_length() - 1
        self.hot, self.cache, self.size = WARNING_TEMPERATURE, 1, backend.size
        self.places = <Place *>calloc(PLACES, sizeof(Place))
        if self.places == NULL:
            raise MemoryError
        for n in range(PLACES):
            self.places[n].next = self.free
            self.free = &self.places[n]

    def __dealloc__(self):
        cdef u32 n
        if self.places != NULL:
            for n in range(PLACES):
                free(self.places[n].ranges)
        free(self.places)

    @property
    def event_identifiers(self):
        return cells(self, self.event_ids, 2 * AER_MOST)

    @property
    def event_words(self):
        return cells(self, self.event_list, 4 * EVENTS)

    @property
    def block_exponent(self):
        return self.block_shift

    @block_exponent.setter
    def block_exponent(self, u32 value):
        self.block_shift = value

    def reset(self):
        exponent = self.own_shift
        self.stop()
        type(self).state.reset(self)
        self.block_shift = exponent
        self.check_pin()

    def detach(self):
        self.stop()
        for bell in self.bells or ():
            self.thread.remove(bell)
        self.bells = None

    def serve_on(self, thread, on_bells):
        """Doorbells of queues for I/O may be rung by signals of `bells` on `thread`, once the driver has shadows of them.
        on_bells([(offset, notifier)]) hears which. Before the machine runs.
        """
        self.thread, self.on_bells = thread, on_bells
        self.bells = [NvmeDoorbell(self, number) for number in range(2 * self.queue_count)]
        for bell in self.bells:
            thread.add(bell)

    def check_state(self, values):
        """Queues that belong to each other, places within them."""
        from vmrun.errors import StateError

        for rows in (values["submission"], values["completion"]):
            for n, row in enumerate(rows):
                if row["used"] and (n >= self.queue_count or not row["size"]):
                    raise StateError("nvme: a queue that cannot be")
                if row["used"] and max(row["head"], row["tail"]) >= row["size"]:
                    raise StateError("nvme: a place outside its queue")
                if row.get("vector", 0) >= self.vectors:
                    raise StateError("nvme: a vector that there is not")
        for row in values["submission"]:
            if row["used"] and not values["completion"][row["completion"]]["used"]:
                raise StateError("nvme: a queue without one for its answers")
        if values["cc"] >> 7 & 15 > 4:
            raise StateError("nvme: pages of a size that it has not")

    def settle(self):
        self.check_pin()
        with nogil:
            self.hang_bells()
        for bell in self.bells or () if self.shadow else ():
            bell.notifier.notify()                              # one may have been rung when the machine stopped

    # --- registers --------------------------------------------------------------------------------------------

    cdef u64 page(self) noexcept nogil:
        return <u64>4096 << (self.cc >> 7 & 15)

    cdef u64 blocks(self) noexcept nogil:
        return self.size >> self.block_shift

    def resized(self):
        """The drive has another size now."""
        self.size = self.backend.size
        if self.event_config & 0x100:
            self.event(2, 0, 4)                                 # a notice: the namespace has changed

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u8 registers[64]
        cdef u64 value = 0
        if offset >= 64 or offset + size > 64:
            return 0
        memset(registers, 0, 64)
        memcpy(registers + R_CAP, &CAPABILITIES, 8)
        (<u32 *>(registers + R_VS))[0] = VERSION
        (<u32 *>(registers + R_INTMS))[0] = (<u32 *>(registers + R_INTMC))[0] = self.mask
        (<u32 *>(registers + R_CC))[0] = self.cc
        (<u32 *>(registers + R_CSTS))[0] = self.csts
        (<u32 *>(registers + R_AQA))[0] = self.aqa
        memcpy(registers + R_ASQ, &self.asq, 8)
        memcpy(registers + R_ACQ, &self.acq, 8)
        memcpy(&value, registers + offset, size)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 low = <u32>value
        if offset >= DOORBELLS:
            self.doorbell(offset - DOORBELLS, low)
        elif size < 4 or offset & 3:
            return 0
        elif offset == R_INTMS:
            if not self.msix.enabled():
                self.mask |= low
                self.check_pin()
        elif offset == R_INTMC:
            if not self.msix.enabled():
                self.mask &= ~low
                self.check_pin()
        elif offset == R_CC:
            self.write_cc(low)
        elif offset == R_AQA:
            self.aqa = low & 0x0FFF0FFF
        elif offset == R_ASQ:
            self.asq = value if size == 8 else _half(self.asq, low, False)
        elif offset == R_ASQ + 4:
            self.asq = _half(self.asq, low, True)
        elif offset == R_ACQ:
            self.acq = value if size == 8 else _half(self.acq, low, False)
        elif offset == R_ACQ + 4:
            self.acq = _half(self.acq, low, True)
        return 0

    cdef void write_cc(self, u32 value) noexcept nogil:
        cdef u32 was = self.cc
        if value & 1 and not was & 1:
            self.csts = CSTS_READY if self.begin(value) else CSTS_FATAL
        elif was & 1 and not value & 1:
            self.stop()
            self.csts &= ~<u32>CSTS_READY
        self.cc = value & 0x00FFFFF1
        if value >> 14 & 3 and not was >> 14 & 3:
            self.csts |= CSTS_SHUT
        elif was >> 14 & 3 and not value >> 14 & 3:
            self.csts &= ~<u32>CSTS_SHUT

    cdef bint begin(self, u32 value) noexcept nogil:
        """The controller is enabled: its admin queues as the registers say. False: they cannot be."""
        cdef u32 page = value >> 7 & 15
        cdef u64 size = <u64>4096 << page
        cdef u32 css = value >> 4 & 7
        self.stop()
        if page > 4 or css not in (0, 6, 7) or value >> 16 & 15 != 6 or value >> 20 & 15 != 4:
            return False
        if not self.asq or not self.acq or (self.asq | self.acq) & (size - 1):
            return False
        if not self.aqa & 0xFFF or not self.aqa >> 16 & 0xFFF:
            return False
        memset(&self.submission[0], 0, sizeof(Submission))
        memset(&self.completion[0], 0, sizeof(Completion))
        self.submission[0].used = self.completion[0].used = True
        self.submission[0].addr, self.submission[0].size = self.asq, (self.aqa & 0xFFF) + 1
        self.completion[0].addr, self.completion[0].size = self.acq, (self.aqa >> 16 & 0xFFF) + 1
        self.completion[0].interrupts = self.completion[0].phase = True
        return True

    cdef void stop(self) noexcept nogil:
        """No queues, nothing under way."""
        cdef u32 n
        for n in range(QUEUES):
            self.drop(n)
            self.submission[n].used = self.completion[n].used = False
            self.waiting[n], self.told[n] = 0, False
        self.event_count = self.waiting_events = self.masked_events = 0
        self.raised = 0
        self.check_pin()
        if self.shadow:
            self.shadow = self.event_index = 0
            self.hang_bells()

    cdef void doorbell(self, u64 offset, u32 value) noexcept nogil:
        cdef u32 queue = <u32>(offset >> 3)
        cdef Completion *cq
        if offset & 3 or not self.csts & CSTS_READY:
            return
        if queue >= self.queue_count or not (self.completion[queue].used if offset & 4 else self.submission[queue].used):
            self.event(0, 0, 1)                                 # error: a doorbell of no queue
            return
        if offset & 4:
            cq = &self.completion[queue]
            if value >= cq.size:
                self.event(0, 1, 1)
                return
            cq.head = value
            self.head_moved(queue)
        else:
            if value >= self.submission[queue].size:
                self.event(0, 1, 1)
                return
            self.submission[queue].tail = value
            self.serve(queue)

    cdef void head_moved(self, u32 queue) noexcept nogil:
        """The driver has taken answers."""
        cdef Completion *cq = &self.completion[queue]
        if cq.head == cq.tail and cq.interrupts and not self.msix.enabled():
            self.raised &= ~(<u32>1 << (cq.vector & 31))
            self.check_pin()
        elif cq.head != cq.tail:
            self.told[queue] = True
        self.serve_all(queue)
        if self.told[queue] and cq.head != cq.tail:
            self.tell(queue)

    cdef void ring(self, u32 number) noexcept nogil:
        """On the I/O thread; the queue may be gone by now."""
        cdef u32 queue = number >> 1
        if not self.shadow or not self.csts & CSTS_READY:
            return
        self.rung += 1
        if number & 1:
            if self.completion[queue].used:
                self.shadow_head(queue)
                self.head_moved(queue)
        elif self.submission[queue].used:
            self.serve(queue)

    cdef void hang_bells(self) noexcept nogil:
        """Other doorbells than before need no exit."""
        if self.bells is not None:
            with gil:
                self._tell_bells()

    def _tell_bells(self):
        used = [number for number in range(2, 2 * self.queue_count) if
                (self.completion[number >> 1].used if number & 1 else self.submission[number >> 1].used)]
        self.on_bells([(DOORBELLS + 4 * number, self.bells[number].notifier) for number in used if self.shadow])

    # --- queues -----------------------------------------------------------------------------------------------

    cdef u32 room(self, u32 queue) noexcept nogil:
        """Answers that a completion queue can take beside those that are still to come."""
        cdef Completion *cq = &self.completion[queue]
        cdef u32 used = cq.tail - cq.head if cq.tail >= cq.head else cq.tail + cq.size - cq.head
        used += self.waiting[queue]
        return cq.size - 1 - used if used < cq.size else 0

    cdef u32 shadow_tail(self, u32 queue) noexcept nogil:
        """With shadow doorbells: the driver's tail, after it was told up to where we have looked."""
        cdef Submission *sq = &self.submission[queue]
        cdef u32 tail = sq.tail
        self.dma.write_from(self.event_index + 8 * queue, <u8 *>&tail, 4)
        if self.dma.read_into(self.shadow + 8 * queue, <u8 *>&tail, 4) == 0 and tail < sq.size:
            sq.tail = tail
        return sq.tail

    cdef void shadow_head(self, u32 queue) noexcept nogil:
        cdef Completion *cq = &self.completion[queue]
        cdef u32 head = cq.head
        self.dma.write_from(self.event_index + 8 * queue + 4, <u8 *>&head, 4)
        if self.dma.read_into(self.shadow + 8 * queue + 4, <u8 *>&head, 4) == 0 and head < cq.size:
            cq.head = head

    cdef void serve_all(self, u32 completion) noexcept nogil:
        """A completion queue has room again: its submission queues go on."""
        cdef u32 n
        for n in range(self.queue_count):
            if self.submission[n].used and self.submission[n].completion == completion:
                self.serve(n)

    cdef void serve(self, u32 queue) noexcept nogil:
        cdef Submission *sq = &self.submission[queue]
        cdef Command command
        cdef u32 rounds = 0, completion = sq.completion
        cdef int status
        if self.shadow and queue:
            self.shadow_tail(queue)
            self.shadow_head(completion)
        if self.serving:
            return
        self.serving = True
        while sq.used and sq.head != sq.tail and rounds < MOST_ENTRIES:
            rounds += 1
            if self.free == NULL or not self.room(completion):
                break
            if self.dma.read_into(sq.addr + <u64>sq.head * sizeof(Command), <u8 *>&command, sizeof(Command)) != 0:
                self.csts |= CSTS_FATAL
                break
            sq.head = 0 if sq.head + 1 == sq.size else sq.head + 1
            self.execute(queue, &command)
            if self.shadow and queue and sq.head == sq.tail:
                self.shadow_tail(queue)
        self.serving = False
        if self.event_count:
            self.send_events()
        if self.completion[completion].used and self.told[completion]:
            self.tell(completion)

    cdef int execute(self, u32 queue, Command *c) noexcept nogil:
        cdef u32 result = 0
        cdef int status
        if c.flags & 3:                                         # fused operations
            status = INVALID_FIELD
        elif queue == 0:
            status = self.admin(c, &result)
        else:
            status = self.io(queue, c)
        if status != LATER:
            self.post(queue, c.id, status, result)
        return status

    cdef void post(self, u32 queue, u16 id, u32 status, u32 result) noexcept nogil:
        """A completion, for which there is room."""
        cdef Submission *sq = &self.submission[queue]
        cdef Completion *cq = &self.completion[sq.completion]
        cdef u32 entry[4]
        cdef u64 at = cq.addr + <u64>cq.tail * 16
        entry[0], entry[1], entry[2] = result, 0, sq.head | queue << 16
        entry[3] = id | (status << 1 | (1 if cq.phase else 0)) << 16
        self.dma.write_from(at, <u8 *>entry, 12)
        self.dma.write_from(at + 12, <u8 *>&entry[3], 4)        # the phase last: a driver may be looking
        cq.tail += 1
        if cq.tail == cq.size:
            cq.tail = 0
            cq.phase = not cq.phase
        self.told[sq.completion] = True

    cdef void tell(self, u32 number) noexcept nogil:
        cdef Completion *cq = &self.completion[number]
        self.told[number] = False
        if not cq.interrupts:
            return
        if self.msix.enabled():
            self.msix.notify(cq.vector)
        else:
            self.raised |= <u32>1 << (cq.vector & 31)
            self.check_pin()

    cdef void check_pin(self) noexcept nogil:
        if self.msix is None or not self.msix.enabled():
            self.intx.set(1 if self.raised & ~self.mask else 0)

    cdef void drop(self, u32 queue) noexcept nogil:
        """Give up what a submission queue has under way."""
        cdef u32 n
        cdef BlockRequest *request
        if not self.in_flight:
            return
        for n in range(PLACES):
            if self.places[n].request != NULL and self.places[n].queue == queue:
                request = self.places[n].request
                self.waiting[self.submission[queue].completion] -= 1
                self.put_back(&self.places[n])
                block_release(self.drive, request)

    cdef void put_back(self, Place *place) noexcept nogil:
        free(place.ranges)
        place.ranges, place.request = NULL, NULL
        place.next = self.free
        self.free = place
        self.in_flight -= 1

    # --- data ---------------------------------------------------------------------------------------------------

    cdef int gather(self, Command *c, u64 length, bint to_memory) noexcept nogil:
        """The guest's memory of a command into `scatter`."""
        cdef u64 page = self.page(), at = c.prp1, part, list_at, entry
        cdef u64 held[64]
        cdef u32 index = 0, known = 0, left_in_page
        self.scatter.finish(0)
        self.scatter.begin(to_memory)
        if c.flags >> 6:
            return self.gather_list(c, length)
        part = min(length, page - (at & (page - 1)))
        if self.scatter.add(at, part) != 0:
            return TRANSFER_ERROR
        length -= part
        if not length:
            return OK
        if length <= page:
            if c.prp2 & (page - 1):
                return INVALID_PRP
            return OK if self.scatter.add(c.prp2, length) == 0 else TRANSFER_ERROR
        list_at = c.prp2
        if list_at & 7:
            return INVALID_PRP
        while length:
            left_in_page = <u32>((page - (list_at & (page - 1))) // 8)
            if self.dma.read_into(list_at, <u8 *>&entry, 8) != 0:
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
            if self.scatter.add(entry, part) != 0:
                return TRANSFER_ERROR
            length -= part
            list_at += 8
        return OK

    cdef int gather_list(self, Command *c, u64 length) noexcept nogil:
        """The same for a scatter-gather list: one descriptor in the command, which may lead to segments of them."""
        cdef u64 addr = c.prp1, at, next_at
        cdef u32 size = <u32>c.prp2, kind = <u32>(c.prp2 >> 60), count, n, segments = 0, next_size
        cdef u64 descriptor[2]
        cdef bint last = False
        cdef u64 part
        if c.prp2 >> 56 & 15:
            return INVALID_SGL_TYPE
        if kind == 0:
            if size < length:
                return SGL_LENGTH
            return OK if self.scatter.add(addr, length) == 0 else TRANSFER_ERROR
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
                if self.dma.read_into(addr + 16 * n, <u8 *>descriptor, 16) != 0:
                    return TRANSFER_ERROR
                kind = <u32>(descriptor[1] >> 60)
                if descriptor[1] >> 56 & 15:
                    return INVALID_SGL_TYPE
                if kind == 0:
                    part = min(length, <u64><u32>descriptor[1])
                    if part and self.scatter.add(descriptor[0], part) != 0:
                        return TRANSFER_ERROR
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

    cdef int give(self, Command *c, const u8 *data, u64 length) noexcept nogil:
        """An admin command's answer to the guest's memory."""
        cdef int status
        if c.flags >> 6:
            return INVALID_FIELD
        status = self.gather(c, length, True)
        if status == OK:
            self.scatter.put(0, data, length)
            self.scatter.finish(length)
        else:
            self.scatter.finish(0)
        return status

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
            self.reads += 1
            self.blocks_read += length >> 9
            return self.start(queue, c, BLOCK_READ, first << self.block_shift, length, 0, True)
        if op == WRITE:
            self.writes += 1
            self.blocks_written += length >> 9
            return self.start(
                queue, c, BLOCK_WRITE, first << self.block_shift, length, BLOCK_FUA if c.cdw12 & FUA else 0, True
            )
        if op == ZEROES:
            return self.start(
                queue, c, BLOCK_ZERO, first << self.block_shift, length,
                (BLOCK_UNMAP if c.cdw12 & DEALLOCATE else 0) | (BLOCK_FUA if c.cdw12 & FUA else 0), False,
            )
        return self.compare(queue, c, first << self.block_shift, length)

    cdef int start(self, u32 queue, Command *c, int op, u64 offset, u64 length, u32 flags, bint data) noexcept nogil:
        """Give it to the drive. LATER, or what is wrong."""
        cdef Place *place = self.free
        cdef BlockRequest *request
        cdef int status = OK
        request = block_request(self.drive, <void *>self, drive_done)
        if request == NULL:
            return INTERNAL_ERROR
        if data:
            status = self.gather(c, length, op == BLOCK_READ)
            if status == OK and block_take(request, self.scatter) != 0:
                status = INTERNAL_ERROR
            if status != OK:
                self.scatter.finish(0)
                block_release(self.drive, request)
                return status
        else:
            request.length = length
        self.free = place.next
        self.in_flight += 1
        self.waiting[self.submission[queue].completion] += 1
        place.request, place.queue, place.id, place.opcode = request, queue, c.id, c.opcode
        place.step = place.count = 0
        request.op, request.flags, request.offset = op, flags, offset
        request.tag = <u64><size_t>place
        if block_submit(self.drive, request):
            self.over(place)
        return LATER

    cdef int compare(self, u32 queue, Command *c, u64 offset, u64 length) noexcept nogil:
        """COMPARE and VERIFY read into memory of the request's own."""
        cdef Place *place = self.free
        cdef BlockRequest *request
        cdef int status
        if length > self.page() << 7:
            length = self.page() << 7                           # of a verify: enough to see that it can be read
        request = block_request(self.drive, <void *>self, drive_done)
        if request == NULL or block_buffer(request, length) == NULL:
            block_release(self.drive, request)
            return INTERNAL_ERROR
        if c.opcode == COMPARE:
            place.ranges = <Range *>malloc(length)              # what the host has
            status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, length, False)
            if status != OK:
                self.scatter.finish(0)
                free(place.ranges)
                place.ranges = NULL
                block_release(self.drive, request)
                return status
            self.scatter.get(0, <u8 *>place.ranges, length)
            self.scatter.finish(0)
        self.free = place.next
        self.in_flight += 1
        self.waiting[self.submission[queue].completion] += 1
        place.request, place.queue, place.id, place.opcode = request, queue, c.id, c.opcode
        place.step = place.count = 0
        request.op, request.offset = BLOCK_READ, offset
        request.tag = <u64><size_t>place
        if block_submit(self.drive, request):
            self.over(place)
        return LATER

    cdef int trim(self, u32 queue, Command *c) noexcept nogil:
        """Dataset management: ranges that nobody needs any more, one after the other."""
        cdef Place *place = self.free
        cdef u32 count = (c.cdw10 & 0xFF) + 1
        cdef int status
        if not c.cdw11 & 4:
            return OK
        place.ranges = <Range *>malloc(RANGES * sizeof(Range))
        status = INTERNAL_ERROR if place.ranges == NULL else self.gather(c, count * sizeof(Range), False)
        if status != OK:
            self.scatter.finish(0)
            free(place.ranges)
            place.ranges = NULL
            return status
        self.scatter.get(0, <u8 *>place.ranges, count * sizeof(Range))
        self.scatter.finish(0)
        self.free = place.next
        self.in_flight += 1
        self.waiting[self.submission[queue].completion] += 1
        place.queue, place.id, place.opcode, place.step, place.count = queue, c.id, TRIM, 0, count
        place.request = block_request(self.drive, <void *>self, drive_done)
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
        self.waiting[completion] -= 1
        self.put_back(place)
        block_release(self.drive, request)                      # marks what was read as written
        self.post(queue, id, status, 0)
        if not self.serving:
            self.tell(completion)
            if self.submission[queue].head != self.submission[queue].tail:
                self.serve(queue)

    # --- admin commands ---------------------------------------------------------------------------------------------

    cdef int admin(self, Command *c, u32 *result) noexcept nogil:
        cdef u8 op = c.opcode
        if op == A_DELETE_SQ or op == A_DELETE_CQ:
            return self.delete_queue(c)
        if op == A_CREATE_SQ:
            return self.create_submission(c)
        if op == A_CREATE_CQ:
            return self.create_completion(c)
        if op == A_LOG:
            return self.log_page(c)
        if op == A_IDENTIFY:
            return self.identify(c)
        if op == A_ABORT:
            result[0] = 1                                       # not aborted: it is under way or over
            if c.cdw10 & 0xFFFF >= self.queue_count or not self.submission[c.cdw10 & 0xFFFF].used:
                return INVALID_FIELD
            return OK
        if op == A_SET_FEATURE:
            return self.set_feature(c, result)
        if op == A_GET_FEATURE:
            return self.get_feature(c, result)
        if op == A_EVENT:
            if self.waiting_events == AER_MOST:
                return EVENT_LIMIT
            self.event_ids[self.waiting_events] = c.id
            self.waiting_events += 1
            self.send_events()
            return LATER
        if op == A_ATTACH:
            if not c.nsid or c.nsid > MOST_NAMESPACES:
                return INVALID_NSID
            if c.nsid != 1 or c.cdw10 & 15:
                return INVALID_FIELD
            return ALREADY_ATTACHED
        if op == A_SHADOW:
            if (c.prp1 | c.prp2) & (self.page() - 1):
                return INVALID_FIELD
            self.shadow, self.event_index = c.prp1, c.prp2
            self.hang_bells()
            return OK
        if op == A_FORMAT:
            if c.nsid != 1 and c.nsid != EVERY:
                return INVALID_NSID if not c.nsid or c.nsid > MOST_NAMESPACES else INVALID_FIELD
            if c.cdw10 & 15 not in (0, 4) or c.cdw10 & 0x1F0:
                return INVALID_FORMAT
            self.block_shift = 12 if c.cdw10 & 15 == 4 else 9
            return self.start(0, c, BLOCK_ZERO, 0, self.size, BLOCK_UNMAP, False)
        return INVALID_OPCODE

    cdef int create_completion(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, size = c.cdw10 >> 16, vector = c.cdw11 >> 16
        cdef Completion *cq
        if not number or number >= self.queue_count or self.completion[number].used:
            return INVALID_QID
        if not size or size >= MOST_ENTRIES:
            return QUEUE_SIZE
        if c.prp1 & (self.page() - 1):
            return INVALID_PRP
        if vector >= self.vectors or vector and not self.msix.enabled():
            return INVALID_VECTOR
        if not c.cdw11 & 1:
            return INVALID_FIELD
        cq = &self.completion[number]
        memset(cq, 0, sizeof(Completion))
        cq.used = cq.phase = True
        cq.interrupts = c.cdw11 & 2 != 0
        cq.addr, cq.size, cq.vector = c.prp1, size + 1, vector
        self.waiting[number], self.told[number] = 0, False
        self.hang_bells()
        return OK

    cdef int create_submission(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, size = c.cdw10 >> 16, completion = c.cdw11 >> 16
        cdef Submission *sq
        if not completion or completion >= self.queue_count or not self.completion[completion].used:
            return INVALID_CQID
        if not number or number >= self.queue_count or self.submission[number].used:
            return INVALID_QID
        if not size or size >= MOST_ENTRIES:
            return QUEUE_SIZE
        if c.prp1 & (self.page() - 1):
            return INVALID_PRP
        if not c.cdw11 & 1:
            return INVALID_FIELD
        sq = &self.submission[number]
        memset(sq, 0, sizeof(Submission))
        sq.used, sq.addr, sq.size, sq.completion = True, c.prp1, size + 1, completion
        self.hang_bells()
        return OK

    cdef int delete_queue(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, n
        if c.opcode == A_DELETE_SQ:
            if not number or number >= self.queue_count or not self.submission[number].used:
                return INVALID_QID
            self.drop(number)
            self.submission[number].used = False
            self.hang_bells()
            return OK
        if not number or number >= self.queue_count or not self.completion[number].used:
            return INVALID_CQID
        for n in range(self.queue_count):
            if self.submission[n].used and self.submission[n].completion == number:
                return QUEUE_IN_USE
        self.completion[number].used = False
        self.hang_bells()
        return OK

    cdef int identify(self, Command *c) noexcept nogil:
        cdef u8 data[4096]
        cdef u8 kind = c.cdw10 & 0xFF, set = c.cdw11 >> 24
        cdef u64 blocks = self.blocks()
        cdef u32 n
        memset(data, 0, 4096)
        if kind == 0x01:
            memcpy(data, self.controller_data, 4096)
            data[0x20D] = 7
        elif kind in (0x00, 0x11):
            if not c.nsid or c.nsid > MOST_NAMESPACES:
                return INVALID_NSID
            if c.nsid == 1:
                for n in range(3):                              # size, capacity, use
                    memcpy(data + 8 * n, &blocks, 8)
                data[24], data[25], data[26] = 0x14, 7, 4 if self.block_shift == 12 else 0
                data[27], data[28], data[33] = 3, 0x1F, 1
                n = (GRANULARITY >> self.block_shift) - 1
                data[0x44] = data[0x46] = <u8>n
                for n in range(8):                              # formats: bytes of metadata, size of blocks
                    data[0x80 + 4 * n] = METADATA[n & 3]
                    data[0x82 + 4 * n] = 9 if n < 4 else 12
        elif kind in (0x02, 0x10, 0x07, 0x1A):
            if (kind == 0x02 or kind == 0x07) and c.nsid >= <u32>0xFFFFFFFE:
                return INVALID_NSID
            if set and kind == 0x07:
                return INVALID_FIELD
            if c.nsid < 1:
                data[0] = 1
        elif kind == 0x03:
            if not c.nsid or c.nsid > MOST_NAMESPACES:
                return INVALID_NSID
            if c.nsid != 1:
                return INVALID_FIELD
            data[0], data[1], data[4] = 4, 1, 0                 # command set: NVM
        elif kind == 0x05:
            if set or c.nsid != 1:
                return INVALID_FIELD
        elif kind == 0x06:
            if set:
                return INVALID_FIELD
            data[0], data[4], data[5], data[6] = 7, 0xFF, 0xFF, 0x3F
        elif kind == 0x1C:
            data[0] = 5
        elif kind != 0x15:
            return INVALID_FIELD
        return self.give(c, data, 4096)

    cdef int log_page(self, Command *c) noexcept nogil:
        cdef u8 data[4096]
        cdef u8 kind = c.cdw10 & 0xFF
        cdef u64 length = ((c.cdw10 >> 16 | <u64>(c.cdw11 & 0xFFFF) << 16) + 1) * 4
        cdef u64 offset = c.cdw12 | <u64>c.cdw13 << 32, size, value
        cdef u32 n
        if offset & 3 or length > self.page() << 7:
            return INVALID_FIELD
        memset(data, 0, 4096)
        if kind == 0x01:
            size = 64
        elif kind == 0x02:
            size = 512
            data[1], data[2] = TEMPERATURE & 0xFF, TEMPERATURE >> 8
            value = (self.blocks_read + 999) // 1000
            memcpy(data + 32, &value, 8)
            value = (self.blocks_written + 999) // 1000
            memcpy(data + 48, &value, 8)
            memcpy(data + 64, &self.reads, 8)
            memcpy(data + 80, &self.writes, 8)
        elif kind == 0x03:
            size = 512
            data[0] = 1
            memcpy(data + 8, b"1.0     ", 8)
        elif kind == 0x04:
            size = 4096
        elif kind == 0x05:
            size = 4096
            for n in range(512):
                data[4 * n] = EFFECTS[n]
        else:
            return INVALID_FIELD
        if offset >= size:
            return INVALID_FIELD
        if not c.cdw10 & 1 << 15:                               # the event is seen
            self.masked_events &= ~<u32>(1 if kind == 1 else 2 if kind == 2 else 4 if kind == 4 else 0)
            self.send_events()
        return self.give(c, data + offset, min(length, size - offset))

    cdef int get_feature(self, Command *c, u32 *result) noexcept nogil:
        cdef u8 id = c.cdw10 & 0xFF, select = c.cdw10 >> 8 & 7
        cdef u8 data[512]
        cdef bint standing = select == 1 or select == 2
        if id not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 0x16, 0x19):
            return INVALID_FIELD
        if id == 5 and (not c.nsid or c.nsid > MOST_NAMESPACES):
            return INVALID_NSID
        if id == 5 and c.nsid != 1:
            return INVALID_FIELD
        if select == 3:
            result[0] = 6 if id == 5 else 4 if id in (4, 6, 7, 11, 14, 0x16, 0x19) else 0
            return OK
        if id == 1:
            result[0] = 7
        elif id == 4:
            if not c.cdw11 >> 16 & 15:
                if c.cdw11 >> 20 & 3 == 0:
                    result[0] = WARNING_TEMPERATURE if standing else self.hot
                elif c.cdw11 >> 20 & 3 == 1:
                    result[0] = 0 if standing else self.cold
                else:
                    return INVALID_FIELD
        elif id == 6:
            result[0] = 0 if standing else self.cache
        elif id == 7:
            result[0] = (self.queue_count - 2) * 0x10001
        elif id == 9:
            if c.cdw11 & 0xFFFF >= self.queue_count:
                return INVALID_FIELD
            result[0] = (c.cdw11 & 0xFFFF) | (0 if c.cdw11 & 0xFFFF else 1 << 16)
        elif id == 11:
            result[0] = 0 if standing else self.event_config
        elif id == 14:
            memset(data, 0, 8)
            memcpy(data, &self.timestamp, 6)
            return self.give(c, data, 8)
        elif id == 0x16:
            memset(data, 0, 512)
            return self.give(c, data, 512)
        return OK

    cdef int set_feature(self, Command *c, u32 *result) noexcept nogil:
        cdef u8 id = c.cdw10 & 0xFF
        cdef u64 stamp = 0
        cdef int status
        if c.cdw10 >> 31:
            return NOT_SAVEABLE
        if id not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 0x16, 0x19):
            return INVALID_FIELD
        if id == 5:
            if c.nsid != EVERY:
                if not c.nsid or c.nsid > MOST_NAMESPACES:
                    return INVALID_NSID
                if c.nsid != 1:
                    return INVALID_FIELD
        elif c.nsid and c.nsid != EVERY:
            if c.nsid > MOST_NAMESPACES:
                return INVALID_NSID
            return 0x410F                                       # a feature of the controller, not of a namespace
        if id not in (4, 5, 6, 7, 11, 14, 0x16, 0x19):
            return NOT_CHANGEABLE
        if id == 4:
            if not c.cdw11 >> 16 & 15:
                if c.cdw11 >> 20 & 3 == 0:
                    self.hot = c.cdw11 & 0xFFFF
                elif c.cdw11 >> 20 & 3 == 1:
                    self.cold = c.cdw11 & 0xFFFF
                else:
                    return INVALID_FIELD
                if (TEMPERATURE >= self.hot or TEMPERATURE <= self.cold) and self.event_config & 2:
                    self.event(1, 1, 2)
        elif id == 6:
            self.cache = c.cdw11 & 1
            with gil:
                self.backend.write_cache = bool(self.cache)
        elif id == 7:
            for n in range(1, self.queue_count):
                if self.submission[n].used or self.completion[n].used:
                    return SEQUENCE_ERROR
            if c.cdw11 & 0xFFFF == 0xFFFF or c.cdw11 >> 16 == 0xFFFF:
                return INVALID_FIELD
            result[0] = (self.queue_count - 2) * 0x10001
        elif id == 11:
            self.event_config = c.cdw11
        elif id == 14:
            status = self.gather(c, 8, False)
            if status != OK:
                self.scatter.finish(0)
                return status
            self.scatter.get(0, <u8 *>&stamp, 8)
            self.scatter.finish(0)
            self.timestamp = stamp << 16 >> 16
        elif id == 0x19 and c.cdw11 & 0x1FF:
            return 0x402B
        return OK

    # --- asynchronous events ----------------------------------------------------------------------------------------

    cdef void event(self, u32 kind, u32 info, u32 page) noexcept nogil:
        """kind 0: error, 1: SMART; told when a request waits for it, and once until its log page is read."""
        if self.event_count < EVENTS:
            self.event_list[self.event_count] = kind | info << 8 | page << 16
            self.event_count += 1
            if not self.serving:
                self.send_events()
                if self.told[0]:
                    self.tell(0)

    cdef void send_events(self) noexcept nogil:
        cdef u32 n = 0, k, word
        while n < self.event_count and self.waiting_events and self.completion[0].used and self.room(0):
            word = self.event_list[n]
            if self.masked_events & 1 << (word & 7):
                n += 1
                continue
            self.masked_events |= 1 << (word & 7)
            for k in range(n, self.event_count - 1):
                self.event_list[k] = self.event_list[k + 1]
            self.event_count -= 1
            self.waiting_events -= 1
            self.post(0, self.event_ids[self.waiting_events], OK, word)
