# The chip of pcnet. The documentation is in pcnet_chip.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    MOST = 4096                 # bytes of a frame that descriptors build
    LONGEST_RING = 512          # descriptors that an initialization block can ask for

ctypedef struct Descriptor:     # of any software style
    u32 address
    u32 length                  # the ones and BCNT
    u32 status                  # OWN and its neighbours
    u32 more                    # RMD: MCNT; TMD: errors, bits 16 and up
    u32 user


cdef class Pcnet(NicChip):
    cdef public u16 csrs[128]
    cdef public u16 bcrs[32]
    cdef u8 aprom[16]
    cdef u8 frame[MOST + 8]
    cdef public i64 frame_size          # -1: no frame has begun
    cdef public u32 left        # descriptors that a turn left over
    cdef public u32 begin       # where the frame's first one lies
    cdef public bint adding     # it gets an FCS
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly NicTimer timer
    cdef readonly Clock clock
    cdef public bytes address
    cdef public u32 rap, rdra, tdra
    cdef public bint raised
    cdef bint transmitting
    cdef u32 loop_test
    cdef void soft_reset(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void poll_later(self) noexcept nogil
    cdef void poll(self) noexcept nogil
    cdef u32 pair(self, u32 n) noexcept nogil
    cdef void set_pair(self, u32 n, u32 value) noexcept nogil
    cdef u32 physical(self, u32 address) noexcept nogil
    cdef u32 stride(self) noexcept nogil
    cdef void load(self, u32 at, Descriptor *found, bint transmit) noexcept nogil
    cdef void store(self, u32 at, Descriptor *what, bint transmit) noexcept nogil
    cdef bint bad(self, u32 at, bint transmit) noexcept nogil
    cdef u32 receive_place(self, i64 back) noexcept nogil
    cdef void look_at_receive(self) noexcept nogil
    cdef bint look_at_transmit(self) noexcept nogil
    cdef void initialize(self) noexcept nogil
    cdef void start(self) noexcept nogil
    cdef void halt(self) noexcept nogil
    cdef void transmit_all(self) noexcept nogil
    cdef void fetch(self, Descriptor *descriptor) noexcept nogil
    cdef u32 read_csr(self, u32 n) noexcept nogil
    cdef void write_csr(self, u32 n, u32 value) noexcept nogil
    cdef u32 read_bcr(self, u32 n) noexcept nogil
    cdef void write_bcr(self, u32 n, u32 value) noexcept nogil
    cdef u32 taken(self, const u8 *frame) noexcept nogil
    cdef u32 fill(self, Descriptor *descriptor, u32 at, u32 done, u32 size) noexcept nogil
