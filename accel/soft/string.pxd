# String instructions. The documentation is in string.pyx.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_string(Insn *i, Uop *u) noexcept nogil
