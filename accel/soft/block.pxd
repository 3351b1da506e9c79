# Blocks of predecoded operations. The documentation is in block.pyx.
from accel.soft.cpu cimport *

cdef Block *find_block(Cpu *c) noexcept nogil
