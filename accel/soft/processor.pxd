# A processor as data, and its pins. The documentation is in processor.pyx.
from accel.api cimport IrqSink, i64, u8, u32, u64
from accel.cpuport cimport CpuPort, InterruptSource
from accel.run cimport CpuThread, IntAck
from accel.soft.cpu cimport *
from accel.soft.machine cimport Machine

# MSRs of the KVM clock: the first two are the old numbers of the same
cdef enum:
    MSR_WALL_OLD = 0x11
    MSR_CLOCK_OLD = 0x12
    MSR_WALL = 0x4B564D00
    MSR_CLOCK = 0x4B564D01
    MSR_ASYNC_PF = 0x4B564D02   # then stolen time and EOI by memory; features 4, 5, 6
    MSR_PV_EOI = 0x4B564D04
    MSR_DEADLINE = 0x6E0


cdef class SoftPort(CpuPort):
    cdef Processor owner


cdef class Processor(CpuThread):
    cdef readonly Machine machine
    cdef Cpu *c
    cdef public InterruptSource source
    cdef public IntAck ack
    cdef readonly SoftPort port
    cdef public Processor leader         # the first processor; None for itself
    cdef list leaves
    cdef u64 kvmclock_msr, wall_msr
    cdef u64 offers[3]              # MSRs of KVM's offers that nothing comes of: only kept
    cdef u32 kvm_features
    cdef bint use_kvmclock
    cdef void pend(self, u32 flags) noexcept nogil
    cdef void pin(self, int kind, int level, int before) noexcept nogil
    cdef bint owns_apic(self, u64 phys) noexcept nogil
    cdef bint hides_apic(self, u64 phys) noexcept nogil
    cdef void note_leaf(self, CpuidLeaf *leaf) noexcept nogil
    cdef int set_kvmclock(self, u64 value) noexcept nogil
    cdef int set_wall(self, u64 value) noexcept nogil
    cdef int asleep
    cdef bint alone                 # all others are outside
    cdef void take_lock(self) noexcept nogil
    cdef void give_lock(self) noexcept nogil


cdef class SoftPin(IrqSink):
    cdef readonly str name
    cdef public Processor cpu
    cdef public IrqSink lint            # of its local APIC, once there is one
    cdef int kind, level
