# Exceptions, interrupts, debug exceptions. The documentation is in exception.pyx.
from accel.soft.cpu cimport *

cdef void deliver(Cpu *c) noexcept nogil
cdef void interrupt(Cpu *c, u32 vector) noexcept nogil
cdef void nmi(Cpu *c) noexcept nogil
cdef int soft_interrupt(Cpu *c, u32 vector) noexcept nogil
cdef bint host_point(Cpu *c) noexcept nogil
cdef bint before_step(Cpu *c, bint behind_ss) noexcept nogil
cdef void merge_pending(Cpu *c) noexcept nogil
cdef bint intel(Cpu *c) noexcept nogil
cdef bint after_step(Cpu *c, bint stepped) noexcept nogil
cdef int redirects(Cpu *c, u32 vector) noexcept nogil
cdef int enter_redirected(Cpu *c, u32 vector) noexcept nogil
