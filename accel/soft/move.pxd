# Moves and the stack. The documentation is in move.pyx.in.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_move(Insn *i, Uop *u) noexcept nogil
