# The chip of ne2k_pci and ne2k_isa. The documentation is in ne2000.pyx.
from accel.api cimport IrqLine, i64, u8, u32, u64
from accel.clock cimport Clock
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    MEMORY = 0xC000             # the PROM at 0, 32 KiB of buffer from 0x4000 on


cdef class Ne2000(NicChip):
    cdef u8 memory[MEMORY]
    cdef u8 par[6]
    cdef u8 mar[8]
    cdef readonly IrqLine irq
    cdef public bytes address
    cdef readonly Clock clock
    cdef readonly NicTimer timer
    cdef public u32 cr, pstart, pstop, bnry, tpsr, tsr, tbcr, rsar, rbcr, rcr, rsr, dcr, isr, imr, curr
    cdef public bint rtl8029
    cdef void soft_reset(self) noexcept nogil
    cdef void prom(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef void interrupt(self, u32 bits) noexcept nogil
    cdef void room_soon(self) noexcept nogil
    cdef void command(self, u32 value) noexcept nogil
    cdef u32 read_register(self, u32 at) noexcept nogil
    cdef void write_register(self, u32 at, u32 value) noexcept nogil
    cdef u64 take(self, u32 count) noexcept nogil
    cdef void store(self, u32 count, u64 value) noexcept nogil
    cdef void moved(self, u32 count) noexcept nogil
    cdef bint reachable(self, u32 at) noexcept nogil
    cdef bint full(self) noexcept nogil
    cdef bint wanted(self, const u8 *frame) noexcept nogil
