# The translator of 64-bit code to the host's. The documentation is in translate.pyx.
from accel.soft.cpu cimport *
from accel.soft.mmu cimport Guest

cdef int open_room(Guest *g, u8 *run, u8 *write, u64 size, u32 hot) noexcept nogil
