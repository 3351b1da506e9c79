"""The floppy disk controller of a PC, an 82077AA or 82078, and its two drives; the chip alone.

Ref: Intel 82077AA (290166), 82078 (290474); register and bit names are theirs. Two drives, as QEMU's: bit 0 of DOR
selects. Seeks and transfers take no time of their own; READ ID takes the fiftieth part of a second.
Not modelled: deleted data marks (those commands fail), gaps and CRCs, head load and step times, tape drives, media ids.

A command is gathered in the FIFO, carried out, and leaves its results there. Data goes sector by sector: the drive's
request, then the DMA channel or the FIFO, then the next one; a request that takes time is gone on with in its
completion. FORMAT TRACK writes the fill byte to the sectors that the guest names.

Locks: the device lock is held; completions take it.
"""

from libc.string cimport memcmp, memcpy, memset

from vmrun.backends.protocols cimport (
    BLOCK_READ, BLOCK_WRITE, block_buffer, block_release, block_request, block_submit,
)
from vmrun.core.cells cimport cells

from vmrun.core.floppies import pick
from vmrun.core.state import U8, U32, Bytes, Deadline, Flag, Rows, Table

cdef enum:
    SECTOR = 512
    DRIVES = 2
    # registers, from the base on
    SRA_PORT = 0
    SRB_PORT = 1
    DOR_PORT = 2
    TDR_PORT = 3
    MSR_PORT = 4                # writes: DSR
    FIFO_PORT = 5
    DIR_PORT = 7                # writes: CCR
    # SRA
    SRA_NDRV2 = 0x40
    SRA_INTPEND = 0x80
    # DOR
    DOR_SELECT = 0x01
    DOR_NRESET = 0x04
    DOR_DMA = 0x08
    DOR_MOTOR0 = 0x10
    DOR_MOTOR1 = 0x20
    # TDR
    TDR_BOOT = 0x04
    # DSR
    DSR_RATE = 0x03
    DSR_POWER_DOWN = 0x40
    DSR_RESET = 0x80
    # MSR
    MSR_BUSY = 0x10
    MSR_NONDMA = 0x20
    MSR_DIO = 0x40
    MSR_RQM = 0x80
    DIR_CHANGED = 0x80
    # ST0
    ST0_HEAD = 0x04
    ST0_SEEK = 0x20
    ST0_ABNORMAL = 0x40
    ST0_INVALID = 0x80
    ST0_READY_CHANGED = 0xC0
    # ST1
    ST1_MISSING_MARK = 0x01
    ST1_NOT_WRITABLE = 0x02
    ST1_OVERRUN = 0x10
    ST1_END = 0x80
    # ST2
    ST2_SCAN_NOT = 0x04
    ST2_SCAN_EQUAL = 0x08
    # phases
    COMMAND = 0
    EXECUTION = 1
    RESULT = 2
    # directions
    READ = 0
    WRITE = 1
    SCAN_EQUAL = 2
    SCAN_LOW = 3
    SCAN_HIGH = 4
    VERIFY = 5
    FORMAT = 6
    # what a request under way is for
    IDLE = 0
    FETCHING = 1                # a sector that is read, verified, compared
    FILLING = 2                 # one of which a part will be written
    STORING = 3
    # commands
    READ_TRACK = 0x02
    SPECIFY = 0x03
    SENSE_DRIVE = 0x04
    WRITE_DATA = 0x05
    READ_DATA = 0x06
    RECALIBRATE = 0x07
    SENSE_INTERRUPT = 0x08
    WRITE_DELETED = 0x09
    READ_ID = 0x0A
    READ_DELETED = 0x0C
    FORMAT_TRACK = 0x0D
    DUMPREG = 0x0E
    SEEK = 0x0F
    VERSION = 0x10
    SCAN_EQUAL_DATA = 0x11
    PERPENDICULAR = 0x12
    CONFIGURE = 0x13
    LOCK = 0x14
    VERIFY_DATA = 0x16
    POWER_DOWN = 0x17
    PART_ID = 0x18
    SCAN_LOW_DATA = 0x19
    SCAN_HIGH_DATA = 0x1D
    SAVE = 0x2E
    OPTION = 0x33
    RESTORE = 0x4E
    DRIVE_SPECIFICATION = 0x8E
    RELATIVE_OUT = 0x8F
    FORMAT_AND_WRITE = 0xCD
    RELATIVE_IN = 0xCF
    UNKNOWN = 0xFF
    SECTOR_CODE = 2             # 512 bytes
    POLLED = 4                  # drives that report after a reset
    CHIP_VERSION = 0x90
    STEPPING = 0x41
    TURN = 20000000             # ns until READ ID has seen a sector

ctypedef struct Row:
    u8 code, mask, parameters

cdef Row ROWS[30]
cdef u32 ROW_COUNT = 0


