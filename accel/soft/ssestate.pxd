# MXCSR and the whole state, and why SSE is off. The documentation is in ssestate.pyx.
from accel.soft.cpu cimport Cpu, Uop
from accel.soft.insn cimport Insn

cdef inline bint off(Cpu *c) noexcept nogil:
    return c.sse_trap

cdef void refuse(Cpu *c, Uop *u) noexcept nogil
cdef int emit_control(Insn *i, Uop *u) noexcept nogil
