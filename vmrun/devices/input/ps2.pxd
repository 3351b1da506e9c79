from accel.api cimport u8, u32


cdef class Ps2Host:
    cdef void ps2_ready(self) noexcept nogil


cdef class Ps2Device:
    cdef public Ps2Host host
    cdef u8 data[64]
    cdef u32 head, count
    cdef public int last               # the byte sent last, for RESEND
    cdef public int argument           # the command that waits for its argument, -1: none
    cdef void put(self, u8 byte) noexcept nogil
    cdef void flush(self) noexcept nogil
    cdef int take(self) noexcept nogil
    cdef void sent_all(self) noexcept nogil
    cdef void command(self, u8 value) noexcept nogil
