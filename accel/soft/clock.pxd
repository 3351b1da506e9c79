# The soft accelerator's virtual time. The documentation is in clock.pyx.
from accel.api cimport i64, u32, u64
from accel.clock cimport Clock
from accel.soft.cpu cimport Cpu

cdef class SoftClock(Clock):
    cdef i64 at             # virtual ns when the slice began
    cdef i64 limit          # no reading of this slice goes beyond
    cdef i64 offset         # host monotonic = ideal virtual time + offset
    cdef i64 told           # the latest reading
    cdef i64 due            # of the next timer, negative: none; the processors' loop keeps it
    cdef u64 pace           # virtual ns an instruction, 32.32 fixed point
    cdef Cpu *cpu           # whose slice runs, NULL: none
    cdef readonly bint running
    cdef bint exact         # time is what was executed: 1 << shift ns an instruction
    cdef i64 slept          # of the host's time, since all processors halted
    cdef void rest(self, i64 spent, bint called) noexcept nogil
    cdef i64 host_now(self) noexcept nogil
    cdef i64 ideal(self) noexcept nogil
    cdef void begin(self, Cpu *cpu, i64 count) noexcept nogil
    cdef void end(self, u64 executed, i64 spent) noexcept nogil
    cdef i64 instructions(self, i64 ns) noexcept nogil
    cdef void catch_up(self) noexcept nogil
