from accel.api cimport IoRegion, IrqLine, u8, u16, u32, u64
from accel.dma cimport Dma, Scatter
from vmrun.backends.protocols cimport BlockBackend, BlockRequest
from vmrun.devices.storage.smart cimport Health

cdef enum:
    BUFFER = 131072                 # 256 sectors
    PIECES = 1024                   # of guest memory in one command

ctypedef struct Drive:
    bint present
    u8 feature, error, nsector, sector, lcyl, hcyl, select, status
    u8 hob_feature, hob_nsector, hob_sector, hob_lcyl, hob_hcyl
    u8 mult                         # sectors per block of READ/WRITE MULTIPLE, 0: disabled
    u8 udma, mdma                   # selected transfer modes
    bint write_cache
    u16 cylinders, heads, sectors   # the current translation
    u64 total                       # sectors of 512 bytes


cdef class AtaChannel:
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
    cdef public int dma_op
    cdef Scatter scatter            # guest memory, until a request takes it
    cdef Drive *drive(self) noexcept nogil
    cdef void raise_irq(self) noexcept nogil
    cdef void lower_irq(self) noexcept nogil
    cdef void drive_irq(self) noexcept nogil
    cdef void signature(self, u32 n) noexcept nogil
    cdef void soft_reset(self, bint software) noexcept nogil
    cdef void stop_io(self) noexcept nogil
    cdef void abort(self) noexcept nogil
    cdef void fail(self, u8 error) noexcept nogil
    cdef void finish(self) noexcept nogil
    cdef void command(self, u8 code) noexcept nogil
    cdef u64 address(self) noexcept nogil
    cdef u32 count(self) noexcept nogil
    cdef void set_address(self, u64 lba) noexcept nogil
    cdef bint check_range(self, u64 lba, u32 count) noexcept nogil
    cdef void smart(self) noexcept nogil
    cdef void trim(self) noexcept nogil
    cdef void start_pio(self, bint write, u32 block) noexcept nogil
    cdef void fetch(self) noexcept nogil
    cdef void offer(self) noexcept nogil
    cdef void store(self) noexcept nogil
    cdef void start_flush(self) noexcept nogil
    cdef void submit(self, int op, u64 lba, u32 sectors, u32 phase) noexcept nogil
    cdef void io_done(self) noexcept nogil
    cdef void block_moved(self) noexcept nogil
    cdef void set_features(self) noexcept nogil
    cdef void start_dma(self, int op) noexcept nogil
    cdef void run_dma(self) noexcept nogil
    cdef void start_packet(self) noexcept nogil
    cdef void run_packet(self) noexcept nogil
    cdef void packet_fetch(self) noexcept nogil
    cdef void packet_read(self, int error) noexcept nogil
    cdef void packet_offer(self) noexcept nogil
    cdef void packet_moved(self) noexcept nogil
    cdef void packet_end(self, u8 status, u8 error) noexcept nogil
    cdef bint packet_command(self, u8 code) noexcept nogil
    cdef u32 move(self, u8 *data, u32 size, bint out) noexcept nogil
    cdef u32 holding(self, int phase, u32 filled, u32 block_end) noexcept nogil
    cdef u64 read_register(self, u64 offset) noexcept nogil
    cdef void write_register(self, u64 offset, u8 value) noexcept nogil
    cdef void write_control(self, u8 value) noexcept nogil
