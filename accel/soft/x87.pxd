# x87 and MMX. The documentation is in x87.pyx.
from accel.soft.cpu cimport Cpu, Uop
from accel.soft.insn cimport Insn

cdef int emit_x87(Insn *i, Uop *u) noexcept nogil
cdef int emit_mmx(Insn *i, Uop *u) noexcept nogil
