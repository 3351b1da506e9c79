# Between a processor and its local APIC (or, without one, the 8259A). The documentation is in cpuport.pyx.
from accel.api cimport IrqSink, i64, u8, u32, u64
from accel.run cimport IntAck


cdef class CpuPort:
    cdef void set_intr(self, int level) noexcept nogil
    cdef void set_nmi(self) noexcept nogil
    cdef void init(self) noexcept nogil
    cdef void sipi(self, u8 vector) noexcept nogil
    cdef void smi(self) noexcept nogil
    cdef i64 tsc_time(self, u64 tsc) noexcept nogil


cdef class PyCpuPort(CpuPort):
    cdef object callback
    cdef void call(self, int event, int value) noexcept with gil


cdef class InterruptSource(IntAck):
    cdef u8 get_tpr(self) noexcept nogil
    cdef void set_tpr(self, u8 value) noexcept nogil
    cdef u64 get_base(self) noexcept nogil
    cdef int set_base(self, u64 value) noexcept nogil
    cdef int rdmsr(self, u32 msr, u64 *value) noexcept nogil
    cdef int wrmsr(self, u32 msr, u64 value) noexcept nogil
    cdef u32 mmio_read(self, u32 offset) noexcept nogil
    cdef void mmio_write(self, u32 offset, u32 value) noexcept nogil
    cdef void reset_by_init(self) noexcept nogil
    cdef void counter_overflowed(self) noexcept nogil
