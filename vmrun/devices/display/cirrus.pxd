from accel.api cimport u8, u16, u32, u64
from vmrun.devices.display.cirrus_blit cimport CirrusBlitter


cdef class Cirrus(CirrusBlitter):
    cdef bint pci
    cdef public u8 dac_lock
    cdef u8 hidden[48]                  # sixteen colours, the first and last of which are the pointer's
    cdef public u16 pointer_x, pointer_y
    cdef u32 bank_base[2]
    cdef u32 bank_limit[2]
    cdef bint direct
    cdef object ddc                     # the wires to the monitor, or None
    cdef u8 registers_read(self, u32 offset) noexcept nogil
    cdef void registers_write(self, u32 offset, u8 value) noexcept nogil
    cdef u8 linear_read(self, u64 offset) noexcept nogil
    cdef void linear_write(self, u64 offset, u8 value) noexcept nogil
    cdef u8 sequencer_read(self) noexcept nogil
    cdef void sequencer_write(self, u8 value) noexcept nogil
    cdef u8 graphics_read(self, u32 index) noexcept nogil
    cdef void graphics_write(self, u32 index, u8 value) noexcept nogil
    cdef u8 crtc_read(self) noexcept nogil
    cdef void wires_move(self) noexcept with gil
    cdef u8 wires(self) noexcept with gil
    cdef void store(self, u64 offset, u8 value) noexcept nogil
    cdef u64 spaced(self, u64 offset) noexcept nogil
    cdef void banks(self) noexcept nogil
