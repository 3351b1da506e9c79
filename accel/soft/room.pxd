# The room for translated code. The documentation is in room.pyx.
from accel.soft.cpu cimport Block, Cpu, u8, u32, u64
from accel.soft.guest cimport Guest

ctypedef bint (*Hotspot)(Cpu *c, Block *block) noexcept nogil

cdef int open_room(Guest *g, u8 *run, u8 *write, u64 size, u32 hot, Hotspot hotspot) noexcept nogil
cdef void enlarge(Guest *g) noexcept nogil
cdef void drop_code(Cpu *c, Guest *g) noexcept nogil
