# A slice of one processor. The documentation is in slice.pyx.
from accel.soft.cpu cimport *

cdef void run_slice(Cpu *c) noexcept nogil
