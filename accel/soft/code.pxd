# Cached code, and writes into it. The documentation is in code.pyx.
from accel.soft.guest cimport *

cdef int note_code(Cpu *c, u64 phys, u8 *host) noexcept nogil
cdef u32 forget_range(Guest *g, Cpu *runs, u8 *host, u64 size) noexcept nogil
cdef void written(Cpu *c, Entry *entry, u8 *host, u64 size) noexcept nogil
cdef void forget_written(Guest *g) noexcept nogil
cdef void look_again(Guest *g) noexcept nogil
cdef u64 digest(const u8 *bytes, u32 count) noexcept nogil
cdef void forget_all(Guest *g) noexcept nogil
cdef void forget_world(World *w) noexcept nogil
