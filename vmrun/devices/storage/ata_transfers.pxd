# Data of an ATA channel. The documentation is in ata_transfers.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma, Scatter
from vmrun.backends.protocols cimport BlockRequest
from vmrun.devices.storage.smart cimport Health

cdef enum:
    BUFFER = 131072                 # 256 sectors
    PIECES = 1024                   # of guest memory in one command

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
    # of packet devices
    PACKET_SIZE = 12
    # NSECTOR as their interrupt reason
    REASON_PACKET = 1               # C/D: the host gives the packet
    REASON_DATA = 2                 # I/O: data for the host
    REASON_OVER = 3
    PACKET_LCYL = 0x14              # the signature
    PACKET_HCYL = 0xEB
    MOST_MULTIPLE = 16

ctypedef struct Drive:
    bint present
    u8 feature, error, nsector, sector, lcyl, hcyl, select, status
    u8 hob_feature, hob_nsector, hob_sector, hob_lcyl, hob_hcyl
    u8 mult                         # sectors per block of READ/WRITE MULTIPLE, 0: disabled
    u8 udma, mdma, sdma             # selected transfer modes
    bint write_cache
    u16 cylinders, heads, sectors   # the current translation
    u64 total                       # sectors of 512 bytes


cdef class AtaTransfers:
    cdef readonly IrqLine irq
    cdef public Drive drives[2]
    cdef u8 identify[2][512]
    cdef readonly list packet_units # PacketUnit of each unit that is a packet device, or None
    cdef void *packets[2]
    cdef readonly list backends
    cdef void *backend[2]
    cdef BlockRequest *request      # the one under way: a channel does one command at a time
    cdef void *requested            # the back end it went to
    cdef Dma dma
    cdef Health healths[2]
    cdef u8 tested[2][21]           # kinds of self-tests, the latest last
    cdef public u8 control          # device control: SRST, nIEN
    cdef public u8 unit
    cdef public bint pending
    # the transfer in progress
    cdef u8 *buffer
    cdef public u32 position, block_end    # bytes of the buffer the host has moved, and where this DRQ block ends
    cdef public u32 filled          # bytes of the buffer that are valid (reads)
    cdef public u32 left            # sectors still to do after what the buffer holds
    cdef public u32 block           # sectors per DRQ block
    cdef public u64 lba
    cdef public int phase
    cdef public bint packet         # PACKET is under way
    cdef public bint packet_dma     # ... and its data goes by bus master
    cdef public bint listing        # ... and the host gives a parameter list
    cdef public u32 limit           # ... and the bytes that a DRQ block may have
    cdef public bint lba48
    cdef public bint media          # the buffer holds sectors: the task file follows them
    # bus master
    cdef public u8 bm_command, bm_status
    cdef public u32 bm_table
    cdef public bint dma_waiting
    cdef bint table_left            # the bus master's table goes on behind the transfer that is under way
    cdef public int dma_op
    cdef Scatter scatter            # guest memory, until a request takes it
    cdef Drive *drive(self) noexcept nogil
    cdef void raise_irq(self) noexcept nogil
    cdef void lower_irq(self) noexcept nogil
    cdef void drive_irq(self) noexcept nogil
    cdef void signature(self, u32 n, bint reset) noexcept nogil
    cdef void soft_reset(self, bint software) noexcept nogil
    cdef void stop_io(self) noexcept nogil
    cdef void abort(self) noexcept nogil
    cdef void fail(self, u8 error) noexcept nogil
    cdef void finish(self) noexcept nogil
    cdef void dma_over(self) noexcept nogil
    cdef u64 address(self) noexcept nogil
    cdef u32 count(self) noexcept nogil
    cdef void set_address(self, u64 lba) noexcept nogil
    cdef bint check_range(self, u64 lba, u32 count) noexcept nogil
    cdef void trim(self) noexcept nogil
    cdef void start_pio(self, bint write, u32 block) noexcept nogil
    cdef void fetch(self) noexcept nogil
    cdef void offer(self) noexcept nogil
    cdef void store(self) noexcept nogil
    cdef void start_flush(self) noexcept nogil
    cdef void submit(self, int op, u64 lba, u32 sectors, u32 phase) noexcept nogil
    cdef void io_done(self) noexcept nogil
    cdef void block_moved(self) noexcept nogil
    cdef void start_dma(self, int op) noexcept nogil
    cdef void run_dma(self) noexcept nogil
    cdef void start_packet(self) noexcept nogil
    cdef void run_packet(self) noexcept nogil
    cdef void packet_fetch(self) noexcept nogil
    cdef void packet_read(self, int error) noexcept nogil
    cdef void packet_offer(self) noexcept nogil
    cdef void packet_moved(self) noexcept nogil
    cdef void packet_end(self, u8 status, u8 error) noexcept nogil
    cdef u32 move(self, u8 *data, u32 size, bint out) noexcept nogil
