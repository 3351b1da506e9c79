# The chip of e1000e. The documentation is in i82574.pyx.
from accel.api cimport u8, u16, u32, u64, i64
from vmrun.bus.pci.msi cimport MsiChip, MsixChip
from vmrun.devices.network.intel_mac cimport IntelMac
from vmrun.devices.network.intel_tx cimport Transmitter
from vmrun.devices.network.layers cimport Layers
from vmrun.devices.network.nic cimport NicTimer

cdef enum:
    VECTORS = 5

cdef class I82574(IntelMac):
    cdef public u16 nvm[64]
    cdef readonly Transmitter tx0, tx1
    cdef public MsixChip msix
    cdef public MsiChip msi
    cdef readonly NicTimer itr_timer, eitr_timer
    cdef i64 until[VECTORS]     # no message of a vector before
    cdef u8 station[6]
    cdef public u32 fresh, sending
    cdef public u32 ioaddr
    cdef void clear(self) noexcept nogil
    cdef u32 get(self, u32 n) noexcept nogil
    cdef void put(self, u32 n, u32 value) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void messages(self) noexcept nogil
    cdef void mdic(self, u32 value) noexcept nogil
    cdef u32 phy_place(self, u32 which) noexcept nogil
    cdef void phy_reset(self) noexcept nogil
    cdef void settle_speed(self) noexcept nogil
    cdef void transmit_rings(self) noexcept nogil
    cdef u32 transmit_ring(self, u32 queue) noexcept nogil
    cdef u32 descriptor_size(self) noexcept nogil
    cdef u32 capacity(self, u32 *sizes) noexcept nogil
    cdef bint has_room(self, u32 queue, u32 octets) noexcept nogil
    cdef u32 hashed(self, const u8 *frame, Layers *found, u32 *kind) noexcept nogil
    cdef u32 sums(self, const u8 *frame, Layers *found) noexcept nogil
