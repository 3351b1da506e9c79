# The translator of blocks to the host's code. The documentation is in translate.pyx.
from accel.soft.cpu cimport Block, Cpu

cdef bint translate(Cpu *c, Block *block) noexcept nogil
