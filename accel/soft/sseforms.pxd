# What SSE instructions are, apart from what they do. The documentation is in sseforms.pyx.
from accel.soft.cpu cimport Uop, u32
from accel.soft.insn cimport Insn

cdef u32 bytes_of(const Insn *i, u32 prefix) noexcept nogil
cdef bint rounds(Insn *i, u32 prefix) noexcept nogil
cdef bint unaligned(Insn *i, u32 prefix) noexcept nogil
cdef Uop *feature_of(const Insn *i, Uop *u) noexcept nogil
