# Local APIC and the messages between APICs. The documentation is in lapic.pyx.
from accel.api cimport IoRegion, IrqSink, i64, u8, u32, u64
from accel.clock cimport Clock, Timer, TimerQueue
from accel.cpuport cimport CpuPort, InterruptSource
from accel.run cimport IntAck, MsiSink


cdef class ApicBus(MsiSink):
    cdef readonly list apics
    cdef void **units
    cdef u32 count, turn
    cdef IrqSink eoi_sink
    cdef int deliver(self, u32 dest, bint logical, bint wide, u32 mode, u32 vector, bint level, i64 exclude) noexcept nogil
    cdef void broadcast_eoi(self, u32 vector) noexcept nogil


cdef class Lapic(InterruptSource):
    cdef readonly ApicBus bus
    cdef readonly u32 index
    cdef public CpuPort port
    cdef public IntAck pic
    cdef public u32 version
    cdef public bint x2apic_allowed, deadline_allowed
    cdef readonly Clock clock
    cdef readonly LapicTimer timer
    cdef public u64 base, icr, deadline
    cdef u32 initial_id
    cdef public u32 id, ldr, dfr, svr, esr, errors, initial_count, divide
    cdef public u8 tpr_value, extint
    cdef u8 pins, intr
    cdef public i64 start
    cdef public u32 lvt[6]
    cdef public u32 irr[8]
    cdef public u32 isr[8]
    cdef public u32 tmr[8]
    cdef u32 ppr(self) noexcept nogil
    cdef int pending(self) noexcept nogil
    cdef bint takes_pic(self) noexcept nogil
    cdef void update(self) noexcept nogil
    cdef bint matches(self, u32 dest, bint logical, bint wide) noexcept nogil
    cdef int accept(self, u32 mode, u32 vector, bint level) noexcept nogil
    cdef void error(self, u32 bit) noexcept nogil
    cdef void fire_lvt(self, u32 n) noexcept nogil
    cdef void input(self, u32 n, int level) noexcept nogil
    cdef void end_of_interrupt(self) noexcept nogil
    cdef void send_ipi(self) noexcept nogil
    cdef u32 divider(self) noexcept nogil
    cdef u32 current_count(self) noexcept nogil
    cdef bint spent(self) noexcept nogil
    cdef void arm(self, bint fresh) noexcept nogil
    cdef void expired(self) noexcept nogil
    cdef void clear(self) noexcept nogil
    cdef int load_register(self, u32 n, u64 *value) noexcept nogil
    cdef int store_register(self, u32 n, u64 value) noexcept nogil


cdef class LapicTimer(Timer):
    cdef Lapic apic
