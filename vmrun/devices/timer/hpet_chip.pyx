"""High precision event timer, compiled: the chip alone; hpet.py maps it and gives it pins.

Ref: Intel IA-PC HPET 1.0a (October 2004): register layout 2.3, timers 2.3.8 to 2.3.10, legacy routing 2.3.3.
Not modelled: interrupts as messages (FSB; the capability bit says so), the compare by equality only: a one-shot
comparator that lies in the past interrupts at once, which is what guests have always met on this board.

The main counter is not counted: it is clock - offset in units of 10 ns. A periodic timer that asks for more than one
interrupt per MIN_PERIOD gets no more than that; the comparator moves by whole periods all the same.
"""

from accel.api cimport IoRegion, IrqLine, IrqSink, i64, u32, u64
from accel.clock cimport Clock, Timer, TimerQueue

from accel.api import IrqLine as _IrqLine

from vmrun.core.state import Deadlines, Moment, Table, Words, U64
from vmrun.errors import StateError

cdef enum:
    MOST = 32
    LINES = 24
    PIT_LINE = 0
    RTC_LINE = 8
    ENABLE_CNF = 1
    LEG_RT_CNF = 2
    INT_TYPE_LEVEL = 1 << 1
    INT_ENB = 1 << 2
    TYPE_PERIODIC = 1 << 3
    PER_INT_CAP = 1 << 4
    SIZE_CAP = 1 << 5
    VAL_SET = 1 << 6
    MODE32 = 1 << 8
    WRITABLE = 0x3F4E

cdef i64 TICK = 10
cdef i64 MIN_PERIOD = 50000
cdef u64 LOW = <u64>0xFFFFFFFF
cdef u64 ALL = <u64>-1
cdef u64 FAR = <u64>1 << 58


