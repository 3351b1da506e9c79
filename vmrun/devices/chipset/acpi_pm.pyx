"""The ACPI fixed hardware of the PIIX4: PM1 event and control blocks and the power-management timer, compiled.

Ref: Intel 82371AB PIIX4 (290562) 7.2; ACPI 1.0b 4.7.
Not modelled: clock throttling (P_CNT), processor levels, global and device power-management registers above 0x0c:
they read 0 and ignore writes.
"""

from accel.api cimport (ACTION_NONE, ACTION_SHUTDOWN, ACTION_SUSPEND, IoRegion, IrqLine, i64, u8, u16, u32, u64)
from accel.clock cimport Clock, Timer, TimerQueue

from accel.api import IrqLine as _IrqLine

from vmrun.core.state import Flag, Table, U16, U64

cdef u64 TICKS = 3579545                # Hz
cdef u16 TMR_STS = 0x0001
cdef u16 PWRBTN_STS = 0x0100
cdef u16 RTC_STS = 0x0400
cdef u16 WAK_STS = 0x8000
cdef u16 STATUS_BITS = 0x8D31           # WAK, PRBTNOR, RTC, SLPBTN-less PWRBTN, GBL, BM, TMR
cdef u16 SCI_CAUSES = 0x0521            # RTC, PWRBTN, GBL, TMR
cdef u16 SCI_EN = 0x0001
cdef u16 SLP_EN = 0x2000


cdef class AcpiPm(IoRegion):
    """64 ports. `sci` follows PM1 and `gpe_level`; sleep types come from the properties of the device."""

    # The timer counts as having overflowed at power-on, as it does in qemu-kvm. Its count is the clock's.
    state = Table(
        "acpi-pm", 1,
        U16("status"), U16("enable"), U16("control", lambda pm: SCI_EN if pm.always_acpi else 0), U64("overflow_at", most=1 << 53),
        Flag("asleep"),
    )
    reset, save, load_state = state.methods()

    cdef readonly Clock clock
    cdef readonly IrqLine sci
    cdef readonly IrqLine wake       # pulses when the timer overflows in a sleep
    cdef readonly IrqLine hibernated  # pulses when the guest has written itself to a disk (S4)
    cdef PmOverflow overflow
    cdef public u16 status, enable, control
    cdef public u64 overflow_at             # ticks at which TMR_STS is set again
    cdef public int gpe_level
    cdef public int s4_value
    cdef public bint asleep          # S3
    cdef public bint s3_disabled, s4_disabled
    cdef public bint always_acpi     # there is no legacy mode: SCI_EN is set from reset on, and stays

    def __init__(self, Clock clock, TimerQueue timers):
        self.clock = clock
        self.sci = _IrqLine()
        self.wake = _IrqLine()
        self.hibernated = _IrqLine()
        self.overflow = PmOverflow(timers)
        self.overflow.pm = self
        self.max_access = 4
        self.s4_value = 2

    cdef u64 ticks(self) noexcept nogil:
        cdef i64 now = self.clock.now()
        return <u64>(now // 1000000000) * TICKS + <u64>(now % 1000000000) * TICKS // 1000000000

    cdef void update(self) noexcept nogil:
        """The SCI, and the timer's next overflow (bit 23 changes) while somebody waits for it."""
        cdef u64 at = self.overflow_at
        if self.ticks() >= at:
            self.status |= TMR_STS
        self.sci.set((self.status & self.enable & SCI_CAUSES) != 0 or self.gpe_level != 0)
        if self.enable & TMR_STS and not self.status & TMR_STS:
            self.overflow.arm(<i64>(at // TICKS * 1000000000 + (at % TICKS) * 1000000000 // TICKS) + 1)
        else:
            self.overflow.cancel()

    cdef void overflowed(self) noexcept nogil:
        self.update()
        if self.asleep:
            self.wake.set(1)
            self.wake.set(0)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u64 image
        if offset < 4:
            self.update()
            image = self.status | (<u64>self.enable << 16)
        elif offset < 8:
            image = self.control
            offset -= 4
        elif offset < 12:
            image = self.ticks() & 0xFFFFFF
            offset -= 8
        else:
            return 0
        return image >> (8 * offset)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 i, action = ACTION_NONE
        for i in range(size):
            action |= self.write_byte(offset + i, (value >> (8 * i)) & 0xFF)
        self.update()
        return action

    cdef u32 write_byte(self, u64 offset, u8 value) noexcept nogil:
        cdef int kind
        if offset == 0:
            if value & TMR_STS:
                # Set again when bit 23 of the counter changes next.
                self.overflow_at = ((self.ticks() >> 23) + 1) << 23
            self.status &= ~<u16>value
        elif offset == 1:
            self.status &= ~(<u16>value << 8)
        elif offset == 2:
            self.enable = (self.enable & 0xFF00) | value
        elif offset == 3:
            self.enable = (self.enable & 0x00FF) | (<u16>value << 8)
        elif offset == 4:
            self.control = (self.control & 0xFF00) | value
        elif offset == 5:
            self.control = (self.control & 0x00FF) | ((<u16>value << 8) & ~SLP_EN)
            if (<u16>value << 8) & SLP_EN:
                kind = (value >> 2) & 7
                if kind == 0:
                    return ACTION_SHUTDOWN
                if kind == 1 and not self.s3_disabled:
                    return ACTION_SUSPEND
                if kind == self.s4_value and not self.s4_disabled:
                    self.hibernated.set(1)
                    self.hibernated.set(0)
                    return ACTION_SHUTDOWN
        return ACTION_NONE

    def set_sci_enable(self, bint on):
        """What a write of ACPI_ENABLE or ACPI_DISABLE to the SMI command port does."""
        if self.always_acpi:
            return
        self.control = self.control | SCI_EN if on else self.control & ~SCI_EN
        self.update()

    def press_power_button(self):
        self.status |= PWRBTN_STS
        self.update()

    def wakes(self, reason):
        """Whether the guest wants to be woken by that: "rtc", "pmtimer", "other" (the power button is always heard)."""
        return reason == "other" or self.enable & (RTC_STS if reason == "rtc" else TMR_STS) != 0

    def woken(self, reason):
        """The status of a machine that leaves S3."""
        self.status |= WAK_STS | {"rtc": RTC_STS, "pmtimer": TMR_STS}.get(reason, PWRBTN_STS)
        self.update()

    def set_gpe(self, int level):
        self.gpe_level = level
        self.update()

    def settle(self):
        self.update()


cdef class PmOverflow(Timer):
    """Bit 23 of the timer changes."""

    cdef AcpiPm pm

    cdef void expire(self) noexcept nogil:
        self.pm.overflowed()
