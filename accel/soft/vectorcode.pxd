# Translated instructions on vectors. The documentation is in vectorcode.pyx.
from accel.soft.assemble cimport Work
from accel.soft.insn cimport Insn
from accel.soft.native cimport Form

cdef void on_vector(Work *t, const Insn *i, const Form *f) noexcept nogil
cdef void on_vex(Work *t, const Insn *i, const Form *f) noexcept nogil
cdef void on_bmi(Work *t, const Insn *i, const Form *f) noexcept nogil
