"""One virtual clock for the whole machine: TSC, PIT, PM timer, HPET, APIC timers and RTC are all derived from it.

It follows the host's time, but only by steps that the guest cannot tell from a processor at work. The host's clock is
read once a slice of guest code; within the slice time passes with the instructions executed. When the host took the
thread away for a while, the clock does not jump: it runs up to FASTEST times its pace until it has caught up. So a
guest that measures one timer by another (Linux's calibration of the TSC by the PIT) finds what it would on hardware,
on a loaded host too; and over seconds nothing drifts. While all processors are halted nothing can be measured, and
the clock follows at once, but never past a timer that is due: each tick of a periodic one is seen, late ones one
after the other.
"""

from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

cdef enum:
    FASTEST = 4

# ns. A guest that computes on a host with no time for it falls behind by seconds; when it idles at last, its timers
# come one after the other, as fast as it handles them: a jump would be a stall to its watchdogs. Beyond this it jumps.
cdef i64 MOST_LAG = 600000000000

# ns an instruction until it has been measured: 2, as 32.32
cdef u64 FIRST_PACE = <u64>2 << 32
cdef u64 EXACT_PACE = <u64>1 << 32


cdef class SoftClock(Clock):
    """now() may be asked by any thread that holds the device lock; only the processors' thread moves it."""

    def __cinit__(self, bint exact=False, u32 shift=0):
        self.exact = exact
        self.pace = EXACT_PACE << shift if exact else FIRST_PACE
        self.due = -1

    cdef i64 host_now(self) noexcept nogil:
        cdef timespec t
        clock_gettime(CLOCK_MONOTONIC, &t)
        return <i64>t.tv_sec * 1000000000 + t.tv_nsec

    cdef i64 ideal(self) noexcept nogil:
        return self.host_now() - self.offset

    cdef i64 now(self) noexcept nogil:
        cdef i64 value = self.at
        cdef Cpu *cpu = self.cpu
        if cpu != NULL:
            value += <i64>(((<u64>(<i64>cpu.slice - cpu.budget)) * (self.pace >> 8)) >> 24)
            if value > self.limit:
                value = self.limit
        if value > self.told:
            self.told = value
        return self.told

    cdef void begin(self, Cpu *cpu, i64 count) noexcept nogil:
        """A slice of `count` instructions starts. Its end is where the host's clock is expected to be by then."""
        cdef i64 most = <i64>((<u64>count * (self.pace >> 8)) >> 24)
        cdef i64 behind = self.ideal() - self.at, jump
        if self.told > self.at:
            self.at = self.told
        if self.exact:
            self.limit, self.cpu = <i64>1 << 62, cpu
            return
        if behind > 0:
            # as much of the lag as may be caught up in this slice
            jump = behind if behind < (FASTEST - 1) * most else (FASTEST - 1) * most
            if self.due >= 0 and jump > self.due - self.at:
                jump = self.due - self.at
            if jump > 0:
                self.at += jump
        self.limit = self.at + most
        if behind < -most:
            self.limit = self.at                    # ahead of the host: wait for it
        self.cpu = cpu

    cdef void end(self, u64 executed, i64 spent) noexcept nogil:
        """The slice is over: `executed` instructions in `spent` ns of the host's time."""
        cdef u64 measured
        self.at = self.now()
        self.cpu = NULL
        if executed > 1000 and spent > 0 and not self.exact:
            measured = (<u64>spent << 32) // executed
            if measured > 16 * self.pace:
                measured = 16 * self.pace           # the host was elsewhere
            self.pace += (<i64>measured - <i64>self.pace) // 16
            if self.pace < (<u64>1 << 26):
                self.pace = <u64>1 << 26

    cdef i64 instructions(self, i64 ns) noexcept nogil:
        """How many are expected to take so long."""
        if ns > 100000000:
            ns = 100000000
        return <i64>((<u64>ns << 32) // self.pace) if ns > 0 else 0

    cdef void catch_up(self) noexcept nogil:
        """Nobody computes: the clock is where the host's is, or where the timer is that is due by then."""
        cdef i64 to = self.ideal()
        if 0 <= self.due < to:
            to = self.due if self.due > to - MOST_LAG else to - MOST_LAG
        if to > self.at:
            self.at = to
        if self.at > self.told:
            self.told = self.at

    cdef void rest(self, i64 spent, bint called) noexcept nogil:
        """Exactly: all processors slept for `spent` ns of the host's. The next timer's time comes when as much has passed;
        `called`: somebody wants a processor before that."""
        self.slept += spent
        if 0 <= self.due <= self.at + self.slept:
            if self.due > self.at:
                self.at = self.due
        elif called:
            self.at += self.slept
        else:
            return
        self.slept = 0
        if self.at > self.told:
            self.told = self.at

    # --- like VirtualClock ----------------------------------------------------------------------------------

    def start(self):
        if not self.running:
            self.offset = self.host_now() - self.at
            self.running = True

    def stop(self):
        self.running = False

    def set_time(self, i64 value):
        self.at = self.told = value
        self.offset = self.host_now() - value
