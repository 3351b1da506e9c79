# AVX, AVX2, FMA, F16C, BMI. The documentation is in avx.pyx.
from accel.soft.cpu cimport Uop, u32
from accel.soft.insn cimport Insn
from accel.soft.vex cimport VexOp

cdef int emit_vex(Insn *i, Uop *u) noexcept nogil
cdef Uop *feature(const VexOp *op, bint wide, Uop *u) noexcept nogil
cdef u32 bytes_of(const Insn *i, const VexOp *op, bint wide) noexcept nogil
