# Far transfers. The documentation is in far.pyx.
from accel.soft.cpu cimport *

cdef int do_jump(Cpu *c, Uop *u) noexcept nogil
cdef int do_call(Cpu *c, Uop *u) noexcept nogil
cdef int do_jump_mem(Cpu *c, Uop *u) noexcept nogil
cdef int do_return(Cpu *c, Uop *u) noexcept nogil
cdef int do_iret(Cpu *c, Uop *u) noexcept nogil
cdef int do_syscall(Cpu *c, Uop *u) noexcept nogil
cdef int do_sysret(Cpu *c, Uop *u) noexcept nogil
cdef int do_sysenter(Cpu *c, Uop *u) noexcept nogil
cdef int do_sysexit(Cpu *c, Uop *u) noexcept nogil
cdef int do_int(Cpu *c, Uop *u) noexcept nogil
cdef int do_into(Cpu *c, Uop *u) noexcept nogil
cdef void op_icebp(Cpu *c, Uop *u) noexcept nogil
cdef int do_rsm(Cpu *c, Uop *u) noexcept nogil
cdef void op_hlt(Cpu *c, Uop *u) noexcept nogil
cdef int do_bound(Cpu *c, Uop *u) noexcept nogil
