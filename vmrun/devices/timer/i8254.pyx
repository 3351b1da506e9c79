"""8254 interval timer, compiled: the chip alone; isa_pit.py gives it ports and interrupt 0.

Ref: Intel 8254 (231164): modes, gate and what a count written while counting does. The clock of all three counters
is the PC's 1.193182 MHz.
Not modelled: the one clock between writing a count and loading it; a new count in mode 3 waits for the end of the
period, not of the half.

Counting is arithmetic on the clock: a counter knows when it began. OUT0 moves at the times the arithmetic says even
when the host comes late, so the guest gets each edge; only after more than PERIODS_BEHIND periods are the rest skipped.
"""

from accel.api cimport IoRegion, IrqLine, IrqSink, i64, u8, u32, u64
from accel.clock cimport Clock, Timer, TimerQueue

from vmrun.core.state import Moment, Rows, Table, Signed, U8, U32

cdef i64 HZ = 1193182
cdef i64 SECOND = 1000000000
cdef u32 PERIODS_BEHIND = 4
cdef i64 SHORTEST = 20000           # ns; periods below this do not wake the host for each edge

ctypedef struct Counter:
    u32 count               # 1..65536 (10000 in BCD)
    u8 mode, bcd, gate
    u8 control              # the control word's six bits as written: what the status tells
    u8 rw                   # 1 low byte, 2 high byte, 3 low then high
    u8 read_high, write_high, latch_high
    u8 write_low
    u8 latched              # bytes of the latch not read yet
    u32 latch
    u8 status, status_latched
    u8 null_count
    u8 loaded
    u8 triggered            # modes 1 and 5: a rising gate has begun the count
    u32 next                # count that waits for the end of the period (modes 2, 3) or a trigger (1, 5); 0: none
    i64 switch_at           # input clock at which `next` comes in
    i64 frozen              # input clocks counted when the gate fell; -1 while it counts
    i64 start               # ns when counting began



# A count of 2^52 input clocks is 120 years; its time in ns still fits.
FARTHEST = 1 << 52


def from_kernel(fields):
    """The state of the same chip in KVM's kernel, which tells no phase: each counter begins anew."""
    counters = []
    for channel in fields["registers"]["channels"]:
        rw, mode = channel["rw_mode"] or 3, channel["mode"]
        counters.append({
            "count": channel["count"] or 0x10000, "mode": mode - 4 if mode > 5 else mode, "bcd": channel["bcd"],
            "gate": channel["gate"], "control": rw << 4 | mode << 1 | channel["bcd"], "rw": rw,
            "read_high": int(channel["read_state"] == 4), "write_high": int(channel["write_state"] == 4),
            "latch_high": int(channel["count_latched"] == 4 or rw == 2), "write_low": channel["write_latch"],
            "latched": 0 if not channel["count_latched"] else 2 if channel["count_latched"] == 3 else 1,
            "latch": channel["latched_count"], "status": channel["status"], "status_latched": channel["status_latched"],
            "null_count": 0, "loaded": 1, "triggered": 0, "next": 0, "switch_at": 0, "frozen": -1, "start": 0,
        })
    return {"counters": counters}