cdef void _row(u8 code, u8 mask, u8 parameters):
    global ROW_COUNT
    ROWS[ROW_COUNT].code, ROWS[ROW_COUNT].mask, ROWS[ROW_COUNT].parameters = code, mask, parameters
    ROW_COUNT += 1


for _code, _mask, _parameters in (
    (READ_DATA, 0x1F, 8), (WRITE_DATA, 0x1F, 8), (SEEK, 0xFF, 2), (SENSE_INTERRUPT, 0xFF, 0), (RECALIBRATE, 0xFF, 1),
    (FORMAT_TRACK, 0xBF, 5), (READ_TRACK, 0xBF, 8), (RESTORE, 0xFF, 17), (SAVE, 0xFF, 0), (READ_DELETED, 0x1F, 8),
    (SCAN_EQUAL_DATA, 0x1F, 8), (VERIFY_DATA, 0x1F, 8), (SCAN_LOW_DATA, 0x1F, 8), (SCAN_HIGH_DATA, 0x1F, 8),
    (WRITE_DELETED, 0x3F, 8), (READ_ID, 0xBF, 1), (SPECIFY, 0xFF, 2), (SENSE_DRIVE, 0xFF, 1), (PERPENDICULAR, 0xFF, 1),
    (CONFIGURE, 0xFF, 3), (POWER_DOWN, 0xFF, 2), (OPTION, 0xFF, 1), (DRIVE_SPECIFICATION, 0xFF, 5),
    (RELATIVE_OUT, 0xFF, 2), (FORMAT_AND_WRITE, 0xFF, 10), (RELATIVE_IN, 0xFF, 2), (LOCK, 0x7F, 0), (DUMPREG, 0xFF, 0),
    (VERSION, 0xFF, 0), (PART_ID, 0xFF, 0),
):
    _row(_code, _mask, _parameters)


cdef Row _find(u8 byte) noexcept nogil:
    """The command that a first byte begins."""
    cdef u32 n
    cdef Row none
    for n in range(ROW_COUNT):
        if byte & ROWS[n].mask == ROWS[n].code:
            return ROWS[n]
    none.code, none.mask, none.parameters = UNKNOWN, 0, 0
    return none


cdef void drive_done(BlockRequest *request) noexcept nogil:
    (<Fdc>request.owner).landed(request)


cdef u32 _sector(Disk *d) noexcept nogil:
    """Number of the sector under the head."""
    return (<u32>d.track * (2 if d.two_sided else 1) + d.head) * d.last_sect + d.sect - 1


cdef class _Turning(Timer):
    cdef Fdc fdc

    cdef void expire(self) noexcept nogil:
        self.fdc.turned()


