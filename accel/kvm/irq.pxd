from accel.api cimport IoRegion, IrqSink, u8, u32, u64
from accel.kvm.vm cimport KvmVm
from accel.run cimport MsiSink


cdef class GsiSink(IrqSink):
    cdef KvmVm vm
    cdef readonly u32 count
    cdef readonly bint connected
    cdef readonly u64 deliveries                    # changes that went to the kernel
    cdef u8 *levels
    cdef int *statuses
    cdef bint with_status
    cdef void deliver(self, u32 n) noexcept nogil


cdef class KvmMsiSink(MsiSink):
    cdef KvmVm vm
    cdef object irqchip                             # with split: learns level-triggered messages
    cdef u64 level_addr[24]
    cdef u32 level_data[24]
    cdef u32 levels
    cdef bint known(self, u64 addr, u32 data) noexcept nogil
    cdef void learn(self, u64 addr, u32 data) noexcept with gil


cdef class MsiRegion(IoRegion):
    cdef MsiSink sink
    cdef u64 base


cdef class KvmIrqchip:
    cdef readonly KvmVm vm
    cdef readonly str mode
    cdef readonly GsiSink gsis
    cdef readonly bint created, pit_created
    cdef readonly dict routes
    cdef dict pending
    cdef object frozen_pit
    cdef public bint want_pit, reinject
    cdef u32 first_msi, gsi_limit
