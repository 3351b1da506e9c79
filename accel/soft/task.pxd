# Hardware task switches. The documentation is in task.pyx.
from accel.soft.cpu cimport *
from accel.soft.segment cimport Desc

cdef enum:
    TASK_JUMP = 0
    TASK_CALL = 1
    TASK_IRET = 2
    TASK_GATE = 3           # an interrupt or exception

cdef int task_switch(Cpu *c, u32 sel, Desc *d, u32 how, u64 after, u32 flags, bint has_error, u32 error) noexcept nogil
