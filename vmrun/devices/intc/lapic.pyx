"""Local APICs and the bus between them, compiled: the chips alone; apic.py makes them for a machine.

Ref: Intel SDM vol. 3 (325384), chapter 11: xAPIC registers 11.4, IPIs 11.6, x2APIC 11.12, message-signalled
interrupts 11.11, TSC deadline 11.5.4.1.
Not modelled: CMCI, suppression of EOI broadcasts, arbitration IDs, focus processors, the delay of a message
(delivery status always reads idle), the remote IRR of the LINT pins' LVTs.

The timer counts at 1 GHz before its divider. A periodic timer that asks for less than MIN_PERIOD between
interrupts gets one per MIN_PERIOD: the guest must not keep the host busy with nothing else.
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memset

from accel.cpuport import CpuPort as _CpuPort

from vmrun.core.state import Deadline, Moment, Table, U8, U32, U64, Words
from vmrun.errors import StateError

cdef enum:
    TIMER = 0
    COUNTER = 2
    LINT0 = 3
    LINT1 = 4
    ERROR = 5
    MASKED = 1 << 16
    TSC_DEADLINE = 2 << 17
    PERIODIC = 1 << 17
    TIMER_MODE = 3 << 17
    ENABLED = 1 << 8                # SVR
    BASE_BSP = 1 << 8
    BASE_EXTD = 1 << 10
    BASE_EN = 1 << 11
    FIXED = 0
    LOWEST = 1
    SMI = 2
    NMI = 4
    INIT = 5
    STARTUP = 6
    EXTINT = 7
    SEND_ILLEGAL_VECTOR = 1 << 5
    RECEIVED_ILLEGAL_VECTOR = 1 << 6
    ILLEGAL_REGISTER = 1 << 7

cdef i64 MIN_PERIOD = 50000
cdef i64 SPENT = <i64>1 << 60         # ns that a one-shot seems to run once it is over; no count lasts so long
cdef u64 MSR_BASE = 0x1B
cdef u64 MSR_DEADLINE = 0x6E0
cdef u32 *LVT_WRITABLE = [0x700FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF]


cdef int _highest(u32 *bits) noexcept nogil:
    """The highest set bit of 256, or -1."""
    cdef int word = 7, bit = 31
    while word >= 0:
        if bits[word]:
            while not bits[word] >> bit & 1:
                bit -= 1
            return word * 32 + bit
        word -= 1
    return -1


cdef void _set(u32 *bits, u32 n) noexcept nogil:
    bits[n >> 5] |= <u32>1 << (n & 31)


cdef void _unset(u32 *bits, u32 n) noexcept nogil:
    bits[n >> 5] &= ~(<u32>1 << (n & 31))


cdef bint _test(u32 *bits, u32 n) noexcept nogil:
    return bits[n >> 5] >> (n & 31) & 1


cdef int priority(Lapic apic) noexcept nogil:
    """For the arbitration of the lowest priority; -1 where the APIC cannot take part."""
    return <int>apic.ppr() if apic.svr & ENABLED else -1


cdef class ApicBus(MsiSink):
    """All local APICs of a machine. Takes messages (MSI, I/O APIC) and IPIs; passes EOIs on to the I/O APIC."""

    def __cinit__(self):
        self.apics = []
        self.eoi_sink = IrqSink()

    def __dealloc__(self):
        free(self.units)

    def add(self, Lapic apic):
        cdef void **grown = <void **>realloc(self.units, (self.count + 1) * sizeof(void *))
        if grown == NULL:
            raise MemoryError
        self.apics.append(apic)
        self.units = grown
        self.units[self.count] = <void *>apic
        self.count += 1

    def remove(self, Lapic apic):
        """The one that came last goes."""
        if self.apics and self.apics[-1] is apic:
            self.count -= 1
            self.turn = 0
            self.apics.pop()

    def set_eoi_handler(self, IrqSink sink):
        """sink.set_irq(vector, 1) for each end of a level-triggered interrupt."""
        self.eoi_sink = sink

    cdef void broadcast_eoi(self, u32 vector) noexcept nogil:
        self.eoi_sink.set_irq(vector, 1)

    cdef int deliver(self, u32 dest, bint logical, bint wide, u32 mode, u32 vector, bint level, i64 exclude) noexcept nogil:
        """1 when some APIC took it, 0 when none did. `exclude`: index that is passed over, or -1."""
        cdef u32 i, n
        cdef int best = 256, found, result = 0
        cdef i64 chosen = -1
        for i in range(self.count):
            # Turn by turn, so that equals share the work.
            n = (self.turn + i) % self.count if mode == LOWEST else i
            if n == exclude or not (<Lapic>self.units[n]).matches(dest, logical, wide):
                continue
            if mode != LOWEST:
                result |= (<Lapic>self.units[n]).accept(mode, vector, level)
                continue
            found = priority(<Lapic>self.units[n])
            if 0 <= found < best:
                best, chosen = found, n
        if chosen >= 0:
            self.turn = <u32>(chosen + 1) % self.count
            result = (<Lapic>self.units[chosen]).accept(FIXED, vector, level)
        return result

    cdef int send(self, u64 addr, u32 data) noexcept nogil:
        cdef u32 mode = data >> 8 & 7
        cdef bint logical = (addr >> 2) & 1
        if addr >> 20 != 0xFEE or mode == 3 or mode == STARTUP:
            return -1
        if addr & 8 and mode == FIXED and logical:              # redirection hint: to one of them
            mode = LOWEST
        return self.deliver(<u32>(addr >> 12) & 0xFF, logical, False, mode, data & 0xFF, data >> 15 & 1, -1)


cdef class Lapic(InterruptSource):
    """One processor's APIC. `port` is the processor; `pic` answers for an ExtINT (the master 8259A)."""

    state = Table(
        "apic", 1,
        U64("base", most=(1 << 52) - 1), U32("id"), U8("tpr_value"), U32("ldr"), U32("dfr"), U32("svr", most=0x3FF),
        U32("esr", most=0xFF), U32("errors", most=0xFF), U64("icr"), U32("initial_count"), U32("divide", most=0xF),
        U64("deadline"), Moment("start"), U8("extint", most=1), Words("lvt", 6, 0xFFFFFFFF),
        Words("irr", 8, 0xFFFFFFFF), Words("isr", 8, 0xFFFFFFFF), Words("tmr", 8, 0xFFFFFFFF), Deadline("timer"),
    )
    save, load_state = state.methods()[1:]

    def __init__(self, ApicBus bus, Clock clock, TimerQueue timers, u32 apic_id, bint bsp, u32 version=0x14):
        self.bus = bus
        self.clock = clock
        self.port = _CpuPort()
        self.pic = IntAck()
        self.version = version
        self.initial_id = apic_id
        self.index = bus.count
        self.timer = LapicTimer(timers)
        self.timer.apic = self
        self.base = <u64>0xFEE00000 | BASE_EN | (BASE_BSP if bsp else 0)
        self.clear()
        bus.add(self)

    def reset(self):
        """Power-on. The pins keep the level that their drivers give them."""
        self.base = <u64>0xFEE00000 | BASE_EN | (self.base & BASE_BSP)
        self.clear()
        self.update()

    cdef void reset_by_init(self) noexcept nogil:
        cdef u32 id = self.id
        self.clear()
        if not self.base & BASE_EXTD:
            self.id = id                                        # INIT leaves the ID alone
        self.update()

    cdef void clear(self) noexcept nogil:
        cdef u32 n
        self.timer.cancel()
        self.id = self.initial_id
        self.ldr = self.esr = self.errors = self.initial_count = self.divide = 0
        self.dfr = <u64>0xFFFFFFFF
        self.svr = 0xFF
        self.icr = self.deadline = 0
        self.tpr_value = self.extint = 0
        self.start = 0
        memset(self.irr, 0, sizeof(self.irr))
        memset(self.isr, 0, sizeof(self.isr))
        memset(self.tmr, 0, sizeof(self.tmr))
        for n in range(6):
            self.lvt[n] = MASKED
        if self.base & BASE_BSP:
            # Virtual wire, as boot firmware leaves it: guests without an APIC driver get their 8259A interrupts.
            self.lvt[LINT0] = EXTINT << 8

    # --- priorities -------------------------------------------------------------------------------------

    cdef u32 ppr(self) noexcept nogil:
        cdef int served = _highest(self.isr)
        if served < 0 or self.tpr_value >> 4 >= served >> 4:
            return self.tpr_value
        return served & 0xF0

    cdef int pending(self) noexcept nogil:
        """The vector to deliver now, or -1."""
        cdef int vector = _highest(self.irr)
        if vector < 0 or not self.svr & ENABLED or not self.base & BASE_EN or <u32>vector >> 4 <= self.ppr() >> 4:
            return -1
        return vector

    cdef bint takes_pic(self) noexcept nogil:
        """The 8259A interrupts this processor: through LINT0 as ExtINT, or because the APIC is off."""
        if not self.base & BASE_EN:
            return self.base & BASE_BSP != 0
        return self.lvt[LINT0] & (MASKED | 0x700) == EXTINT << 8

    cdef void update(self) noexcept nogil:
        cdef int level = self.pending() >= 0 or self.extint or (self.pins & 1 and self.takes_pic())
        level = level != 0
        if level != self.intr:
            self.intr = <u8>level
            self.port.set_intr(level)

    cdef int acknowledge(self) noexcept nogil:
        cdef int vector = self.pending()
        if vector >= 0:
            _unset(self.irr, vector)
            _set(self.isr, vector)
        elif self.extint or (self.pins & 1 and self.takes_pic()):
            self.extint = 0
            vector = self.pic.acknowledge()
        self.update()
        return vector

    cdef void end_of_interrupt(self) noexcept nogil:
        cdef int vector = _highest(self.isr)
        if vector < 0:
            return
        _unset(self.isr, vector)
        if _test(self.tmr, vector):
            self.bus.broadcast_eoi(vector)
        self.update()

    # --- messages ---------------------------------------------------------------------------------------

    cdef bint matches(self, u32 dest, bint logical, bint wide) noexcept nogil:
        cdef u32 mine, everyone = 0xFF
        if not self.base & BASE_EN:
            return False
        if wide:
            everyone = <u64>0xFFFFFFFF
        if dest == everyone:
            return True
        if not logical:
            return dest == (self.id if self.base & BASE_EXTD else self.id & 0xFF)
        if self.base & BASE_EXTD:
            mine = (self.id >> 4 << 16) | <u32>1 << (self.id & 15)
            return mine >> 16 == dest >> 16 and mine & dest & 0xFFFF
        mine = self.ldr >> 24
        if dest > 0xFF:
            return False
        if self.dfr >> 28 == 0xF:
            return mine & dest
        if self.dfr >> 28 == 0:
            return mine >> 4 == dest >> 4 and mine & dest & 0xF
        return False

    cdef int accept(self, u32 mode, u32 vector, bint level) noexcept nogil:
        if mode == FIXED or mode == LOWEST:
            if not self.svr & ENABLED:
                return 0
            if vector < 16:
                self.error(RECEIVED_ILLEGAL_VECTOR)
                return 0
            _set(self.irr, vector)
            if level:
                _set(self.tmr, vector)
            else:
                _unset(self.tmr, vector)
            self.update()
        elif mode == SMI:
            self.port.smi()
        elif mode == NMI:
            self.port.set_nmi()
        elif mode == INIT:
            self.reset_by_init()
            self.port.init()
        elif mode == STARTUP:
            self.port.sipi(<u8>vector)
        elif mode == EXTINT:
            self.extint = 1
            self.update()
        else:
            return 0
        return 1

    cdef void error(self, u32 bit) noexcept nogil:
        cdef bint again = self.errors & bit
        self.errors |= bit
        # An error handler without a legal vector would raise the same error for ever.
        if not again and not self.lvt[ERROR] & MASKED and self.lvt[ERROR] & 0xF0:
            self.accept(FIXED, self.lvt[ERROR] & 0xFF, False)

    cdef void fire_lvt(self, u32 n) noexcept nogil:
        cdef u32 entry = self.lvt[n]
        cdef u32 mode = entry >> 8 & 7
        if entry & MASKED:
            return
        if n == TIMER or n == ERROR:
            mode = FIXED
        if mode == FIXED or mode == SMI or mode == NMI or mode == INIT:
            self.accept(mode, entry & 0xFF, n in (LINT0, LINT1) and mode == FIXED and entry >> 15 & 1)

    cdef void counter_overflowed(self) noexcept nogil:
        """The entry masks itself."""
        self.fire_lvt(COUNTER)
        self.lvt[COUNTER] |= MASKED

    cdef void input(self, u32 n, int level) noexcept nogil:
        """LINT0 (n = 0) or LINT1 changed."""
        cdef u8 bit = 1 << n
        cdef bint rises = level and not self.pins & bit
        self.pins = self.pins | bit if level else self.pins & ~bit
        if rises and self.base & BASE_EN and self.lvt[LINT0 + n] >> 8 & 7 != EXTINT:
            self.fire_lvt(LINT0 + n)
        elif rises and n == 1 and not self.base & BASE_EN:
            self.port.set_nmi()
        self.update()

    cdef void send_ipi(self) noexcept nogil:
        cdef u32 low = <u32>self.icr, mode = low >> 8 & 7, vector = low & 0xFF
        cdef bint wide = self.base & BASE_EXTD != 0
        cdef u32 dest = <u32>(self.icr >> 32) if wide else <u32>(self.icr >> 56)
        cdef u32 shorthand = low >> 18 & 3
        if mode == 3 or mode == EXTINT:
            return
        if (mode == FIXED or mode == LOWEST) and vector < 16:
            self.error(SEND_ILLEGAL_VECTOR)
            return
        if mode == INIT and low & 0x8000 and not low & 0x4000:
            return                                              # de-assert: only sets arbitration IDs
        if shorthand == 1:
            if mode == FIXED:
                self.accept(FIXED, vector, False)
        elif shorthand:
            self.bus.deliver(<u64>0xFFFFFFFF, False, True, mode, vector, False, self.index if shorthand == 3 else -1)
        else:
            # IPIs are always edge-triggered here (SDM 11.6.1, trigger mode)
            self.bus.deliver(dest, low >> 11 & 1, wide, mode, vector, False, -1)

    # --- timer ------------------------------------------------------------------------------------------

    cdef u32 divider(self) noexcept nogil:
        return <u32>1 << (((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7)

    cdef u32 current_count(self) noexcept nogil:
        cdef i64 ticks
        if self.initial_count == 0 or self.lvt[TIMER] & TIMER_MODE == TSC_DEADLINE:
            return 0
        ticks = (self.clock.now() - self.start) // self.divider()
        if self.spent():
            return 0
        if self.lvt[TIMER] & TIMER_MODE == PERIODIC:
            return self.initial_count - <u32>(ticks % self.initial_count)
        return self.initial_count - <u32>ticks if ticks < self.initial_count else 0

    cdef bint spent(self) noexcept nogil:
        """It has run down as a one-shot, and runs again only when a count is written, in whatever mode."""
        return self.clock.now() - self.start >= SPENT

    cdef void arm(self, bint fresh) noexcept nogil:
        """Work out when the timer interrupts next. `fresh`: it was started just now."""
        cdef i64 now = self.clock.now(), period, at
        cdef u32 mode = self.lvt[TIMER] & TIMER_MODE
        if mode == TSC_DEADLINE:
            if self.deadline:
                at = self.port.tsc_time(self.deadline)
                if at <= now:
                    self.timer.cancel()
                    self.expired()
                    return
                self.timer.arm(at)
            else:
                self.timer.cancel()
            return
        if self.initial_count == 0:
            self.timer.cancel()
            return
        if self.spent():
            self.timer.cancel()
            return
        period = <i64>self.initial_count * self.divider()
        at = self.start + period
        if mode == PERIODIC:
            if at <= now:
                at = self.start + ((now - self.start) // period + 1) * period
            if period < MIN_PERIOD and at < now + MIN_PERIOD:
                at = now + MIN_PERIOD
        elif at <= now and not fresh:
            if self.timer.node.deadline > now:      # one that is due still comes
                self.timer.cancel()
            return
        self.timer.arm(at)

    cdef void expired(self) noexcept nogil:
        if self.lvt[TIMER] & TIMER_MODE == TSC_DEADLINE:
            self.deadline = 0
        self.fire_lvt(TIMER)
        if self.lvt[TIMER] & TIMER_MODE == PERIODIC:
            self.arm(False)
        elif self.lvt[TIMER] & TIMER_MODE == 0 and self.initial_count:
            self.start = self.clock.now() - SPENT

    # --- registers --------------------------------------------------------------------------------------

    cdef u32 mmio_read(self, u32 offset) noexcept nogil:
        cdef u64 value = 0
        if not self.base & BASE_EN or self.base & BASE_EXTD:
            return <u64>0xFFFFFFFF
        if self.load_register(offset >> 4 & 0xFF, &value):
            self.error(ILLEGAL_REGISTER)
        return <u32>value

    cdef void mmio_write(self, u32 offset, u32 value) noexcept nogil:
        if not self.base & BASE_EN or self.base & BASE_EXTD:
            return
        if self.store_register(offset >> 4 & 0xFF, value):
            self.error(ILLEGAL_REGISTER)

    cdef int load_register(self, u32 n, u64 *value) noexcept nogil:
        """Register `n` (its address / 16); -1 where there is none."""
        cdef bint wide = self.base & BASE_EXTD != 0
        if n == 0x02:
            value[0] = self.id if wide else self.id << 24
        elif n == 0x03:
            value[0] = self.version | 5 << 16
        elif n == 0x08:
            value[0] = self.tpr_value
        elif n == 0x09 or n == 0x0C:
            value[0] = 0                                        # APR, RRD: not on processors since the Pentium 4
        elif n == 0x0A:
            value[0] = self.ppr()
        elif n == 0x0B:
            value[0] = 0
        elif n == 0x0D:
            value[0] = (self.id >> 4 << 16) | <u32>1 << (self.id & 15) if wide else self.ldr
        elif n == 0x0E:
            value[0] = self.dfr
        elif n == 0x0F:
            value[0] = self.svr
        elif 0x10 <= n < 0x18:
            value[0] = self.isr[n - 0x10]
        elif 0x18 <= n < 0x20:
            value[0] = self.tmr[n - 0x18]
        elif 0x20 <= n < 0x28:
            value[0] = self.irr[n - 0x20]
        elif n == 0x28:
            value[0] = self.esr
        elif n == 0x30:
            value[0] = self.icr if wide else self.icr & <u64>0xFFFFFFFF
        elif n == 0x31:
            value[0] = self.icr >> 32
        elif 0x32 <= n < 0x38:
            value[0] = self.lvt[n - 0x32]
        elif n == 0x38:
            value[0] = self.initial_count
        elif n == 0x39:
            value[0] = self.current_count()
        elif n == 0x3E:
            value[0] = self.divide
        else:
            return -1
        return 0

    cdef int store_register(self, u32 n, u64 value) noexcept nogil:
        cdef bint wide = self.base & BASE_EXTD != 0
        cdef u32 old, i, left
        if n == 0x02:
            if not wide:
                self.id = (value >> 24) & 0xFF
        elif n == 0x08:
            self.set_tpr(value & 0xFF)
        elif n == 0x0B:
            self.end_of_interrupt()
        elif n == 0x0D:
            self.ldr = value & <u64>0xFF000000
        elif n == 0x0E:
            self.dfr = (value & <u64>0xF0000000) | <u64>0x0FFFFFFF
        elif n == 0x0F:
            self.svr = value & 0x3FF
            if not value & ENABLED:
                for i in range(6):
                    self.lvt[i] |= MASKED
            self.update()
        elif n == 0x28:
            self.esr = self.errors
            self.errors = 0
        elif n == 0x30:
            if wide:
                self.icr = value & <u64>0xFFFFFFFF000CCFFF
            else:
                self.icr = (self.icr & <u64>0xFFFFFFFF00000000) | (value & <u64>0x000CCFFF)
            self.send_ipi()
        elif n == 0x31:
            self.icr = (self.icr & <u64>0xFFFFFFFF) | (value & <u64>0xFF000000) << 32
        elif 0x32 <= n < 0x38:
            n -= 0x32
            old = self.lvt[n]
            self.lvt[n] = value & LVT_WRITABLE[n]
            if not self.svr & ENABLED:
                self.lvt[n] |= MASKED
            if n == TIMER:
                if not self.deadline_allowed:
                    self.lvt[n] &= ~<u32>TSC_DEADLINE
                if (old ^ self.lvt[n]) & TSC_DEADLINE:          # to or from deadline mode: disarmed
                    self.deadline = 0
                    self.initial_count = 0
                if (old ^ self.lvt[n]) & TIMER_MODE:
                    self.arm(False)
            self.update()
        elif n == 0x38:
            if self.lvt[TIMER] & TIMER_MODE != TSC_DEADLINE:
                self.initial_count = <u32>value
                self.start = self.clock.now()
                self.arm(True)
        elif n == 0x3E:
            left = self.current_count()
            self.divide = value & 0xB
            if self.initial_count:                              # the count goes on at the new speed
                self.start = self.clock.now() - <i64>(self.initial_count - left) * self.divider()
                self.arm(False)
        elif n == 0x3F and wide:                                # SELF IPI
            if value & 0xFF < 16:
                self.error(SEND_ILLEGAL_VECTOR)
            else:
                self.accept(FIXED, value & 0xFF, False)
        elif n in (0x03, 0x09, 0x0A, 0x0C, 0x39) or 0x10 <= n < 0x28:
            pass                                                # read-only
        else:
            return -1
        return 0

    cdef u8 get_tpr(self) noexcept nogil:
        return self.tpr_value

    cdef void set_tpr(self, u8 value) noexcept nogil:
        self.tpr_value = value
        self.update()

    cdef u64 get_base(self) noexcept nogil:
        return self.base

    cdef int set_base(self, u64 value) noexcept nogil:
        cdef bint was = self.base & BASE_EXTD != 0, on = value & BASE_EN != 0, wide = value & BASE_EXTD != 0
        if value & 0x2FF or value >> 52:
            return -1
        if wide and (not on or not self.x2apic_allowed or not self.base & BASE_EN):
            return -1
        if was and on and not wide:
            return -1                                           # back to xAPIC only by way of disabled
        if not on and self.base & BASE_EN:
            self.base = value
            self.clear()
        self.base = value
        if wide and not was:
            self.id = self.initial_id
        self.update()
        return 0

    cdef int rdmsr(self, u32 msr, u64 *value) noexcept nogil:
        cdef u32 n
        if msr == MSR_BASE:
            value[0] = self.base
            return 0
        if msr == MSR_DEADLINE and self.deadline_allowed:
            value[0] = self.deadline
            return 0
        n = msr - 0x800
        # Write-only: EOI, SELF IPI. Not there: APR, RRD, DFR, upper half of ICR.
        if not self.base & BASE_EXTD or n > 0xFF or n in (0x09, 0x0B, 0x0C, 0x0E, 0x31):
            return -1
        return self.load_register(n, value)

    cdef int wrmsr(self, u32 msr, u64 value) noexcept nogil:
        cdef u32 n
        cdef u64 allowed = <u64>0xFFFFFFFF
        if msr == MSR_BASE:
            return self.set_base(value)
        if msr == MSR_DEADLINE and self.deadline_allowed:
            if self.lvt[TIMER] & TIMER_MODE == TSC_DEADLINE:
                self.deadline = value
                self.arm(False)
            return 0
        n = msr - 0x800
        if not self.base & BASE_EXTD or n > 0xFF:
            return -1
        if n == 0x30:
            allowed = <u64>0xFFFFFFFF000CCFFF
        elif n == 0x0B or n == 0x28:
            allowed = 0
        elif n == 0x08 or n == 0x3F:
            allowed = 0xFF
        elif n == 0x0F:
            allowed = 0x3FF
        elif n == 0x3E:
            allowed = 0xB
        elif 0x32 <= n < 0x38:
            allowed = LVT_WRITABLE[n - 0x32] | 0x5000           # delivery status and remote IRR are ignored
        elif n != 0x38:
            return -1
        if value & ~allowed:
            return -1
        return self.store_register(n, value)

    # --- from outside -----------------------------------------------------------------------------------

    def drive(self, u32 n, int level):
        """LINT0 or LINT1."""
        if n < 2:
            with nogil:
                self.input(n, level)

    def check_state(self, values):
        if values["base"] & 0x2FF & ~BASE_BSP or values["base"] & BASE_EXTD and not values["base"] & BASE_EN:
            raise StateError(f"APIC: {values['base']:#x} is no value of its base register")

    def settle(self):
        self.update()


cdef class LapicTimer(Timer):
    cdef void expire(self) noexcept nogil:
        self.apic.expired()


cdef class LapicPins(IrqSink):
    """LINT0 (input 0) and LINT1 (1) of one APIC. The 8259A's INT ends at LINT0 of the first processor."""

    cdef Lapic apic

    def __init__(self, Lapic apic):
        self.apic = apic

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        if n < 2:
            self.apic.input(n, level)


cdef class ApicWindow(IoRegion):
    """The megabyte at 0xfee00000 as the address space has it.

    The first page is the APIC of `current` (the processor that runs, for accelerators with one thread); writes to
    the rest, and to offset 0, are message-signalled interrupts, whoever makes them.
    """

    cdef readonly ApicBus bus
    cdef public Lapic current

    def __init__(self, ApicBus bus, Lapic current):
        self.bus = bus
        self.current = current
        self.min_access = 4
        self.max_access = 4

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.current.mmio_read(<u32>offset) if offset < 0x1000 else <u64>0xFFFFFFFF

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset == 0 or offset >= 0x1000:
            self.bus.send(<u64>0xFEE00000 + offset, <u32>value)
        else:
            self.current.mmio_write(<u32>offset, <u32>value)
        return 0