cdef class Hpet(IoRegion):
    """1 KiB of registers. `lines` are the 24 interrupt outputs; `pit_enabled` falls while legacy routing is on."""

    state = Table(
        "hpet", 1,
        U64("config", most=ENABLE_CNF | LEG_RT_CNF), U64("status"), U64("counter"), Moment("offset"),
        Words("tn_config", MOST, (1 << 64) - 1, lambda hpet: [PER_INT_CAP | SIZE_CAP | hpet.intcap << 32] * MOST),
        Words("comparator", MOST, (1 << 64) - 1, [(1 << 64) - 1] * MOST), Words("period", MOST, (1 << 64) - 1),
        Deadlines("ticks"),
    )
    reset, save, load_state = state.methods()

    cdef readonly Clock clock
    cdef readonly list lines
    cdef readonly IrqLine pit_enabled
    cdef readonly u32 count
    cdef readonly u32 intcap
    cdef readonly list ticks
    cdef HpetOutputs outputs
    cdef public u64 config, status, counter
    cdef public i64 offset
    cdef public u64 tn_config[32]
    cdef public u64 comparator[32]
    cdef public u64 period[32]
    cdef u32 legacy_inputs

    def __init__(self, Clock clock, TimerQueue timers, u32 count, u32 intcap):
        if not 3 <= count <= MOST:
            raise ValueError(f"an HPET has 3 to 32 timers, not {count}")
        self.clock = clock
        self.count = count
        self.intcap = intcap
        self.lines = [_IrqLine() for _ in range(LINES)]
        self.outputs = HpetOutputs(self.lines)
        self.pit_enabled = _IrqLine()
        self.min_access = 4
        self.max_access = 8
        self.ticks = [HpetTick(timers, self, n) for n in range(count)]
        self.outputs.set_ticks(self.ticks)
        self.reset()

    # --- counting ---------------------------------------------------------------------------------------

    cdef u64 now(self) noexcept nogil:
        if not self.config & ENABLE_CNF:
            return self.counter
        return <u64>((self.clock.now() - self.offset) // TICK)

    cdef u64 distance(self, u32 n, u64 now) noexcept nogil:
        """Ticks until the comparator is met; 0 when it lies behind."""
        cdef u64 diff = self.comparator[n] - now
        if self.tn_config[n] & MODE32:
            diff &= LOW
            return 0 if diff >> 31 else diff
        return 0 if diff >> 63 else diff

    cdef void arm(self, u32 n) noexcept nogil:
        cdef u64 diff, now
        if not self.config & ENABLE_CNF:
            self.outputs.cancel(n)
            return
        now = self.now()
        diff = self.distance(n, now)
        if diff >= FAR:
            self.outputs.cancel(n)
            return
        self.outputs.arm(n, self.offset + <i64>(now + diff) * TICK)

    cdef void expired(self, u32 n) noexcept nogil:
        cdef u64 conf = self.tn_config[n], now = self.now(), behind, diff
        cdef i64 at, host
        self.interrupt(n)
        if conf & TYPE_PERIODIC and self.period[n]:
            behind = now - self.comparator[n]
            if conf & MODE32:
                behind &= LOW
            self.comparator[n] += (behind // self.period[n] + 1) * self.period[n]
            if conf & MODE32:
                self.comparator[n] &= LOW
            diff = self.distance(n, now)
            if diff >= FAR:
                return
            host = self.clock.now()
            at = self.offset + <i64>(now + diff) * TICK
            self.outputs.arm(n, at if at > host + MIN_PERIOD or <i64>self.period[n] * TICK >= MIN_PERIOD
                             else host + MIN_PERIOD)
        elif conf & MODE32 and not conf & TYPE_PERIODIC:
            self.outputs.arm(n, self.offset + <i64>(now + LOW + 1) * TICK)    # meets it again after a wrap

    # --- interrupts -------------------------------------------------------------------------------------

    cdef u32 route(self, u32 n) noexcept nogil:
        if self.config & LEG_RT_CNF and n < 2:
            return PIT_LINE if n == 0 else RTC_LINE
        return self.tn_config[n] >> 9 & 31

    cdef void interrupt(self, u32 n) noexcept nogil:
        cdef u32 line
        if not self.config & ENABLE_CNF or not self.tn_config[n] & INT_ENB:
            return
        line = self.route(n)
        if self.tn_config[n] & INT_TYPE_LEVEL:
            self.status |= <u64>1 << n
            self.update()
        elif line < LINES:
            self.outputs.set(line, 1)
            self.update()

    cdef void update(self) noexcept nogil:
        """All outputs as the state has them."""
        cdef u32 n, line, high = 0
        for n in range(self.count):
            if self.status >> n & 1 and self.tn_config[n] & INT_ENB and self.config & ENABLE_CNF:
                line = self.route(n)
                if line < LINES:
                    high |= <u32>1 << line
        if not self.config & LEG_RT_CNF:
            if self.legacy_inputs & 1:
                high |= 1 << PIT_LINE
            if self.legacy_inputs & 2:
                high |= 1 << RTC_LINE
        for n in range(LINES):
            self.outputs.set(n, high >> n & 1)
        self.pit_enabled.set(not self.config & LEG_RT_CNF)

    cdef void legacy(self, u32 n, int level) noexcept nogil:
        """OUT0 of the 8254 (0) or the clock's IRQ (1) changed."""
        if level:
            self.legacy_inputs |= <u32>1 << n
        else:
            self.legacy_inputs &= ~(<u32>1 << n)
        self.update()

    # --- registers --------------------------------------------------------------------------------------

    cdef u64 register(self, u64 at) noexcept nogil:
        cdef u32 n
        if at == 0x000:
            return <u64>0x8086A001 | (self.count - 1) << 8 | <u64>10000000 << 32
        if at == 0x010:
            return self.config
        if at == 0x020:
            return self.status
        if at == 0x0F0:
            return self.now()
        if at >= 0x100:
            n = <u32>(at - 0x100) >> 5
            if n < self.count:
                if at & 0x18 == 0x00:
                    return self.tn_config[n]
                if at & 0x18 == 0x08:
                    return self.comparator[n]
        return 0

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 value = self.register(offset & ~<u64>7)
        return value >> 32 if offset & 4 else value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u64 at = offset & ~<u64>7, mask = ALL if size == 8 else LOW
        cdef u32 n
        if offset & 3 or size < 4:
            return 0
        if offset & 4:
            mask = LOW << 32
            value <<= 32
        value &= mask
        if at == 0x010:
            self.configure((self.config & ~mask) | value)
        elif at == 0x020:
            self.status &= ~value
            self.update()
        elif at == 0x0F0:
            value |= self.now() & ~mask
            self.counter = value
            self.offset = self.clock.now() - <i64>value * TICK
            if self.config & ENABLE_CNF:
                for n in range(self.count):
                    self.arm(n)
        elif at >= 0x100:
            n = <u32>(at - 0x100) >> 5
            if n < self.count:
                if at & 0x18 == 0x00:
                    self.configure_timer(n, (self.tn_config[n] & ~mask) | value)
                elif at & 0x18 == 0x08:
                    self.compare(n, value, mask)
        return 0

    cdef void configure(self, u64 value) noexcept nogil:
        cdef u64 old = self.config
        cdef u32 n
        value &= ENABLE_CNF | LEG_RT_CNF
        if value & ~old & ENABLE_CNF:
            self.offset = self.clock.now() - <i64>self.counter * TICK
        elif old & ~value & ENABLE_CNF:
            self.counter = self.now()
            self.status = 0
        self.config = value
        if (old ^ value) & ENABLE_CNF:
            for n in range(self.count):
                self.arm(n)
        self.update()

    cdef void configure_timer(self, u32 n, u64 value) noexcept nogil:
        cdef u64 old = self.tn_config[n]
        self.tn_config[n] = (old & ~<u64>WRITABLE) | (value & WRITABLE)
        if value & MODE32:
            self.comparator[n] &= LOW
            self.period[n] &= LOW
        if not value & INT_TYPE_LEVEL or not value & INT_ENB:
            self.status &= ~(<u64>1 << n)
        if (old ^ value) & (TYPE_PERIODIC | MODE32 | INT_ENB):
            self.arm(n)
        self.update()

    cdef void compare(self, u32 n, u64 value, u64 mask) noexcept nogil:
        cdef u64 conf = self.tn_config[n]
        if conf & MODE32:
            if mask == LOW << 32:
                return
            value &= LOW
            mask = ALL
        if not conf & TYPE_PERIODIC or conf & VAL_SET:
            self.comparator[n] = (self.comparator[n] & ~mask) | value
        if conf & TYPE_PERIODIC:
            self.period[n] = (self.period[n] & ~mask) | value
        self.tn_config[n] &= ~<u64>VAL_SET
        self.arm(n)

    # --- state ------------------------------------------------------------------------------------------

    def check_state(self, values):
        if values["status"] >> self.count:
            raise StateError(f"HPET: status {values['status']:#x} names timers that there are not")
        for n in range(MOST):
            if (values["tn_config"][n] ^ self.tn_config[n]) & ~WRITABLE:
                raise StateError(f"HPET: timer {n} of the saved machine had other capabilities")

    def settle(self):
        self.update()


cdef class HpetOutputs:
    """The lines and timers behind C arrays, so that loops over them take no reference and no GIL."""

    cdef list keep
    cdef void *lines[24]
    cdef void *ticks[32]

    def __init__(self, list lines):
        self.keep = [lines]
        for n in range(LINES):
            self.lines[n] = <void *>lines[n]

    def set_ticks(self, list ticks):
        self.keep.append(ticks)
        for n in range(len(ticks)):
            self.ticks[n] = <void *>ticks[n]

    cdef void set(self, u32 n, int level) noexcept nogil:
        (<IrqLine>self.lines[n]).set(level)

    cdef void arm(self, u32 n, i64 deadline) noexcept nogil:
        (<HpetTick>self.ticks[n]).arm(deadline)

    cdef void cancel(self, u32 n) noexcept nogil:
        (<HpetTick>self.ticks[n]).cancel()


cdef class HpetTick(Timer):
    cdef Hpet hpet
    cdef u32 n

    def __init__(self, TimerQueue queue, Hpet hpet, u32 n):
        self.hpet = hpet
        self.n = n

    cdef void expire(self) noexcept nogil:
        self.hpet.expired(self.n)


cdef class HpetLegacy(IrqSink):
    """Input `which`: 0 takes OUT0 of the 8254, 1 the clock's IRQ."""

    cdef Hpet hpet
    cdef u32 which

    def __init__(self, Hpet hpet, u32 which):
        self.hpet = hpet
        self.which = which

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.hpet.legacy(self.which, level)