cdef class Fdc(IoRegion):
    """`dma`: the controller of its channel (vmrun.devices.misc.i8257), or None. Offsets are from the base port."""

    state = Table(
        "fdc", 1,
        Rows(
            "drives", DRIVES, U8("head"), U8("track"), U8("sect", 1), U8("last_sect"), U8("max_track"),
            U8("perpendicular"), U8("rate", most=3), Flag("two_sided"), Flag("changed", True),
        ),
        U8("sra", SRA_NDRV2), U8("srb", 0xC0), U8("dor", DOR_NRESET | DOR_DMA), U8("tdr"), U8("dsr"),
        U8("msr", MSR_RQM), U8("current", most=DRIVES - 1), U8("status0"), U8("status1"), U8("status2"),
        U8("results", most=POLLED), U8("timer0", most=0x0F), U8("timer1", most=0x7F), U8("precomp_track"),
        U8("config", 0x60), U8("locked", most=1), U8("power"), U8("end_of_track"), U8("phase", COMMAND, most=RESULT),
        U8("command"), U8("direction", WRITE, most=FORMAT), U8("stage", only=(IDLE,)), Flag("multi_track"),
        Flag("waiting"), U32("position", most=1 << 20), U32("length", 1, most=1 << 20), U32("limit", most=1 << 20),
        U32("chunk", most=SECTOR), Bytes("fifo", FIFO), Deadline("turning"),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, IrqLine irq, timers, dma, u32 channel, bint check_rate=True):
        cdef _Turning turning = _Turning(timers)
        self.max_access = 1
        self.name = "fdc"
        self.irq, self.dma, self.channel, self.check_rate = irq, dma, channel, check_rate
        self.backends, self.disks = [None, None], [None, None]
        self.kinds, self.fallback = ["none", "none"], "144"
        turning.fdc = self
        self.turning = turning
        self.msr, self.dor, self.srb, self.sra, self.config = MSR_RQM, DOR_NRESET | DOR_DMA, 0xC0, SRA_NDRV2, 0x60
        self.direction, self.length = WRITE, 1
        self.readonly[0] = self.readonly[1] = True
        for n in range(DRIVES):
            self.drives[n].sect, self.drives[n].changed = 1, True

    # --- the user's hands: the device lock is held ------------------------------------------------------------

    def connect(self, u32 n, backend, str kind, str fallback):
        """Drive `n`, of a type of vmrun.core.floppies.TYPES; with a disk in it when the back end has a medium."""
        self.backends[n], self.kinds[n], self.fallback = backend, kind, fallback
        self.backend[n] = <void *>backend
        self.sra = SRA_NDRV2 if self.backend[1] == NULL else 0
        if backend.size:
            self.put_in(n)

    def put_in(self, u32 n):
        """The back end has a medium."""
        backend = self.backends[n]
        self.disks[n] = pick(backend.size // SECTOR, self.kinds[n], self.fallback)
        self.readonly[n], self.inserted[n], self.drives[n].changed = backend.readonly, True, True
        self.show(n)

    def take_out(self, u32 n):
        self.inserted[n], self.drives[n].changed = False, True

    cdef show(self, u32 n):
        disk = self.disks[n]
        if disk is not None:
            self.drives[n].last_sect, self.drives[n].max_track = disk.sectors, disk.tracks
            self.drives[n].two_sided, self.drives[n].rate = disk.sides == 2, disk.rate

    def reset(self):
        cdef bint changed[2]
        self.drop_request()
        if self.dma is not None:
            self.dma.forget(self.channel)
        changed[0], changed[1] = self.drives[0].changed, self.drives[1].changed
        type(self).state.reset(self)
        for n in range(DRIVES):
            self.drives[n].changed = changed[n]
            self.show(n)
        if self.backend[1] != NULL:
            self.sra &= ~SRA_NDRV2
        if self.dma is None:
            self.dor &= ~DOR_DMA

    def detach(self):
        """The machine takes it away."""
        self.turning.cancel()
        self.drop_request()
        if self.dma is not None:
            self.dma.forget(self.channel)

    @property
    def fifo(self):
        return cells(self, self.fifo_bytes, FIFO)

    def check_state(self, values):
        """Positions within what the phase and the command allow."""
        from vmrun.errors import StateError

        phase, position, length = values["phase"], values["position"], values["length"]
        data = phase == EXECUTION and values["msr"] & (MSR_NONDMA | MSR_RQM) and values["msr"] & MSR_NONDMA
        if position > length or phase != EXECUTION and length > 18 or length > 1 << 20:
            raise StateError("fdc: a position behind its end")
        if phase != EXECUTION and position == length and length > 1:
            raise StateError("fdc: a phase that is over")
        if phase == EXECUTION and values["direction"] == FORMAT and (length % 4 or not length):
            raise StateError("fdc: a track to format without its sectors")
        if bool(values["msr"] & MSR_NONDMA) and not data:
            raise StateError("fdc: data through the FIFO outside a command")
        if values["waiting"] and (phase != EXECUTION or self.dma is None or values["msr"] & (MSR_RQM | MSR_NONDMA)):
            raise StateError("fdc: waits for DMA without a transfer")
        if phase == RESULT and not values["msr"] & MSR_DIO or phase == COMMAND and values["msr"] & MSR_DIO:
            raise StateError("fdc: data goes the wrong way")

    def settle(self):
        self.irq.drive(1 if self.sra & SRA_INTPEND else 0)
        if self.waiting:
            self.dma_ask()

    # --- lines and phases -----------------------------------------------------------------------------------

    cdef u32 unit(self) noexcept nogil:
        """The drive that is selected: TDR can exchange the two."""
        return (self.current ^ (self.tdr >> 2)) & 1

    cdef Disk *here(self) noexcept nogil:
        return &self.drives[self.unit()]

    cdef int seek(self, u32 n, u8 head, u8 track, u8 sect) noexcept nogil:
        """0, 1: the track is another now; 2: there is no such track or no disk; 3: no such sector."""
        cdef Disk *d = &self.drives[n]
        cdef int result = 0
        if track > d.max_track or head and not d.two_sided:
            return 2
        if sect > d.last_sect:
            return 3
        if head != d.head or track != d.track or sect != d.sect:
            d.head = head
            if track != d.track:
                if self.inserted[n]:
                    d.changed = False
                result = 1
            d.track, d.sect = track, sect
        return result if self.inserted[n] else 2

    cdef void select(self, u8 number) noexcept nogil:
        self.current = number & DOR_SELECT

    cdef void raise_irq(self) noexcept nogil:
        self.sra |= SRA_INTPEND
        self.irq.set(1)
        self.results = 0

    cdef void lower_irq(self) noexcept nogil:
        self.status0 = 0
        self.sra &= ~SRA_INTPEND
        self.irq.set(0)

    cdef void soft_reset(self, bint tell) noexcept nogil:
        self.drop_request()
        self.lower_irq()
        self.sra = SRA_NDRV2 if self.backend[1] == NULL else 0
        self.srb = 0xC0
        self.current = 0
        self.dor = DOR_NRESET
        if self.dma is not None:
            self.dor |= DOR_DMA
            self.dma_let_go()
        self.msr = MSR_RQM
        self.results = 0
        self.turning.cancel()
        self.stage, self.multi_track = IDLE, False
        self.seek(0, 0, 0, 1)
        self.seek(1, 0, 0, 1)
        self.to_command()
        if tell:
            self.status0 |= ST0_READY_CHANGED
            self.raise_irq()
            self.results = POLLED

    cdef void to_command(self) noexcept nogil:
        self.phase, self.direction, self.position, self.length = COMMAND, WRITE, 0, 1
        self.msr = (self.msr & ~<u8>(MSR_BUSY | MSR_DIO)) | MSR_RQM

    cdef void to_result(self, u32 count) noexcept nogil:
        self.phase, self.direction, self.position, self.length = RESULT, READ, 0, count
        self.msr |= MSR_BUSY | MSR_RQM | MSR_DIO

    # --- ports ------------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        if offset == SRA_PORT:
            return self.sra
        if offset == SRB_PORT:
            return self.srb
        if offset == DOR_PORT:
            return self.dor | self.current
        if offset == TDR_PORT:
            return self.tdr
        if offset == MSR_PORT:
            self.dsr &= ~<u8>DSR_POWER_DOWN
            self.dor |= DOR_NRESET
            return self.msr
        if offset == FIFO_PORT:
            return self.read_data()
        if offset == DIR_PORT:
            return DIR_CHANGED if self.here().changed else 0
        return 0xFF

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 byte = <u8>value
        if offset == DOR_PORT:
            self.write_dor(byte)
        elif offset == MSR_PORT:
            self.write_dsr(byte)
        elif not self.dor & DOR_NRESET:
            return 0
        elif offset == TDR_PORT:
            self.tdr = byte & TDR_BOOT
        elif offset == FIFO_PORT:
            self.write_data(byte)
        elif offset == DIR_PORT:
            self.dsr = (self.dsr & ~<u8>DSR_RATE) | (byte & DSR_RATE)
        return 0

    cdef void write_dor(self, u8 value) noexcept nogil:
        cdef u8 was = self.dor
        self.srb &= ~<u8>0x23
        if value & DOR_MOTOR0:
            self.srb |= 0x01
        if value & DOR_MOTOR1:
            self.srb |= 0x02
        if value & 1:
            self.srb |= 0x20
        if value & DOR_NRESET and not was & DOR_NRESET:
            self.soft_reset(True)
            self.dsr &= ~<u8>DSR_POWER_DOWN
        self.current = value & DOR_SELECT
        self.dor = value

    cdef void write_dsr(self, u8 value) noexcept nogil:
        if not self.dor & DOR_NRESET:
            return
        if value & DSR_RESET:
            self.dor &= ~<u8>DOR_NRESET
            self.soft_reset(True)
            self.dor |= DOR_NRESET
        if value & DSR_POWER_DOWN:
            self.soft_reset(True)
        self.dsr = value

    cdef void write_data(self, u8 value) noexcept nogil:
        cdef Row row
        cdef u32 at
        if not self.msr & MSR_RQM or self.msr & MSR_DIO:
            return
        self.dsr &= ~<u8>DSR_POWER_DOWN
        at = self.position % FIFO
        self.fifo_bytes[at] = value
        self.position += 1
        if self.position == self.length:
            self.msr &= ~<u8>MSR_RQM
        if self.phase == EXECUTION:
            if self.direction == FORMAT and self.position % 4 == 0 or at == FIFO - 1 or self.position == self.length:
                self.pio_write()
            return
        if self.position == 1:
            row = _find(value)
            self.command, self.length = row.code, row.parameters + 1
            if row.parameters:
                self.msr |= MSR_RQM
            self.msr |= MSR_BUSY
        if self.position == self.length:
            self.phase = EXECUTION
            self.execute()

    cdef u8 read_data(self) noexcept nogil:
        cdef u8 value
        self.dsr &= ~<u8>DSR_POWER_DOWN
        if not self.msr & MSR_RQM or not self.msr & MSR_DIO:
            return 0
        value = self.fifo_bytes[self.position % FIFO]
        self.position += 1
        if self.phase == EXECUTION:
            if self.position == self.length:
                self.msr &= ~<u8>MSR_RQM
                self.finish(0, 0, 0)
            elif self.position % FIFO == 0:
                if self.next_sector():
                    self.pio_load()
                else:
                    self.finish(ST0_ABNORMAL, ST1_END, 0)
        elif self.position == self.length:
            self.to_command()
            self.lower_irq()
        return value

    # --- commands ---------------------------------------------------------------------------------------------

    cdef void execute(self) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef u8 code = self.command
        cdef Disk *d
        if code == READ_DATA or code == READ_TRACK:
            self.start(READ)
        elif code == WRITE_DATA:
            self.start(WRITE)
        elif code == SCAN_EQUAL_DATA:
            self.start(SCAN_EQUAL)
        elif code == SCAN_LOW_DATA:
            self.start(SCAN_LOW)
        elif code == SCAN_HIGH_DATA:
            self.start(SCAN_HIGH)
        elif code == VERIFY_DATA:
            self.start(VERIFY)
        elif code == READ_DELETED or code == WRITE_DELETED:
            self.finish(ST0_ABNORMAL | ST0_SEEK, 0, 0)
        elif code == FORMAT_TRACK:
            self.start_format()
        elif code == READ_ID:
            d = self.here()
            d.head = fifo[1] >> 2 & 1
            self.turning.arm(self.turning.queue.clock.now() + TURN)
        elif code == SEEK:
            self.select(fifo[1])
            d = self.here()
            self.seek(self.unit(), d.head, fifo[2], d.sect)
            self.seek_done()
        elif code == RELATIVE_IN or code == RELATIVE_OUT:
            self.select(fifo[1])
            self.step_relative(code == RELATIVE_IN)
            self.seek_done()
        elif code == RECALIBRATE:
            self.select(fifo[1])
            self.seek(self.unit(), 0, 0, 1)
            self.seek_done()
        elif code == SENSE_INTERRUPT:
            self.sense_interrupt()
        elif code == SENSE_DRIVE:
            self.select(fifo[1])
            d = self.here()
            d.head = fifo[1] >> 2 & 1
            fifo[0] = 0x28 | d.head << 2 | self.current
            if self.readonly[self.unit()]:
                fifo[0] |= 0x40
            if d.track == 0:
                fifo[0] |= 0x10
            self.to_result(1)
        elif code == SPECIFY:
            self.timer0, self.timer1 = fifo[1] >> 4, fifo[2] >> 1
            self.dor = self.dor & ~<u8>DOR_DMA if fifo[2] & 1 else self.dor | DOR_DMA
            self.to_command()
        elif code == PERPENDICULAR:
            if fifo[1] & 0x80:
                self.here().perpendicular = fifo[1] & 7
            self.to_command()
        elif code == CONFIGURE:
            self.config, self.precomp_track = fifo[2], fifo[3]
            self.to_command()
        elif code == POWER_DOWN:
            self.power = fifo[1]
            fifo[0] = fifo[1]
            self.to_result(1)
        elif code == OPTION:
            self.to_command()
        elif code == DRIVE_SPECIFICATION:
            if fifo[5] & 0x80 and fifo[5] & 0x40:
                fifo[0], fifo[2], fifo[3] = fifo[1], 0, 0
                self.to_result(4)
            else:
                self.to_command()
        elif code == LOCK:
            self.locked = fifo[0] >> 7
            fifo[0] = self.locked << 4
            self.to_result(1)
        elif code == DUMPREG:
            self.dump()
        elif code == SAVE:
            self.save_registers()
        elif code == RESTORE:
            self.restore_registers()
        elif code == VERSION:
            fifo[0] = CHIP_VERSION
            self.to_result(1)
        elif code == PART_ID:
            fifo[0] = STEPPING
            self.to_result(1)
        else:
            fifo[0] = ST0_INVALID
            self.to_result(1)

    cdef void seek_done(self) noexcept nogil:
        self.to_command()
        self.status0 |= ST0_SEEK
        self.raise_irq()

    cdef void step_relative(self, bint inwards) noexcept nogil:
        cdef Disk *d = self.here()
        cdef u8 by = self.fifo_bytes[2]
        if inwards:
            self.seek(self.unit(), d.head, d.max_track - 1 if by + d.track >= d.max_track else d.track + by, d.sect)
        else:
            self.seek(self.unit(), d.head, 0 if by > d.track else d.track - by, d.sect)

    cdef void sense_interrupt(self) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        if self.results:
            fifo[0] = ST0_READY_CHANGED + POLLED - self.results
            self.results -= 1
        elif not self.sra & SRA_INTPEND:
            fifo[0] = ST0_INVALID
            self.to_result(1)
            return
        else:
            fifo[0] = (self.status0 & ~<u8>(ST0_HEAD | 3)) | self.current
        fifo[1] = self.here().track
        self.to_result(2)
        self.lower_irq()
        self.status0 = ST0_READY_CHANGED

    cdef void dump(self) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef u32 swap = self.tdr >> 2 & 1
        cdef Disk *d = self.here()
        memset(fifo, 0, 10)
        fifo[0], fifo[1] = self.drives[swap].track, self.drives[1 - swap].track
        fifo[4] = self.timer0
        fifo[5] = self.timer1 << 1 | (1 if self.dor & DOR_DMA else 0)
        fifo[6] = d.last_sect
        fifo[7] = self.locked << 7 | d.perpendicular << 2
        fifo[8], fifo[9] = self.config, self.precomp_track
        self.to_result(10)

    cdef void save_registers(self) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef u32 swap = self.tdr >> 2 & 1
        cdef Disk *d = self.here()
        memset(fifo, 0, 15)
        fifo[2], fifo[3] = self.drives[swap].track, self.drives[1 - swap].track
        fifo[6], fifo[7], fifo[8] = self.timer0, self.timer1, d.last_sect
        fifo[9] = self.locked << 7 | d.perpendicular << 2
        fifo[10], fifo[11], fifo[12] = self.config, self.precomp_track, self.power
        self.to_result(15)

    cdef void restore_registers(self) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef u32 swap = self.tdr >> 2 & 1
        cdef Disk *d = self.here()
        self.drives[swap].track, self.drives[1 - swap].track = fifo[3], fifo[4]
        self.timer0, self.timer1, d.last_sect = fifo[7] & 0x0F, fifo[8] & 0x7F, fifo[9]
        self.locked, d.perpendicular = fifo[10] >> 7, fifo[10] >> 2 & 0x0F
        self.config, self.precomp_track, self.power = fifo[11], fifo[12], fifo[13]
        self.to_command()

    cdef void turned(self) noexcept nogil:
        """READ ID has seen the next sector."""
        cdef Disk *d = self.here()
        if d.last_sect:
            d.sect = d.sect % d.last_sect + 1
        if self.check_rate and self.dsr & DSR_RATE != d.rate:
            self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
        else:
            self.finish(0, 0, 0)

    # --- transfers ----------------------------------------------------------------------------------------------

    cdef void refuse(self, u8 status1) noexcept nogil:
        """A transfer that does not begin; the result names the place that was asked for."""
        cdef u8 track = self.fifo_bytes[2], head = self.fifo_bytes[3], sect = self.fifo_bytes[4]
        self.finish(ST0_ABNORMAL, status1, 0)
        self.fifo_bytes[3], self.fifo_bytes[4], self.fifo_bytes[5] = track, head, sect

    cdef void start(self, u8 direction) noexcept nogil:
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d
        cdef int found, sectors
        self.select(fifo[1])
        d = self.here()
        found = self.seek(self.unit(), fifo[3], fifo[2], fifo[4])
        if found >= 2:
            self.refuse(ST1_END if found == 3 else 0)
            return
        if found == 1:
            self.status0 |= ST0_SEEK
        if self.check_rate and self.dsr & DSR_RATE != d.rate:
            self.refuse(ST1_MISSING_MARK)
            return
        self.multi_track = fifo[0] & 0x80 != 0
        if fifo[5] == 0:
            self.length = fifo[8]
        else:
            sectors = <int>fifo[6] - fifo[4] + 1
            if sectors < 0:
                self.refuse(ST1_MISSING_MARK)
                return
            if self.multi_track:
                sectors += fifo[6]
            self.length = <u32>128 << (7 if fifo[5] > 7 else fifo[5])
            self.length *= sectors
        self.end_of_track = fifo[6]
        self.direction, self.position = direction, 0
        if direction == WRITE and self.readonly[self.unit()]:
            self.finish(ST0_ABNORMAL | ST0_SEEK, ST1_NOT_WRITABLE, 0)
        elif self.dor & DOR_DMA:
            self.msr &= ~<u8>MSR_RQM
            self.limit = self.length
            if direction == VERIFY:
                self.run(False)
            else:
                self.wait_for_dma()
        elif not self.length:
            self.finish(0, 0, 0)
        else:
            self.msr |= MSR_NONDMA | MSR_RQM
            if direction == WRITE:
                self.raise_irq()
            else:
                self.msr |= MSR_DIO
                self.pio_load()

    cdef void start_format(self) noexcept nogil:
        """The sectors' ids come as data, four bytes each: track, head, sector, size."""
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d
        self.select(fifo[1])
        d = self.here()
        d.head = fifo[1] >> 2 & 1
        if not self.inserted[self.unit()] or d.head and not d.two_sided:
            self.finish(ST0_ABNORMAL, 0, 0)
        elif self.check_rate and self.dsr & DSR_RATE != d.rate or fifo[2] != SECTOR_CODE:
            self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
        elif self.readonly[self.unit()]:
            self.finish(ST0_ABNORMAL, ST1_NOT_WRITABLE, 0)
        elif not fifo[3]:
            self.finish(0, 0, 0)
        else:
            self.end_of_track = fifo[5]                         # the byte to fill with
            self.direction, self.position, self.length = FORMAT, 0, <u32>4 * fifo[3]
            if self.dor & DOR_DMA:
                self.msr &= ~<u8>MSR_RQM
                self.limit = self.length
                self.wait_for_dma()
            else:
                self.msr |= MSR_NONDMA | MSR_RQM
                self.raise_irq()

    cdef void finish(self, u8 status0, u8 status1, u8 status2) noexcept nogil:
        """A transfer is over: the seven result bytes, and the interrupt."""
        cdef u8 *fifo = self.fifo_bytes
        cdef Disk *d = self.here()
        self.status0 &= ~<u8>(ST0_HEAD | 3)
        self.status0 |= self.current | status0
        if d.head:
            self.status0 |= ST0_HEAD
        fifo[0], fifo[1], fifo[2] = self.status0, status1, status2
        fifo[3], fifo[4], fifo[5], fifo[6] = d.track, d.head, d.sect, SECTOR_CODE
        if self.dma is not None:
            self.dma_let_go()
        self.stage = IDLE
        self.msr = (self.msr | MSR_RQM | MSR_DIO) & ~<u8>MSR_NONDMA
        self.to_result(7)
        self.raise_irq()

    cdef bint next_sector(self) noexcept nogil:
        """The head goes on; False where the command ends."""
        cdef Disk *d = self.here()
        cdef u8 head = d.head, track = d.track, sect = d.sect
        cdef bint more = True
        if sect >= d.last_sect or sect == self.end_of_track:
            sect = 1
            if self.multi_track and head == 0 and d.two_sided:
                head = 1
            else:
                more = self.multi_track and d.two_sided
                if self.multi_track:
                    head = 0
                track += 1
                self.status0 |= ST0_SEEK
        else:
            sect += 1
        self.seek(self.unit(), head, track, sect)
        return more

    cdef void wait_for_dma(self) noexcept nogil:
        self.waiting = True
        self.dma_ask()

    def dma_ready(self):
        """The channel is free, and a transfer waits for it: as much as both allow."""
        if not self.waiting:
            return
        self.waiting = False
        self.limit = min(self.length, self.dma.room(self.channel))
        self.run(False)

    cdef void run(self, bint resumed) noexcept nogil:
        """Sector by sector, until all is done or a request takes its time. `resumed`: a request is over."""
        cdef int result
        while True:
            if not resumed and not self.begin():
                return
            resumed = False
            result = self.moved()
            if result <= 0:
                return
            if result == 2:
                resumed = True

    cdef bint begin(self) noexcept nogil:
        """Ask for the next sector. True: it is there already."""
        cdef u32 at = self.position % SECTOR
        cdef u8 name[4]
        cdef Disk *d = self.here()
        if self.position >= self.limit:
            self.finish(0, 0, ST2_SCAN_NOT if SCAN_EQUAL <= self.direction <= SCAN_HIGH else 0)
            return False
        if self.direction == FORMAT:
            self.chunk = 4
            if not self.dma_get(name, 4):
                self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                return False
            d.sect = name[2]
            if not 0 < d.sect <= d.last_sect or name[3] != SECTOR_CODE:
                self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
                return False
            memset(self.work, self.end_of_track, SECTOR)
            self.stage = STORING
            return self.transfer(BLOCK_WRITE, _sector(d))
        self.chunk = min(self.limit - self.position, SECTOR - at)
        if self.direction != WRITE:
            self.stage = FETCHING
            return self.transfer(BLOCK_READ, _sector(d))
        if self.chunk < SECTOR:
            self.stage = FILLING
            return self.transfer(BLOCK_READ, _sector(d))
        if not self.dma_get(self.work, SECTOR):
            self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
            return False
        self.stage = STORING
        return self.transfer(BLOCK_WRITE, _sector(d))

    cdef int moved(self) noexcept nogil:
        """A request of a DMA transfer is over. 1: on with the next sector; 2: the next request is over too; 0: not."""
        cdef u32 at = self.position % SECTOR
        cdef int result
        if self.stage == FETCHING:
            if self.error:
                memset(self.work, 0, SECTOR)
            if self.direction == READ:
                if not self.dma_put(self.work + at, self.chunk):
                    self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                    return 0
            elif self.direction != VERIFY:
                result = self.compare(at)
                if result <= 0:
                    return 0
        elif self.stage == FILLING:
            if self.error:
                memset(self.work, 0, SECTOR)
            if not self.dma_get(self.work + at, self.chunk):
                self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
                return 0
            self.stage = STORING
            return 2 if self.transfer(BLOCK_WRITE, _sector(self.here())) else 0
        elif self.error:
            self.finish(ST0_ABNORMAL | ST0_SEEK, 0, 0)
            return 0
        self.position += self.chunk
        if self.direction != FORMAT and self.position % SECTOR == 0 and not self.next_sector():
            self.finish(0, 0, ST2_SCAN_NOT if SCAN_EQUAL <= self.direction <= SCAN_HIGH else 0)
            return 0
        return 1

    cdef int compare(self, u32 at) noexcept nogil:
        """Of a scan: 1 to go on, 0 when it is over."""
        cdef u8 data[SECTOR]
        cdef int order
        if not self.dma_get(data, self.chunk):
            self.finish(ST0_ABNORMAL, ST1_OVERRUN, 0)
            return 0
        order = memcmp(data, self.work + at, self.chunk)
        if order == 0:
            self.finish(0, 0, ST2_SCAN_EQUAL)
        elif order < 0 and self.direction == SCAN_LOW or order > 0 and self.direction == SCAN_HIGH:
            self.finish(0, 0, 0)
        else:
            return 1
        return 0

    cdef void pio_load(self) noexcept nogil:
        """The sector under the head, for the FIFO."""
        self.stage = FETCHING
        self.msr &= ~<u8>MSR_RQM
        if self.transfer(BLOCK_READ, _sector(self.here())):
            self.run_pio()

    cdef void pio_write(self) noexcept nogil:
        """The FIFO has a sector, or the rest, or the id of one that is to be formatted."""
        cdef Disk *d = self.here()
        cdef u8 *name
        self.msr &= ~<u8>MSR_RQM
        if self.direction == FORMAT:
            name = self.fifo_bytes + (self.position - 4) % FIFO
            d.sect = name[2]
            if not 0 < d.sect <= d.last_sect or name[3] != SECTOR_CODE:
                self.finish(ST0_ABNORMAL, ST1_MISSING_MARK, 0)
                return
            memset(self.work, self.end_of_track, SECTOR)
            self.stage = STORING
        elif self.position % SECTOR:
            self.stage = FILLING
            if not self.transfer(BLOCK_READ, _sector(d)):
                return
            self.run_pio()
            return
        else:
            memcpy(self.work, self.fifo_bytes, SECTOR)
            self.stage = STORING
        if self.transfer(BLOCK_WRITE, _sector(d)):
            self.run_pio()

    cdef void run_pio(self) noexcept nogil:
        """A request of a transfer through the FIFO is over."""
        if self.stage == FETCHING:
            if self.error:
                memset(self.work, 0, SECTOR)
            memcpy(self.fifo_bytes, self.work, SECTOR)
            self.stage = IDLE
            self.msr |= MSR_RQM
            if self.position == 0:
                self.raise_irq()
            return
        if self.stage == FILLING:
            memcpy(self.work, self.fifo_bytes, self.position % SECTOR)
            self.stage = STORING
            if not self.transfer(BLOCK_WRITE, _sector(self.here())):
                return
        self.stage = IDLE
        if self.error:
            self.finish(ST0_ABNORMAL | ST0_SEEK, 0, 0)
        elif self.position == self.length:
            if self.direction != FORMAT:
                self.next_sector()
            self.finish(0, 0, 0)
        elif self.direction == FORMAT or self.next_sector():
            self.msr |= MSR_RQM
        else:
            self.finish(ST0_ABNORMAL, ST1_END, 0)

    # --- the drive's image --------------------------------------------------------------------------------------

    cdef bint transfer(self, int op, u32 sector) noexcept nogil:
        """One sector between `work` and the image. True: it is over, `error` says how."""
        cdef void *drive = self.backend[self.unit()]
        cdef u8 *data
        self.error = 1
        self.request = block_request(drive, <void *>self, drive_done)
        if self.request == NULL:
            return True
        self.request.tag = <u64><size_t>drive
        data = block_buffer(self.request, SECTOR)
        if data == NULL:
            self.drop_request()
            return True
        if op == BLOCK_WRITE:
            memcpy(data, self.work, SECTOR)
        self.request.op, self.request.offset = op, <u64>sector * SECTOR
        if not block_submit(drive, self.request):
            return False
        self.take()
        return True

    cdef void take(self) noexcept nogil:
        """What the request brought."""
        self.error = self.request.error
        if self.request.op == BLOCK_READ and not self.error:
            memcpy(self.work, self.request.own, SECTOR)
        self.drop_request()

    cdef void landed(self, BlockRequest *request) noexcept nogil:
        self.take()
        if self.msr & MSR_NONDMA:
            self.run_pio()
        else:
            self.run(True)

    cdef void drop_request(self) noexcept nogil:
        cdef BlockRequest *request = self.request
        if request != NULL:
            self.request = NULL
            block_release(<void *><size_t>request.tag, request)

    # --- the DMA channel ------------------------------------------------------------------------------------------

    cdef bint dma_put(self, u8 *data, u32 count) noexcept with gil:
        return self.dma is not None and self.dma.move(self.channel, data[:count]) == count

    cdef bint dma_get(self, u8 *data, u32 count) noexcept with gil:
        cdef bytes found = self.dma.transfer(self.channel, count) if self.dma is not None else b""
        if len(found) != count:
            return False
        memcpy(data, <const u8 *>found, count)
        return True

    cdef void dma_ask(self) noexcept with gil:
        if self.dma is not None:
            self.dma.wait(self.channel, self.dma_ready)

    cdef void dma_let_go(self) noexcept with gil:
        self.waiting = False
        if self.dma is not None:
            self.dma.forget(self.channel)


cdef class FdcPorts(IoRegion):
    """Some of its ports, from `base` on."""

    def __init__(self, Fdc fdc, u32 base):
        self.name = "fdc"
        self.max_access = 1
        self.fdc, self.base = fdc, base

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.fdc.read(offset + self.base, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        return self.fdc.write(offset + self.base, size, value)
