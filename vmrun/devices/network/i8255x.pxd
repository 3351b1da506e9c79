# The chip of the eepro100 family. The documentation is in i8255x.pyx.
from accel.api cimport IrqLine, u8, u16, u32, u64, i64
from accel.clock cimport Clock
from accel.dma cimport Dma
from vmrun.core.eeprom93 cimport Eeprom93
from vmrun.devices.network.nic cimport NicChip, NicTimer

cdef enum:
    MOST = 0x4000               # bytes of a frame: a count has 14 bits


cdef class I8255x(NicChip):
    cdef u8 frame[MOST + 4]
    cdef u8 cells[64]
    cdef u8 config[22]
    cdef u8 station[6]
    cdef u8 hash[8]
    cdef public u16 phy[32]
    cdef public u32 counts[20]
    cdef readonly Dma dma
    cdef readonly IrqLine irq
    cdef readonly Eeprom93 eeprom
    cdef readonly NicTimer timer, last_timer
    cdef public bint last_may_come     # the time of a list's last frame is over
    cdef Clock clock
    cdef public bytes address
    cdef public bint extended, tco
    cdef public u32 cu, ru, status, mask
    cdef public u32 cu_base, cu_offset, ru_base, ru_offset, counters
    cdef void update(self) noexcept nogil
    cdef void interrupt(self, u32 bits) noexcept nogil
    cdef void halt(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef void port_command(self, u32 value) noexcept nogil
    cdef void mdi(self) noexcept nogil
    cdef u32 byte_at(self, u32 at) noexcept nogil
    cdef void command(self, u32 value) noexcept nogil
    cdef void dump_counters(self, bint reset) noexcept nogil
    cdef void run(self) noexcept nogil
    cdef u32 gather(self, u32 at, u32 count, u32 used) noexcept nogil
    cdef void transmit_block(self, u32 at, const u8 *block) noexcept nogil
    cdef void filters(self, u32 at, const u8 *block) noexcept nogil
    cdef bint wanted(self, const u8 *frame, u32 *status) noexcept nogil
    cdef void starved(self) noexcept nogil
