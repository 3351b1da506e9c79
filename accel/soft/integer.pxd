# The emitter of class K_INTEGER. The documentation is in integer.pyx.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_integer(Insn *i, Uop *u) noexcept nogil
