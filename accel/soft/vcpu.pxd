# Processors of the soft accelerator and the thread that runs them. The documentation is in vcpu.pyx.
from accel.api cimport DeviceLock, IrqSink, i64, u8, u32, u64
from accel.clock cimport Clock, TimerQueue
from accel.cpuport cimport CpuPort, InterruptSource
from accel.run cimport CpuThread, IntAck
from accel.soft.clock cimport SoftClock
from accel.soft.cpu cimport Cpu, CpuidLeaf
from accel.soft.guest cimport Guest, World
from accel.space cimport AddressSpace


cdef class Machine:
    cdef readonly AddressSpace memory, io
    cdef readonly DeviceLock lock
    cdef readonly Clock clock
    cdef SoftClock paced                # the same, where the processors take turns on one thread
    cdef readonly bint threads          # each has its own
    cdef public TimerQueue timers
    cdef readonly list cpus
    cdef World world
    cdef Cpu *table[256]
    cdef u32 count
    cdef u32 hot
    cdef int bell                       # eventfd that ends an idle sleep
    cdef int asleep
    cdef readonly bint translates
    cdef readonly bint exact
    cdef i64 started                    # the wall clock's seconds as the machine is made; negative: the host's
    cdef u32 turn                       # the processor whose slice is next, where that must be the same in each run
    cdef u64 room, taken
    cdef public bint off                # S3: the processors have no power, time goes on
    cdef public u64 tsc_hz
    cdef u64 ticks(self, i64 ns) noexcept nogil
    cdef void ring(self) noexcept nogil
    cdef Guest *guest_of(self, u32 index) except NULL
    cdef void drop_guest(self, Guest *g) noexcept


cdef class SoftPort(CpuPort):
    cdef SoftCpu owner


cdef class SoftCpu(CpuThread):
    cdef readonly Machine machine
    cdef Cpu *c
    cdef public InterruptSource source
    cdef public IntAck ack
    cdef readonly SoftPort port
    cdef public SoftCpu leader         # the first processor; None for itself
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
    cdef void run_one_alone(self) noexcept nogil
    cdef void take_lock(self) noexcept nogil
    cdef void give_lock(self) noexcept nogil
    cdef void run_alone(self) noexcept nogil
    cdef void run_all(self) noexcept nogil
    cdef bint waits(self) noexcept nogil
    cdef void ended(self, Cpu *c) noexcept nogil
    cdef void idle(self) noexcept nogil
    cdef bint slice_of(self, Cpu *c) noexcept nogil
    cdef void rest(self, i64 deadline, bint awake, int timers) noexcept nogil
    cdef i64 run_timers(self) noexcept nogil


cdef class SoftPin(IrqSink):
    cdef readonly str name
    cdef public SoftCpu cpu
    cdef public IrqSink lint            # of its local APIC, once there is one
    cdef int kind, level
