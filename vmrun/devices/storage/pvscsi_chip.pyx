"""VMware's paravirtual SCSI adapter: its registers, the rings that it shares with a driver, and commands; compiled.

Ref: the header vmw_pvscsi.h of VMware's driver for Linux, which publishes registers, descriptors and rings.

A driver writes a command's number to COMMAND and its descriptor, word by word, to COMMAND DATA; COMMAND STATUS says what
became of it. Requests of 128 bytes come through a ring in guest memory when one of the kick registers is written, any
number in flight; completions of 32 bytes go into a second ring. A third ring, where the driver has set one up, tells of
units that come and go.

Rings, indices and lists are the guest's: the driver's copies of this side's indices are never read back, what lies beyond
a ring is never touched, a list of pieces ends after MOST_PIECES entries.

QEMU's adapter leaves the count of a completion 0 and calls failed reads short ones, which hides their sense data from
drivers; here the count is what was moved, and sense data comes with a host status that says so.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.aio cimport IoThread
from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma, Scatter
from accel.turns cimport Turn, turn_of
from vmrun.bus.pci.msi cimport MsiChip
from vmrun.core.cells cimport cells
from vmrun.devices.storage.scsi cimport (
    CHECK_CONDITION, GOOD, SCSI_DATA, SCSI_FROM_HOST, SCSI_LATER, SCSI_NOBODY, SCSI_TO_HOST, TASK_ABORTED, ScsiRequest,
    ScsiUnits, scsi_begin, scsi_cancel, scsi_release, scsi_run, scsi_unit_reset,
)

from accel.dma import Scatter as _Scatter

from vmrun.core.state import U8, U32, U64, Bytes, Flag, Table
from vmrun.errors import StateError

cdef enum:
    # registers
    COMMAND = 0x0000
    COMMAND_DATA = 0x0004
    COMMAND_STATUS = 0x0008
    INTERRUPT_STATUS = 0x100C
    INTERRUPT_MASK = 0x2010
    KICK_OTHER = 0x3014
    KICK_MEDIUM = 0x4018
    # commands
    C_FIRST = 0
    C_ADAPTER_RESET = 1
    C_ISSUE_SCSI = 2
    C_SETUP_RINGS = 3
    C_RESET_BUS = 4
    C_RESET_DEVICE = 5
    C_ABORT = 6
    C_CONFIG = 7
    C_SETUP_MESSAGES = 8
    C_UNPLUG = 9
    C_LAST = 10
    MOST_WORDS = 132                # of a descriptor: SETUP RINGS
    # interrupts
    COMPLETED = 1
    MESSAGE = 4
    # rings
    MOST_PAGES = 32
    MOST_MESSAGE_PAGES = 16
    REQUEST = 128
    COMPLETION = 32
    MESSAGE_SIZE = 128
    PAGE_REQUESTS = 32
    PAGE_COMPLETIONS = 128
    PAGE_MESSAGES = 32
    # the page of indices
    REQUEST_PRODUCED = 0
    REQUEST_CONSUMED = 4
    REQUEST_LOG = 8
    COMPLETION_PRODUCED = 12
    COMPLETION_CONSUMED = 16
    COMPLETION_LOG = 20
    MESSAGE_PRODUCED = 128
    MESSAGE_CONSUMED = 132
    MESSAGE_LOG = 136
    # of a request
    F_LIST = 0x01
    F_OUT_OF_BAND = 0x02
    F_TO_HOST = 0x08
    F_TO_DEVICE = 0x10
    CHAIN = 1
    MOST_COMMANDS = PAGE_REQUESTS * MOST_PAGES
    BURST = 64                      # requests that are begun at one go
    MOST_PIECES = 512
    # host status
    H_OK = 0x00
    H_NO_SELECTION = 0x11
    H_DATA_RUN = 0x12
    H_ABORTED = 0x26                # taken out of the queue
    H_HARDWARE = 0x20
    # messages
    ADDED = 0
    REMOVED = 1

cdef u32 FAILED = 0xFFFFFFFF
cdef u32 NOT_ENOUGH = 0xFFFFFFFE
cdef u32[10] WORDS = [0, 0, 0, 132, 0, 3, 4, 6, 34, 0]      # of each command's descriptor


cdef struct PvCommand:
    ScsiRequest scsi                # first
    bint used
    u64 context, sense, room
    u32 sense_room
    PvCommand *next


cdef void unit_done(ScsiRequest *request) noexcept nogil:
    (<PvscsiChip>request.owner).over(<PvCommand *>request)


cdef void _go_on(void *chip) noexcept nogil:
    """What a long ring has left."""
    (<PvscsiChip>chip).kicked()


cdef class PvscsiChip:
    """`messages`: there is a ring for what comes and goes."""

    state = Table(
        "pvscsi", 1,
        U32("command", most=C_LAST), U32("given", most=MOST_WORDS), U32("status"), U32("pending", most=0xF), U32("mask"),
        Bytes("descriptor", 4 * MOST_WORDS), Flag("rings"), Flag("telling"), U64("indices"),
        U8("request_log", most=10), U8("completion_log", most=12), U8("message_log", most=9), U32("request_next"),
        U32("completion_next"), U32("message_next"), Bytes("request_pages", 8 * MOST_PAGES),
        Bytes("completion_pages", 8 * MOST_PAGES), Bytes("message_pages", 8 * MOST_MESSAGE_PAGES),
    )
    save, load_state = state.methods()[1:]

    cdef Dma dma
    cdef readonly ScsiUnits units
    cdef IrqLine irq
    cdef public MsiChip msi
    cdef IoThread thread
    cdef Turn later
    cdef Scatter scatter
    cdef PvCommand *commands
    cdef PvCommand *free
    cdef readonly bint messages
    cdef bint serving                   # requests are being taken just now
    cdef public u32 command, given, status, pending, mask, request_next, completion_next, message_next
    cdef public bint rings, telling
    cdef public u64 indices
    cdef public u8 request_log, completion_log, message_log
    cdef u32 words[MOST_WORDS]
    cdef u64 request_at[MOST_PAGES]
    cdef u64 completion_at[MOST_PAGES]
    cdef u64 message_at[MOST_MESSAGE_PAGES]

    def __init__(self, Dma dma, IrqLine irq, ScsiUnits units, bint messages):
        cdef u32 n
        self.dma, self.irq, self.units, self.messages = dma, irq, units, messages
        self.scatter = _Scatter(dma, 2 * MOST_PIECES)       # pieces of guest memory may be cut where RAM ends
        self.commands = <PvCommand *>calloc(MOST_COMMANDS, sizeof(PvCommand))
        if self.commands == NULL:
            raise MemoryError
        for n in range(MOST_COMMANDS):
            self.commands[n].next = self.free
            self.free = &self.commands[n]
        self.reset()

    def __dealloc__(self):
        cdef u32 n
        if self.commands != NULL:
            for n in range(MOST_COMMANDS):
                scsi_release(&self.commands[n].scsi)
        free(self.commands)

    def serve_on(self, IoThread thread):
        """The rest of a long ring is `thread`'s. Before the machine runs; `quit` ends it."""
        self.thread, self.later = thread, turn_of(self, _go_on)
        thread.add(self.later)

    def quit(self):
        self.thread.remove(self.later)
        self.thread = None

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def descriptor(self):
        return cells(self, self.words, 4 * MOST_WORDS)

    @property
    def request_pages(self):
        return cells(self, self.request_at, 8 * MOST_PAGES)

    @property
    def completion_pages(self):
        return cells(self, self.completion_at, 8 * MOST_PAGES)

    @property
    def message_pages(self):
        return cells(self, self.message_at, 8 * MOST_MESSAGE_PAGES)

    def reset(self):
        """Power-on and RESET#."""
        with nogil:
            self.start_anew()
        self.units.reset()

    def check_state(self, values):
        if (values["rings"] or values["telling"]) and not values["indices"]:
            raise StateError("pvscsi: rings without their indices")

    def settle(self):
        with nogil:
            self.update_irq()
        if self.rings and self.later is not None:           # a turn may have been due when the machine was saved
            self.later.notifier.notify()

    cdef void give_up(self) noexcept nogil:
        cdef u32 n
        for n in range(MOST_COMMANDS):
            if self.commands[n].used:
                scsi_cancel(&self.commands[n].scsi)
                self.give_back(&self.commands[n])

    cdef void start_anew(self) noexcept nogil:
        self.give_up()
        self.command, self.given, self.status = C_FIRST, 0, 0
        self.pending = self.mask = 0
        self.rings = self.telling = False
        self.indices = 0
        self.request_log = self.completion_log = self.message_log = 0
        self.request_next = self.completion_next = self.message_next = 0
        memset(self.words, 0, sizeof(self.words))
        memset(self.request_at, 0, sizeof(self.request_at))
        memset(self.completion_at, 0, sizeof(self.completion_at))
        memset(self.message_at, 0, sizeof(self.message_at))
        self.update_irq()

    cdef void give_back(self, PvCommand *command) noexcept nogil:
        command.used = False
        command.next = self.free
        self.free = command

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef void update_irq(self) noexcept nogil:
        cdef bint wanted = self.pending & self.mask != 0
        if self.msi is not None and self.msi.enabled():
            if wanted:
                self.msi.notify(0)
            self.irq.set(0)
        else:
            self.irq.set(1 if wanted else 0)

    cdef void raise_cause(self, u32 cause) noexcept nogil:
        self.pending |= cause
        self.update_irq()

    # --- rings ------------------------------------------------------------------------------------------------

    cdef u32 index(self, u32 offset) noexcept nogil:
        cdef u32 value = 0
        self.dma.read_into(self.indices + offset, <u8 *>&value, 4)
        return value

    cdef void show(self, u32 offset, u32 value) noexcept nogil:
        self.dma.write_from(self.indices + offset, <const u8 *>&value, 4)

    cdef u32 setup_rings(self) noexcept nogil:
        cdef u32 requests = self.words[0], completions = self.words[1], n
        cdef u64 frame
        if not 1 <= requests <= MOST_PAGES or not 1 <= completions <= MOST_PAGES:
            return FAILED
        self.give_up()
        self.request_log = floor_log(requests * PAGE_REQUESTS)
        self.completion_log = floor_log(completions * PAGE_COMPLETIONS)
        memcpy(&frame, &self.words[2], 8)
        self.indices = frame << 12
        for n in range(MOST_PAGES):
            memcpy(&frame, &self.words[4 + 2 * n], 8)
            self.request_at[n] = frame << 12
            memcpy(&frame, &self.words[4 + 2 * MOST_PAGES + 2 * n], 8)
            self.completion_at[n] = frame << 12
        self.request_next = self.completion_next = 0
        self.show(REQUEST_PRODUCED, 0)
        self.show(REQUEST_CONSUMED, 0)
        self.show(COMPLETION_PRODUCED, 0)
        self.show(COMPLETION_CONSUMED, 0)
        self.show(REQUEST_LOG, self.request_log)
        self.show(COMPLETION_LOG, self.completion_log)
        self.rings = True
        return 0

    cdef u32 setup_messages(self) noexcept nogil:
        cdef u32 pages = self.words[0], n
        cdef u64 frame
        if not self.messages:
            return FAILED
        if not self.rings or not 1 <= pages <= MOST_MESSAGE_PAGES:
            return WORDS[C_SETUP_MESSAGES]
        self.message_log = floor_log(pages * PAGE_MESSAGES)
        for n in range(MOST_MESSAGE_PAGES):
            memcpy(&frame, &self.words[2 + 2 * n], 8)
            self.message_at[n] = frame << 12
        self.message_next = 0
        self.show(MESSAGE_PRODUCED, 0)
        self.show(MESSAGE_CONSUMED, 0)
        self.show(MESSAGE_LOG, self.message_log)
        self.telling = True
        return WORDS[C_SETUP_MESSAGES]

    cdef void kicked(self) noexcept nogil:
        """Requests that the driver has put into the ring, as far as there is room for them: so many at one go, so that nobody
        waits long for the device lock, the thread has the rest.
        """
        cdef u32 ready, at, left = BURST if self.thread is not None and self.thread.running else MOST_COMMANDS
        cdef u8 r[REQUEST]
        if not self.rings or self.serving:                      # one that is over at once: the loop below goes on
            return
        ready = self.index(REQUEST_PRODUCED)
        if ready - self.request_next > <u32>1 << self.request_log:
            return                                              # an index that no driver has written
        self.serving = True
        while self.request_next != ready and self.free != NULL and left:
            left -= 1
            at = self.request_next & ((1 << self.request_log) - 1)
            self.request_next += 1
            if self.dma.read_into(self.request_at[at // PAGE_REQUESTS] + at % PAGE_REQUESTS * REQUEST, r, REQUEST) == 0:
                self.request(r)
        self.serving = False
        self.show(REQUEST_CONSUMED, self.request_next)
        if not left and self.later is not None:
            self.later.notifier.signal()

    cdef void completed(self, u64 context, u64 moved, u32 sense, u16 host, u8 status) noexcept nogil:
        cdef u8 c[COMPLETION]
        cdef u16 word = status
        cdef u32 at = self.completion_next & ((1 << self.completion_log) - 1)
        memset(c, 0, COMPLETION)
        memcpy(c, &context, 8)
        memcpy(c + 8, &moved, 8)
        memcpy(c + 16, &sense, 4)
        memcpy(c + 20, &host, 2)
        memcpy(c + 22, &word, 2)
        self.dma.write_from(
            self.completion_at[at // PAGE_COMPLETIONS] + at % PAGE_COMPLETIONS * COMPLETION, c, COMPLETION)
        self.completion_next += 1
        self.show(COMPLETION_PRODUCED, self.completion_next)
        self.raise_cause(COMPLETED)

    def tell(self, bint added, u32 channel, u32 target, u32 lun):
        """A unit came or went. The device lock is held."""
        cdef u8 m[MESSAGE_SIZE]
        cdef u32 at, code = ADDED if added else REMOVED
        if not self.telling:
            return
        if self.message_next - self.index(MESSAGE_CONSUMED) >= <u32>1 << self.message_log:
            return                                              # nobody reads them
        memset(m, 0, MESSAGE_SIZE)
        memcpy(m, &code, 4)
        memcpy(m + 4, &channel, 4)
        memcpy(m + 8, &target, 4)
        m[13] = <u8>lun
        at = self.message_next & ((1 << self.message_log) - 1)
        self.dma.write_from(self.message_at[at // PAGE_MESSAGES] + at % PAGE_MESSAGES * MESSAGE_SIZE, m, MESSAGE_SIZE)
        self.message_next += 1
        self.show(MESSAGE_PRODUCED, self.message_next)
        self.raise_cause(MESSAGE)

    # --- commands to units ------------------------------------------------------------------------------------

    cdef int gather(self, const u8 *r, u32 flags, u64 length, bint to_memory) noexcept nogil:
        """`length` bytes of a request's memory. 0, or -1: it has not so many, or they are no memory."""
        cdef u8 entry[16]
        cdef u64 address, where
        cdef u32 part, how, n
        self.scatter.begin(to_memory)
        memcpy(&address, r + 8, 8)
        if not flags & F_LIST:
            while length:
                part = <u32>min(length, <u64>1 << 30)
                if self.scatter.add(address, part) != 0:
                    return -1
                address += part
                length -= part
            return 0
        for n in range(MOST_PIECES):
            if not length:
                return 0
            if self.dma.read_into(address, entry, 16) != 0:
                return -1
            memcpy(&where, entry, 8)
            memcpy(&part, entry + 8, 4)
            memcpy(&how, entry + 12, 4)
            if how & CHAIN:
                address = where
                continue
            address += 16
            if part > length:
                part = <u32>length
            if part and self.scatter.add(where, part) != 0:
                return -1
            length -= part
        return -1 if length else 0

    cdef void request(self, const u8 *r) noexcept nogil:
        cdef PvCommand *c = self.free
        cdef u64 context, room
        cdef u32 flags, sense_room
        cdef u8 size = r[56]
        cdef int result
        memcpy(&context, r, 8)
        memcpy(&room, r + 16, 8)
        memcpy(&sense_room, r + 32, 4)
        memcpy(&flags, r + 36, 4)
        if r[66] or flags & F_OUT_OF_BAND or size > 16:         # a second bus; commands elsewhere in memory
            self.completed(context, 0, 0, H_NO_SELECTION if r[66] else H_HARDWARE, GOOD)
            return
        self.free = c.next
        c.used, c.context, c.room, c.sense_room = True, context, room, sense_room
        memcpy(&c.sense, r + 24, 8)
        c.scsi.owner, c.scsi.done, c.scsi.autosense = <void *>self, unit_done, True
        c.scsi.channel, c.scsi.target, c.scsi.lun, c.scsi.tag = 0, r[67], r[58], context
        memset(c.scsi.cdb, 0, sizeof(c.scsi.cdb))
        memcpy(c.scsi.cdb, r + 40, 16)
        result = scsi_begin(<void *>self.units, &c.scsi)
        if result == SCSI_NOBODY:
            self.refuse(c, H_NO_SELECTION)
            return
        if result == SCSI_DATA:
            if flags & (F_TO_HOST | F_TO_DEVICE) and (
                c.scsi.direction == SCSI_TO_HOST) != (flags & F_TO_HOST != 0):
                self.refuse(c, H_HARDWARE)
                return
            if c.scsi.length > room:
                if c.scsi.direction == SCSI_FROM_HOST:
                    self.refuse(c, H_DATA_RUN)
                    return
                c.scsi.length = room
            if self.gather(r, flags, c.scsi.length, c.scsi.direction == SCSI_TO_HOST) != 0:
                self.scatter.finish(0)
                self.refuse(c, H_HARDWARE)
                return
            result = scsi_run(&c.scsi, self.scatter)
        if result != SCSI_LATER:
            self.over(c)

    cdef void refuse(self, PvCommand *c, u16 host) noexcept nogil:
        cdef u64 context = c.context
        scsi_cancel(&c.scsi)
        self.give_back(c)
        self.completed(context, 0, 0, host, GOOD)

    cdef void over(self, PvCommand *c) noexcept nogil:
        cdef u64 context = c.context, moved = c.scsi.moved
        cdef u8 status = c.scsi.status
        cdef u16 host = H_ABORTED if status == TASK_ABORTED else H_OK
        cdef u32 size = 0
        if status == CHECK_CONDITION and c.scsi.sense_length:
            size = min(c.scsi.sense_length, c.sense_room)
            if size and self.dma.write_from(c.sense, c.scsi.sense, size) != 0:
                size = 0
        if host == H_ABORTED:
            status = GOOD
        elif status == GOOD and moved < c.room:
            host = H_DATA_RUN
        self.give_back(c)
        self.completed(context, moved, size, host, status)
        self.kicked()                                           # what found no room before

    @property
    def in_flight(self):
        return sum(1 for n in range(MOST_COMMANDS) if self.commands[<u32>n].used)

    # --- commands to the adapter ------------------------------------------------------------------------------

    cdef void process(self) noexcept nogil:
        if self.given != WORDS[self.command]:
            self.status = NOT_ENOUGH
            return
        self.given = 0
        self.status = self.perform()
        self.command = C_FIRST

    cdef u32 perform(self) noexcept nogil:
        cdef u64 context
        cdef u32 n
        if self.command == C_ADAPTER_RESET:
            self.start_anew()
            self.reset_units(False, 0, 0)
            return 0
        if self.command == C_SETUP_RINGS:
            return self.setup_rings()
        if self.command == C_SETUP_MESSAGES:
            return self.setup_messages()
        if self.command == C_RESET_BUS:
            self.reset_units(False, 0, 0)
            return 0
        if self.command == C_RESET_DEVICE:
            self.reset_units(True, self.words[0], (<u8 *>&self.words[1])[1])
            return 0
        if self.command == C_ABORT:
            memcpy(&context, self.words, 8)
            for n in range(MOST_COMMANDS):
                if self.commands[n].used and self.commands[n].context == context:
                    self.refuse(&self.commands[n], H_ABORTED)
                    return 0
            return 0
        return FAILED

    cdef void reset_units(self, bint one, u32 target, u32 lun) noexcept nogil:
        """Commands under way are given up, with a completion while there is a ring for it."""
        cdef u32 n
        for n in range(MOST_COMMANDS):
            if self.commands[n].used and (
                not one or self.commands[n].scsi.target == target and self.commands[n].scsi.lun == lun):
                self.refuse(&self.commands[n], 0x25)            # the bus was reset
        for n in range(self.units.count):
            if not one or self.units.places[n].target == target and self.units.places[n].lun == lun:
                scsi_unit_reset(self.units.places[n].unit)

    # --- registers --------------------------------------------------------------------------------------------

    cdef u32 read_register(self, u64 offset) noexcept nogil:
        if offset == INTERRUPT_STATUS:
            return self.pending
        if offset == INTERRUPT_MASK:
            return self.mask
        if offset == COMMAND_STATUS:
            return self.status
        return 0

    cdef void write_register(self, u64 offset, u32 value) noexcept nogil:
        if offset == COMMAND:
            self.command = value if C_FIRST < value < C_LAST else C_FIRST
            self.given = 0
            self.process()
        elif offset == COMMAND_DATA:
            if self.given < MOST_WORDS:
                self.words[self.given] = value
                self.given += 1
                self.process()
        elif offset == INTERRUPT_STATUS:
            self.pending &= ~value
            self.update_irq()
        elif offset == INTERRUPT_MASK:
            self.mask = value
            self.update_irq()
        elif offset == KICK_OTHER or offset == KICK_MEDIUM:
            self.kicked()


cdef u8 floor_log(u32 value) noexcept nogil:
    cdef u8 log = 0
    while value > 1:
        value >>= 1
        log += 1
    return log


cdef class PvscsiRegisters(IoRegion):
    cdef PvscsiChip chip

    def __init__(self, PvscsiChip chip):
        self.chip = chip
        self.max_access = 4

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_register(offset & ~<u64>3) >> (8 * (offset & 3))

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 4 and offset & 3 == 0:
            self.chip.write_register(offset, <u32>value)
        return 0
