from accel.api cimport IoRegion, IrqLine, u8, u32, u64
from accel.clock cimport Timer
from vmrun.backends.protocols cimport BlockRequest

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

cdef enum:
    FIFO = 512


ctypedef struct Disk:
    u8 head, track, sect            # where the head is
    u8 last_sect, max_track
    u8 perpendicular, rate
    bint two_sided, changed


cdef class FdcTransfers(IoRegion):
    cdef public Disk drives[2]
    cdef readonly list backends, disks, kinds
    cdef str fallback
    cdef void *backend[2]
    cdef bint inserted[2]
    cdef bint readonly[2]
    cdef IrqLine irq
    cdef readonly Timer turning
    cdef object dma
    cdef u32 channel
    cdef bint check_rate
    # registers
    cdef public u8 sra, srb, dor, tdr, dsr, msr, current, status0, status1, status2, results
    cdef public u8 timer0, timer1, precomp_track, config, locked, power, end_of_track
    # the command at hand
    cdef public u8 phase, command, direction, stage
    cdef public bint multi_track, waiting
    cdef public u32 position, length, limit, chunk
    cdef u8 fifo_bytes[FIFO]
    cdef u8 work[512]
    cdef BlockRequest *request
    cdef int error

    cdef u32 unit(self) noexcept nogil
    cdef Disk *here(self) noexcept nogil
    cdef int seek(self, u32 n, u8 head, u8 track, u8 sect) noexcept nogil
    cdef void select(self, u8 number) noexcept nogil
    cdef void raise_irq(self) noexcept nogil
    cdef void lower_irq(self) noexcept nogil
    cdef void soft_reset(self, bint tell) noexcept nogil
    cdef void to_command(self) noexcept nogil
    cdef void to_result(self, u32 count) noexcept nogil
    cdef void start(self, u8 direction) noexcept nogil
    cdef void start_format(self) noexcept nogil
    cdef void refuse(self, u8 status1) noexcept nogil
    cdef void finish(self, u8 status0, u8 status1, u8 status2) noexcept nogil
    cdef bint next_sector(self) noexcept nogil
    cdef void wait_for_dma(self) noexcept nogil
    cdef void run(self, bint resumed) noexcept nogil
    cdef bint begin(self) noexcept nogil
    cdef int moved(self) noexcept nogil
    cdef int compare(self, u32 at) noexcept nogil
    cdef bint transfer(self, int op, u32 sector) noexcept nogil
    cdef void landed(self, BlockRequest *request) noexcept nogil
    cdef void drop_request(self) noexcept nogil
    cdef void pio_load(self) noexcept nogil
    cdef void pio_write(self) noexcept nogil
    cdef void run_pio(self) noexcept nogil
    cdef void take(self) noexcept nogil
    cdef bint dma_put(self, u8 *data, u32 count) noexcept with gil
    cdef bint dma_get(self, u8 *data, u32 count) noexcept with gil
    cdef void dma_ask(self) noexcept with gil
    cdef void dma_let_go(self) noexcept with gil


cdef u32 sector_here(Disk *d) noexcept nogil
