"""The floppy disk controller of a PC, an 82077AA or 82078, and its two drives; the chip alone.

Ref: Intel 82077AA (290166), 82078 (290474); register and bit names are theirs. Two drives, as QEMU's: bit 0 of DOR
selects. Seeks and transfers take no time of their own; READ ID takes the fiftieth part of a second.
Not modelled: deleted data marks (those commands fail), gaps and CRCs, head load and step times, tape drives, media ids.

A command is gathered in the FIFO, carried out, and leaves its results there. Data goes sector by sector: the drive's
request, then the DMA channel or the FIFO, then the next one; a request that takes time is gone on with in its
completion. FORMAT TRACK writes the fill byte to the sectors that the guest names.

Transfers are fdc_transfer.pyx. Locks: the device lock is held; completions take it.
"""

from libc.string cimport memset

from accel.api cimport IrqLine
from accel.clock cimport Timer
from vmrun.core.cells cimport cells
from vmrun.devices.storage.fdc_transfer cimport (
    CHIP_VERSION, COMMAND, CONFIGURE, DIR_CHANGED, DIR_PORT, DOR_DMA, DOR_MOTOR0, DOR_MOTOR1, DOR_NRESET, DOR_PORT,
    DOR_SELECT, DRIVES, DRIVE_SPECIFICATION, DSR_POWER_DOWN, DSR_RATE, DSR_RESET, DUMPREG, EXECUTION, FIFO,
    FIFO_PORT, FORMAT, FORMAT_AND_WRITE, FORMAT_TRACK, IDLE, LOCK, MSR_BUSY, MSR_DIO, MSR_NONDMA, MSR_PORT, MSR_RQM,
    OPTION, PART_ID, PERPENDICULAR, POLLED, POWER_DOWN, READ, READ_DATA, READ_DELETED, READ_ID, READ_TRACK,
    RECALIBRATE, RELATIVE_IN, RELATIVE_OUT, RESTORE, RESULT, SAVE, SCAN_EQUAL, SCAN_EQUAL_DATA, SCAN_HIGH,
    SCAN_HIGH_DATA, SCAN_LOW, SCAN_LOW_DATA, SECTOR, SEEK, SENSE_DRIVE, SENSE_INTERRUPT, SPECIFY, SRA_INTPEND,
    SRA_NDRV2, SRA_PORT, SRB_PORT, ST0_ABNORMAL, ST0_HEAD, ST0_INVALID, ST0_READY_CHANGED, ST0_SEEK, ST1_END,
    ST1_MISSING_MARK, STEPPING, TDR_BOOT, TDR_PORT, TURN, UNKNOWN, VERIFY, VERIFY_DATA, VERSION, WRITE, WRITE_DATA,
    WRITE_DELETED, Disk, FdcTransfers,
)

from vmrun.core.floppies import pick
from vmrun.core.state import U8, U32, Bytes, Deadline, Flag, Rows, Table

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


cdef class _Turning(Timer):
    cdef Fdc fdc

    cdef void expire(self) noexcept nogil:
        self.fdc.turned()


cdef class Fdc(FdcTransfers):
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
