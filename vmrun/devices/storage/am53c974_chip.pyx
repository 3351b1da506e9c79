"""AMD Am53C974: a 53C94 SCSI core (ESP) with a PCI DMA engine, compiled.

Ref: AMD Am53C974A PCscsi, data sheet 19084 (registers 5, DMA 6); NCR 53C94 data manual (commands and interrupts).

The driver selects a target with a message and a command, moves data while the target asks for it, takes status and
message, and accepts them. INTA# is driven once a driver has written CFG1: SeaBIOS polls and leaves an interrupt
pending, which would reach the next driver before it is ready. One command at a time: targets never
disconnect, so what they cannot give at once they are waited for. A command with the DMA bit begins when the engine is
started.

A command that is under way when the machine is saved ends as BUSY in the machine that goes on; drivers repeat it.

Not modelled: target role, reselection, bargaining (messages about it are taken and change nothing), memory descriptor lists.
"""

from libc.string cimport memcpy, memmove, memset

from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma
from vmrun.core.cells cimport cells
from vmrun.devices.storage.scsi cimport (
    SCSI_DATA, SCSI_FROM_HOST, SCSI_LATER, SCSI_NOBODY, SCSI_OVER, TASK_BUSY, ScsiRequest, ScsiUnits, scsi_begin,
    scsi_cancel, scsi_fetch, scsi_release,
)

from vmrun.core.state import KEEP, Bytes, Flag, Table, U8, U32
from vmrun.errors import StateError

cdef enum:
    FIFO = 16
    COMMAND_ROOM = 32               # bytes of message and command that are collected
    # registers of the core
    TCLO = 0
    TCMID = 1
    FIFO_DATA = 2
    CMD = 3
    STAT_BUSID = 4
    INTR_TIMEOUT = 5
    SEQ_SYNC = 6
    FLAGS_OFFSET = 7
    CFG1 = 8
    CLOCK = 9
    CFG2 = 11
    CFG3 = 12
    CFG4 = 13
    TCHI = 14
    # of the DMA engine, as dwords from 40h on
    D_CMD = 0
    D_STC = 1
    D_SPA = 2
    D_WBC = 3
    D_WAC = 4
    D_STAT = 5
    D_SMDLA = 6
    D_WMAC = 7
    D_TO_MEMORY = 0x80
    DS_ERROR = 0x02
    DS_ABORT = 0x04
    DS_DONE = 0x08
    DS_SCSI = 0x10
    DS_BLAST = 0x20
    # commands
    C_DMA = 0x80
    C_NOP = 0x00
    C_FLUSH = 0x01
    C_RESET = 0x02
    C_BUS_RESET = 0x03
    C_TRANSFER = 0x10
    C_COMPLETE = 0x11
    C_ACCEPT = 0x12
    C_PAD = 0x18
    C_SET_ATN = 0x1A
    C_CLEAR_ATN = 0x1B
    C_SELECT = 0x41
    C_SELECT_ATN = 0x42
    C_SELECT_STOP = 0x43
    C_ENABLE_SELECTION = 0x44
    C_DISABLE_SELECTION = 0x45
    C_SELECT_ATN3 = 0x46
    # status, interrupts
    S_TC = 0x10
    S_INT = 0x80
    I_FC = 0x08
    I_BS = 0x10
    I_DC = 0x20
    I_ILLEGAL = 0x40
    I_RST = 0x80
    CFG1_NO_RESET_INTERRUPT = 0x40
    CHIP = 0x12
    # phases
    DATA_OUT = 0
    DATA_IN = 1
    COMMAND = 2
    STATUS = 3
    MESSAGE_OUT = 6
    MESSAGE_IN = 7

cdef u32 STATUS_KEPT = 1 << 24      # of SBAC: DMA status bits go by writing, not by reading


cdef void command_done(ScsiRequest *request) noexcept nogil:
    (<EspChip>request.owner).told(True)


cdef void command_ready(ScsiRequest *request) noexcept nogil:
    (<EspChip>request.owner).told(False)


