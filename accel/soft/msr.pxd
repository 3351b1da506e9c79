# Model-specific registers and CPUID. The documentation is in msr.pyx.
from accel.soft.cpu cimport *

cdef int read_msr(Cpu *c, u32 msr, u64 *value) noexcept nogil
cdef int write_msr(Cpu *c, u32 msr, u64 value) noexcept nogil
cdef void cpuid(Cpu *c, u32 function, u32 index, u32 *out) noexcept nogil
cdef bint has_kvm(Cpu *c) noexcept nogil
