# Near branches. The documentation is in branch.pyx.
from accel.soft.cpu cimport Cpu, Uop, i64, u32
from accel.soft.insn cimport Insn

cdef bint holds(Cpu *c, u32 condition) noexcept nogil
cdef int emit_branch(Insn *i, Uop *u) noexcept nogil
cdef void unlinked(Cpu *c, Uop *u, i64 target, bint fall) noexcept nogil
