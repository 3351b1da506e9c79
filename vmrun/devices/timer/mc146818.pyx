# cython: cdivision=False
"""MC146818 real-time clock with 128 bytes of CMOS: the chip alone; mc146818rtc.py gives it ports and an interrupt.

Ref: Motorola MC146818A data sheet (ADI856): registers A to D, update cycle, periodic rates. The century in cell
0x32 is the PC's (IBM AT). Not modelled: daylight saving (DSE is storage), square wave, divider chains other than
32.768 kHz (a divider reset stops updates, as the data sheet says), power-fail.

The time of day is never counted: it is clock + offset, worked out when somebody looks.
"""

from accel.api cimport ACTION_NONE, IoRegion, IrqLine, i64, u8, u32, u64
from accel.clock cimport Clock, Timer, TimerQueue
from vmrun.core.cells cimport cells

from accel.api import IrqLine as _IrqLine

from vmrun.core.state import KEEP, Bytes, Signed, Table, U8, U32
from vmrun.errors import StateError

cdef enum:
    SECONDS = 0
    SECONDS_ALARM = 1
    MINUTES = 2
    MINUTES_ALARM = 3
    HOURS = 4
    HOURS_ALARM = 5
    DAY_OF_WEEK = 6
    DAY_OF_MONTH = 7
    MONTH = 8
    YEAR = 9
    REG_A = 10
    REG_B = 11
    REG_C = 12
    REG_D = 13
    CENTURY = 0x32
    CENTURY_PS2 = 0x37
    UIP = 0x80
    SET = 0x80
    PIE = 0x40
    AIE = 0x20
    UIE = 0x10
    DM = 0x04
    HOUR24 = 0x02
    IRQF = 0x80
    PF = 0x40
    AF = 0x20
    UF = 0x10
    VRT = 0x80

cdef i64 SECOND = 1000000000
cdef i64 OSCILLATOR = 32768
cdef i64 UPDATE_WARNING = 8 * SECOND // OSCILLATOR      # UIP comes so long before the update
cdef u32 MOST_COALESCED = 20000
# Seconds since 1970 that a clock of 64-bit nanoseconds can show with room for sums: 1779 to 2223
cdef i64 EARLIEST = -6000000000
cdef i64 LATEST = 8000000000
I64 = 1 << 63


