# AVX, AVX2, FMA, F16C, BMI. The documentation is in avx.pyx.
from accel.soft.cpu cimport Uop
from accel.soft.insn cimport Insn

cdef int emit_vex(Insn *i, Uop *u) noexcept nogil
