# Physical memory. The documentation is in physical.pyx.
from accel.soft.guest cimport *

cdef u8 *code_map(void *block) noexcept nogil
cdef u8 *host_of(void *block) noexcept nogil
cdef u64 pages_of(void *block) noexcept nogil
cdef u64 writes_of(void *block) noexcept nogil
cdef void mark(void *block, u64 offset, u64 size) noexcept nogil
cdef u8 *plain(Cpu *c, u64 phys, Entry **found) noexcept nogil
cdef Entry *layout(World *w, u32 *count) noexcept nogil
cdef int keep_layout(World *w) noexcept nogil
