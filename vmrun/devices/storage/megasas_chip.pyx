"""MegaRAID SAS: the controller's registers and the frames that drivers hand to it, compiled.

Ref: LSI's MegaRAID Firmware Interface as the drivers of Linux, FreeBSD and OpenBSD publish it.

A driver writes the address of a frame to the inbound queue port. Reads, writes and SCSI commands go to the units of the
bus, any number in flight; a management command (DCMD) is answered by `manage(opcode, mailbox, data, room)`, in Python:
(status, bytes), or None for one that waits for an event. What is done goes into the reply queue and interrupts, unless the frame says that its driver
looks at the status byte.

Frames, lists and queues are the guest's: sizes are bounded, addresses that are no memory end a command with an error.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma, Scatter
from vmrun.bus.pci.msi cimport MsiChip, MsixChip
from vmrun.devices.storage.scsi cimport (
    CHECK_CONDITION, GOOD, SCSI_DATA, SCSI_FROM_HOST, SCSI_LATER, SCSI_NOBODY, SCSI_OVER, SCSI_TO_HOST, ScsiRequest,
    ScsiUnit, ScsiUnits, scsi_begin, scsi_cancel, scsi_release, scsi_run,
)

from accel.dma import Scatter as _Scatter

from vmrun.core.state import Flag, Table, U8, U16, U32, U64
from vmrun.errors import StateError

cdef enum:
    MOST_COMMANDS = 2048
    MOST_PIECES = 256
    MOST_MANAGED = 65536            # bytes of a management command's data
    # registers
    OMSG0 = 0x18
    IDB = 0x20
    OSTS = 0x30
    OMSK = 0x34
    IQP = 0x40
    ODCR0 = 0xA0
    OSP0 = 0xB0
    OSP1 = 0xB4
    IQPL = 0xC0
    IQPH = 0xC4
    DIAG = 0xF8
    SEQ = 0xFC
    # of IDB
    INIT_ABORT = 0x01
    INIT_READY = 0x02
    INIT_STOP = 0x20
    # of DIAG
    DIAG_RESET = 0x04
    DIAG_WRITE = 0x80
    # frames
    HEADER = 24
    C_INIT = 0
    C_LD_READ = 1
    C_LD_WRITE = 2
    C_LD_SCSI = 3
    C_PD_SCSI = 4
    C_DCMD = 5
    C_ABORT = 6
    F_DONT_POST = 0x0001
    F_SGL64 = 0x0002
    F_SENSE64 = 0x0004
    F_WRITE = 0x0008
    F_IEEE_SGL = 0x0020
    Q_CONTEXT64 = 0x02
    # status
    S_OK = 0x00
    S_INVALID_COMMAND = 0x01
    S_INVALID_PARAMETER = 0x03
    S_ABORT_NOT_POSSIBLE = 0x05
    S_NO_DEVICE = 0x0C
    S_NO_ROOM = 0x21                # a resource of the hardware
    S_SCSI_ERROR = 0x2D
    S_LATER = 0xFF
    NO_EVENT = 0xFFFFFFFF
    MOST_LOGICAL = 64

cdef u32 NONE_WANTED = 0xFFFFFFFF
cdef u32 READY = 0xB0000000
cdef u32 OPERATIONAL = 0xC0000000
cdef u32 FAULT = 0xF0000000
cdef u32 MSIX_SUPPORTED = 0x04000000
cdef u8[6] UNLOCK = [0x00, 0x04, 0x0B, 0x02, 0x07, 0x0D]


cdef struct MfiCommand:
    ScsiRequest scsi                # first
    bint used
    u64 frame, context, sense
    u32 flags
    u8 sense_room
    MfiCommand *next


cdef void unit_done(ScsiRequest *request) noexcept nogil:
    (<MegasasChip>request.owner).over(<MfiCommand *>request)


cdef class MegasasChip:
    """`commands`: how many there can be at a time; `pieces`: of memory, of each; `interrupt`: OSTS while one is pending."""

    state = Table(
        "megasas", 1,
        U32("fw_state", 0xB0000000, least=0), U32("mask", 0xFFFFFFFF), U32("doorbell"), U32("frame_high"), U8("diag"),
        U8("unlocked", most=6), U64("queue"), U64("producer"), U64("consumer"), U32("queue_length", most=65535),
        U32("head", most=65535), Flag("wide"), U32("events"), U32("boot_event"), Flag("waiting"), U64("wait_frame"),
        U64("wait_context"), U16("wait_flags"), U32("wait_from"),
    )
    save, load_state = state.methods()[1:]

    cdef Dma dma
    cdef readonly ScsiUnits units
    cdef void *units_of
    cdef IrqLine irq
    cdef public MsixChip msix
    cdef public MsiChip msi
    cdef Scatter scatter
    cdef MfiCommand *commands
    cdef MfiCommand *free
    cdef readonly u32 most, pieces, interrupt
    cdef public bint jbod
    cdef public object manage
    cdef public u32 fw_state, mask, doorbell, frame_high, queue_length, head, events, boot_event, wait_from
    cdef public u8 diag, unlocked
    cdef public u64 queue, producer, consumer, wait_frame, wait_context
    cdef public u16 wait_flags
    cdef public bint wide, waiting

    def __init__(self, Dma dma, IrqLine irq, ScsiUnits units, u32 commands, u32 pieces, u32 interrupt):
        cdef u32 n
        self.dma, self.irq, self.units = dma, irq, units
        self.units_of = <void *>units
        self.most, self.pieces, self.interrupt = min(commands, MOST_COMMANDS), min(pieces, MOST_PIECES), interrupt
        # Pieces of guest memory may be cut where RAM ends.
        self.scatter = _Scatter(dma, 2 * MOST_PIECES)
        self.commands = <MfiCommand *>calloc(self.most, sizeof(MfiCommand))
        if self.commands == NULL:
            raise MemoryError
        for n in range(self.most):
            self.commands[n].next = self.free
            self.free = &self.commands[n]
        self.reset()

    def __dealloc__(self):
        cdef u32 n
        if self.commands != NULL:
            for n in range(self.most):
                scsi_release(&self.commands[n].scsi)
        free(self.commands)

    # --- state ------------------------------------------------------------------------------------------------

    def reset(self):
        """Power-on and RESET#."""
        self.events = self.boot_event = 0
        with nogil:
            self.soft_reset()
        self.diag = self.unlocked = 0
        self.units.reset()

    def check_state(self, values):
        if values["queue_length"] and values["head"] >= values["queue_length"]:
            raise StateError("MegaRAID: the reply queue's head is behind its end")
        if values["fw_state"] not in (READY, OPERATIONAL, FAULT):
            raise StateError("MegaRAID: a state that the firmware does not have")

    def settle(self):
        with nogil:
            self.update_irq()

    cdef void soft_reset(self) noexcept nogil:
        cdef u32 n
        for n in range(self.most):
            if self.commands[n].used:
                scsi_cancel(&self.commands[n].scsi)
                self.give_back(&self.commands[n])
        self.queue = self.producer = self.consumer = 0
        self.queue_length, self.head = self.most, 0
        self.fw_state, self.mask, self.doorbell, self.frame_high = READY, 0xFFFFFFFF, 0, 0
        self.wide = self.waiting = False
        self.events += 1
        self.boot_event = self.events
        self.update_irq()
        # Its firmware takes the unit attentions of power-on for itself.
        with gil:
            for unit in self.units.members:
                (<ScsiUnit>unit).attention = False

    cdef void give_back(self, MfiCommand *command) noexcept nogil:
        command.used = False
        command.next = self.free
        self.free = command

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef bint by_message(self) noexcept nogil:
        return self.msix is not None and self.msix.enabled() or self.msi is not None and self.msi.enabled()

    cdef void update_irq(self) noexcept nogil:
        self.irq.set(1 if self.doorbell and self.mask != NONE_WANTED and not self.by_message() else 0)

    cdef void notify(self) noexcept nogil:
        if self.msix is not None and self.msix.enabled():
            self.msix.notify(0)
        elif self.msi is not None and self.msi.enabled():
            self.msi.notify(0)
        else:
            if self.doorbell != NONE_WANTED:
                self.doorbell += 1
            self.update_irq()

    # --- frames -----------------------------------------------------------------------------------------------

    cdef void complete(self, u64 frame, u64 context, u32 flags, u8 status) noexcept nogil:
        """The status byte, then the reply queue."""
        self.dma.write_from(frame + 2, &status, 1)
        if flags & F_DONT_POST or self.mask == NONE_WANTED:
            return
        if self.queue:
            if self.wide:
                self.dma.write_from(self.queue + 8 * <u64>self.head, <const u8 *>&context, 8)
            else:
                self.dma.write_from(self.queue + 4 * <u64>self.head, <const u8 *>&context, 4)
            self.head += 1
            if self.head >= self.queue_length:
                self.head = 0
            self.dma.write_from(self.producer, <const u8 *>&self.head, 4)
        self.notify()

    cdef int gather(self, u64 address, u32 count, u32 flags, u64 length, bint to_memory) noexcept nogil:
        """`length` bytes of the list at `address`. 0, or -1: it has not so many, or they are no memory."""
        cdef u8 entry[16]
        cdef u32 size = 16 if flags & F_IEEE_SGL else 12 if flags & F_SGL64 else 8, part, low
        cdef u64 where
        cdef u32 n
        self.scatter.begin(to_memory)
        if count > self.pieces:
            return -1
        for n in range(count):
            if not length:
                break
            if self.dma.read_into(address + <u64>n * size, entry, size) != 0:
                return -1
            if size == 8:
                memcpy(&low, entry, 4)
                memcpy(&part, entry + 4, 4)
                where = low
            else:
                memcpy(&where, entry, 8)
                memcpy(&part, entry + 8, 4)
            if part > length:
                part = <u32>length
            if part and self.scatter.add(where, part) != 0:
                return -1
            length -= part
        return -1 if length else 0

    cdef void frame(self, u64 address) noexcept nogil:
        """One that the driver has put into the inbound queue."""
        cdef u8 f[64]
        cdef u64 context
        cdef u16 flags
        cdef u8 status
        if self.fw_state == FAULT or self.dma.read_into(address, f, 64) != 0:
            return
        memcpy(&context, f + 8, 8)
        memcpy(&flags, f + 16, 2)
        if f[0] == C_INIT:
            status = self.start(f)
        elif f[0] == C_DCMD:
            status = self.managed(address, f, flags)
        elif f[0] == C_ABORT:
            status = self.abort(f)
        elif f[0] in (C_LD_READ, C_LD_WRITE, C_LD_SCSI, C_PD_SCSI):
            status = self.command(address, f, flags)
        else:
            status = S_INVALID_COMMAND
        if status != S_LATER:
            self.complete(address, context, flags, status)

    cdef u8 start(self, const u8 *f) noexcept nogil:
        """INIT: where the reply queue is."""
        cdef u8 q[32]
        cdef u32 length, flags
        cdef u64 where
        memcpy(&where, f + 24, 8)
        if self.dma.read_into(where, q, 32) != 0:
            return S_INVALID_PARAMETER
        memcpy(&flags, q, 4)
        memcpy(&length, q + 4, 4)
        length &= 0xFFFF
        if length > self.most or not length:
            return S_INVALID_PARAMETER
        self.queue_length = length
        memcpy(&self.queue, q + 8, 8)
        memcpy(&self.producer, q + 16, 8)
        memcpy(&self.consumer, q + 24, 8)
        self.head = 0
        self.dma.read_into(self.producer, <u8 *>&self.head, 4)
        self.head %= length
        self.wide = flags & Q_CONTEXT64
        self.fw_state = OPERATIONAL
        return S_OK

    cdef u8 managed(self, u64 address, const u8 *f, u32 flags) noexcept nogil:
        """DCMD: its data is small, and answered by the glue."""
        cdef u32 size, opcode
        cdef u64 context
        cdef int failed
        cdef u8 status
        memcpy(&size, f + 20, 4)
        memcpy(&opcode, f + 24, 4)
        memcpy(&context, f + 8, 8)
        if size > MOST_MANAGED:
            return S_INVALID_PARAMETER
        failed = self.gather(address + 40, f[7], flags, size, not flags & F_WRITE) if size else 0
        if failed:
            self.scatter.finish(0)
            return S_INVALID_PARAMETER
        with gil:
            status = self._managed(opcode, bytes(f[28:40]), size, bool(flags & F_WRITE), address, context, flags)
        return status

    def _managed(self, u32 opcode, bytes mailbox, u32 size, bint write, u64 address, u64 context, u32 flags):
        cdef bytes data = bytes(size) if write else b""
        cdef u8 status = S_LATER
        cdef u64 count = 0
        if write and size:
            self.scatter.get(0, <u8 *><char *>data, size)
            self.scatter.finish(0)
        answer = self.manage(opcode, mailbox, data, size)
        if answer is None:
            if self.waiting:
                self.complete(self.wait_frame, self.wait_context, self.wait_flags, S_OK)
            self.waiting, self.wait_frame, self.wait_context, self.wait_flags = True, address, context, flags
            self.wait_from = int.from_bytes(mailbox[:4], "little")
        else:
            status, data = answer
            if not write and size:
                count = min(<u64>len(data), <u64>size)
                self.scatter.put(0, <const u8 *><const char *>data, count)
        if not write and size:
            self.scatter.finish(count)
        return status

    def event(self, bytes detail):
        """Something happened: whoever waits for it hears, with 256 bytes about it. The device lock is held."""
        cdef u8 f[64]
        cdef u32 size
        self.events += 1
        if not self.waiting:
            return
        detail = int(self.events).to_bytes(4, "little") + detail[4:]
        self.waiting = False
        if self.dma.read_into(self.wait_frame, f, 64) != 0:
            return
        memcpy(&size, f + 20, 4)
        size = min(size, <u32>256)
        if self.gather(self.wait_frame + 40, f[7], self.wait_flags, size, True) != 0:
            self.scatter.finish(0)
            return
        self.scatter.put(0, <const u8 *><const char *>detail, size)
        self.scatter.finish(size)
        self.complete(self.wait_frame, self.wait_context, self.wait_flags, S_OK)

    cdef u8 abort(self, const u8 *f) noexcept nogil:
        """ABORT, by context or frame: one that waits for events is given up, others end by themselves."""
        cdef u64 context = 0, where
        cdef u32 n
        memcpy(&context, f + 24, 4)
        memcpy(&where, f + 32, 8)
        if self.waiting and (self.wait_frame == where or <u32>self.wait_context == context):
            self.waiting = False
            self.complete(self.wait_frame, self.wait_context, self.wait_flags, S_OK)
            return S_OK
        for n in range(self.most):
            if self.commands[n].used and self.commands[n].frame == where:
                return S_OK
        return S_ABORT_NOT_POSSIBLE

    cdef u8 fail(self, MfiCommand *c, u8 key, u8 asc) noexcept nogil:
        """Sense data of the controller's own."""
        memset(c.scsi.sense, 0, sizeof(c.scsi.sense))
        c.scsi.sense[0], c.scsi.sense[2], c.scsi.sense[7], c.scsi.sense[12] = 0x70, key, 10, asc
        c.scsi.status, c.scsi.sense_length = CHECK_CONDITION, 18
        return self.finish(c)

    cdef u8 command(self, u64 address, const u8 *f, u32 flags) noexcept nogil:
        cdef MfiCommand *c = self.free
        cdef bint logical = f[0] != C_PD_SCSI, medium = f[0] in (C_LD_READ, C_LD_WRITE), to_host
        cdef u32 count, low = 0
        cdef u64 lba
        cdef int result
        if logical and (self.jbod or f[4] >= MOST_LOGICAL or f[5]) or f[6] > 16 and not medium:
            return S_NO_DEVICE
        if c == NULL:
            return S_NO_ROOM
        self.free = c.next
        c.used, c.frame, c.flags, c.sense_room = True, address, flags, f[1]
        memcpy(&c.context, f + 8, 8)
        memcpy(&c.sense, f + 24, 8)
        if not flags & F_SENSE64:
            c.sense = <u32>c.sense
        c.scsi.owner, c.scsi.done, c.scsi.autosense = <void *>self, unit_done, True
        c.scsi.channel, c.scsi.target, c.scsi.lun, c.scsi.tag = 0, f[4], f[5], 0
        c.scsi.status, c.scsi.sense_length = GOOD, 0
        memset(c.scsi.cdb, 0, sizeof(c.scsi.cdb))
        if medium:
            memcpy(&count, f + 20, 4)                           # blocks
            memcpy(&low, f + 32, 4)
            lba = low
            memcpy(&low, f + 36, 4)
            lba |= <u64>low << 32
            c.scsi.cdb[0] = 0x8A if f[0] == C_LD_WRITE else 0x88
            for low in range(8):
                c.scsi.cdb[2 + low] = lba >> (56 - 8 * low) & 0xFF
            for low in range(4):
                c.scsi.cdb[10 + low] = count >> (24 - 8 * low) & 0xFF
        else:
            memcpy(c.scsi.cdb, f + 32, f[6])
        result = scsi_begin(self.units_of, &c.scsi)
        if result == SCSI_NOBODY or c.scsi.unit == NULL:
            scsi_cancel(&c.scsi)
            self.give_back(c)
            return S_NO_DEVICE
        if result == SCSI_DATA:
            to_host = c.scsi.direction == SCSI_TO_HOST
            if self.gather(address + (40 if medium else 48), f[7], flags, c.scsi.length, to_host) != 0:
                self.scatter.finish(0)
                scsi_cancel(&c.scsi)
                return self.fail(c, 4, 0x44)
            result = scsi_run(&c.scsi, self.scatter)
        return S_LATER if result == SCSI_LATER else self.finish(c)

    cdef u8 finish(self, MfiCommand *c) noexcept nogil:
        """Sense data and SCSI status are written; the status of the frame."""
        cdef u8 status = c.scsi.status, size
        if c.scsi.sense_length and c.sense_room:
            size = <u8>min(c.scsi.sense_length, <u32>c.sense_room)
            if self.dma.write_from(c.sense, c.scsi.sense, size) == 0:
                self.dma.write_from(c.frame + 1, &size, 1)
        self.dma.write_from(c.frame + 3, &status, 1)
        self.give_back(c)
        return S_OK if status == GOOD else S_SCSI_ERROR

    cdef void over(self, MfiCommand *c) noexcept nogil:
        cdef u64 frame = c.frame, context = c.context
        cdef u32 flags = c.flags
        self.complete(frame, context, flags, self.finish(c))

    @property
    def in_flight(self):
        return sum(1 for n in range(self.most) if self.commands[<u32>n].used)

    # --- registers --------------------------------------------------------------------------------------------

    cdef u32 read_register(self, u32 offset) noexcept nogil:
        if offset == OMSG0 or offset == OSP0:
            return (
                (MSIX_SUPPORTED if self.msix is not None else 0) | self.fw_state | (self.pieces & 0xFF) << 16
                | (self.most & 0xFFFF)
            )
        if offset == OSTS:
            return self.interrupt if self.doorbell and self.mask != NONE_WANTED else 0
        if offset == OMSK:
            return self.mask
        if offset == ODCR0:
            return 1 if self.doorbell else 0
        if offset == DIAG:
            return self.diag
        if offset == OSP1:
            return 15
        return 0

    cdef void write_register(self, u32 offset, u32 value) noexcept nogil:
        cdef u64 address
        if offset == IDB:
            if value & INIT_READY:
                self.soft_reset()
            if value & INIT_STOP:
                self.fw_state = FAULT
        elif offset == OMSK:
            self.mask = value
            self.update_irq()
        elif offset == ODCR0:
            self.doorbell = 0
            self.update_irq()
        elif offset == IQPH:
            self.frame_high = value
        elif offset == IQPL or offset == IQP:
            address = value & ~<u32>0x1F
            if offset == IQPL:
                address |= <u64>self.frame_high << 32
            self.frame_high = 0
            self.frame(address)
        elif offset == SEQ:
            if self.unlocked < 6 and value & 0xF == UNLOCK[self.unlocked]:
                self.unlocked += 1
                if self.unlocked == 6:
                    self.diag |= DIAG_WRITE
            else:
                self.unlocked = 0
                self.diag = 0
        elif offset == DIAG:
            if self.diag & DIAG_WRITE and value & DIAG_RESET:
                self.soft_reset()
                self.unlocked = self.diag = 0


cdef class MegasasRegisters(IoRegion):
    """As dwords."""

    cdef MegasasChip chip

    def __init__(self, MegasasChip chip):
        self.chip = chip
        self.max_access = 4

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.chip.read_register(offset & 0xFC) >> (8 * (offset & 3)) if offset < 0x2000 else 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if size == 4 and offset & 3 == 0 and offset < 0x2000:
            self.chip.write_register(offset & 0xFC, <u32>value)
        return 0
