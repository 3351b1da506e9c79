# Far transfers: jmp, call, ret, iret, task switch, syscall. Documentation in transfer.pyx and task.pyx.
#
# 0: done, c.rip is set; 1: an exception is noted and nothing has changed; 2: an exception is noted, c.rip belongs to it.

from accel.soft.cpu cimport *
from accel.soft.segment cimport Desc

cdef int far_jump(Cpu *c, u32 sel, u64 offset, u32 osize, u64 after) noexcept nogil
cdef int far_call(Cpu *c, u32 sel, u64 offset, u32 osize, u64 after) noexcept nogil
cdef int far_return(Cpu *c, u32 osize, u32 release) noexcept nogil
cdef int interrupt_return(Cpu *c, u32 osize, u64 after) noexcept nogil
cdef int fast_call(Cpu *c, u64 after) noexcept nogil
cdef int fast_return(Cpu *c, u32 osize) noexcept nogil
cdef int sysenter(Cpu *c) noexcept nogil
cdef int sysexit(Cpu *c, u32 osize) noexcept nogil
cdef void set_cs(Cpu *c, u32 sel, Desc *d, u32 cpl) noexcept nogil
cdef int check_rip(Cpu *c, Desc *d, u64 rip) noexcept nogil
cdef int tss_stack(Cpu *c, u32 level, u64 *sp, u32 *ss) noexcept nogil
cdef void set_eflags(Cpu *c, u32 value, u32 mask) noexcept nogil
cdef u32 virtual_flags(Cpu *c) noexcept nogil
cdef int set_virtual_flags(Cpu *c, u32 value) noexcept nogil
