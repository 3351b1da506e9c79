# What a processor asks of its surroundings. The documentation is in hooks.pyx.
from accel.soft.cpu cimport Cpu

cdef void connect(Cpu *c) noexcept nogil
