# Control and debug registers. The documentation is in controlregs.pyx.
from accel.soft.cpu cimport *

cdef inline int left(Cpu *c, Uop *u) noexcept nogil:
    """The block ends here: the mode or the mapping has changed, or something waits."""
    leave(c, u, STOP_NEXT)
    return 2

cdef int do_mov_from_cr(Cpu *c, Uop *u) noexcept nogil
cdef int do_mov_to_cr(Cpu *c, Uop *u) noexcept nogil
cdef int do_lmsw(Cpu *c, Uop *u) noexcept nogil
cdef int do_smsw(Cpu *c, Uop *u) noexcept nogil
cdef int do_clts(Cpu *c, Uop *u) noexcept nogil
cdef int do_mov_from_dr(Cpu *c, Uop *u) noexcept nogil
cdef int do_mov_to_dr(Cpu *c, Uop *u) noexcept nogil
