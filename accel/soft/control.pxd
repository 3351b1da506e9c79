# Control registers, EFER, reset. The documentation is in control.pyx. Not 0: an exception is noted.
from accel.soft.cpu cimport *

cdef enum:                  # words of Cpu.features
    FEAT_1_EDX = 0
    FEAT_1_ECX = 1
    FEAT_EXT_EDX = 2
    FEAT_EXT_ECX = 3
    FEAT_7_EBX = 4
    FEAT_7_ECX = 5
    FEAT_7_EDX = 6
    FEAT_EXT_8_EBX = 7

cdef inline bint has(Cpu *c, u32 word, u32 bit) noexcept nogil:
    return c.features[word] >> bit & 1

cdef void set_cr0(Cpu *c, u64 value) noexcept nogil
cdef int write_cr0(Cpu *c, u64 value) noexcept nogil
cdef int write_cr3(Cpu *c, u64 value) noexcept nogil
cdef int write_cr4(Cpu *c, u64 value) noexcept nogil
cdef int write_efer(Cpu *c, u64 value) noexcept nogil
cdef int load_pdptes(Cpu *c, u64 cr3) noexcept nogil
cdef void reset_cpu(Cpu *c, bint init) noexcept nogil
cdef void start_cpu(Cpu *c, u8 vector) noexcept nogil
