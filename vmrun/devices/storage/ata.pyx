"""An ATA channel with two disks, and the bus-master engine that moves their data; compiled.

Ref: ATA/ATAPI-6 (T13 1410D): registers 7, protocols 9, commands 8; Intel 82371SB PIIX3 (290550) 2.7, bus-master IDE.
Packet devices (CD-ROM drives) are units whose commands atapi.pyx works out; this file moves their packets and data.
Not modelled: power states beyond their answers, security, queued commands, media access
timing. Commands that are not modelled end in ABRT, as ATA says.

PIO reads fetch up to 256 sectors ahead into a buffer and offer them block by block; PIO writes go to the image block
by block. DMA moves straight between guest memory and the image.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.api import IrqLine as _IrqLine
from accel.space import ANYHOW

from vmrun.backends.protocols cimport (
    BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, BlockRequest, block_buffer, block_release,
    block_request, block_settling, block_submit, block_take,
)

from vmrun.devices.storage.atapi cimport (
    PACKET_ANSWER, PACKET_DONE, PACKET_ERROR, PACKET_LIST, PACKET_READ, PacketUnit, packet_answer, packet_blocks,
    packet_failed, packet_lba, packet_length, packet_raw, packet_reset, packet_run, packet_sense,
)
from vmrun.devices.storage.mmc cimport CD_BLOCK, CD_RAW, sector_of

from vmrun.core.cells cimport cells
from vmrun.devices.storage.smart cimport (
    TESTS, Health, smart_errors, smart_test, smart_tests, smart_thresholds, smart_values,
)

from vmrun.core.state import Bytes, Flag, Rows, Table, U8, U16, U32, U64
from vmrun.errors import StateError

cdef enum:
    BSY = 0x80
    DRDY = 0x40
    DF = 0x20
    DSC = 0x10
    DRQ = 0x08
    ERR = 0x01
    ABRT = 0x04
    IDNF = 0x10
    UNC = 0x40
    SRST = 0x04
    NIEN = 0x02
    HOB = 0x80
    SLAVE = 0x10
    LBA = 0x40
    # what a completion leads to
    IDLE = 0
    READING = 1          # a PIO read fills the buffer
    HOST_READS = 2
    HOST_WRITES = 3
    WRITING = 4          # a PIO write empties the buffer
    FLUSHING = 5
    TRIMMING = 7
    DMA = 6
    # bus master
    BM_START = 0x01
    BM_TO_MEMORY = 0x08
    BM_ACTIVE = 0x01
    BM_ERROR = 0x02
    BM_INTERRUPT = 0x04
    PRD_LARGEST = 0x10000           # bytes of an entry whose count is 0
    PRD_TABLE = 0x10000             # a table lies within 64 KiB

# Commands, as ATA/ATAPI-6 names them; _RETRY, _OLD: obsolete codes of the same.
cdef enum:
    DATA_SET_MANAGEMENT = 0x06
    DEVICE_RESET = 0x08
    RECALIBRATE = 0x10              # and all of 1xh
    READ_SECTORS = 0x20
    READ_SECTORS_RETRY = 0x21
    READ_SECTORS_EXT = 0x24
    READ_DMA_EXT = 0x25
    READ_NATIVE_MAX_EXT = 0x27
    READ_MULTIPLE_EXT = 0x29
    WRITE_SECTORS = 0x30
    WRITE_SECTORS_RETRY = 0x31
    WRITE_SECTORS_EXT = 0x34
    WRITE_DMA_EXT = 0x35
    WRITE_MULTIPLE_EXT = 0x39
    WRITE_VERIFY = 0x3C
    READ_VERIFY = 0x40
    READ_VERIFY_RETRY = 0x41
    READ_VERIFY_EXT = 0x42
    SEEK = 0x70                     # and all of 7xh
    DEVICE_DIAGNOSTIC = 0x90
    DEVICE_PARAMETERS = 0x91
    STANDBY_IMMEDIATE_OLD = 0x94
    IDLE_IMMEDIATE_OLD = 0x95
    STANDBY_OLD = 0x96
    IDLE_OLD = 0x97
    CHECK_POWER_MODE_OLD = 0x98
    SLEEP_OLD = 0x99
    PACKET = 0xA0
    IDENTIFY_PACKET_DEVICE = 0xA1
    READ_MULTIPLE = 0xC4
    WRITE_MULTIPLE = 0xC5
    SET_MULTIPLE_MODE = 0xC6
    READ_DMA = 0xC8
    READ_DMA_RETRY = 0xC9
    WRITE_DMA = 0xCA
    WRITE_DMA_RETRY = 0xCB
    STANDBY_IMMEDIATE = 0xE0
    IDLE_IMMEDIATE = 0xE1
    STANDBY = 0xE2
    IDLE_COMMAND = 0xE3
    CHECK_POWER_MODE = 0xE5
    SLEEP = 0xE6
    FLUSH_CACHE = 0xE7
    FLUSH_CACHE_EXT = 0xEA
    IDENTIFY_DEVICE = 0xEC
    SET_FEATURES = 0xEF
    SMART = 0xB0
    READ_NATIVE_MAX = 0xF8

# Features of SET FEATURES.
cdef enum:
    ENABLE_WRITE_CACHE = 0x02
    TRANSFER_MODE = 0x03
    DISABLE_WRITE_CACHE = 0x82

# Registers of the command block by offset; the control block's alternate status is one more.
cdef enum:
    DATA = 0
    ERROR_FEATURES = 1
    SECTOR_COUNT = 2
    SECTOR_NUMBER = 3
    CYLINDER_LOW = 4
    CYLINDER_HIGH = 5
    DEVICE_HEAD = 6
    STATUS_COMMAND = 7
    ALTERNATE_STATUS = 8

# Registers of the bus master, 8 bytes a channel.
cdef enum:
    BMIC = 0                        # command
    BMIS = 2                        # status
    BMIDTP = 4                      # descriptor table, 4 bytes

cdef enum:
    MOST_MULTIPLE = 16
    PACKET_SIZE = 12
    # NSECTOR as the interrupt reason of a packet device
    REASON_PACKET = 1               # C/D: the host gives the packet
    REASON_DATA = 2                 # I/O: data for the host
    REASON_OVER = 3
    PACKET_LCYL = 0x14              # the signature
    PACKET_HCYL = 0xEB
    RAW_AHEAD = BUFFER // CD_RAW    # whole sectors that the buffer holds


cdef void request_done(BlockRequest *request) noexcept nogil:
    (<AtaChannel>request.owner).io_done()


cdef class AtaChannel:
    """`irq` is INTRQ. `attach` puts a disk on a unit; `command_block`, `control_block` and `bus_master` are its ports.

    Saved between requests: the back ends are drained, so a command is over or waits for the host or the bus master.
    """

    state = Table(
        "ata-channel", 1,
        Rows(
            "drives", 2,
            Flag("present"), U8("feature"), U8("error"), U8("nsector"), U8("sector"), U8("lcyl"), U8("hcyl"),
            U8("select"), U8("status"), U8("hob_feature"), U8("hob_nsector"), U8("hob_sector"), U8("hob_lcyl"),
            U8("hob_hcyl"), U8("mult", only=(0, 1, 2, 4, 8, 16)), U8("udma", most=0x3F), U8("mdma", most=7),
            Flag("write_cache"), U16("cylinders"), U16("heads", 1, least=1, most=16),
            U16("sectors", 1, least=1, most=255), U64("total"),
        ),
        U8("control"), U8("unit", most=1), Flag("pending"), U8("phase", only=(IDLE, HOST_READS, HOST_WRITES, DMA)),
        U32("position", most=BUFFER), U32("block_end", most=BUFFER), U32("filled", most=BUFFER), U32("left", most=65536),
        U32("block", 1, least=1, most=MOST_MULTIPLE), U64("lba", most=1 << 48), Flag("lba48"), Flag("media"),
        U8("bm_command", most=BM_START | BM_TO_MEMORY), U8("bm_status", most=0x67), U32("bm_table"),
        Flag("packet"), Flag("packet_dma"), Flag("listing"), U32("limit", most=0xFFFF),
        Rows("health", 2, Flag("enabled", True), Flag("saves", True), U32("tests", most=TESTS)), Bytes("test_log", 2 * TESTS),
        Flag("dma_waiting"), U8("dma_op", BLOCK_READ, only=(BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD)),
        Bytes("held", most=BUFFER),
    )
    save, load_state = state.methods()[1:]

    def __cinit__(self):
        self.buffer = <u8 *>calloc(1, BUFFER)
        if self.buffer == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.buffer)

    def __init__(self, IrqLine irq, Dma dma):
        self.irq = irq
        self.dma = dma
        self.scatter = Scatter(dma, PIECES)
        self.backends = [None, None]
        self.packet_units = [None, None]
        self.dma_op = BLOCK_READ
        for n in range(2):                  # no division by what no disk has told
            self.drives[n].cylinders = self.drives[n].heads = self.drives[n].sectors = 1
        self.reset()

    def attach(self, u32 unit, BlockBackend backend, bytes identify, u32 cylinders, u32 heads, u32 sectors):
        """A disk on `unit`; `identify` is its 512 bytes of IDENTIFY data."""
        cdef Drive *d = &self.drives[unit & 1]
        self.backends[unit & 1] = backend
        self.backend[unit & 1] = <void *>backend
        memcpy(self.identify[unit & 1], <const u8 *>identify, 512)
        d.present = True
        d.total = backend.size // 512
        d.cylinders, d.heads, d.sectors = cylinders, heads, sectors
        d.write_cache = True
        self.healths[unit & 1].enabled = self.healths[unit & 1].saves = True
        self.reset()

    def attach_packet(self, u32 unit, PacketUnit packets, bytes identify):
        """A packet device on `unit`; `identify` is its 512 bytes of IDENTIFY PACKET data."""
        cdef Drive *d = &self.drives[unit & 1]
        self.backends[unit & 1] = packets.backend
        self.backend[unit & 1] = <void *>packets.backend
        self.packet_units[unit & 1] = packets
        self.packets[unit & 1] = <void *>packets
        memcpy(self.identify[unit & 1], <const u8 *>identify, 512)
        d.present = True
        self.reset()

    def reset(self):
        """Power-on and RESET#."""
        cdef u32 n
        with nogil:
            self.stop_io()
            for n in range(2):
                self.drives[n].mult = MOST_MULTIPLE
                self.drives[n].udma = 1 << 5                   # UDMA 5 is what a PC finds selected
                self.drives[n].mdma = 0
            self.control = 0
            self.soft_reset(False)
            self.bm_command = self.bm_status = 0
            self.bm_table = 0

    @property
    def health(self):
        return [{"enabled": h.enabled, "saves": h.saves, "tests": h.tests} for h in self.healths]

    @health.setter
    def health(self, rows):
        for n, row in enumerate(rows):
            self.healths[n].enabled, self.healths[n].saves, self.healths[n].tests = (
                row["enabled"], row["saves"], row["tests"],
            )

    @property
    def test_log(self):
        return cells(self, self.tested, 2 * TESTS)

    cdef Drive *drive(self) noexcept nogil:
        return &self.drives[self.unit]

    # --- interrupts -------------------------------------------------------------------------------------

    cdef void drive_irq(self) noexcept nogil:
        self.irq.set(self.pending and not self.control & NIEN)

    cdef void raise_irq(self) noexcept nogil:
        self.pending = True
        if not self.control & NIEN:
            self.bm_status |= BM_INTERRUPT
        self.drive_irq()

    cdef void lower_irq(self) noexcept nogil:
        self.pending = False
        self.drive_irq()

    # --- ends of commands --------------------------------------------------------------------------------

    cdef void signature(self, u32 n) noexcept nogil:
        cdef Drive *d = &self.drives[n]
        d.select &= 0xF0
        d.nsector = d.sector = 1
        d.lcyl = d.hcyl = 0 if d.present else 0xFF
        if self.packets[n] != NULL:
            d.lcyl, d.hcyl = PACKET_LCYL, PACKET_HCYL
        d.hob_nsector = d.hob_sector = d.hob_lcyl = d.hob_hcyl = d.hob_feature = 0

    cdef void soft_reset(self, bint software) noexcept nogil:
        cdef u32 n
        self.stop_io()
        self.unit = 0
        for n in range(2):
            self.drives[n].select = 0xA0
            self.signature(n)
            self.drives[n].error = 1 if software else 0
            self.drives[n].status = DRDY | DSC if self.drives[n].present else 0
            if self.packets[n] != NULL:
                packet_reset(self.packets[n])
                if software:
                    self.drives[n].status = 0                  # a packet device is not ready until it is told to
            self.drives[n].feature = 0
        self.pending = False
        self.drive_irq()

    cdef void stop_io(self) noexcept nogil:
        """Give up what is under way; the drive is busy until it is over."""
        if self.request != NULL:
            block_release(self.requested, self.request)
            self.request = NULL
        self.phase = IDLE
        self.dma_waiting = self.packet = self.packet_dma = self.listing = False
        self.left = self.position = self.block_end = self.filled = 0
        self.block = 1
        self.bm_status &= ~BM_ACTIVE

    cdef void fail(self, u8 error) noexcept nogil:
        cdef Drive *d = self.drive()
        d.status = DRDY | ERR
        d.error = error
        self.phase = IDLE
        self.dma_waiting = False
        self.raise_irq()

    cdef void abort(self) noexcept nogil:
        self.fail(ABRT)

    cdef void finish(self) noexcept nogil:
        """The command is complete without data, or its data has moved."""
        self.drive().status = DRDY | DSC
        self.phase = IDLE
        self.raise_irq()

    # --- where and how much -------------------------------------------------------------------------------

    cdef u64 address(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 cylinder
        if self.lba48:
            return (<u64>d.hob_hcyl << 40 | <u64>d.hob_lcyl << 32 | <u64>d.hob_sector << 24
                    | <u64>d.hcyl << 16 | <u64>d.lcyl << 8 | d.sector)
        if d.select & LBA:
            return <u64>(d.select & 15) << 24 | <u64>d.hcyl << 16 | <u64>d.lcyl << 8 | d.sector
        if d.sector == 0 or d.sector > d.sectors or (d.select & 15) >= d.heads:
            return <u64>-1
        cylinder = <u64>d.hcyl << 8 | d.lcyl
        return (cylinder * d.heads + (d.select & 15)) * d.sectors + d.sector - 1

    cdef void set_address(self, u64 lba) noexcept nogil:
        """Show where the command got to."""
        cdef Drive *d = self.drive()
        cdef u64 cylinder
        if self.lba48:
            d.hob_hcyl, d.hob_lcyl, d.hob_sector = lba >> 40 & 0xFF, lba >> 32 & 0xFF, lba >> 24 & 0xFF
            d.hcyl, d.lcyl, d.sector = lba >> 16 & 0xFF, lba >> 8 & 0xFF, lba & 0xFF
        elif d.select & LBA:
            d.select = (d.select & 0xF0) | (lba >> 24 & 15)
            d.hcyl, d.lcyl, d.sector = lba >> 16 & 0xFF, lba >> 8 & 0xFF, lba & 0xFF
        else:
            cylinder = lba // (<u64>d.heads * d.sectors)
            d.hcyl, d.lcyl = cylinder >> 8 & 0xFF, cylinder & 0xFF
            d.select = (d.select & 0xF0) | <u8>(lba // d.sectors % d.heads & 15)
            d.sector = <u8>(lba % d.sectors + 1)

    cdef u32 count(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u32 n
        if self.lba48:
            n = <u32>d.hob_nsector << 8 | d.nsector
            return n if n else 65536
        return d.nsector if d.nsector else 256

    cdef bint check_range(self, u64 lba, u32 count) noexcept nogil:
        return lba < self.drive().total and count <= self.drive().total - lba

    # --- data through the host's hands --------------------------------------------------------------------

    cdef void submit(self, int op, u64 lba, u32 sectors, u32 phase) noexcept nogil:
        """Start a request on a copy of the buffer, or on guest memory when the phase is DMA."""
        cdef BlockRequest *request = block_request(self.backend[self.unit], <void *>self, request_done)
        cdef u8 *copy
        cdef int failed = 0
        self.phase = phase
        if request == NULL:
            self.scatter.finish(0)
            self.fail(ABRT)
            return
        request.op = op
        request.offset = lba * 512
        if phase == DMA:
            failed = block_take(request, self.scatter)
        elif phase != FLUSHING:
            copy = block_buffer(request, sectors * 512)
            if copy == NULL:
                failed = -1
            elif phase == WRITING:
                memcpy(copy, self.buffer, sectors * 512)
        self.request, self.requested = request, self.backend[self.unit]
        if failed:
            self.stop_io()
            self.fail(ABRT)
        elif block_submit(self.requested, request):
            self.io_done()

    cdef void trim(self) noexcept nogil:
        """Give back the next range of the list in the buffer: 48 bits of address, 16 of length each."""
        cdef BlockRequest *request
        cdef u64 entry
        cdef int error = 0
        while self.position < self.filled and not error:
            memcpy(&entry, self.buffer + self.position, 8)
            self.position += 8
            if not entry >> 48:
                continue
            if not self.check_range(entry << 16 >> 16, <u32>(entry >> 48)):
                error = 1
                break
            request = block_request(self.backend[self.unit], <void *>self, request_done)
            if request == NULL:
                error = 1
                break
            request.op, request.offset, request.length = BLOCK_DISCARD, (entry << 16 >> 16) * 512, (entry >> 48) * 512
            self.request, self.requested = request, self.backend[self.unit]
            if not block_submit(self.requested, request):
                return
            error = request.error
            block_release(self.requested, request)
            self.request = NULL
        self.bm_status &= ~BM_ACTIVE
        self.position = self.filled = 0
        if error:
            self.abort()
        else:
            self.finish()

    cdef void start_pio(self, bint write, u32 block) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 lba = self.address()
        cdef u32 count = self.count()
        if block == 0:
            self.abort()
            return
        if not self.check_range(lba, count):
            self.abort()                                       # IDNF in the standard; qemu-kvm says ABRT
            return
        self.lba, self.left, self.block, self.media = lba, count, block, True
        self.position = self.filled = self.block_end = 0
        if write:
            self.phase = HOST_WRITES
            self.block_end = 512 * (block if block < count else count)
            d.status = DRDY | DSC | DRQ
        else:
            d.status = DRDY | DSC | BSY
            self.fetch()

    cdef void fetch(self) noexcept nogil:
        cdef u32 sectors = self.left if self.left < BUFFER // 512 else BUFFER // 512
        if sectors < self.left:
            sectors -= sectors % self.block
        self.drive().status |= BSY
        self.drive().status &= ~DRQ
        self.filled = sectors * 512
        self.position = self.block_end = 0
        self.submit(BLOCK_READ, self.lba, sectors, READING)

    cdef void offer(self) noexcept nogil:
        """The next block of a read is there for the host."""
        cdef u32 rest = self.filled - self.position, size = self.block * 512
        self.block_end = self.position + (size if size < rest else rest)
        if self.media:
            self.set_address(self.lba - (self.filled - self.block_end) // 512)
            self.drive().nsector = (self.left + (self.filled - self.block_end) // 512) & 0xFF
        self.phase = HOST_READS
        self.drive().status = DRDY | DSC | DRQ
        self.raise_irq()

    cdef void store(self) noexcept nogil:
        """The host has given a block of a write."""
        self.drive().status = DRDY | DSC | BSY
        self.submit(BLOCK_WRITE, self.lba, self.block_end // 512, WRITING)

    cdef void start_flush(self) noexcept nogil:
        self.drive().status = DRDY | DSC | BSY
        self.submit(BLOCK_FLUSH, 0, 0, FLUSHING)

    cdef void io_done(self) noexcept nogil:
        cdef int phase = self.phase, error = self.request.error
        cdef u32 sectors
        if phase == READING and not error:
            memcpy(self.buffer, self.request.vectors[0].base, self.filled)
        block_release(self.requested, self.request)
        self.request = NULL
        if self.packet:
            self.packet_read(error)
        elif phase == TRIMMING and not error:
            self.trim()
        elif error:
            self.set_address(self.lba)
            self.bm_status &= ~BM_ACTIVE
            self.fail(UNC if phase == READING else ABRT)
        elif phase == READING:
            sectors = self.filled // 512
            self.lba += sectors
            self.left -= sectors
            self.offer()
        elif phase == WRITING:
            sectors = self.block_end // 512
            self.lba += sectors
            self.left -= sectors
            self.set_address(self.lba)
            self.drive().nsector = self.left & 0xFF
            if self.left == 0:
                self.finish()
                return
            self.position = 0
            self.block_end = 512 * (self.block if self.block < self.left else self.left)
            self.phase = HOST_WRITES
            self.drive().status = DRDY | DSC | DRQ
            self.raise_irq()
        elif phase == FLUSHING:
            self.finish()
        elif phase == DMA:
            self.lba += self.left
            self.set_address(self.lba)
            self.drive().nsector = 0
            self.bm_status &= ~BM_ACTIVE
            self.dma_waiting = False
            self.finish()

    cdef void block_moved(self) noexcept nogil:
        """The host has moved the last byte of a DRQ block."""
        if self.packet:
            self.packet_moved()
        elif self.phase == HOST_WRITES:
            self.store()
        elif self.position < self.filled:
            self.offer()
        elif self.left:
            self.fetch()
        else:
            self.drive().status = DRDY | DSC
            self.phase = IDLE

    cdef u32 move(self, u8 *data, u32 size, bint out) noexcept nogil:
        """Move up to `size` bytes between the host and this block; the number moved."""
        cdef u32 n = self.block_end - self.position
        if self.phase != (HOST_WRITES if out else HOST_READS) or not self.drive().status & DRQ:
            return 0
        if n > size:
            n = size
        if out:
            memcpy(self.buffer + self.position, data, n)
        else:
            memcpy(data, self.buffer + self.position, n)
        self.position += n
        if self.position == self.block_end:
            self.block_moved()
        return n

    # --- packet devices -------------------------------------------------------------------------------------

    cdef bint packet_command(self, u8 code) noexcept nogil:
        """A command for a packet device; True when that was all. The rest are commands that disks have too."""
        cdef Drive *d = self.drive()
        if code == PACKET:
            self.start_packet()
        elif code == IDENTIFY_PACKET_DEVICE:
            memcpy(self.buffer, self.identify[self.unit], 512)
            self.buffer[63 * 2 + 1] = d.mdma
            self.buffer[88 * 2 + 1] = d.udma
            self.left, self.block, self.filled, self.position, self.media = 0, 1, 512, 0, False
            self.offer()
        elif code == DEVICE_RESET:                             # without an interrupt
            self.stop_io()
            self.signature(self.unit)
            packet_reset(self.packets[self.unit])
            d.status, d.error = 0, 1
        elif code in (IDENTIFY_DEVICE, READ_SECTORS):          # a disk's
            self.signature(self.unit)
            self.abort()
        elif code in (SET_FEATURES, DEVICE_DIAGNOSTIC, CHECK_POWER_MODE, CHECK_POWER_MODE_OLD, STANDBY_IMMEDIATE,
                      IDLE_IMMEDIATE, STANDBY, IDLE_COMMAND, SLEEP, STANDBY_IMMEDIATE_OLD, IDLE_IMMEDIATE_OLD,
                      STANDBY_OLD, IDLE_OLD, SLEEP_OLD):
            return False
        else:
            self.abort()
        return True

    cdef void start_packet(self) noexcept nogil:
        cdef Drive *d = self.drive()
        if d.feature & 2:                                      # overlapped
            self.abort()
            return
        self.packet, self.packet_dma, self.listing = True, d.feature & 1, False
        self.limit = <u32>d.hcyl << 8 | d.lcyl
        d.nsector = (d.nsector & ~<u32>7) | REASON_PACKET
        self.left = self.filled = self.position = 0
        self.block_end = PACKET_SIZE
        self.phase = HOST_WRITES
        d.status = DRDY | DSC | DRQ

    cdef void run_packet(self) noexcept nogil:
        """The packet is whole."""
        cdef Drive *d = self.drive()
        cdef void *unit = self.packets[self.unit]
        cdef int kind = packet_run(unit, self.buffer)
        cdef bint raw
        self.position = self.block_end = self.filled = self.left = 0
        self.media = False
        if kind == PACKET_ERROR:
            self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
            return
        if kind == PACKET_DONE:
            self.packet_end(DRDY | DSC, 0)
            return
        if not self.packet_dma and self.limit == 0:
            self.packet = False
            self.abort()
            return
        if kind == PACKET_LIST:
            self.listing = True
            self.block_end = packet_length(unit)
            d.nsector &= ~<u32>7
            d.lcyl, d.hcyl = <u8>self.block_end, <u8>(self.block_end >> 8)
            self.phase = HOST_WRITES
            d.status = DRDY | DSC | DRQ
            self.raise_irq()
            return
        if kind == PACKET_ANSWER:
            self.filled = packet_length(unit)
            memcpy(self.buffer, packet_answer(unit), self.filled)
            if not self.packet_dma:
                self.packet_offer()
                return
        else:
            raw = packet_raw(unit)
            self.lba = packet_lba(unit) * (CD_BLOCK // 512)
            self.left = packet_blocks(unit) * (CD_BLOCK // 512)
            if not self.packet_dma or raw:
                if self.packet_dma and packet_blocks(unit) > RAW_AHEAD:
                    # Departure: whole sectors by DMA go through the buffer, as many as it holds.
                    packet_failed(unit, 5)
                    self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
                    return
                self.packet_fetch()
                return
            self.media = True
        d.status = DRDY | DSC | BSY | DRQ
        self.phase = DMA
        self.dma_op = BLOCK_READ
        self.dma_waiting = True
        if self.bm_status & BM_ACTIVE:
            self.run_dma()

    cdef void packet_fetch(self) noexcept nogil:
        """The next blocks of the medium into the buffer."""
        cdef u32 most = RAW_AHEAD * (CD_BLOCK // 512) if packet_raw(self.packets[self.unit]) else BUFFER // 512
        cdef u32 sectors = self.left if self.left < most else most
        self.drive().status = DRDY | DSC | BSY
        self.filled = sectors * 512
        self.position = self.block_end = 0
        self.submit(BLOCK_READ, self.lba, sectors, READING)

    cdef void packet_read(self, int error) noexcept nogil:
        """What the medium has is there, in the buffer or in the guest's memory."""
        cdef void *unit = self.packets[self.unit]
        cdef u8 sector[CD_RAW]
        cdef u32 blocks
        if error:
            self.bm_status &= ~BM_ACTIVE
            packet_failed(unit, error)
            self.packet_end(DRDY | ERR, packet_sense(unit) << 4)
        elif self.phase == DMA:
            self.bm_status &= ~BM_ACTIVE
            self.packet_end(DRDY | DSC, 0)
        else:
            blocks = self.filled // CD_BLOCK
            self.lba += self.filled // 512
            self.left -= self.filled // 512
            if packet_raw(unit):                               # from the last one on, each grows in its place
                self.filled = blocks * CD_RAW
                while blocks:
                    blocks -= 1
                    sector_of(sector, self.buffer + blocks * CD_BLOCK, packet_lba(unit) + blocks)
                    memcpy(self.buffer + blocks * CD_RAW, sector, CD_RAW)
            if not self.packet_dma:
                self.packet_offer()
                return
            self.phase = DMA
            self.drive().status = DRDY | DSC | BSY | DRQ
            self.dma_op = BLOCK_READ
            self.dma_waiting = True
            if self.bm_status & BM_ACTIVE:
                self.run_dma()

    cdef void packet_offer(self) noexcept nogil:
        """The next DRQ block: as much as the host said it takes at a time, an even number but for the last."""
        cdef Drive *d = self.drive()
        cdef u32 size = self.filled - self.position, most = self.limit if self.limit != 0xFFFF else 0xFFFE
        if size > most:
            size = most & ~<u32>1 if most > 1 else most
        self.block_end = self.position + size
        d.lcyl, d.hcyl = <u8>size, <u8>(size >> 8)
        d.nsector = (d.nsector & ~<u32>7) | REASON_DATA
        self.phase = HOST_READS
        d.status = DRDY | DSC | DRQ
        self.raise_irq()

    cdef void packet_moved(self) noexcept nogil:
        if self.phase == HOST_READS and self.position < self.filled:
            self.packet_offer()
        elif self.phase == HOST_READS and self.left:
            self.packet_fetch()
        elif self.phase == HOST_READS or self.listing:
            self.packet_end(DRDY | DSC, 0)
        else:
            self.drive().status = DRDY | DSC | BSY
            self.run_packet()

    cdef void packet_end(self, u8 status, u8 error) noexcept nogil:
        cdef Drive *d = self.drive()
        d.status, d.error = status, error
        d.nsector = (d.nsector & ~<u32>7) | REASON_OVER
        self.packet = self.packet_dma = self.listing = self.dma_waiting = False
        self.phase = IDLE
        self.raise_irq()

    # --- commands -----------------------------------------------------------------------------------------

    cdef void command(self, u8 code) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u64 last
        if not d.present and not (code == DEVICE_DIAGNOSTIC and (self.drives[0].present or self.drives[1].present)):
            return
        if d.status & (BSY | DRQ) or block_settling(self.backend[self.unit]):
            return
        self.lower_irq()
        self.lba48 = False
        d.status = DRDY | DSC
        d.error = 0
        if self.packets[self.unit] != NULL and self.packet_command(code):
            return
        if code == IDENTIFY_DEVICE:
            memcpy(self.buffer, self.identify[self.unit], 512)
            self.buffer[59 * 2] = d.mult
            self.buffer[59 * 2 + 1] = 1 if d.mult else 0
            self.buffer[63 * 2 + 1] = d.mdma
            self.buffer[88 * 2 + 1] = d.udma
            self.buffer[54 * 2], self.buffer[54 * 2 + 1] = d.cylinders & 0xFF, d.cylinders >> 8
            self.buffer[55 * 2], self.buffer[56 * 2] = d.heads & 0xFF, d.sectors & 0xFF
            if not d.write_cache:
                self.buffer[85 * 2] &= ~0x20
            self.left, self.block, self.filled, self.position, self.media = 0, 1, 512, 0, False
            self.offer()
        elif code in (READ_SECTORS, READ_SECTORS_RETRY):
            self.start_pio(False, 1)
        elif code == READ_SECTORS_EXT:
            self.lba48 = True
            self.start_pio(False, 1)
        elif code == READ_MULTIPLE:
            self.start_pio(False, d.mult)
        elif code == READ_MULTIPLE_EXT:
            self.lba48 = True
            self.start_pio(False, d.mult)
        elif code in (WRITE_SECTORS, WRITE_SECTORS_RETRY, WRITE_VERIFY):
            self.start_pio(True, 1)
        elif code == WRITE_SECTORS_EXT:
            self.lba48 = True
            self.start_pio(True, 1)
        elif code == WRITE_MULTIPLE:
            self.start_pio(True, d.mult)
        elif code == WRITE_MULTIPLE_EXT:
            self.lba48 = True
            self.start_pio(True, d.mult)
        elif code in (READ_DMA, READ_DMA_RETRY):
            self.start_dma(BLOCK_READ)
        elif code == READ_DMA_EXT:
            self.lba48 = True
            self.start_dma(BLOCK_READ)
        elif code in (WRITE_DMA, WRITE_DMA_RETRY):
            self.start_dma(BLOCK_WRITE)
        elif code == WRITE_DMA_EXT:
            self.lba48 = True
            self.start_dma(BLOCK_WRITE)
        elif code == DATA_SET_MANAGEMENT:                       # only TRIM exists
            if d.feature & 1 and self.identify[self.unit][169 * 2] & 1:
                self.lba48 = True
                self.start_dma(BLOCK_DISCARD)
            else:
                self.abort()
        elif code in (READ_VERIFY, READ_VERIFY_RETRY, READ_VERIFY_EXT):
            self.lba48 = code == READ_VERIFY_EXT
            last = self.address()
            if self.check_range(last, self.count()):
                self.finish()
            else:
                self.abort()
        elif code in (FLUSH_CACHE, FLUSH_CACHE_EXT):
            self.start_flush()
        elif code == SET_MULTIPLE_MODE:
            if d.nsector > MOST_MULTIPLE or d.nsector & (d.nsector - 1 if d.nsector else 0):
                self.abort()
            else:
                d.mult = d.nsector
                self.finish()
        elif code == DEVICE_PARAMETERS:
            d.heads = (d.select & 15) + 1
            d.sectors = d.nsector if d.nsector else 1
            last = d.total // (<u64>d.heads * d.sectors)
            d.cylinders = <u16>(last if last < 16383 else 16383)
            self.finish()
        elif code in (READ_NATIVE_MAX, READ_NATIVE_MAX_EXT):
            self.lba48 = code == READ_NATIVE_MAX_EXT
            last = d.total - 1
            if not self.lba48 and last > 0xFFFFFFF:
                last = 0xFFFFFFF
            d.select |= LBA
            self.set_address(last)
            self.finish()
        elif code & 0xF0 == RECALIBRATE or code & 0xF0 == SEEK:
            self.finish()
        elif code == DEVICE_DIAGNOSTIC:
            self.unit = 0
            self.drives[0].select = self.drives[1].select = 0xA0
            self.signature(0)
            self.signature(1)
            self.drives[0].error = self.drives[1].error = 1
            if self.drives[0].present:
                self.drives[0].status = DRDY | DSC if self.packets[0] == NULL else 0
            if self.drives[1].present:
                self.drives[1].status = DRDY | DSC if self.packets[1] == NULL else 0
            self.phase = IDLE
            self.raise_irq()
        elif code == SET_FEATURES:
            self.set_features()
        elif code == SMART:
            self.smart()
        elif code in (CHECK_POWER_MODE, CHECK_POWER_MODE_OLD):  # active
            d.nsector = 0xFF
            self.finish()
        elif code in (STANDBY_IMMEDIATE, IDLE_IMMEDIATE, STANDBY, IDLE_COMMAND, SLEEP, STANDBY_IMMEDIATE_OLD,
                      IDLE_IMMEDIATE_OLD, STANDBY_OLD, IDLE_OLD, SLEEP_OLD):
            self.finish()                                      # nothing spins
            d.status = DRDY
        else:
            self.abort()

    cdef void smart(self) noexcept nogil:
        """What the disk tells of its health; the register of features says what is wanted."""
        cdef Drive *d = self.drive()
        cdef Health *health = &self.healths[self.unit]
        cdef u8 *kinds = self.tested[self.unit]
        cdef u8 what = d.feature
        if self.packets[self.unit] != NULL or d.lcyl != 0x4F or d.hcyl != 0xC2 or not health.enabled and what != 0xD8:
            self.abort()
            return
        if what == 0xD8 or what == 0xD9:
            health.enabled = what == 0xD8
        elif what == 0xD2 and d.sector in (0, 0xF1):
            health.saves = d.sector == 0xF1
        elif what == 0xD4:
            if not smart_test(health, kinds, d.sector):
                self.abort()
                return
        elif what == 0xD0 or what == 0xD1 or what == 0xD5 and d.sector in (1, 6):
            if what == 0xD0:
                smart_values(health, self.buffer)
            elif what == 0xD1:
                smart_thresholds(self.buffer)
            elif d.sector == 1:
                smart_errors(self.buffer)
            else:
                smart_tests(health, kinds, self.buffer)
            self.left, self.media, self.block = 0, False, 1
            self.position, self.filled = 0, 512
            self.offer()
            return
        elif what != 0xDA:                                      # its status: as good as the key that was given
            self.abort()
            return
        self.finish()

    cdef void set_features(self) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef u8 mode = d.nsector & 7
        if d.feature == TRANSFER_MODE:
            if d.nsector >> 3 in (0, 1):
                d.mdma = d.udma = 0
            elif d.nsector >> 3 == 4 and mode <= 2:
                d.mdma, d.udma = 1 << mode, 0
            elif d.nsector >> 3 == 8 and mode <= 5:
                d.mdma, d.udma = 0, 1 << mode
            else:
                self.abort()
                return
            self.finish()
        elif d.feature == ENABLE_WRITE_CACHE:
            d.write_cache = True
            self.finish()
        elif d.feature == DISABLE_WRITE_CACHE:
            d.write_cache = False
            self.start_flush()
        elif d.feature in (0xCC, 0x66, 0xAA, 0x55, 0x05, 0x85, 0x69, 0x67, 0x96, 0x9A, 0x42, 0xC2):
            self.finish()                                      # look-ahead, power-on defaults, APM, AAM
        else:
            self.abort()

    # --- bus master -----------------------------------------------------------------------------------------

    cdef void start_dma(self, int op) noexcept nogil:
        cdef Drive *d = self.drive()
        self.lba = self.address()
        self.left = self.count()
        if self.left * 512 > BUFFER if op == BLOCK_DISCARD else not self.check_range(self.lba, self.left):
            self.abort()
            return
        d.status = DRDY | DSC | BSY | DRQ
        self.phase = DMA
        self.dma_op = op
        self.dma_waiting = True
        if self.bm_status & BM_ACTIVE:
            self.run_dma()

    cdef void run_dma(self) noexcept nogil:
        """Both sides are ready: walk the descriptor table and go."""
        cdef u8 entry[8]
        cdef u32 at = self.bm_table, address, size, flags
        cdef u32 wanted = self.filled if self.packet and not self.media else self.left * 512
        cdef bint bad = False, last = False
        self.dma_waiting = False
        self.scatter.begin(self.dma_op == BLOCK_READ)
        while self.scatter.total < wanted and not last and not bad:
            if self.dma.read_into(at, entry, 8) != 0:
                bad = True
                break
            memcpy(&address, entry, 4)
            memcpy(&flags, entry + 4, 4)
            size = flags & 0xFFFE
            if size == 0:
                size = PRD_LARGEST
            last = flags >> 31
            at += 8
            if at - self.bm_table > PRD_TABLE:
                break
            if size > wanted - self.scatter.total:
                size = wanted - <u32>self.scatter.total
            bad = self.scatter.add(address & ~<u32>1, size) != 0
        if bad or self.scatter.total < wanted:
            self.scatter.finish(0)
            self.bm_status &= ~BM_ACTIVE
            if bad:
                self.bm_status |= BM_ERROR
            self.abort()
            return
        if self.packet and not self.media:
            self.scatter.put(0, self.buffer, wanted)
            self.scatter.finish(wanted)
            self.bm_status &= ~BM_ACTIVE
            self.packet_end(DRDY | DSC, 0)
            return
        if self.dma_op == BLOCK_DISCARD:
            self.scatter.get(0, self.buffer, wanted)
            self.scatter.finish(0)
            self.phase, self.position, self.filled = TRIMMING, 0, wanted
            self.trim()
            return
        self.submit(self.dma_op, self.lba, 0, DMA)

    # --- registers --------------------------------------------------------------------------------------

    cdef u64 read_register(self, u64 offset) noexcept nogil:
        cdef Drive *d = self.drive()
        cdef bint hob = (self.control & HOB) != 0
        cdef bint empty = not self.drives[0].present and not self.drives[1].present
        if offset == STATUS_COMMAND or offset == ALTERNATE_STATUS:
            if empty or not d.present:
                return 0
            if offset == STATUS_COMMAND:
                self.lower_irq()
            if block_settling(self.backend[self.unit]):
                return BSY                                     # what a reset has interrupted is not over yet
            return d.status
        if empty:
            return 0
        if offset == ERROR_FEATURES:
            if not d.present:
                return 0
            return d.hob_feature if hob else d.error
        if offset == SECTOR_COUNT:
            return d.hob_nsector if hob else d.nsector
        if offset == SECTOR_NUMBER:
            return d.hob_sector if hob else d.sector
        if offset == CYLINDER_LOW:
            return d.hob_lcyl if hob else d.lcyl
        if offset == CYLINDER_HIGH:
            return d.hob_hcyl if hob else d.hcyl
        return d.select

    cdef void write_register(self, u64 offset, u8 value) noexcept nogil:
        cdef u32 n
        cdef Drive *d
        self.control &= ~HOB
        if offset == STATUS_COMMAND:
            self.command(value)
            return
        if offset == DEVICE_HEAD:
            for n in range(2):
                self.drives[n].select = value | 0xA0
            if not (self.drives[self.unit].status & (BSY | DRQ)):
                self.unit = 1 if value & SLAVE else 0
            return
        for n in range(2):
            d = &self.drives[n]
            if offset == ERROR_FEATURES:
                d.hob_feature, d.feature = d.feature, value
            elif offset == SECTOR_COUNT:
                d.hob_nsector, d.nsector = d.nsector, value
            elif offset == SECTOR_NUMBER:
                d.hob_sector, d.sector = d.sector, value
            elif offset == CYLINDER_LOW:
                d.hob_lcyl, d.lcyl = d.lcyl, value
            elif offset == CYLINDER_HIGH:
                d.hob_hcyl, d.hcyl = d.hcyl, value

    cdef void write_control(self, u8 value) noexcept nogil:
        cdef u8 old = self.control
        cdef u32 n
        self.control = value
        if value & SRST and not old & SRST:
            self.stop_io()
            for n in range(2):
                self.drives[n].status = BSY | DSC
                self.drives[n].error = 1
        elif old & SRST and not value & SRST:
            self.soft_reset(True)
        self.drive_irq()

    # --- state ------------------------------------------------------------------------------------------

    @property
    def held(self):
        """What the buffer has of the transfer in progress."""
        return bytes(self.buffer[:self.holding(self.phase, self.filled, self.block_end)])

    @held.setter
    def held(self, bytes data):
        memcpy(self.buffer, <const u8 *>data, len(data))

    cdef u32 holding(self, int phase, u32 filled, u32 block_end) noexcept nogil:
        return filled if phase == HOST_READS else block_end if phase == HOST_WRITES else 0

    def check_state(self, values):
        """What the transfer in progress says of itself leads to no access outside the buffer or the disk."""
        if self.request != NULL:
            raise StateError("ATA: a request of this machine is under way")
        for n, saved in enumerate(values["drives"]):
            if saved["total"] != self.drives[n].total or saved["present"] != bool(self.drives[n].present):
                raise StateError("ATA: the disks are not those of the saved machine")
        phase, unit, lba, left = values["phase"], values["unit"], values["lba"], values["left"]
        position, block_end, filled = values["position"], values["block_end"], values["filled"]
        if values["packet"]:
            self.check_packet(values)
            return
        if block_end % 512 or filled % 512 or position > block_end:
            raise StateError("ATA: the buffer's ends are none of sectors")
        if len(values["held"]) != self.holding(phase, filled, block_end):
            raise StateError("ATA: the buffer is not whole")
        if phase == IDLE and not values["dma_waiting"]:
            return
        total = self.drives[<u32>unit].total
        fits = lba <= total and left <= total - lba
        if not self.drives[<u32>unit].present or values["dma_waiting"] != (phase == DMA):
            raise StateError("ATA: a transfer without its drive or its bus master")
        if phase == DMA and values["dma_op"] == BLOCK_DISCARD:
            return
        if phase == HOST_READS:
            good = position < block_end <= filled and (fits and filled // 512 <= lba if values["media"] else not left)
        elif phase == HOST_WRITES:
            good = position < block_end and fits and values["media"] and block_end // 512 <= left
        else:
            good = fits and left
        if not good:
            raise StateError("ATA: a transfer outside its buffer or the disk")

    def check_packet(self, values):
        """The same of PACKET."""
        phase, unit, position = values["phase"], values["unit"], values["position"]
        block_end, filled = values["block_end"], values["filled"]
        packets = self.packet_units[unit]
        if packets is None or len(values["held"]) != self.holding(phase, filled, block_end):
            raise StateError("ATA: a packet for no packet device, or its buffer is not whole")
        fits = (values["lba"] + values["left"]) * 512 <= packets.backend.size and not values["lba"] % 4 | values["left"] % 4
        if phase == HOST_READS:
            good = position < block_end <= filled
        elif phase == HOST_WRITES:
            good = position < block_end <= (1024 if values["listing"] else PACKET_SIZE)
        else:
            good = phase == DMA and values["dma_waiting"] and values["packet_dma"] and values["dma_op"] == BLOCK_READ
            good = good and bool(values["left"] if values["media"] else filled) and not values["listing"]
        if not fits or not good or values["dma_waiting"] != (phase == DMA):
            raise StateError("ATA: a packet's transfer outside its buffer or the medium")

    def settle(self):
        self.drive_irq()


cdef class CommandBlock(IoRegion):
    """Ports 0 to 7 of a channel; the data port takes words and dwords, the others bytes, two in a word."""

    cdef AtaChannel channel

    def __init__(self, AtaChannel channel):
        self.channel = channel
        self.widest = ANYHOW

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i
        if offset == DATA:
            self.channel.move(<u8 *>&value, size, False)
            return value
        if size > 2:
            return <u64>-1
        for i in range(size):
            if offset + i <= STATUS_COMMAND:
                value |= self.channel.read_register(offset + i) << (8 * i)
            else:
                value |= 0xFF << (8 * i)
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i
        if offset == DATA:
            self.channel.move(<u8 *>&value, size, True)
            return 0
        if size > 2:
            return 0
        for i in range(size):
            if offset + i <= STATUS_COMMAND:
                self.channel.write_register(offset + i, (value >> (8 * i)) & 0xFF)
        return 0

    cdef u32 read_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef u32 total = size * count, done = 0, n
        if offset:
            return IoRegion.read_string(self, offset, size, data, count)
        while done < total:
            n = self.channel.move(data + done, total - done, False)
            if n == 0:
                memset(data + done, 0, total - done)
                break
            done += n
        return 0

    cdef u32 write_string(self, u64 offset, u32 size, u8 *data, u32 count) noexcept nogil:
        cdef u32 total = size * count, done = 0, n
        if offset:
            return IoRegion.write_string(self, offset, size, data, count)
        while done < total:
            n = self.channel.move(data + done, total - done, True)
            if n == 0:
                break
            done += n
        return 0


cdef class ControlBlock(IoRegion):
    """Alternate status and device control."""

    cdef AtaChannel channel

    def __init__(self, AtaChannel channel):
        self.channel = channel
        self.max_access, self.widest = 1, 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.channel.read_register(ALTERNATE_STATUS)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        self.channel.write_control(value & 0xFF)
        return 0


cdef class BusMaster(IoRegion):
    """16 ports: BMIC, BMIS and BMIDTP of two channels."""

    cdef list channels
    cdef void *by_index[2]

    def __init__(self, AtaChannel primary, AtaChannel secondary):
        self.channels = [primary, secondary]
        self.by_index[0] = <void *>primary
        self.by_index[1] = <void *>secondary
        self.max_access = 4

    cdef u32 wide(self, u64 offset, u32 left) noexcept nogil:
        """Bytes of the aligned piece of an access that begins here. BMIC and BMIS are bytes: as in qemu-kvm a wider piece
        reads all ones there and changes nothing.
        """
        cdef u32 piece = 1
        if offset & 4:
            return 1
        while 2 * piece <= left and 2 * piece <= 4 - (offset & 3) and offset & (2 * piece - 1) == 0:
            piece *= 2
        return piece

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = 0
        cdef u32 i = 0, piece
        while i < size:
            piece = self.wide(offset + i, size - i)
            if piece == 1:
                value |= <u64>read_bm(<AtaChannel>self.by_index[(offset + i) >> 3 & 1], (offset + i) & 7) << (8 * i)
            else:
                value |= ((<u64>1 << 8 * piece) - 1) << (8 * i)
            i += piece
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i = 0, piece
        while i < size:
            piece = self.wide(offset + i, size - i)
            if piece == 1:
                write_bm(<AtaChannel>self.by_index[(offset + i) >> 3 & 1], (offset + i) & 7, (value >> (8 * i)) & 0xFF)
            i += piece
        return 0


cdef u8 read_bm(AtaChannel channel, u64 offset) noexcept nogil:
    if offset == BMIC:
        return channel.bm_command
    if offset == BMIS:
        return channel.bm_status
    if offset >= BMIDTP:
        return (channel.bm_table >> (8 * (offset - BMIDTP))) & 0xFF
    return 0xFF


cdef void write_bm(AtaChannel channel, u64 offset, u8 value) noexcept nogil:
    cdef bint was = channel.bm_command & BM_START
    if offset == BMIC:
        channel.bm_command = value & (BM_START | BM_TO_MEMORY)
        if value & BM_START and not was:
            channel.bm_status |= BM_ACTIVE
            if channel.dma_waiting:
                channel.run_dma()
        elif was and not value & BM_START:
            if channel.phase == DMA and channel.request != NULL:
                # Stopping in mid-transfer: what is under way completes, as the chip lets its FIFO run out.
                pass
            channel.bm_status &= ~BM_ACTIVE
    elif offset == BMIS:
        channel.bm_status = (value & 0x60) | (channel.bm_status & BM_ACTIVE) | (channel.bm_status & ~value & 0x06)
    elif offset >= BMIDTP:
        channel.bm_table &= ~(<u32>0xFF << (8 * (offset - BMIDTP)))
        channel.bm_table |= <u32>value << (8 * (offset - BMIDTP))
        channel.bm_table &= ~<u32>3


