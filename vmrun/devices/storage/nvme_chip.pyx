"""An NVM Express controller, the chip alone: registers, admin commands, events.

Ref: NVM Express 1.4. Registers, opcodes and fields are called as there. Status values are those of a completion, without
the phase: 0x4000 is 'do not retry'.
Not modelled: metadata and protection (formats that have them are listed and refused), namespaces that a guest makes,
reservations, firmware download, virtual functions.

Queues and locks are nvme_queues.pyx, commands that move data nvme_io.pyx, namespaces nvme_spaces.pyx and nvme_space.pyx. Here the device lock is held, and while something
changes that commands of all queues see, the locks of all. Everything that a guest gives is bounded and checked when
it is used.
"""

from libc.string cimport memcpy, memset

from accel.api cimport IrqLine
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.core.cells cimport cells
from vmrun.devices.storage.nvme_io cimport EVERY, MOST_NAMESPACES
from vmrun.devices.storage.nvme_queues cimport (
    CSTS_FATAL, CSTS_READY, DOORBELLS, EVENT_LIMIT, INVALID_CONTROLLER, INVALID_CQID, INVALID_FIELD, INVALID_NSID,
    INVALID_OPCODE, INVALID_PRP, INVALID_QID, INVALID_RESOURCE, INVALID_VECTOR, LATER, MOST_ENTRIES, NOT_CHANGEABLE,
    NOT_SAVEABLE, OK, QUEUE_IN_USE, QUEUE_SIZE, QUEUES, RESOURCE_COUNT, SEQUENCE_ERROR, Command, CompletionQueue,
    SubmissionQueue,
)
from vmrun.devices.storage.nvme_space cimport NvmeSpace

from vmrun.core.state import KEEP, U32, U64, Bytes, Flag, Moment, Rows, Table

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
    R_CMBLOC = 0x38             # from here on: nvme_memory.pyx
    VERSION = 0x00010400
    CSTS_SHUT = 8
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
    A_VIRTUALIZATION = 0x1C
    A_SHADOW = 0x7C
    A_FORMAT = 0x80
    TEMPERATURE = 0x143         # kelvin
    WARNING_TEMPERATURE = 0x157
    STAMP_SET = 2               # byte 6 of a time stamp: the host has set it
    NS = 1000000                # per millisecond

cdef u64 CAPABILITIES = <u64>0x00401820 << 32 | 0x0F0107FF


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


