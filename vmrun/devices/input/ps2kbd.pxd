from accel.api cimport i64, u8, u32
from accel.clock cimport Timer
from vmrun.devices.input.ps2 cimport Ps2Device


cdef class Ps2Keyboard(Ps2Device):
    cdef readonly Timer typematic
    cdef public bint enabled
    cdef public u8 leds, scan_set, rate
    cdef u8 modes[256]          # scan set 3: what each key sends
    cdef u8 down[64]            # keys held, one bit per key number
    cdef public u32 repeat2, repeat3   # the key that repeats, 0: none
    cdef public bint overrun
    cdef object on_leds
    cdef void event(self, u32 code2, u32 code3, bint pressed) noexcept nogil
    cdef void emit(self, u32 code2, u32 code3, bint pressed) noexcept nogil
    cdef void queue_event(self, const u8 *bytes_, u32 count) noexcept nogil
    cdef void repeat(self) noexcept nogil
    cdef void defaults(self) noexcept nogil
    cdef void give_argument(self, u8 value) noexcept nogil
    cdef void show_leds(self) noexcept nogil
    cdef void call_leds(self) noexcept with gil
