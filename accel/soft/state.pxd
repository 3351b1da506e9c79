# A processor's state as Python values. The documentation is in state.pyx. The machine is stopped.
from accel.soft.cpu cimport Cpu

cdef dict cpu_state(Cpu *c)
cdef list set_cpu_state(Cpu *c, dict state)
cdef dict describe_cpu(Cpu *c)
