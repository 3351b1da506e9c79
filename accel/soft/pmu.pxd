# Performance counters. The documentation is in pmu.pyx.
from accel.soft.cpu cimport *

cdef void count_up(Cpu *c) noexcept nogil
cdef void count_from(Cpu *c) noexcept nogil
cdef u64 until_overflow(Cpu *c, u64 most) noexcept nogil
cdef bint is_counter(u32 msr) noexcept nogil
cdef int read_counter_msr(Cpu *c, u32 msr, u64 *value) noexcept nogil
cdef int write_counter_msr(Cpu *c, u32 msr, u64 value) noexcept nogil
cdef int load_counter_msr(Cpu *c, u32 msr, u64 value) noexcept nogil
cdef int read_counter(Cpu *c, u32 number, u64 *value) noexcept nogil

cdef inline void recount(Cpu *c) noexcept nogil:
    """CPL may have changed: what was done belongs to the one before."""
    if unlikely(c.pmu.active and c.pmu.cpl != c.cpl):
        count_up(c)
