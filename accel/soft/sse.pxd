# SSE to SSE4.2. The documentation is in sse.pyx.
from accel.soft.cpu cimport Uop, u32
from accel.soft.insn cimport Insn

cdef int emit_sse(Insn *i, Uop *u) noexcept nogil
cdef Uop *feature_of(const Insn *i, Uop *u) noexcept nogil
cdef u32 bytes_of(const Insn *i, u32 prefix) noexcept nogil