cdef class I8254(IoRegion):
    """Four ports. OUT0 is `line`."""

    # After reset all count 65536 down in mode 3, counter 2 with its gate closed.
    state = Table(
        "i8254", 1,
        Rows(
            "counters", 3,
            U32("count", 0x10000, least=1, most=0x10000), U8("mode", 3, most=5), U8("bcd", most=1),
            U8("gate", (1, 1, 0), most=1), U8("control", 0x36, most=0x3F), U8("rw", 3, least=1, most=3),
            U8("read_high", most=1), U8("write_high", most=1), U8("latch_high", most=1), U8("write_low"),
            U8("latched", most=2), U32("latch", most=0xFFFF), U8("status"), U8("status_latched", most=1),
            U8("null_count", most=1), U8("loaded", 1, most=1), U8("triggered", most=1), U32("next", most=0x10000),
            Signed("switch_at", 0, FARTHEST), Signed("frozen", -1, FARTHEST, -1), Moment("start"),
        ),
        readers={("kvm-pit", 1): from_kernel},
    )
    reset, save, load_state = state.methods()

    cdef readonly Clock clock
    cdef readonly IrqLine line
    cdef public bint irq_disabled    # by the HPET's pin
    cdef public Counter counters[3]
    cdef PitTick tick
    cdef i64 scheduled              # input clock of counter 0 that the timer waits for

    def __init__(self, Clock clock, TimerQueue timers, IrqLine line):
        self.clock = clock
        self.line = line
        self.max_access = 1
        self.tick = PitTick(timers)
        self.tick.pit = self
        self.reset()

    # --- counting ---------------------------------------------------------------------------------------

    cdef i64 elapsed(self, Counter *c) noexcept nogil:
        """Input clocks since counting began; a count that was waiting comes in when its time has come."""
        cdef i64 d
        if c.frozen >= 0:
            return c.frozen
        d = self.clocks(self.clock.now() - c.start)
        if c.next and c.mode in (2, 3) and d >= c.switch_at:
            self.switch_count(c)
            d = self.clocks(self.clock.now() - c.start)
        return d

    cdef i64 clocks(self, i64 ns) noexcept nogil:
        if ns < 0:
            return 0
        return ns // SECOND * HZ + ns % SECOND * HZ // SECOND

    cdef i64 when(self, Counter *c, i64 clocks) noexcept nogil:
        """ns at which `clocks` input clocks have passed."""
        return c.start + clocks // HZ * SECOND + (clocks % HZ * SECOND + HZ - 1) // HZ

    cdef void switch_count(self, Counter *c) noexcept nogil:
        c.start = self.when(c, c.switch_at)
        c.count = c.next
        c.next = 0
        c.null_count = 0

    cdef u32 value(self, u32 n) noexcept nogil:
        cdef Counter *c = &self.counters[n]
        cdef i64 d = self.elapsed(c), r
        cdef u32 value, half
        if c.mode in (1, 5) and not c.triggered:
            d = 0
        if c.mode in (0, 1, 4, 5):
            value = <u32>(c.count + 10000 - d % 10000) if c.bcd else <u32>(c.count - d) & 0xFFFF
        elif c.mode == 3:
            r, half = d % c.count, (c.count + 1) // 2         # down by two, twice in a period
            value = (c.count & ~<u32>1) - 2 * <u32>(r if r < half else r - half)
        else:
            value = c.count - <u32>(d % c.count)
        if c.bcd:
            value %= 10000
            value = value // 1000 << 12 | value // 100 % 10 << 8 | value // 10 % 10 << 4 | value % 10
        return value & 0xFFFF

    cdef int out_at(self, Counter *c, i64 d) noexcept nogil:
        """OUT when `d` input clocks have passed."""
        if not c.loaded:
            return c.mode != 0
        if c.mode == 0:
            return d >= c.count
        if c.mode == 1:
            return not c.triggered or d >= c.count
        if c.mode == 2:
            return not c.gate or d % c.count != c.count - 1
        if c.mode == 3:
            return not c.gate or d % c.count < (c.count + 1) // 2
        if c.mode == 5 and not c.triggered:
            return 1
        return d != c.count

    cdef int out(self, u32 n) noexcept nogil:
        return self.out_at(&self.counters[n], self.elapsed(&self.counters[n]))

    cdef i64 change_after(self, Counter *c, i64 d) noexcept nogil:
        """The input clock of the next change of OUT after clock `d`, -1 for never."""
        cdef i64 base, half
        if not c.loaded or c.frozen >= 0 or c.mode in (2, 3) and not c.gate or c.mode in (1, 5) and not c.triggered:
            return -1
        if c.mode in (0, 1):
            return c.count if d < c.count else -1
        if c.mode in (4, 5):
            return c.count if d < c.count else c.count + 1 if d == c.count else -1
        base = d - d % c.count
        half = c.count - 1 if c.mode == 2 else (c.count + 1) // 2
        return base + half if d % c.count < half else base + c.count

    cdef void load_count(self, u32 n, u32 value) noexcept nogil:
        cdef Counter *c = &self.counters[n]
        cdef i64 d
        if c.bcd:
            value = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15)
        if value == 0:
            value = 10000 if c.bcd else 0x10000
        if c.loaded and (c.mode in (2, 3) and c.gate or c.mode in (1, 5) and c.triggered):
            d = self.elapsed(c)
            c.next = value
            c.null_count = 1
            c.switch_at = d - d % c.count + c.count
            return
        c.count = value
        c.next = 0
        c.start = self.clock.now()
        c.frozen = 0 if c.mode in (0, 4) and not c.gate else -1
        c.loaded = 1
        c.null_count = 0
        if n == 0:
            self.drive()

    cdef void drive(self) noexcept nogil:
        """OUT0 as it is now, and the timer for when it changes."""
        cdef Counter *c = &self.counters[0]
        if self.irq_disabled:
            self.tick.cancel()
            return
        self.go_on(self.elapsed(c))

    cdef void go_on(self, i64 d) noexcept nogil:
        """OUT0 as it is at input clock `d`; then wait for the next change."""
        cdef Counter *c = &self.counters[0]
        cdef i64 at, now = self.clock.now()
        self.line.set(self.out_at(c, d))
        d = self.change_after(c, d)
        if d < 0:
            self.tick.cancel()
            return
        self.scheduled = d
        at = self.when(c, d)
        if c.mode in (2, 3) and c.count < 24 and at < now + SHORTEST:
            at = now + SHORTEST
        self.tick.arm(at)

    cdef void expired(self) noexcept nogil:
        """The timer's time came, perhaps late: make up for the edges that are due."""
        cdef Counter *c = &self.counters[0]
        cdef i64 d = self.scheduled, behind
        if self.irq_disabled:
            return
        if c.next and c.mode in (2, 3) and d >= c.switch_at:
            d -= c.switch_at
            self.switch_count(c)
        if c.mode in (2, 3) and c.gate:
            behind = (self.clocks(self.clock.now() - c.start) - d) // c.count
            if behind > PERIODS_BEHIND and not c.next:
                d += behind * c.count
        self.go_on(d)

    # --- ports ------------------------------------------------------------------------------------------

    cdef void latch_count(self, Counter *c, u32 n) noexcept nogil:
        if not c.latched:
            c.latch = self.value(n)
            c.latched = 2 if c.rw == 3 else 1
            c.latch_high = c.rw == 2

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef Counter *c
        cdef u32 value
        if offset == 3:
            return 0
        c = &self.counters[offset]
        if c.status_latched:
            c.status_latched = 0
            return c.status
        if c.latched:
            c.latched -= 1
            value = c.latch >> 8 if c.latch_high else c.latch
            c.latch_high = 1
            return value & 0xFF
        value = self.value(<u32>offset)
        if c.rw == 2:
            return value >> 8
        if c.rw == 3:
            c.read_high = not c.read_high
            return value & 0xFF if c.read_high else value >> 8
        return value & 0xFF

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 byte = value & 0xFF, n
        cdef Counter *c
        if offset == 3:
            if byte >> 6 == 3:                                 # read-back
                for n in range(3):
                    if byte & (2 << n):
                        c = &self.counters[n]
                        if not byte & 0x20:
                            self.latch_count(c, n)
                        if not byte & 0x10 and not c.status_latched:
                            c.status = (self.out(n) << 7 | c.null_count << 6 | c.control) & 0xFF
                            c.status_latched = 1
                return 0
            n = byte >> 6
            c = &self.counters[n]
            if byte & 0x30 == 0:
                self.latch_count(c, n)
                return 0
            c.control = byte & 0x3F
            c.rw = byte >> 4 & 3
            c.mode = byte >> 1 & 7
            if c.mode > 5:
                c.mode -= 4                                    # modes 6 and 7 are 2 and 3
            c.bcd = byte & 1
            c.read_high = c.write_high = 0
            c.latched = c.status_latched = 0
            c.null_count = 1
            c.loaded = c.triggered = 0
            c.next = 0
            c.frozen = -1
            if n == 0:
                self.drive()
            return 0
        n = <u8>offset
        c = &self.counters[n]
        if c.rw == 1:
            self.load_count(n, byte)
        elif c.rw == 2:
            self.load_count(n, <u32>byte << 8)
        elif not c.write_high:
            c.write_low = byte
            c.write_high = 1
            c.null_count = 1
            if c.mode == 0:
                c.loaded = 0                                   # the first byte stops counting
                if n == 0:
                    self.drive()
        else:
            c.write_high = 0
            self.load_count(n, c.write_low | <u32>byte << 8)
        return 0

    # --- from outside -----------------------------------------------------------------------------------

    def get_out(self, u32 channel):
        return self.out(channel)

    def get_gate(self, u32 channel):
        return self.counters[channel].gate

    def set_gate(self, u32 channel, bint level):
        cdef Counter *c = &self.counters[channel]
        cdef i64 now = self.clock.now()
        if level and not c.gate:
            if c.mode in (0, 4):
                if c.frozen >= 0:                              # goes on where it stopped
                    c.start = now - (c.frozen // HZ * SECOND + (c.frozen % HZ * SECOND + HZ - 1) // HZ)
                    c.frozen = -1
            else:                                              # a rising gate triggers
                if c.next:
                    c.count = c.next
                    c.next = 0
                    c.null_count = 0
                c.start = now
                c.frozen = -1
                c.triggered = c.loaded
        elif not level and c.gate and c.mode not in (1, 5):
            c.frozen = self.elapsed(c)
        c.gate = level
        if channel == 0:
            self.drive()

    def set_irq_disabled(self, bint off):
        """The HPET took over interrupt 0."""
        self.irq_disabled = off
        if off:
            self.line.set(0)
        self.drive()

    def settle(self):
        self.drive()


cdef class PitTick(Timer):
    cdef I8254 pit

    cdef void expire(self) noexcept nogil:
        self.pit.expired()


cdef class PitEnable(IrqSink):
    """Low while an HPET has taken over interrupt 0."""

    cdef I8254 pit

    def __init__(self, I8254 pit):
        self.pit = pit

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.pit.irq_disabled = not level
        if level:
            self.pit.drive()
        else:
            self.pit.tick.cancel()
            self.pit.line.set(0)
