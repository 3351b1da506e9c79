# System instructions: the emitter of class K_SYSTEM. The documentation is in system.pyx.
from accel.soft.insn cimport *

cdef int emit_system(Insn *i, Uop *u) noexcept nogil
