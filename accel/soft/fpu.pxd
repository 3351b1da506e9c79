# x87, MMX and SSE. The documentation is in fpu.pyx.
from accel.soft.cpu cimport Cpu, Uop
from accel.soft.insn cimport Insn

cdef int emit_fpu(Insn *i, Uop *u) noexcept nogil
cdef void fpu_enter_slice(Cpu *c) noexcept nogil
cdef void fpu_leave_slice(Cpu *c) noexcept nogil
cdef void fpu_suspend(Cpu *c) noexcept nogil
cdef void fpu_resume(Cpu *c) noexcept nogil