cdef class Mc146818(IoRegion):
    """`line` is IRQ#; `offset` (ns) takes the clock to the time of day; `slew` gives lost periodic ticks again."""

    # The battery keeps cells and time. A moment on the host's clock is the same one in the next process.
    state = Table(
        "mc146818", 1,
        Bytes("cells", 128, KEEP), U8("index", most=127), U32("coalesced", most=MOST_COALESCED),
        Signed("offset", -I64, I64 - 1, KEEP), Signed("checked", -I64, I64 - 1, KEEP), Signed("last", -(1 << 48), 1 << 48, KEEP),
    )
    save, load_state = state.methods()[1:]

    cdef readonly Clock clock
    cdef readonly IrqLine line
    cdef readonly IrqLine alarm      # pulses at an alarm whose interrupt is enabled
    cdef readonly IrqLine moved      # pulses when software has set the time
    cdef u8 cmos[128]
    cdef public u8 index
    cdef public i64 offset
    cdef public bint slew
    cdef public i64 base_year        # of year register 0; 0: the century is in its cell
    cdef public i64 checked                 # time of day at which UF and AF were last worked out
    cdef public i64 last                    # when the last periodic interrupt was due, in ticks of the oscillator
    cdef public u32 coalesced
    cdef PeriodicTick periodic
    cdef SecondTick second

    def __init__(self, Clock clock, TimerQueue timers, IrqLine line):
        self.clock = clock
        self.line = line
        self.alarm = _IrqLine()
        self.moved = _IrqLine()
        self.max_access = 1
        self.periodic = PeriodicTick(timers)
        self.periodic.rtc = self
        self.second = SecondTick(timers)
        self.second.rtc = self
        self.cmos[REG_A] = 0x26
        self.cmos[REG_B] = HOUR24
        self.cmos[REG_D] = VRT
        self.checked = self.now()
        self.last = self.ticks()

    def reset(self):
        """RESET# clears the interrupt enables and flags; time and CMOS stay, they are on the battery."""
        self.cmos[REG_B] &= ~(PIE | AIE | UIE | 0x08)
        self.cmos[REG_C] = 0
        self.index = 0
        self.coalesced = 0
        self.rearm()

    # --- time of day ------------------------------------------------------------------------------------

    cdef i64 now(self) noexcept nogil:
        return self.clock.now() + self.offset

    cdef bint counting(self) noexcept nogil:
        return not self.cmos[REG_B] & SET and (self.cmos[REG_A] & 0x70) <= 0x20

    cdef u8 out(self, u32 value) noexcept nogil:
        return <u8>value if self.cmos[REG_B] & DM else <u8>((value // 10 % 10) << 4 | value % 10)

    cdef u32 number(self, u8 value) noexcept nogil:
        return value if self.cmos[REG_B] & DM else (value >> 4) * 10 + (value & 15)

    cdef void show(self, i64 when) noexcept nogil:
        """Fill cells 0 to 9 and the century from a time of day."""
        cdef i64 total = when // SECOND
        cdef i64 days = total // 86400
        cdef u32 rest = <u32>(total - days * 86400)
        cdef u32 hour = rest // 3600
        cdef i64 era, doe, yoe, doy, mp, year, month, day
        # Gregorian calendar from days since 1970-01-01, counted in eras of 400 years that begin in March
        era = (days + 719468) // 146097
        doe = days + 719468 - era * 146097
        yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
        doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
        mp = (5 * doy + 2) // 153
        day = doy - (153 * mp + 2) // 5 + 1
        month = mp + 3 if mp < 10 else mp - 9
        year = yoe + era * 400 + (1 if month <= 2 else 0)
        self.cmos[SECONDS] = self.out(rest % 60)
        self.cmos[MINUTES] = self.out(rest // 60 % 60)
        if self.cmos[REG_B] & HOUR24:
            self.cmos[HOURS] = self.out(hour)
        else:
            self.cmos[HOURS] = self.out(12 if hour % 12 == 0 else hour % 12) | (0x80 if hour >= 12 else 0)
        self.cmos[DAY_OF_WEEK] = self.out(<u32>((days + 4) % 7 + 1))
        self.cmos[DAY_OF_MONTH] = self.out(<u32>day)
        self.cmos[MONTH] = self.out(<u32>month)
        self.cmos[YEAR] = self.out(<u32>(((year - self.base_year) % 100 + 100) % 100))
        self.cmos[CENTURY] = self.out(<u32>(year // 100 % 100))

    cdef u32 hours_of(self, u8 cell) noexcept nogil:
        cdef u32 hour
        if self.cmos[REG_B] & HOUR24:
            return self.number(cell)
        hour = self.number(cell & 0x7F) % 12
        return hour + 12 if cell & 0x80 else hour

    cdef i64 told(self) noexcept nogil:
        """The time of day that the cells say, in whole seconds."""
        cdef i64 year, month, day, era, yoe, doy, doe
        year = self.number(self.cmos[YEAR]) + 100 * self.number(self.cmos[CENTURY])
        if self.base_year:
            year = self.number(self.cmos[YEAR]) + self.base_year
        month = self.number(self.cmos[MONTH])
        day = self.number(self.cmos[DAY_OF_MONTH])
        if month < 1:
            month = 1
        if month > 12:
            month = 12
        if month <= 2:
            year -= 1
        era = year // 400
        yoe = year - era * 400
        doy = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
        doe = yoe * 365 + yoe // 4 - yoe // 100 + doy
        doe = ((era * 146097 + doe - 719468) * 86400 + <i64>self.hours_of(self.cmos[HOURS]) * 3600
               + <i64>self.number(self.cmos[MINUTES]) * 60 + self.number(self.cmos[SECONDS]))
        return EARLIEST if doe < EARLIEST else LATEST if doe > LATEST else doe

    cdef void take(self) noexcept nogil:
        """Software set the cells: go on from there, the fraction of the second kept."""
        cdef i64 now = self.clock.now()
        cdef i64 fraction = (now + self.offset) % SECOND
        self.offset = self.told() * SECOND + fraction - now
        self.checked = now + self.offset
        self.moved.set(1)
        self.moved.set(0)

    # --- interrupts -------------------------------------------------------------------------------------

    cdef i64 period(self) noexcept nogil:
        """Ticks of the oscillator between periodic interrupts, 0 when off."""
        cdef u32 rate = self.cmos[REG_A] & 0x0F
        if rate == 0 or not self.counting() and self.cmos[REG_A] & 0x40:
            return 0
        if rate <= 2:
            rate += 7
        return <i64>1 << (rate - 1)

    cdef i64 ticks(self) noexcept nogil:
        """Of the oscillator, on the clock that it runs by."""
        cdef i64 when = self.clock.now()
        return when // SECOND * OSCILLATOR + when % SECOND * OSCILLATOR // SECOND

    cdef bint alarm_matches(self, i64 when) noexcept nogil:
        cdef i64 rest = when // SECOND % 86400
        cdef u8 s = self.cmos[SECONDS_ALARM], m = self.cmos[MINUTES_ALARM], h = self.cmos[HOURS_ALARM]
        return ((s >= 0xC0 or self.number(s) == rest % 60) and (m >= 0xC0 or self.number(m) == rest // 60 % 60)
                and (h >= 0xC0 or self.hours_of(h) == rest // 3600))

    cdef void catch_up(self) noexcept nogil:
        """Set the flags for what has happened since they were last looked at."""
        cdef i64 now = self.now(), period = self.period(), at, passed
        if self.counting() and now // SECOND != self.checked // SECOND:
            self.cmos[REG_C] |= UF
            at = self.checked // SECOND * SECOND + SECOND
            if at < now - 10 * SECOND or at > now:
                at = now - 10 * SECOND
            while at <= now:
                if self.alarm_matches(at):
                    self.cmos[REG_C] |= AF
                at += SECOND
        self.checked = now
        if period:
            passed = (self.ticks() - self.last) // period
            if passed > 0:
                self.cmos[REG_C] |= PF
                self.last += passed * period
        else:
            self.last = self.ticks()

    cdef void update_line(self) noexcept nogil:
        cdef bint wants = (self.cmos[REG_C] & self.cmos[REG_B] & (PF | AF | UF)) != 0
        self.cmos[REG_C] = (self.cmos[REG_C] & 0x7F) | (IRQF if wants else 0)
        self.line.set(wants)

    cdef void rearm(self) noexcept nogil:
        """Timers run only for interrupts that software enabled; the other flags are worked out on reading."""
        cdef i64 period = self.period(), now = self.clock.now(), ticks, when
        if self.cmos[REG_B] & PIE and period:
            ticks = self.last + period
            when = ticks // OSCILLATOR * SECOND + (ticks % OSCILLATOR * SECOND + OSCILLATOR - 1) // OSCILLATOR
            self.periodic.arm(when if when > now else now)
        else:
            self.periodic.cancel()
            self.coalesced = 0
        if self.cmos[REG_B] & (UIE | AIE) and self.counting():
            self.second.arm(((now + self.offset) // SECOND + 1) * SECOND - self.offset)
        else:
            self.second.cancel()
        self.update_line()

    cdef void tick(self) noexcept nogil:
        """A periodic interrupt is due."""
        cdef i64 period = self.period(), passed
        if period:
            passed = (self.ticks() - self.last) // period
            self.last += passed * period
        if self.slew and period:
            # one is this tick's, unless the guest has not yet taken the one before
            if passed > 0 and not self.cmos[REG_C] & PF:
                passed -= 1
            if passed > 0:
                self.coalesced += <u32>(passed if passed < MOST_COALESCED else MOST_COALESCED)
                if self.coalesced > MOST_COALESCED:
                    self.coalesced = MOST_COALESCED
        self.cmos[REG_C] |= PF
        self.rearm()

    cdef void second_over(self) noexcept nogil:
        self.catch_up()
        if self.cmos[REG_C] & AF and self.cmos[REG_B] & AIE:
            self.alarm.set(1)
            self.alarm.set(0)
        self.rearm()

    # --- ports ------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u8 value
        if offset == 0:
            return 0xFF               # the index register cannot be read
        if self.index <= YEAR or self.index == CENTURY:
            if self.counting() and self.index not in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
                self.show(self.now())
            return self.cmos[self.index]
        if self.index == REG_A:
            value = self.cmos[REG_A]
            if self.counting() and SECOND - self.now() % SECOND <= UPDATE_WARNING:
                value |= UIP
            return value
        if self.index == REG_C:
            self.catch_up()
            self.update_line()
            value = self.cmos[REG_C]
            self.cmos[REG_C] = 0
            if self.coalesced and self.cmos[REG_B] & PIE:
                self.coalesced -= 1
                self.line.set(0)
                self.cmos[REG_C] = PF
            self.update_line()
            return value
        return self.cmos[self.index]

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 byte = value & 0xFF, old
        cdef bint counted
        if offset == 0:
            self.index = byte & 0x7F
            if self.index == CENTURY_PS2:
                self.index = CENTURY
            # bit 7 masks NMI, which nothing on this board raises through here
        elif self.index in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM):
            self.catch_up()
            self.cmos[self.index] = byte
        elif self.index <= YEAR or self.index == CENTURY:
            if self.counting():
                self.show(self.now())
                self.cmos[self.index] = byte
                self.take()
                self.rearm()
            else:
                self.cmos[self.index] = byte
        elif self.index == REG_A:
            self.catch_up()
            counted = self.counting()
            if counted:
                self.show(self.now())
            if (byte ^ self.cmos[REG_A]) & 0x0F and not self.cmos[REG_B] & PIE:
                self.last = self.ticks()
            self.cmos[REG_A] = byte & 0x7F
            if not counted and self.counting():
                # a divider chain released from reset makes its first update half a second later
                self.offset = self.told() * SECOND + SECOND // 2 - self.clock.now()
                self.checked = self.now()
                self.last = self.ticks()
                self.moved.set(1)
                self.moved.set(0)
            self.rearm()
        elif self.index == REG_B:
            self.catch_up()
            old = self.cmos[REG_B]
            if byte & PIE and not old & PIE:
                self.last = self.ticks()        # the first one comes a whole period after its enable
            if byte & SET:
                if not old & SET:
                    self.show(self.now())
                byte &= ~UIE
                self.cmos[REG_B] = byte
            else:
                if self.counting():
                    # DM or 24/12 may change: the cells are shown in the new form from now on
                    self.cmos[REG_B] = byte
                else:
                    self.cmos[REG_B] = byte
                    self.take()
            self.rearm()
        elif self.index == REG_C or self.index == REG_D:
            pass                      # read-only
        else:
            self.cmos[self.index] = byte
        return ACTION_NONE

    # --- from outside -----------------------------------------------------------------------------------

    def set_cmos(self, u32 index, u32 value):
        """Put a byte into a cell that is not a register of the clock."""
        if index > 127:
            raise IndexError(f"CMOS has 128 cells, not {index}")
        self.cmos[index] = value & 0xFF

    def get_cmos(self, u32 index):
        if index > 127:
            raise IndexError(f"CMOS has 128 cells, not {index}")
        return self.cmos[index]

    def time_of_day(self):
        """ns since 1970 as the clock shows it."""
        return self.now()

    def set_time_of_day(self, i64 value):
        self.offset = value - self.clock.now()
        self.checked = value
        self.rearm()

    @property
    def cells(self):
        return cells(self, self.cmos, 128)

    def check_state(self, values):
        """Sums of these times stay within 64 bits."""
        for time in (self.clock.time() + values["offset"], values["checked"]):
            if not EARLIEST - (1 << 29) <= time // 1000000000 <= LATEST + (1 << 29):
                raise StateError("the clock's time is none that it can show")

    def settle(self):
        # Time that passed while the machine lay in a file is no series of lost ticks.
        if not 0 <= self.ticks() - self.last <= OSCILLATOR:
            self.last = self.ticks()
        self.rearm()


cdef class PeriodicTick(Timer):
    cdef Mc146818 rtc

    cdef void expire(self) noexcept nogil:
        self.rtc.tick()


cdef class SecondTick(Timer):
    cdef Mc146818 rtc

    cdef void expire(self) noexcept nogil:
        self.rtc.second_over()
