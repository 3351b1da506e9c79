# Instructions on descriptors and descriptor tables. The documentation is in protect.pyx. Results as of Slow in system.pyx.
from accel.soft.cpu cimport *

cdef int do_table_load(Cpu *c, Uop *u) noexcept nogil
cdef int do_table_store(Cpu *c, Uop *u) noexcept nogil
cdef int do_selector_store(Cpu *c, Uop *u) noexcept nogil
cdef int do_lldt(Cpu *c, Uop *u) noexcept nogil
cdef int do_ltr(Cpu *c, Uop *u) noexcept nogil
cdef int do_verify(Cpu *c, Uop *u) noexcept nogil
cdef int do_lar(Cpu *c, Uop *u) noexcept nogil
cdef int do_lsl(Cpu *c, Uop *u) noexcept nogil
cdef int do_arpl(Cpu *c, Uop *u) noexcept nogil
cdef int read_word(Cpu *c, Uop *u, u32 *value) noexcept nogil
cdef int write_word(Cpu *c, Uop *u, u64 value) noexcept nogil
cdef void set_reg(Cpu *c, u32 at, u32 size, u64 value) noexcept nogil
cdef int undefined(Cpu *c) noexcept nogil