cdef class NvmeChip(NvmeSpaces):
    """`controller`: the 4096 bytes of Identify Controller. `intx`: the pin. `limits`: mdts, vsl, aerl, aer_max_queued.
    `warning`: what the health log says is critical. `msix` is set by the glue.
    """

    state = Table(
        "nvme", 2,
        Rows("submission", QUEUES, Flag("used"), U64("addr"), U32("size", most=MOST_ENTRIES), U32("head", most=MOST_ENTRIES),
             U32("tail", most=MOST_ENTRIES), U32("completion", most=QUEUES - 1)),
        Rows("completion", QUEUES, Flag("used"), Flag("interrupts"), Flag("phase"), U64("addr"),
             U32("size", most=MOST_ENTRIES), U32("head", most=MOST_ENTRIES), U32("tail", most=MOST_ENTRIES), U32("vector", most=63 + 1)),
        U32("cc"), U32("csts"), U32("aqa"), U32("mask"), U32("raised"), U64("asq"), U64("acq"), U64("shadow"),
        U64("event_index"), U32("hot", WARNING_TEMPERATURE), U32("cold"), U32("event_config"), U32("cache", 1, most=1),
        U32("event_count", most=EVENTS), U32("waiting_events", most=AER_MOST), U32("masked_events"), U64("timestamp"),
        Moment("stamped"), Bytes("host_behavior", 512),
        Bytes("event_identifiers", 2 * AER_MOST), Bytes("event_words", 4 * EVENTS),
        Bytes("attached", 33, KEEP), Bytes("changed_spaces", MOST_NAMESPACES + 1),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, Dma dma, bytes controller, IrqLine intx, Clock clock, u32 queues, u32 vectors, limits, u8 warning):
        super().__init__(dma, intx, queues)
        self.name, self.clock = "nvme", clock
        self.max_access, self.min_access = 8, 1
        self.controller, self.controller_data = controller, <u8 *>controller
        self.vectors, self.warning = vectors, warning
        self.mdts, self.vsl, self.events_least, self.events_most = limits
        self.events_least = min(self.events_least + 1, AER_MOST)
        self.events_most = min(self.events_most, EVENTS)
        self.hot, self.cache = WARNING_TEMPERATURE, 1

    @property
    def event_identifiers(self):
        return cells(self, self.event_ids, 2 * AER_MOST)

    @property
    def event_words(self):
        return cells(self, self.event_list, 4 * EVENTS)

    @property
    def host_behavior(self):
        return cells(self, self.host_list, 512)

    def reset(self):
        with nogil:
            self.enter_all()
            self.stop()
        type(self).state.reset(self)
        self.check_pin()
        with nogil:
            self.leave_all()

    def detach(self):
        """Out of the machine."""
        with nogil:
            self.enter_all()
            self.stop()
            self.leave_all()
        self.detach_thread()

    def before_save(self):
        with nogil:
            self.pay()
        self.cache = self.caching()

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
        attached = int.from_bytes(values["attached"], "little")
        if any(attached >> nsid & 1 and self.known[nsid] == NULL for nsid in range(MOST_NAMESPACES + 1)) or attached >> 257:
            raise StateError("nvme: a namespace that there is not")
        if values["cc"] >> 7 & 15 > 4:
            raise StateError("nvme: pages of a size that it has not")

    def settle(self):
        """A state was loaded. What a queue holds is served when the machine goes on: its doorbell may have been rung."""
        cdef u32 n
        with nogil:
            self.enter_all()
            self.drop_all()
            self.owed = 0
            for n in range(self.queue_count):
                self.rest[n] = self.submission[n].used and self.submission[n].head != self.submission[n].tail
            self.check_pin()
            self.moved_bells = True
            self.leave_all()
        if not self.cache:
            self.set_caches(False)
        if self.later is not None:
            self.later.notifier.notify()
        for bell in self.bells or () if self.shadow else ():
            bell.notifier.notify()

    # --- registers --------------------------------------------------------------------------------------------

    cdef void notice(self, u32 nsid) noexcept nogil:
        """A namespace is another: its size, or whether it is attached."""
        self.changed[nsid] = 1
        if self.event_config & 0x100:
            self.event(2, 0, 4)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u8 registers[64]
        cdef u64 value = 0, capabilities
        if offset >= 64 or offset + size > 64 or offset >= R_CMBLOC:
            if self.memory is not None and offset + size <= DOORBELLS:
                value = self.memory.register(<u32>offset & ~3) >> (8 * (offset & 3))
                if size == 8:
                    value |= <u64>self.memory.register((<u32>offset & ~3) + 4) << 32
            return value if size == 8 else value & ((<u64>1 << (8 * size)) - 1)
        memset(registers, 0, 64)
        capabilities = CAPABILITIES if self.memory is None else CAPABILITIES | self.memory.capabilities()
        memcpy(registers + R_CAP, &capabilities, 8)
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
            self.enter_all()
            self.write_cc(low)
            self.leave_all()
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
        elif self.memory is not None:
            self.enter_all()
            self.memory.set_register(<u32>offset, low)
            if size == 8:
                self.memory.set_register(<u32>offset + 4, <u32>(value >> 32))
            self.leave_all()
            self.memory.show()
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
        memset(&self.submission[0], 0, sizeof(SubmissionQueue))
        memset(&self.completion[0], 0, sizeof(CompletionQueue))
        self.submission[0].used = self.completion[0].used = True
        self.submission[0].addr, self.submission[0].size = self.asq, (self.aqa & 0xFFF) + 1
        self.completion[0].addr, self.completion[0].size = self.acq, (self.aqa >> 16 & 0xFFF) + 1
        self.completion[0].interrupts = self.completion[0].phase = True
        return True

    cdef void stop(self) noexcept nogil:
        """No queues, nothing under way."""
        cdef u32 n
        self.drop_all()
        for n in range(QUEUES):
            self.submission[n].used = self.completion[n].used = False
        self.event_count = self.waiting_events = self.masked_events = 0
        self.owed = self.raised = 0
        self.timestamp, self.stamped = 0, self.clock.now()
        self.check_pin()
        if self.shadow:
            self.shadow = self.event_index = 0
            self.moved_bells = True

    cdef int execute(self, u32 queue, Command *c) noexcept nogil:
        cdef u32 result = 0
        cdef int status
        if c.flags & 3:                                         # fused operations
            status = INVALID_FIELD
        elif queue == 0:
            self.enter_all()
            status = self.admin(c, &result)
            self.leave_all()
        else:
            status = self.io(queue, c, &result)
        if status != LATER:
            self.post(queue, c.id, status, result)
        return status

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
            if self.waiting_events >= self.events_least:
                return EVENT_LIMIT
            self.event_ids[self.waiting_events] = c.id
            self.waiting_events += 1
            self.send_events()
            return LATER
        if op == A_ATTACH:
            return self.attach(c)
        if op == A_VIRTUALIZATION:
            return self.virtualization(c)
        if op == A_SHADOW:
            if (c.prp1 | c.prp2) & (self.page() - 1):
                return INVALID_FIELD
            self.shadow, self.event_index = c.prp1, c.prp2
            self.moved_bells = True
            return OK
        if op == A_FORMAT:
            return self.format(c)
        return INVALID_OPCODE

    cdef int virtualization(self, Command *c) noexcept nogil:
        """There are no secondary controllers, and nothing that could be given to them."""
        cdef u32 action = c.cdw10 & 15, kind = c.cdw10 >> 8 & 7
        if kind > 1:
            return INVALID_RESOURCE
        if action in (7, 8, 9) or action == 1 and c.cdw10 >> 16 != self.number:
            return INVALID_CONTROLLER
        if action == 1:
            return RESOURCE_COUNT if c.cdw11 & 0xFFFF else OK
        return INVALID_FIELD

    cdef int create_completion(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, size = c.cdw10 >> 16, vector = c.cdw11 >> 16
        cdef CompletionQueue *cq
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
        memset(cq, 0, sizeof(CompletionQueue))
        cq.used = cq.phase = True
        cq.interrupts = c.cdw11 & 2 != 0
        cq.addr, cq.size, cq.vector = c.prp1, size + 1, vector
        self.side[number].waiting, self.side[number].told = 0, False
        self.moved_bells = True
        return OK

    cdef int create_submission(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, size = c.cdw10 >> 16, completion = c.cdw11 >> 16
        cdef SubmissionQueue *sq
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
        memset(sq, 0, sizeof(SubmissionQueue))
        sq.used, sq.addr, sq.size, sq.completion = True, c.prp1, size + 1, completion
        self.moved_bells = True
        return OK

    cdef int delete_queue(self, Command *c) noexcept nogil:
        cdef u32 number = c.cdw10 & 0xFFFF, n
        if c.opcode == A_DELETE_SQ:
            if not number or number >= self.queue_count or not self.submission[number].used:
                return INVALID_QID
            self.drop(number)
            self.submission[number].used = False
            self.moved_bells = True
            return OK
        if not number or number >= self.queue_count or not self.completion[number].used:
            return INVALID_CQID
        for n in range(self.queue_count):
            if self.submission[n].used and self.submission[n].completion == number:
                return QUEUE_IN_USE
        self.completion[number].used = False
        self.moved_bells = True
        return OK

    cdef u64 time_stamp(self) noexcept nogil:
        """Milliseconds since 1970, when the host has said them once, else since the controller was reset."""
        cdef u64 gone = <u64>(self.clock.now() - self.stamped) // NS
        return self.timestamp >> 48 << 48 | ((self.timestamp + gone) << 16 >> 16)

    cdef int identify(self, Command *c) noexcept nogil:
        cdef u8 data[4096]
        cdef u8 kind = c.cdw10 & 0xFF, set = c.cdw11 >> 24
        cdef u32 most
        cdef int status
        memset(data, 0, 4096)
        if kind == 0x01:
            memcpy(data, self.controller_data, 4096)
            data[0x20D] = 7
        elif kind in (0x00, 0x02, 0x03, 0x05, 0x07, 0x10, 0x11, 0x12, 0x13, 0x1A, 0x1B):
            status = self.identify_space(c, data)
            if status != OK:
                return status
        elif kind == 0x06:                                      # what the command set adds
            if set == 0:
                most = self.most_deallocated()
                data[0] = <u8>self.vsl
                memcpy(data + 4, &most, 4)
            elif set != 2:
                return INVALID_FIELD
        elif kind == 0x14:                                      # queues and vectors, none of which is flexible
            data[0], data[4] = <u8>self.number, 3
            data[0x2A], data[0x2E] = <u8>self.queue_count, 1
            data[0x4A], data[0x4B], data[0x4E] = <u8>self.vectors, <u8>(self.vectors >> 8), 1
        elif kind == 0x1C:
            data[0] = 5
        elif kind != 0x15:
            return INVALID_FIELD
        return self.give(c, data, 4096)

    cdef int log_page(self, Command *c) noexcept nogil:
        cdef u8 data[4096]
        cdef u8 kind = c.cdw10 & 0xFF
        cdef u64 length = ((c.cdw10 >> 16 | <u64>(c.cdw11 & 0xFFFF) << 16) + 1) * 4
        cdef u64 offset = c.cdw12 | <u64>c.cdw13 << 32, size
        cdef u32 n
        cdef int status
        if offset & 3 or length > self.page() << 7:
            return INVALID_FIELD
        memset(data, 0, 4096)
        if kind == 0x01:
            size = 64
        elif kind == 0x02:
            size = 512
            status = self.health(c, data)
            if status != OK:
                return status
        elif kind == 0x03:
            size = 512
            data[0] = 1
            memcpy(data + 8, b"1.0     ", 8)
        elif kind == 0x04:
            size = 4096
            self.list_changed(data)
        elif kind == 0x05:
            size = 4096
            for n in range(512):
                data[4 * n] = EFFECTS[n]
        else:
            return INVALID_FIELD
        if offset >= size:
            return INVALID_FIELD
        if not c.cdw10 & 1 << 15:                               # the event is seen
            if kind == 4:
                memset(self.changed, 0, sizeof(self.changed))
            self.masked_events &= ~<u32>(1 if kind == 1 else 2 if kind == 2 else 4 if kind == 4 else 0)
            self.send_events()
        return self.give(c, data + offset, min(length, size - offset))

    cdef int health(self, Command *c, u8 *data) noexcept nogil:
        """The health of a namespace, or of the controller: the sum of what is attached."""
        cdef u64 sums[4]
        cdef u32 n, first = c.nsid, last = c.nsid
        if c.nsid == EVERY:
            first, last = 1, MOST_NAMESPACES
        elif not c.nsid or c.nsid > MOST_NAMESPACES or self.spaces[c.nsid] == NULL:
            return INVALID_NSID
        memset(sums, 0, sizeof(sums))
        for n in range(first, last + 1):
            if self.spaces[n] != NULL:
                sums[0] += (<NvmeSpace>self.spaces[n]).blocks_read
                sums[1] += (<NvmeSpace>self.spaces[n]).blocks_written
                sums[2] += (<NvmeSpace>self.spaces[n]).reads
                sums[3] += (<NvmeSpace>self.spaces[n]).writes
        data[0], data[1], data[2] = <u8>self.warning, TEMPERATURE & 0xFF, TEMPERATURE >> 8
        for n in range(4):
            if n < 2:
                sums[n] = (sums[n] + 999) // 1000               # in thousands of 512 bytes
            memcpy(data + 32 + 16 * n, &sums[n], 8)
        return OK

    cdef int get_feature(self, Command *c, u32 *result) noexcept nogil:
        cdef u8 id = c.cdw10 & 0xFF, select = c.cdw10 >> 8 & 7
        cdef u8 data[512]
        cdef u64 stamp
        cdef bint standing = select == 1 or select == 2
        if id not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 0x16, 0x19):
            return INVALID_FIELD
        if id == 5 and (not c.nsid or c.nsid > MOST_NAMESPACES):
            return INVALID_NSID
        if id == 5 and self.spaces[c.nsid] == NULL:
            return INVALID_FIELD
        if select == 3:
            result[0] = 6 if id == 5 else 4 if id in (4, 6, 7, 11, 14, 0x16, 0x19) else 0
            return OK
        if id == 1:
            result[0] = 7
        elif id == 5:
            result[0] = 0 if standing else (<NvmeSpace>self.spaces[c.nsid]).recovery
        elif id == 4:
            if not c.cdw11 >> 16 & 15:
                if c.cdw11 >> 20 & 3 == 0:
                    result[0] = WARNING_TEMPERATURE if standing else self.hot
                elif c.cdw11 >> 20 & 3 == 1:
                    result[0] = 0 if standing else self.cold
                else:
                    return INVALID_FIELD
        elif id == 6:
            result[0] = 0 if standing else self.caching()
        elif id == 7:
            result[0] = (self.queue_count - 2) * 0x10001
        elif id == 9:
            if c.cdw11 & 0xFFFF >= self.queue_count:
                return INVALID_FIELD
            result[0] = (c.cdw11 & 0xFFFF) | (0 if c.cdw11 & 0xFFFF else 1 << 16)
        elif id == 11:
            result[0] = 0 if standing else self.event_config
        elif id == 14:
            stamp = 0 if standing else self.time_stamp()
            return self.give(c, <u8 *>&stamp, 8)
        elif id == 0x16:
            memset(data, 0, 512)
            return self.give(c, &data[0] if standing else &self.host_list[0], 512)
        return OK

    cdef int set_feature(self, Command *c, u32 *result) noexcept nogil:
        cdef u8 id = c.cdw10 & 0xFF
        cdef u64 stamp = 0
        cdef u32 n
        cdef int status
        if c.cdw10 >> 31:
            return NOT_SAVEABLE
        if id not in (1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 14, 0x16, 0x19):
            return INVALID_FIELD
        if id == 5:
            if c.nsid != EVERY:
                if not c.nsid or c.nsid > MOST_NAMESPACES:
                    return INVALID_NSID
                if self.spaces[c.nsid] == NULL:
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
        elif id == 5:
            for n in range(1, MOST_NAMESPACES + 1):
                if self.spaces[n] != NULL and (c.nsid == EVERY or c.nsid == n):
                    (<NvmeSpace>self.spaces[n]).recovery = c.cdw11
        elif id == 6:
            self.set_caches(c.cdw11 & 1)
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
            status = self.receive(c, <u8 *>&stamp, 8)
            if status != OK:
                return status
            self.timestamp, self.stamped = stamp << 16 >> 16 | <u64>STAMP_SET << 48, self.clock.now()
        elif id == 0x16:
            return self.receive(c, self.host_list, 512)
        elif id == 0x19 and c.cdw11 & 0x1FF:
            return 0x402B
        return OK

    cdef bint caching(self) noexcept with gil:
        """Whether what is written to a namespace that is attached may be volatile: the drives know, whoever has said it."""
        cdef u32 n
        for n in range(1, MOST_NAMESPACES + 1):
            if self.spaces[n] != NULL and (<NvmeSpace>self.spaces[n]).backend.write_cache:
                return True
        return False

    cdef void set_caches(self, bint on) noexcept with gil:
        cdef u32 n
        for n in range(1, MOST_NAMESPACES + 1):
            if self.spaces[n] != NULL:
                (<NvmeSpace>self.spaces[n]).backend.write_cache = on

    # --- asynchronous events ----------------------------------------------------------------------------------------

    cdef void event(self, u32 kind, u32 info, u32 page) noexcept nogil:
        """kind 0: error, 1: SMART; told when a request waits for it, and once until its log page is read."""
        if self.event_count < self.events_most:
            self.event_list[self.event_count] = kind | info << 8 | page << 16
            self.event_count += 1
            if not self.side[0].serving:
                self.send_events()
                if self.side[0].told:
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
