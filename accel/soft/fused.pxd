# An instruction and the conditional branch behind it. The documentation is in fused.pyx.in.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_fused(Insn *a, Insn *b, Uop *u) noexcept nogil
