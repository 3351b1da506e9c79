# The chip of rtl8139. The documentation is in rtl8139.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.core.eeprom93 cimport Eeprom93
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    MOST = 0x10000              # bytes of a frame that descriptors build


cdef class Rtl8139(NicChip):
    cdef u8 frame_room[MOST + 64]
    cdef u8 *frame
    cdef u8 idr[6]
    cdef u8 mar[8]
    cdef u8 station[6]
    cdef public u32 frame_size
    cdef u32 tsd[4]
    cdef u32 tsad[4]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly Eeprom93 eeprom
    cdef readonly NicTimer timer
    cdef readonly Clock clock
    cdef public bytes address
    cdef public u32 rbstart, rx_size, capr, cbr, tcr, rcr, mpc, timer_int, rds_low, rds_high
    cdef public u32 command, imr, isr, cr9346, config0, config1, config3, config4, config5, mulint
    cdef public u32 bmcr, bmsr, anar, anlpar, aner, cscr, cpcr, tx_threshold
    cdef public u32 tx_now, rx_descriptor, tx_descriptor
    cdef public bint clocked, cplus, waiting
    cdef public i64 started, expires
    cdef u64 tally[13]
    cdef void soft_reset(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void interrupt(self, u32 bits) noexcept nogil
    cdef void look_at_timer(self) noexcept nogil
    cdef u64 ticks(self, i64 ns) noexcept nogil
    cdef u32 read_byte(self, u32 at) noexcept nogil
    cdef u32 read_word(self, u32 at) noexcept nogil
    cdef u32 read_long(self, u32 at) noexcept nogil
    cdef void write_byte(self, u32 at, u32 value) noexcept nogil
    cdef void write_word(self, u32 at, u32 value) noexcept nogil
    cdef void write_long(self, u32 at, u32 value) noexcept nogil
    cdef u32 part(self, u32 *registers, u32 at, u32 size) noexcept nogil
    cdef u32 summary(self) noexcept nogil
    cdef void dump_tally(self) noexcept nogil
    cdef void transmit_one(self) noexcept nogil
    cdef bint transmit_descriptor(self) noexcept nogil
    cdef void offload(self, u32 word0, const u8 *tag) noexcept nogil
    cdef void segments(self, u32 header, u32 mss, const u8 *tag) noexcept nogil
    cdef void sum_transport(self, u32 header, u32 protocol, u32 length) noexcept nogil
    cdef void send(self, u32 size, const u8 *tag) noexcept nogil
    cdef bint wanted(self, const u8 *frame, u32 *status) noexcept nogil
    cdef void receive_descriptor(self, const u8 *frame, u32 size, u32 whole, u32 status) noexcept nogil
    cdef void receive_ring(self, const u8 *frame, u32 size, u32 status) noexcept nogil
    cdef void put(self, const u8 *data, u32 size) noexcept nogil
    cdef void missed(self) noexcept nogil
