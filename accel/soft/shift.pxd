# Shifts, products, bits. The documentation is in shift.pyx.in.
from accel.soft.cpu cimport Cpu, Uop
from accel.soft.insn cimport Insn

cdef void op_nothing(Cpu *c, Uop *u) noexcept nogil
cdef void op_feature(Cpu *c, Uop *u) noexcept nogil
cdef int emit_shift(Insn *i, Uop *u) noexcept nogil
