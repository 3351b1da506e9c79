"""Processors of the soft accelerator, and the threads that run them.

One thread for all is the first processor's (accel.run tells its course). It runs the machine's timers, then gives each
processor that is not halted a slice of instructions in turn, and sleeps when all are halted, until a timer is due or
somebody rings. A slice ends early at the next deadline, so timers are on time to within a block of instructions.

With a thread for each processor (Machine.threads) time is the host's and the timers are run by others. Such a thread
runs slices too, and looks around between them: for interrupts, and for whoever wants it out. While it waits for the
device lock it counts as outside, as the layout of memory is changed by one who holds the lock and waits for all others.

Within a slice the loop is: events that wait (interrupts, INIT, stop), then find the block at RIP and run it; its
handlers lead from block to block until the budget is spent or something needs the loop. No lock is held and the GIL
is not needed; devices are called through hooks that take the device lock.
"""

from posix.unistd cimport read

from accel.run cimport REQUEST_DEBUG, RunControl
from accel.soft.code cimport forget_written, look_again
from accel.soft.cpu cimport *
from accel.soft.fpu cimport fpu_enter_slice, fpu_leave_slice
from accel.soft.guest cimport *
from accel.soft.hooks cimport connect
from accel.soft.machine cimport Machine
from accel.soft.pending cimport *
from accel.soft.pmu cimport count_from, count_up, until_overflow
from accel.soft.slice cimport run_slice

cdef extern from *:
    """
    #include <poll.h>
    #include <sys/prctl.h>
    #include <signal.h>
    static void vr_sleep(int bell, int timers, long long ns)
    {
        struct pollfd fds[2] = {{bell, POLLIN, 0}, {timers, POLLIN, 0}};
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        ppoll(fds, timers >= 0 ? 2 : 1, &t, NULL);
    }
    /* A SIGINT or SIGTERM is the main thread's. */
    static void vr_quiet(void)
    {
        static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
        sigset_t set;
        unsigned i;
        sigfillset(&set);
        for (i = 0; i < sizeof open / sizeof *open; i++)
            sigdelset(&set, open[i]);
        pthread_sigmask(SIG_SETMASK, &set, NULL);
        prctl(PR_SET_NAME, "soft CPUs", 0, 0, 0);
    }
    """
    void vr_sleep(int, int, long long) nogil
    void vr_quiet() nogil

cdef enum:
    SLICE = 20000               # instructions: some 50 us
    LEAST = 200

cdef i64 LONGEST_SLEEP = 10000000000    # ns


cdef void counter_due(SoftCpu cpu) noexcept nogil:
    """One of its counters overflowed."""
    if cpu.source is not None:
        cpu.machine.lock.acquire()
        cpu.source.counter_overflowed()
        cpu.machine.lock.release()


cdef void give_up(SoftCpu cpu) noexcept with gil:
    """A triple fault."""
    cpu.control.report(cpu if cpu.leader is None else cpu.leader, {**cpu.describe(), "exit": "SHUTDOWN", "why": "triple fault"})


