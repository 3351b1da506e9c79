# SSE to SSE4.2. The documentation is in sse.pyx.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_sse(Insn *i, Uop *u) noexcept nogil
