# Guest memory as the processors see it. The documentation is in mmu.pyx.
from accel.soft.guest cimport *
from accel.soft.paging cimport ACCESS_FETCH, ACCESS_READ, ACCESS_WRITE

cdef int translate(Cpu *c, u64 linear, u32 access, bint user, u8 **host, u64 *phys) noexcept nogil
cdef void note_fetch(Cpu *c, u64 linear, u8 *host) noexcept nogil
cdef void install(Cpu *c) noexcept nogil
cdef void set_mode(Cpu *c) noexcept nogil
cdef void flush(Cpu *c, bint globals_too) noexcept nogil