cdef class EspChip:
    """`irq` is INTA#."""

    state = Table(
        "am53c974", 1,
        Bytes("registers", 16, KEEP), Bytes("dma_bytes", 32, KEEP), U32("sbac", KEEP), U32("start_count", KEEP, most=0xFFFFFF),
        U32("counter", KEEP, most=0xFFFFFF), U8("interrupts", KEEP), U8("sequence", KEEP, most=7), Bytes("fifo_bytes", FIFO, KEEP),
        U8("held", KEEP, most=FIFO), U8("phase", KEEP, most=7), U8("pending", KEEP), Flag("configured", KEEP), Flag("high_written", KEEP),
        Flag("terminal", KEEP), Flag("enabled", KEEP), Flag("connected", KEEP), Flag("stopped", KEEP), Flag("under_way", KEEP),
        Flag("finished", KEEP), U8("result", KEEP), U8("target", KEEP, most=15), U8("unit", KEEP, most=63),
        Bytes("collected", COMMAND_ROOM, KEEP), U8("have", KEEP, most=COMMAND_ROOM),
    )
    save, load_state = state.methods()[1:]

    cdef Dma dma
    cdef IrqLine irq
    cdef readonly ScsiUnits units
    cdef void *units_of
    cdef ScsiRequest scsi
    cdef u8 r[16]
    cdef u32 d[8]
    cdef u8 fifo[FIFO]
    cdef u8 command[COMMAND_ROOM]
    cdef public u32 sbac, start_count, counter
    cdef public u8 interrupts, sequence, held, phase, result, target, unit, have
    cdef public u8 pending          # a command whose DMA has not been started, 0: none
    cdef public bint configured     # a driver has set the core up: INTA# is driven
    cdef public bint high_written, terminal, enabled, connected, stopped
    cdef public bint under_way      # the unit has a command
    cdef public bint finished       # it is over: `result` is its status
    cdef bint ready                 # it has data or room
    cdef bint waiting               # the target has not asked for anything yet
    cdef bint moving                # a transfer waits for the unit

    def __init__(self, Dma dma, IrqLine irq, ScsiUnits units):
        self.dma, self.irq, self.units = dma, irq, units
        self.units_of = <void *>units
        self.reset()

    def __dealloc__(self):
        scsi_release(&self.scsi)

    # --- state ------------------------------------------------------------------------------------------------

    @property
    def registers(self):
        return cells(self, self.r, 16)

    @property
    def dma_bytes(self):
        return cells(self, <u8 *>self.d, 32)

    @property
    def fifo_bytes(self):
        return cells(self, self.fifo, FIFO)

    @property
    def collected(self):
        return cells(self, self.command, COMMAND_ROOM)

    def check_state(self, values):
        if values["finished"] and not values["under_way"]:
            raise StateError("ESP: a status without a command")

    def settle(self):
        """After a load: a command that was cut off ends as BUSY."""
        with nogil:
            scsi_cancel(&self.scsi)
            if self.under_way:
                if not self.finished:
                    self.finished, self.result = True, TASK_BUSY
                if self.phase in (DATA_OUT, DATA_IN):
                    self.phase = STATUS
                self.waiting = self.moving = False
            self.update_irq()

    def reset(self):
        """Power-on and RESET#."""
        with nogil:
            self.clear()
            memset(self.d, 0, sizeof(self.d))
            self.configured = False
            self.irq.set(0)
            self.d[D_WAC], self.d[D_WMAC] = 0xFFFFFFFF, 0xFFFFFFFD
            self.sbac = 0
        self.units.reset()

    cdef void clear(self) noexcept nogil:
        scsi_cancel(&self.scsi)
        memset(self.r, 0, 16)
        self.r[CFG1] = 7
        self.start_count = self.counter = 0
        self.interrupts = self.sequence = self.held = self.phase = self.pending = self.have = 0
        self.result = self.target = self.unit = 0
        self.high_written = self.terminal = self.enabled = self.connected = self.stopped = False
        self.under_way = self.finished = self.ready = self.waiting = self.moving = False
        self.update_irq()

    # --- interrupts -------------------------------------------------------------------------------------------

    cdef void update_irq(self) noexcept nogil:
        self.irq.set(1 if self.interrupts and self.configured else 0)

    cdef void interrupt(self, u8 cause) noexcept nogil:
        self.interrupts |= cause
        self.update_irq()

    # --- the DMA engine ---------------------------------------------------------------------------------------

    cdef u32 transfer(self, u8 *data, u32 size, bint to_memory) noexcept nogil:
        """Move bytes at the working address; how many."""
        cdef int failed
        if size > self.d[D_WBC]:
            size = self.d[D_WBC]
        if not size or (self.d[D_CMD] & D_TO_MEMORY != 0) != to_memory:
            return 0
        if to_memory:
            failed = self.dma.write_from(self.d[D_WAC], data, size)
        else:
            failed = self.dma.read_into(self.d[D_WAC], data, size)
        if failed:
            self.d[D_STAT] |= DS_ERROR
            return 0
        self.d[D_WBC] -= size
        self.d[D_WAC] += size
        if not self.d[D_WBC]:
            self.d[D_STAT] |= DS_DONE
        return size

    cdef void counted(self, u32 size) noexcept nogil:
        """The core's counter: at zero it says so."""
        self.counter -= size
        if not self.counter:
            self.terminal = True

    # --- the unit ---------------------------------------------------------------------------------------------

    cdef void told(self, bint over) noexcept nogil:
        self.ready = True
        if over:
            self.finished, self.result = True, self.scsi.status
        if self.waiting:
            self.waiting = False
            self.ask()
        elif self.moving:
            self.moving = False
            self.move_data()

    cdef void ask(self) noexcept nogil:
        """The target has its command and asks for what comes next."""
        if self.finished:
            self.phase = STATUS
        else:
            self.phase = DATA_OUT if self.scsi.direction == SCSI_FROM_HOST else DATA_IN
        self.sequence = 4
        if not self.stopped:
            self.terminal = True                                # as qemu-kvm, also when the command came through the FIFO
        self.interrupt(I_BS | (0 if self.stopped else I_FC))
        self.stopped = False

    cdef void begin(self, const u8 *cdb, u32 size) noexcept nogil:
        cdef int result
        memset(self.scsi.cdb, 0, sizeof(self.scsi.cdb))
        memcpy(self.scsi.cdb, cdb, min(size, <u32>16))
        self.scsi.owner, self.scsi.done, self.scsi.ready, self.scsi.autosense = <void *>self, command_done, command_ready, False
        self.scsi.channel, self.scsi.target, self.scsi.lun, self.scsi.tag = 0, self.target, self.unit, 0
        self.scsi.step_done = 0
        self.have = 0
        result = scsi_begin(self.units_of, &self.scsi)
        if result == SCSI_NOBODY:
            self.bus_free()
            self.interrupt(I_DC)
            return
        if result == SCSI_DATA:
            result = scsi_fetch(&self.scsi)
        self.under_way, self.ready, self.finished = True, result != SCSI_LATER, result == SCSI_OVER
        self.result = self.scsi.status
        if self.ready:
            self.ask()
        else:
            self.waiting = True

    cdef void bus_free(self) noexcept nogil:
        if self.under_way:
            scsi_cancel(&self.scsi)
        self.connected = self.under_way = self.finished = self.waiting = self.moving = self.stopped = False
        self.phase, self.sequence, self.have = 0, 0, 0

    # --- commands ---------------------------------------------------------------------------------------------

    cdef u32 collect(self, bint by_dma) noexcept nogil:
        """More bytes for message and command, from memory or the FIFO; how many there are."""
        cdef u32 room = COMMAND_ROOM - self.have, size
        if by_dma:
            size = self.transfer(self.command + self.have, min(self.counter, room), False)
            self.counted(size)
        else:
            size = min(<u32>self.held, room)
            memcpy(self.command + self.have, self.fifo, size)
            self.held = 0
        self.have += size
        return self.have

    cdef void select(self, u8 code, bint by_dma) noexcept nogil:
        """SELECT: with a message before the command, or up to the message, or without."""
        cdef bint there = False
        cdef u32 at = 0, size
        self.bus_free()
        self.terminal = False
        self.target, self.unit = self.r[STAT_BUSID] & 7, 0
        self.units.find(0, self.target, 0, &there)
        if not there:                                           # the time-out
            self.held = 0
            self.interrupt(I_DC)
            return
        self.connected = True
        size = self.collect(by_dma)
        if code == C_SELECT_STOP:
            self.stopped = True
            self.phase, self.sequence = MESSAGE_OUT, 1
            self.messages()
            self.interrupt(I_BS | I_FC)
            return
        if code != C_SELECT:
            at = self.messages()
        if at >= size:                                          # the command is still to come
            self.have = 0
            self.phase, self.sequence, self.stopped = COMMAND, 2, True
            self.interrupt(I_BS | I_FC)
            return
        self.begin(self.command + at, size - at)

    cdef u32 messages(self) noexcept nogil:
        """Take the messages that were collected: identify, tags, bargaining. Where they end."""
        cdef u32 at = 0
        while at < self.have:
            if self.command[at] & 0x80:
                self.unit = self.command[at] & 7
                at += 1
                if at >= self.have or self.command[at] not in (0x01, 0x20, 0x21, 0x22):
                    break
            elif self.command[at] in (0x20, 0x21, 0x22):
                at += 2
                break
            elif self.command[at] == 0x01 and at + 1 < self.have:
                at += 2 + self.command[at + 1]
            else:
                at += 1
                break
        return min(at, <u32>self.have)

    cdef void transfer_info(self, bint by_dma) noexcept nogil:
        cdef u8 byte
        cdef u32 at
        if not self.connected:
            self.interrupt(I_ILLEGAL)
        elif self.phase == MESSAGE_OUT:
            self.collect(by_dma)
            for at in range(self.have):
                if self.command[at] in (0x06, 0x0C, 0x0D) and not at:       # abort, reset, abort tag
                    if self.command[at] == 0x0C:
                        self.reset_target()
                    self.bus_free()
                    self.interrupt(I_DC)
                    return
            self.messages()
            self.have = 0
            self.phase = COMMAND
            self.interrupt(I_BS)
        elif self.phase == COMMAND:
            self.stopped = True
            at = self.collect(by_dma)
            if at < 6:
                self.interrupt(I_BS)
            else:
                self.begin(self.command, at)
        elif self.phase == DATA_IN or self.phase == DATA_OUT:
            if by_dma:
                self.move_data()
            else:
                self.move_by_hand()
        elif self.phase == STATUS:
            byte = self.result
            self.give(&byte, 1, by_dma)
            self.phase = MESSAGE_IN
            self.interrupt(I_BS)
        else:
            byte = 0
            self.give(&byte, 1, by_dma)
            self.interrupt(I_FC)

    cdef void give(self, u8 *data, u32 size, bint by_dma) noexcept nogil:
        """Status or message bytes."""
        if by_dma:
            size = self.transfer(data, min(size, self.counter), True)
            self.counted(size)
        else:
            memcpy(self.fifo, data, size)
            self.held = size

    cdef void reset_target(self) noexcept nogil:
        with gil:
            for unit in self.units.members:
                if unit.target == self.target:
                    unit.bus_reset()

    cdef void move_data(self) noexcept nogil:
        """Between the unit and memory, until the counter is zero or the target wants another phase."""
        cdef bint to_memory = self.phase == DATA_IN
        cdef u32 size, done
        while self.counter and not self.finished:
            if not self.ready:
                self.moving = True
                return
            done = self.scsi.step_done
            size = self.transfer(self.scsi.data + done, min(self.counter, self.scsi.chunk - done), to_memory)
            if not size:                                        # the engine has stopped: it may be started again
                self.pending = C_DMA | C_TRANSFER
                return
            self.counted(size)
            self.taken(size)
        if self.finished:
            self.phase = STATUS
        elif not self.ready:                                    # what was written is not stored yet
            self.moving = True
            return
        self.interrupt(I_BS)

    cdef void taken(self, u32 size) noexcept nogil:
        """So much of the unit's piece has been moved."""
        cdef int result
        self.scsi.step_done += size
        if self.scsi.step_done < self.scsi.chunk:
            return
        self.scsi.step_done = 0
        result = scsi_fetch(&self.scsi)
        self.ready = result != SCSI_LATER
        if result == SCSI_OVER:
            self.finished, self.result = True, self.scsi.status

    cdef void move_by_hand(self) noexcept nogil:
        """Through the FIFO: a byte to the driver, or what it has put in."""
        cdef u32 size
        if not self.ready or self.finished:
            self.move_data()
            return
        if self.phase == DATA_IN:
            self.fifo[0], self.held = self.scsi.data[self.scsi.step_done], 1
            self.taken(1)
        else:
            size = min(<u32>self.held, self.scsi.chunk - self.scsi.step_done)
            memcpy(self.scsi.data + self.scsi.step_done, self.fifo, size)
            memmove(self.fifo, self.fifo + size, self.held - size)
            self.held -= size
            if size:
                self.taken(size)
        self.counter = 0
        self.move_data()

    cdef void execute(self, u8 value) noexcept nogil:
        cdef bint by_dma = value & C_DMA
        cdef u8 code = value & 0x7F
        cdef u8 both[2]
        if code in (C_SELECT, C_SELECT_ATN, C_SELECT_STOP, C_SELECT_ATN3):
            self.select(code, by_dma)
        elif code == C_TRANSFER:
            self.transfer_info(by_dma)
        elif code == C_PAD:                                     # data that nobody wants
            while self.under_way and not self.finished and self.ready and self.phase in (DATA_IN, DATA_OUT):
                if self.phase == DATA_OUT:
                    memset(self.scsi.data + self.scsi.step_done, 0, self.scsi.chunk - self.scsi.step_done)
                self.taken(self.scsi.chunk - self.scsi.step_done)
            self.terminal, self.counter = True, 0
            if self.under_way and not self.finished:
                self.moving = True
            else:
                self.move_data()
        elif code == C_COMPLETE:                                # status and message
            if not self.connected:
                self.interrupt(I_ILLEGAL)
                return
            both[0], both[1] = self.result, 0
            self.give(both, 2, by_dma)
            self.phase = MESSAGE_IN
            self.interrupt(I_FC)
        elif code == C_ACCEPT:
            self.bus_free()
            self.interrupt(I_DC)
        elif code == C_SET_ATN:
            if self.connected:
                self.phase = MESSAGE_OUT
        elif code in (C_CLEAR_ATN, C_ENABLE_SELECTION):
            pass
        elif code == C_DISABLE_SELECTION:
            self.interrupt(I_FC)
        else:
            self.interrupt(I_ILLEGAL)

    cdef void take_command(self, u8 value) noexcept nogil:
        cdef u8 code = value & 0x7F
        self.r[CMD] = value
        if value & C_DMA:
            self.counter = self.start_count if self.start_count else (0x1000000 if self.r[CFG2] & 0x40 else 0x10000)
            self.counter = min(self.counter, <u32>0xFFFFFF)
            self.terminal = False
        if code == C_NOP:
            return
        if code == C_FLUSH:
            self.held = 0
            return
        if code == C_RESET:
            self.clear()
            return
        if code == C_BUS_RESET:
            self.bus_free()
            with gil:
                for unit in self.units.members:
                    unit.bus_reset()
            if not self.r[CFG1] & CFG1_NO_RESET_INTERRUPT:
                self.interrupt(I_RST)
            return
        if value & C_DMA and not self.enabled:
            self.pending = value
            return
        self.pending = 0
        self.execute(value)

    # --- registers --------------------------------------------------------------------------------------------

    cdef u8 read_core(self, u32 reg) noexcept nogil:
        cdef u8 value
        if reg == TCLO:
            return self.counter & 0xFF
        if reg == TCMID:
            return self.counter >> 8 & 0xFF
        if reg == TCHI:
            return self.counter >> 16 & 0xFF if self.high_written else CHIP
        if reg == FIFO_DATA:
            if not self.held:
                return 0
            value = self.fifo[0]
            self.held -= 1
            memmove(self.fifo, self.fifo + 1, self.held)
            return value
        if reg == STAT_BUSID:
            return self.phase | (S_TC if self.terminal else 0) | (S_INT if self.interrupts else 0)
        if reg == INTR_TIMEOUT:
            value = self.interrupts
            self.interrupts = 0
            self.terminal = False
            self.update_irq()
            return value
        if reg == SEQ_SYNC:
            return self.sequence
        if reg == FLAGS_OFFSET:
            return self.held | <u8>(self.sequence << 5)
        return self.r[reg]

    cdef void write_core(self, u32 reg, u8 value) noexcept nogil:
        if reg == TCLO:
            self.start_count = (self.start_count & 0xFFFF00) | value
        elif reg == TCMID:
            self.start_count = (self.start_count & 0xFF00FF) | <u32>value << 8
        elif reg == TCHI:
            self.start_count = (self.start_count & 0x00FFFF) | <u32>value << 16
            self.high_written = True
        elif reg == FIFO_DATA:
            if self.held < FIFO:
                self.fifo[self.held] = value
                self.held += 1
        elif reg == CMD:
            self.take_command(value)
        else:
            self.r[reg] = value
            if reg == CFG1:
                self.configured = True
                self.update_irq()

    cdef u32 read_dma(self, u32 reg) noexcept nogil:
        cdef u32 value = self.d[reg]
        if reg == D_STAT:
            if self.interrupts:
                value |= DS_SCSI
            if not self.sbac & STATUS_KEPT:
                self.d[D_STAT] &= ~<u32>(DS_ERROR | DS_ABORT | DS_DONE)
        return value

    cdef void write_dma(self, u32 reg, u32 value) noexcept nogil:
        cdef u8 pending = self.pending
        if reg == D_CMD:
            self.d[reg] = value
            if value & 3 == 0:
                self.enabled = False
            elif value & 3 == 1:                                # blast: nothing is held back
                self.d[D_STAT] |= DS_BLAST
            elif value & 3 == 2:                                # abort
                self.d[D_STAT] |= DS_ABORT
                self.enabled = self.moving = False
            else:
                self.d[D_WBC], self.d[D_WAC], self.d[D_WMAC] = self.d[D_STC], self.d[D_SPA], self.d[D_SMDLA]
                self.d[D_STAT] &= ~<u32>(DS_BLAST | DS_SCSI | DS_DONE | DS_ABORT | DS_ERROR)
                self.enabled = True
                if pending:
                    self.pending = 0
                    self.execute(pending)
        elif reg in (D_STC, D_SPA, D_SMDLA):
            self.d[reg] = value
        elif reg == D_STAT and self.sbac & STATUS_KEPT:
            self.d[reg] &= ~(value & (DS_ERROR | DS_ABORT | DS_DONE))

    cdef u32 read_register(self, u32 offset) noexcept nogil:
        if offset < 0x40:
            return self.read_core(offset >> 2)
        if offset < 0x60:
            return self.read_dma((offset - 0x40) >> 2)
        return self.sbac if offset & 0x7C == 0x70 else 0

    cdef void write_register(self, u32 offset, u32 value) noexcept nogil:
        if offset < 0x40:
            self.write_core(offset >> 2, value & 0xFF)
        elif offset < 0x60:
            self.write_dma((offset - 0x40) >> 2, value)
        elif offset & 0x7C == 0x70:
            self.sbac = value

    cdef u32 written_so_far(self, u32 offset) noexcept nogil:
        """What the other bytes of a dword are when one of them is written."""
        if 0x40 <= offset < 0x60:
            return self.d[(offset - 0x40) >> 2]
        return self.sbac if offset & 0x7C == 0x70 else 0


cdef class EspRegisters(IoRegion):
    """32 dwords: the core's registers in the low bytes of the first sixteen."""

    cdef EspChip chip

    def __init__(self, EspChip chip):
        self.chip = chip
        self.max_access = 4

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return (self.chip.read_register(offset & 0x7C) >> (8 * (offset & 3))) & ((<u64>1 << (8 * size)) - 1)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 shift = 8 * (offset & 3), now
        if size < 4:
            now = self.chip.written_so_far(offset & 0x7C)
            now &= ~(((<u32>1 << (8 * size)) - 1) << shift)
            value = now | <u32>value << shift
        self.chip.write_register(offset & 0x7C, <u32>value)
        return 0
