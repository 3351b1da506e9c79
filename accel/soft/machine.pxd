# What the processors share. The documentation is in machine.pyx.
from accel.api cimport DeviceLock, i64, u8, u32, u64
from accel.clock cimport Clock, TimerQueue
from accel.soft.clock cimport SoftClock
from accel.soft.cpu cimport Cpu
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
    cdef readonly bint exact, skips     # time is what was executed; nobody waits for a timer while all are halted
    cdef i64 started                    # the wall clock's seconds as the machine is made; negative: the host's
    cdef u32 turn                       # the processor whose slice is next, where that must be the same in each run
    cdef u64 room, taken
    cdef public bint off                # S3: the processors have no power, time goes on
    cdef public u64 tsc_hz
    cdef u64 ticks(self, i64 ns) noexcept nogil
    cdef void ring(self) noexcept nogil
    cdef Guest *guest_of(self, u32 index) except NULL
    cdef void drop_guest(self, Guest *g) noexcept
