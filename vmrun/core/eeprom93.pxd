# A serial EEPROM. The documentation is in eeprom93.pyx.
from accel.api cimport u8, u16, u32


cdef class Eeprom93:
    cdef u16 cells[256]
    cdef readonly u32 count, address_bits
    cdef public bint selected, clock, out, writable
    cdef public u32 phase, bits, shift, address
    cdef void drive(self, bint select, bint clock, bint data) noexcept nogil
    cdef void rise(self, bint data) noexcept nogil
    cdef void perform(self) noexcept nogil
    cdef void store(self, u32 address, u32 value) noexcept nogil
