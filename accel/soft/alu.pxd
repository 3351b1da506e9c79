# Arithmetic and logic. The documentation is in alu.pyx.in.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_alu(Insn *i, Uop *u) noexcept nogil
cdef int emit_fused(Insn *a, Insn *b, Uop *u) noexcept nogil
