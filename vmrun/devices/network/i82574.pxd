# The chip of e1000e. The documentation is in i82574.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.bus.pci.msi cimport MsiChip, MsixChip
from vmrun.devices.network.intel_tx cimport Transmitter
from vmrun.devices.network.layers cimport Layers
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    PAGES = 8                   # of the PHY's registers
    VECTORS = 5

cdef class I82574(NicChip):
    cdef u32 mac[0x8000]
    cdef u16 phy_cells[PAGES * 32]
    cdef u16 nvm_cells[64]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly Transmitter tx0, tx1
    cdef public MsixChip msix
    cdef public MsiChip msi
    cdef readonly NicTimer autoneg_timer, itr_timer, transmit_timer, eitr_timer
    cdef i64 until[VECTORS]     # no message of a vector before
    cdef u8 station[6]
    cdef Clock clock
    cdef public bint tag_type_at_reset
    cdef public bytes address
    cdef public bint raised
    cdef public u32 fresh, sending
    cdef public u32 ioaddr
    cdef void clear(self) noexcept nogil
    cdef u32 get(self, u32 n) noexcept nogil
    cdef void put(self, u32 n, u32 value) noexcept nogil
    cdef void cause(self, u32 bits) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void messages(self) noexcept nogil
    cdef void link_registers(self, bint up) noexcept nogil
    cdef void negotiate(self) noexcept nogil
    cdef void mdic(self, u32 value) noexcept nogil
    cdef u32 phy_place(self, u32 which) noexcept nogil
    cdef void phy_reset(self) noexcept nogil
    cdef void count(self, u32 n) noexcept nogil
    cdef void count_octets(self, u32 low, u32 octets) noexcept nogil
    cdef void count_size(self, u32 first, u32 octets) noexcept nogil
    cdef void transmit_rings(self) noexcept nogil
    cdef u32 transmit_ring(self, u32 queue) noexcept nogil
    cdef void emitted(self, u8 *frame, u32 size) noexcept nogil
    cdef bint wanted(self, const u8 *frame) noexcept nogil
    cdef u32 descriptor_size(self) noexcept nogil
    cdef u32 capacity(self, u32 *sizes) noexcept nogil
    cdef bint has_room(self, u32 queue, u32 octets) noexcept nogil
    cdef u32 hashed(self, const u8 *frame, Layers *found, u32 *kind) noexcept nogil
    cdef u32 sums(self, const u8 *frame, Layers *found) noexcept nogil
