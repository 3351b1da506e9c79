# in, out, ins, outs. The documentation is in port.pyx. Results as of Slow in system.pyx.
from accel.soft.cpu cimport *

cdef int do_in(Cpu *c, Uop *u) noexcept nogil
cdef int do_out(Cpu *c, Uop *u) noexcept nogil
cdef int do_ins(Cpu *c, Uop *u) noexcept nogil
cdef int do_outs(Cpu *c, Uop *u) noexcept nogil