cdef class SoftCpu(Processor):
    """A processor. The first one's thread runs all; `launch()` is called for it alone."""

    def __init__(self, RunControl control, u32 index, Machine machine, cpuid):
        super().__init__(control, index, machine, cpuid)
        connect(self.c)

    def init(self):
        vr_quiet()

    # --- the thread -----------------------------------------------------------------------------------------

    cdef void run(self) noexcept nogil:
        if self.machine.threads:
            self.run_alone()
        else:
            self.run_all()

    cdef void run_alone(self) noexcept nogil:
        """The thread of this processor and no other."""
        cdef Cpu *c = self.c
        cdef Guest *g = <Guest *>c.guest
        while True:
            vr_and32(&c.pending, ~<u32>PEND_STOP)
            if self.control.must_leave(self):
                break
            if self.waits():
                vr_set32i(&self.asleep, 1)
                if self.waits():
                    self.control.halt(self)
                vr_set32i(&self.asleep, 0)
                continue
            self.control.enter_guest(self)
            forget_written(g)
            look_again(g)
            c.budget = <i64>until_overflow(c, SLICE) if c.pmu.active else SLICE
            c.slice = c.budget
            if c.pmu.active:
                count_from(c)
            fpu_enter_slice(c)
            run_slice(c)
            fpu_leave_slice(c)
            if c.pmu.active:
                count_up(c)
            c.executed += <u64>(<i64>c.slice - c.budget)
            self.control.leave_guest(self)
            self.ended(c)
            if g.alone:
                self.run_one_alone()

    cdef void run_one_alone(self) noexcept nogil:
        """One instruction while all others are outside: one with LOCK over the end of a page, as a bus lock would be.

        The device lock is what one who changes the layout has, so nobody else stops them meanwhile.
        """
        cdef Cpu *c = self.c
        cdef Guest *g = <Guest *>c.guest
        self.machine.lock.acquire()
        with gil:
            self.control.inhibit()
        self.alone = True
        g.alone = 2
        c.shadow |= 1                       # blocks of one instruction
        c.slice = c.budget = 1
        fpu_enter_slice(c)
        run_slice(c)
        fpu_leave_slice(c)
        c.executed += <u64>(<i64>c.slice - c.budget)
        g.alone = 0
        self.alone = False
        with gil:
            self.control.allow()
        self.machine.lock.release()
        self.ended(c)

    cdef bint waits(self) noexcept nogil:
        """There is nothing to do for this processor until something comes for it."""
        cdef Cpu *c = self.c
        cdef u32 reasons = ~<u32>0
        if self.machine.off:
            return True
        if c.wait_sipi:
            reasons = PEND_INIT | PEND_SIPI | PEND_FLUSH | PEND_STOP
        elif not c.halted:
            return False
        else:
            if not c.eflags & F_IF:
                reasons &= ~<u32>PEND_INTR      # an interrupt that IF keeps out is no reason to wake
            if c.nmi_blocked:
                reasons &= ~<u32>PEND_NMI
            if c.in_smm:
                reasons &= ~<u32>PEND_SMI
        return not vr_get32(&c.pending) & reasons

    cdef void ended(self, Cpu *c) noexcept nogil:
        """A slice is over: was it the last one?"""
        if c.pmu.due:
            c.pmu.due = False
            counter_due(<SoftCpu>c.owner)
        if c.stop == STOP_SHUTDOWN:
            c.stop = STOP_NEXT
            give_up(<SoftCpu>c.owner)
        elif c.host_stop:
            self.control.request(self, REQUEST_DEBUG)

    cdef void run_all(self) noexcept nogil:
        cdef u32 n, ran
        while True:
            # A kick is answered by the looks that follow, at what it was for; one that comes after them stays.
            for n in range(self.machine.count):
                vr_and32(&self.machine.table[n].pending, ~<u32>PEND_STOP)
            if self.control.must_leave(self):
                break
            self.control.enter_guest(self)
            ran = 0
            while True:
                n = self.machine.turn
                self.machine.turn = n + 1 if n + 1 < self.machine.count else 0
                ran += self.slice_of(self.machine.table[n])
                if self.machine.turn == 0 or self.control.must_leave(self):
                    break
            if not self.machine.exact:
                self.machine.turn = 0
            self.control.leave_guest(self)
            if not ran and self.machine.turn == 0 and not self.control.must_leave(self):
                self.idle()

    cdef bint slice_of(self, Cpu *c) noexcept nogil:
        """A turn of one processor. Does it go on?"""
        cdef i64 count, started
        if self.machine.off or c.host_frozen or (c.halted or c.wait_sipi) and not vr_get32(&c.pending):
            return False
        count = self.run_timers()
        forget_written(<Guest *>c.guest)
        started = self.machine.paced.host_now()
        if c.pmu.active:
            count = <i64>until_overflow(c, <u64>count)
        c.slice = count
        c.budget = count
        self.machine.paced.begin(c, count)
        if c.pmu.active:
            count_from(c)
        fpu_enter_slice(c)
        run_slice(c)
        fpu_leave_slice(c)
        if c.pmu.active:
            count_up(c)
        c.executed += <u64>(<i64>c.slice - c.budget)
        self.machine.paced.end(<u64>(<i64>c.slice - c.budget), self.machine.paced.host_now() - started)
        self.ended(c)
        return not c.halted

    cdef i64 run_timers(self) noexcept nogil:
        """Those that are due; then how many instructions the next slice may have."""
        cdef i64 now = self.machine.paced.now(), deadline, count
        if self.machine.timers is None:
            return SLICE
        self.machine.lock.acquire()
        deadline = self.machine.timers.next_deadline()
        if deadline >= 0 and deadline <= now:
            self.machine.timers.run_expired(now)
            deadline = self.machine.timers.next_deadline()
        self.machine.lock.release()
        self.machine.paced.due = deadline
        if deadline < 0:
            return SLICE
        count = self.machine.paced.instructions(deadline - now)
        if self.machine.exact:
            return SLICE if count > SLICE else (1 if count < 1 else count)
        return SLICE if count > SLICE else (LEAST if count < LEAST else count)

    cdef void idle(self) noexcept nogil:
        """All halted: sleep until a timer is due or the bell rings."""
        cdef i64 deadline = -1, sleep = LONGEST_SLEEP
        cdef u64 rung
        cdef u32 n
        cdef int timers = -1
        cdef bint awake = False
        vr_set32i(&self.machine.asleep, 1)
        for n in range(self.machine.count):
            # An interrupt that IF keeps out is no reason to wake.
            if vr_get32(&self.machine.table[n].pending) & (~<u32>PEND_INTR if not self.machine.table[n].eflags & F_IF else ~<u32>0):
                awake = True
        if self.machine.timers is not None:
            self.machine.lock.acquire()
            deadline = self.machine.timers.next_deadline()
            if self.machine.timers.notifier is not None:
                timers = self.machine.timers.notifier.fd
            self.machine.lock.release()
        if self.machine.exact:
            self.rest(deadline, awake and not self.machine.off, timers)
            return
        if deadline >= 0 and deadline - self.machine.paced.ideal() < sleep:
            sleep = deadline - self.machine.paced.ideal()
        if (not awake or self.machine.off) and sleep > 0:
            vr_sleep(self.machine.bell, timers, sleep)
        vr_set32i(&self.machine.asleep, 0)
        read(self.machine.bell, &rung, 8)
        if timers >= 0:
            self.machine.timers.notifier.clear()
        if self.machine.timers is not None:     # others may have changed them meanwhile
            self.machine.lock.acquire()
            self.machine.paced.due = self.machine.timers.next_deadline()
            self.machine.lock.release()
        self.machine.paced.catch_up()
        self.run_timers()

    cdef void rest(self, i64 deadline, bint awake, int timers) noexcept nogil:
        """The same by the clock of instructions: as long as it takes, or no time at all, but to the timer's time exactly."""
        cdef i64 began = self.machine.paced.host_now(), sleep = LONGEST_SLEEP
        cdef bint skips = self.machine.skips and not self.machine.off and deadline >= 0
        cdef u64 rung
        cdef u32 n
        if deadline >= 0 and deadline - self.machine.paced.at - self.machine.paced.slept < sleep:
            sleep = deadline - self.machine.paced.at - self.machine.paced.slept
        if not awake and sleep > 0 and not skips:
            vr_sleep(self.machine.bell, timers, sleep)
        vr_set32i(&self.machine.asleep, 0)
        read(self.machine.bell, &rung, 8)
        if timers >= 0:
            self.machine.timers.notifier.clear()
        if awake:
            return                      # one has got an interrupt since its turn: no time has passed
        self.machine.paced.due = deadline
        for n in range(self.machine.count):
            awake = awake or vr_get32(&self.machine.table[n].pending) != 0
        if skips and not awake and sleep > 0:
            self.machine.paced.rest(sleep, False)
        else:
            self.machine.paced.rest(self.machine.paced.host_now() - began, awake)
        self.run_timers()

    # --- for tests and reports --------------------------------------------------------------------------------

    def execute(self, bint one):
        """One block, or one instruction, of a machine that is stopped; how many instructions."""
        cdef Cpu *c = self.c
        with nogil:
            forget_written(<Guest *>c.guest)
            look_again(<Guest *>c.guest)
            if one:
                c.shadow = 1            # blocks of one instruction
            c.slice = c.budget = 1
            fpu_enter_slice(c)
            run_slice(c)
            fpu_leave_slice(c)
            c.executed += <u64>(<i64>c.slice - c.budget)
        return <i64>c.slice - c.budget

    def advance(self, u64 count):
        """The first processor of a stopped machine: all run as they always do, until it has executed `count` in all."""
        cdef u32 n
        with nogil:
            while self.c.executed < count:
                n = self.machine.turn
                self.machine.turn = n + 1 if n + 1 < self.machine.count else 0
                if not self.slice_of(self.machine.table[n]) and self.c.halted:
                    self.idle()
        return self.c.executed
