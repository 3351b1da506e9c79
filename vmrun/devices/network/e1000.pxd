# The chip of e1000. The documentation is in e1000.pyx.
from accel.api cimport u8, u16, u32, u64, i64
from vmrun.core.eeprom93 cimport Eeprom93
from vmrun.devices.network.intel_mac cimport IntelMac
from vmrun.devices.network.intel_tx cimport Transmitter
from vmrun.devices.network.nic cimport NicTimer


cdef class E1000(IntelMac):
    cdef readonly Eeprom93 eeprom
    cdef readonly Transmitter tx
    cdef readonly NicTimer mitigation_timer, receive_timer
    cdef public bint mitigation, extra
    cdef public u32 phy_id2
    cdef public bint delayed_tx
    cdef public u32 eecd
    cdef bint usable(self, u32 n) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void mdic(self, u32 value) noexcept nogil
    cdef void transmit_ring(self) noexcept nogil
    cdef bint has_room(self, u32 octets) noexcept nogil
    cdef void overrun(self) noexcept nogil
