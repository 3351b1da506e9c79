# The threads that run processors. The documentation is in vcpu.pyx.
from accel.soft.cpu cimport Cpu, i64
from accel.soft.processor cimport Processor


cdef class SoftCpu(Processor):
    cdef void run_one_alone(self) noexcept nogil
    cdef void run_alone(self) noexcept nogil
    cdef void run_all(self) noexcept nogil
    cdef bint waits(self) noexcept nogil
    cdef void ended(self, Cpu *c) noexcept nogil
    cdef void idle(self) noexcept nogil
    cdef bint slice_of(self, Cpu *c) noexcept nogil
    cdef void rest(self, i64 deadline, bint awake, int timers) noexcept nogil
    cdef i64 run_timers(self) noexcept nogil
