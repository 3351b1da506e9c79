# XSAVE and its like. The documentation is in xsave.pyx.
from accel.soft.cpu cimport *

cdef int do_xsave(Cpu *c, Uop *u) noexcept nogil
cdef int do_xrstor(Cpu *c, Uop *u) noexcept nogil
cdef int do_pkru(Cpu *c, Uop *u) noexcept nogil
cdef int do_xcr(Cpu *c, Uop *u) noexcept nogil
