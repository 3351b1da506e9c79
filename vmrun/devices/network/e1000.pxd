# The chip of e1000. The documentation is in e1000.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock, Timer
from accel.dma cimport Dma
from vmrun.core.eeprom93 cimport Eeprom93
from vmrun.devices.network.intel_tx cimport Transmitter
from vmrun.devices.network.nic cimport NicChip, NicTimer


cdef class E1000(NicChip):
    cdef u32 mac[0x8000]
    cdef u16 phy_cells[32]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly Eeprom93 eeprom
    cdef readonly Transmitter tx
    cdef readonly NicTimer autoneg_timer, mitigation_timer, receive_timer, transmit_timer
    cdef Clock clock
    cdef public bint autonegotiation, mitigation, extra, tag_type_at_reset
    cdef public bytes address
    cdef public u32 phy_id2
    cdef public bint raised, delayed_tx
    cdef public u32 eecd
    cdef bint usable(self, u32 n) noexcept nogil
    cdef void cause(self, u32 bits) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void link_registers(self, bint up) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef bint negotiates(self) noexcept nogil
    cdef void count(self, u32 n) noexcept nogil
    cdef void count_octets(self, u32 low, u32 octets) noexcept nogil
    cdef void count_size(self, u32 first, u32 octets) noexcept nogil
    cdef void mdic(self, u32 value) noexcept nogil
    cdef void transmit_ring(self) noexcept nogil
    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil
    cdef bint wanted(self, const u8 *frame) noexcept nogil
    cdef u32 buffer_size(self) noexcept nogil
    cdef bint has_room(self, u32 octets) noexcept nogil
    cdef void overrun(self) noexcept nogil
