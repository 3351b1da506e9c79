# Which instructions on vectors are translated. The documentation is in nativevec.pyx.
from accel.soft.insn cimport Insn
from accel.soft.native cimport Form

cdef void vector(const Insn *i, Form *f) noexcept nogil
