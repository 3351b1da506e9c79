# System management mode. The documentation is in smm.pyx.
from accel.soft.cpu cimport *

cdef void enter_smi(Cpu *c) noexcept nogil
cdef void resume(Cpu *c) noexcept nogil
