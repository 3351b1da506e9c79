from accel.api cimport u8, u32
from vmrun.devices.input.ps2 cimport Ps2Device


cdef class Ps2Mouse(Ps2Device):
    cdef public u8 kind               # 0 plain, 3 with wheel, 4 with wheel and five buttons
    cdef public u8 rate, resolution
    cdef public bint reporting, remote, wrap, scaling
    cdef public u8 knock, buttons, sent_buttons
    cdef public int dx, dy, dz
    cdef void moved(self, int dx, int dy, int dz, u8 buttons) noexcept nogil
    cdef bint news(self) noexcept nogil
    cdef void packet(self, bint scaled) noexcept nogil
    cdef void defaults(self) noexcept nogil
    cdef void give_argument(self, u8 value) noexcept nogil
