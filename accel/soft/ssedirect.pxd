# SSE instructions without a stub. The documentation is in ssedirect.pyx.in.
from accel.soft.cpu cimport Handler, Uop, u32
from accel.soft.insn cimport Insn

cdef void set_fallbacks(Handler r, Handler m) noexcept nogil
cdef Handler direct(Insn *i, Uop *u, u32 prefix) noexcept nogil
