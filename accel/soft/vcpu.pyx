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

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.stdlib cimport free
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close, read, write

from accel.api cimport ACTION_NONE, ACTION_RESET, DeviceLock, IrqSink
from accel.clock cimport TimerQueue, VirtualClock
from accel.run cimport REQUEST_DEBUG, CpuThread, RunControl
from accel.soft.block cimport find_block
from accel.soft.branch cimport unlinked
from accel.soft.code cimport forget_all, forget_world, forget_written, look_again
from accel.soft.control cimport reset_cpu, start_cpu
from accel.soft.cpu cimport *
from accel.soft.exception cimport after_step, before_step, deliver, host_point, interrupt, nmi
from accel.soft.fpstate cimport PKRU, YMM0
from accel.soft.fpu cimport fpu_enter_slice, fpu_leave_slice, fpu_resume, fpu_suspend
from accel.soft.guest cimport *
from accel.soft.mmu cimport ACCESS_WRITE, flush, install, set_mode, translate
from accel.soft.paging cimport TLB_ALL
from accel.soft.physical cimport keep_layout, plain
from accel.soft.pmu cimport count_from, count_up, until_overflow
from accel.soft.room cimport open_room
from accel.soft.segment cimport EFER_LMA
from accel.soft.smm cimport enter_smi
from accel.soft.string cimport run_devices_by
from accel.soft.state cimport cpu_state, describe_cpu, set_cpu_state
from accel.soft.translate cimport translate as hotspot
from accel.space cimport AddressSpace

from accel.errors import AccelFailure
from accel.soft.block import SCRATCH_SIZE

cdef extern from *:
    """
    #include <poll.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <signal.h>
    #define vr_or32(p, v) __atomic_fetch_or((p), (v), __ATOMIC_SEQ_CST)
    #define vr_and32(p, v) __atomic_fetch_and((p), (v), __ATOMIC_SEQ_CST)
    #define vr_get32(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_set32(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    static int vr_bell(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
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
    u32 vr_or32(u32 *, u32) nogil
    u32 vr_and32(u32 *, u32) nogil
    u32 vr_get32(u32 *) nogil
    int vr_get32i "vr_get32"(int *) nogil
    void vr_set32i "vr_set32"(int *, int) nogil
    int vr_bell() nogil
    void vr_sleep(int, int, long long) nogil
    void vr_quiet() nogil
    int madvise(void *, size_t, int) nogil
    int MADV_HUGEPAGE

PINS = {"intr": 0, "nmi": 1, "smi": 2, "a20": 3}

cdef enum:
    SLICE = 20000               # instructions: some 50 us
    LEAST = 200
    FX_SIZE = 4096
    SIGNALS = 65536             # below a Cpu, which RSP points to in translated code: for the frames of signals

cdef u64 ARENA = <u64>96 << 20
cdef u64 GREAT = <u64>2 << 20
cdef u64 CPU_ROOM = (SIGNALS + sizeof(Cpu) + 4095) & ~<u64>4095
cdef i64 LONGEST_SLEEP = 10000000000    # ns

# MSRs of the KVM clock: the first two are the old numbers of the same
cdef enum:
    MSR_WALL_OLD = 0x11
    MSR_CLOCK_OLD = 0x12
    MSR_WALL = 0x4B564D00
    MSR_CLOCK = 0x4B564D01
    MSR_ASYNC_PF = 0x4B564D02   # then stolen time and EOI by memory; features 4, 5, 6
    MSR_PV_EOI = 0x4B564D04
    MSR_DEADLINE = 0x6E0


# --- what the processor asks of its surroundings -------------------------------------------------------------------------

cdef void finish(SoftCpu cpu, u32 action) noexcept nogil:
    """After a device was called: what it asked for, and whether the processor must look around."""
    if action:
        if cpu.leader is None:
            cpu.control.request(cpu, action)
        else:
            cpu.control.request(cpu.leader, action)
    cdef u32 waits = vr_get32(&cpu.c.pending)
    if action and cpu.c.exact or waits and (waits != PEND_INTR or cpu.c.eflags & F_IF):
        cpu.c.slice -= cpu.c.budget
        cpu.c.budget = 0


cdef u64 c_in(SoftCpu cpu, Cpu *c, u32 port, u32 size) noexcept nogil:
    cdef u64 value
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    value = cpu.machine.io.load(port, size)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, 0)
    return value


cdef void c_out(SoftCpu cpu, Cpu *c, u32 port, u32 size, u64 value) noexcept nogil:
    cdef u32 action
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    action = cpu.machine.io.store(port, size, value)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef void c_string(SoftCpu cpu, Cpu *c, u32 port, u32 size, u8 *data, u32 count, bint out) noexcept nogil:
    cdef u32 action
    fpu_suspend(c)
    cpu.take_lock()
    if out:
        action = cpu.machine.io.store_string(port, size, data, count)
    else:
        action = cpu.machine.io.load_string(port, size, data, count)
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef u64 c_load(SoftCpu cpu, Cpu *c, u64 phys, u32 size) noexcept nogil:
    cdef u64 value
    if cpu.owns_apic(phys):
        cpu.take_lock()
        value = cpu.source.mmio_read(<u32>phys & 0xFFC)
        cpu.give_lock()
        return value >> (8 * (phys & 3))
    if cpu.hides_apic(phys):
        return ~<u64>0
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    value = cpu.machine.memory.load(phys, size)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, 0)
    return value


cdef void c_store(SoftCpu cpu, Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil:
    cdef u32 action = 0
    if cpu.owns_apic(phys):
        cpu.take_lock()
        if not phys & 3:
            cpu.source.mmio_write(<u32>phys & 0xFFC, <u32>value)
        cpu.give_lock()
        finish(cpu, 0)
        return
    if cpu.hides_apic(phys):
        return
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    action = cpu.machine.memory.store(phys, size, value)
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)


cdef i64 c_run(SoftCpu cpu, Cpu *c, u64 linear, u32 size, const u8 *data, u64 value, u64 n) noexcept nogil:
    """See accel/soft/string.pxd."""
    cdef Entry *entry
    cdef u8 *host = NULL
    cdef u64 phys, done = 0
    cdef u32 action = 0
    if not c.efer & EFER_LMA:
        linear &= <u64>0xFFFFFFFF
    if translate(c, linear, ACCESS_WRITE, c.cpl == 3, &host, &phys):
        return -1
    if host != NULL or cpu.owns_apic(phys) or cpu.hides_apic(phys) or plain(c, phys, &entry) != NULL:
        return 0
    if entry == NULL or entry.region == NULL or entry.last - phys < n * size - 1:
        return 0
    fpu_suspend(c)
    cpu.take_lock()
    cpu.control.current = <void *>cpu
    while done < n and not action:
        if data != NULL:
            value = 0
            memcpy(&value, data + done * size, size)
        action = cpu.machine.memory.store(phys + done * size, size, value)
        done += 1
    cpu.control.current = NULL
    cpu.give_lock()
    fpu_resume(c)
    finish(cpu, action)
    return <i64>done


cdef u64 c_tsc(void *cpu, Cpu *c) noexcept nogil:
    return (<SoftCpu>cpu).machine.ticks((<SoftCpu>cpu).machine.clock.now())


cdef int c_rdmsr(SoftCpu cpu, Cpu *c, u32 msr, u64 *value) noexcept nogil:
    cdef int result = -1
    if msr == MSR_CLOCK or msr == MSR_CLOCK_OLD:
        value[0] = cpu.kvmclock_msr
        return 0 if cpu.use_kvmclock else -1
    if msr == MSR_WALL or msr == MSR_WALL_OLD:
        value[0] = cpu.wall_msr
        return 0 if cpu.use_kvmclock else -1
    if MSR_ASYNC_PF <= msr <= MSR_PV_EOI:
        value[0] = cpu.offers[msr - MSR_ASYNC_PF]
        return 0 if cpu.kvm_features >> (4 + msr - MSR_ASYNC_PF) & 1 else -1
    if cpu.source is not None:
        cpu.take_lock()
        result = cpu.source.rdmsr(msr, value)
        cpu.give_lock()
    return result


cdef int c_wrmsr(SoftCpu cpu, Cpu *c, u32 msr, u64 value) noexcept nogil:
    cdef int result = -1
    if msr == MSR_CLOCK or msr == MSR_CLOCK_OLD:
        return cpu.set_kvmclock(value) if cpu.use_kvmclock else -1
    if msr == MSR_WALL or msr == MSR_WALL_OLD:
        return cpu.set_wall(value) if cpu.use_kvmclock else -1
    if MSR_ASYNC_PF <= msr <= MSR_PV_EOI:
        if not cpu.kvm_features >> (4 + msr - MSR_ASYNC_PF) & 1:
            return -1
        cpu.offers[msr - MSR_ASYNC_PF] = value
        return 0
    if cpu.source is not None:
        cpu.take_lock()
        result = cpu.source.wrmsr(msr, value)
        cpu.give_lock()
        finish(cpu, 0)
    return result


cdef u32 c_get_tpr(void *cpu, Cpu *c) noexcept nogil:
    return (<SoftCpu>cpu).source.get_tpr() >> 4 if (<SoftCpu>cpu).source is not None else 0


cdef void c_set_tpr(SoftCpu cpu, Cpu *c, u32 value) noexcept nogil:
    if cpu.source is not None:
        cpu.take_lock()
        cpu.source.set_tpr(<u8>(value << 4))
        cpu.give_lock()
        finish(cpu, 0)


cdef int c_ack(SoftCpu cpu, Cpu *c) noexcept nogil:
    cdef int vector = -1
    fpu_suspend(c)
    cpu.take_lock()
    if cpu.source is not None:
        vector = cpu.source.acknowledge()
    elif cpu.ack is not None:
        vector = cpu.ack.acknowledge()
    cpu.give_lock()
    fpu_resume(c)
    return vector


cdef void give_up(SoftCpu cpu) noexcept with gil:
    """A triple fault."""
    cpu.control.report(cpu if cpu.leader is None else cpu.leader, {**cpu.describe(), "exit": "SHUTDOWN", "why": "triple fault"})


cdef u64 port_in(Cpu *c, u32 port, u32 size) noexcept nogil:
    return c_in(<SoftCpu>c.owner, c, port, size)

cdef void port_out(Cpu *c, u32 port, u32 size, u64 value) noexcept nogil:
    c_out(<SoftCpu>c.owner, c, port, size, value)

cdef void port_in_string(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil:
    c_string(<SoftCpu>c.owner, c, port, size, data, count, False)

cdef void port_out_string(Cpu *c, u32 port, u32 size, u8 *data, u32 count) noexcept nogil:
    c_string(<SoftCpu>c.owner, c, port, size, data, count, True)

cdef u64 phys_load(Cpu *c, u64 phys, u32 size) noexcept nogil:
    return c_load(<SoftCpu>c.owner, c, phys, size)

cdef void phys_store(Cpu *c, u64 phys, u32 size, u64 value) noexcept nogil:
    c_store(<SoftCpu>c.owner, c, phys, size, value)

cdef i64 device_run(Cpu *c, u64 linear, u32 size, const u8 *data, u64 value, u64 n) noexcept nogil:
    return c_run(<SoftCpu>c.owner, c, linear, size, data, value, n)

run_devices_by(device_run)

cdef u64 tsc(Cpu *c) noexcept nogil:
    return c_tsc(c.owner, c)

cdef int rdmsr(Cpu *c, u32 msr, u64 *value) noexcept nogil:
    return c_rdmsr(<SoftCpu>c.owner, c, msr, value)

cdef int wrmsr(Cpu *c, u32 msr, u64 value) noexcept nogil:
    return c_wrmsr(<SoftCpu>c.owner, c, msr, value)

cdef u32 get_tpr(Cpu *c) noexcept nogil:
    return c_get_tpr(c.owner, c)

cdef void set_tpr(Cpu *c, u32 value) noexcept nogil:
    c_set_tpr(<SoftCpu>c.owner, c, value)

cdef int acknowledge(Cpu *c) noexcept nogil:
    return c_ack(<SoftCpu>c.owner, c)


# --- a slice -------------------------------------------------------------------------------------------------------------

cdef bint events(Cpu *c) noexcept nogil:
    """See to what waits. False: the slice is over."""
    cdef u32 p = vr_get32(&c.pending)
    cdef int vector
    if p & PEND_STOP:
        return False
    if p & PEND_FLUSH:
        vr_and32(&c.pending, ~<u32>PEND_FLUSH)
        forget_all(<Guest *>c.guest)
        flush(c, True)
    if p & PEND_INIT:
        vr_and32(&c.pending, ~<u32>(PEND_INIT | PEND_SIPI))
        reset_cpu(c, True)
        c.wait_sipi = c.index != 0
    if p & PEND_SIPI:
        vr_and32(&c.pending, ~<u32>PEND_SIPI)
        if c.wait_sipi:
            c.wait_sipi = False
            start_cpu(c, c.sipi_vector)
    if c.wait_sipi:
        return False
    if c.shadow:
        return not c.halted
    # (one who steps is not led away by interrupts)
    if p & PEND_SMI and not c.in_smm:
        vr_and32(&c.pending, ~<u32>PEND_SMI)
        c.halted = False
        enter_smi(c)
    elif p & PEND_NMI and not c.nmi_blocked:
        vr_and32(&c.pending, ~<u32>PEND_NMI)
        c.halted = False
        nmi(c)
    elif p & PEND_INTR and c.eflags & F_IF and (not c.host_step or c.halted):
        vector = c.hooks.acknowledge(c)
        if vector >= 0:
            c.halted = False
            interrupt(c, <u32>vector)
        # Else it was withdrawn meanwhile, which has cleared the flag; clearing it here could lose the next one.
    return not c.halted


cdef void run_slice(Cpu *c) noexcept nogil:
    """Until the budget is spent, the processor halts, or somebody wants it out."""
    cdef Block *block
    cdef i64 kept
    cdef bint step, trap, behind_ss
    c.stop = STOP_NEXT
    while c.budget > 0:
        if vr_get32(&c.pending) or c.halted or c.wait_sipi:
            c.link = NULL
            if not events(c):
                return
        block = find_block(c)
        if block == NULL:
            c.budget -= 1               # an endless chain of exceptions takes time too
            deliver(c)
            if c.stop == STOP_SHUTDOWN:
                return
            continue
        c.budget -= block.count
        c.block = block
        c.stop = STOP_NEXT
        behind_ss = c.shadow & 4
        c.shadow = 0
        step = block.mode & MODE_STEP
        if step and c.host_dr7 and host_point(c):
            c.budget += block.count
            c.shadow = 4 if behind_ss else 0
            c.host_stop = HOST_HARDWARE
            return
        if step and before_step(c, behind_ss):
            c.stop = STOP_EXCEPTION
        elif step:
            trap = c.eflags & F_TF
            kept = c.budget
            c.budget = 0
            c.slice -= kept
            code_of(block).fn(c, code_of(block))
            c.budget += kept
            c.slice += kept
            if c.locked and c.stop == STOP_NEXT:
                c.locked = 0                # another processor's store came between: once more
                c.tlb = c.lock_tlb
                if (<Guest *>c.guest).alone == 1:
                    return
                continue
            if c.stop != STOP_EXCEPTION:
                after_step(c, trap)
        else:
            code_of(block).fn(c, code_of(block))
        if c.locked:
            c.locked = 0
            c.tlb = c.lock_tlb
            if (<Guest *>c.guest).alone == 1:
                return
        if step and (c.host_step or c.host_hits) and not c.host_stop:
            c.host_stop = HOST_HARDWARE if c.host_hits else HOST_STEP
        if c.stop == STOP_NEXT and not c.host_stop:
            continue
        if c.stop == STOP_EXCEPTION:
            c.link = NULL
            deliver(c)
        if c.stop == STOP_EVENT:
            forget_written(<Guest *>c.guest)
        elif c.stop == STOP_HALT:
            c.halted = True
        if c.stop == STOP_SHUTDOWN or c.stop == STOP_LEAVE or c.host_stop:
            return


cdef u64 code_of_guest(Guest *g) noexcept:
    """Bytes of translated code."""
    return g.native_used + g.apart_used - g.apart_first


cdef class Machine:
    """What the processors share: address spaces, code cache, clock, bell."""

    def __cinit__(self, AddressSpace memory, AddressSpace io, DeviceLock lock, u32 hot=0, u64 room=0, bint exact=False,
                  i64 started=-1, bint threads=False):
        self.memory, self.io, self.lock = memory, io, lock
        self.threads = threads
        self.world.threads = threads
        self.world.memory = <void *>memory
        self.paced = None if threads else SoftClock(exact)
        self.clock = VirtualClock() if threads else self.paced
        self.exact, self.started = exact, started
        self.cpus = []
        self.tsc_hz = 1000000000
        self.bell = vr_bell()
        self.room, self.hot = room, hot
        if self.bell < 0 or keep_layout(&self.world):
            raise AccelFailure("the host has no memory for the code cache", "", "free some of the host's memory")

    cdef Guest *guest_of(self, u32 index) except NULL:
        """Where processor `index` keeps its blocks: with the first one, unless it has a thread of its own."""
        cdef u32 n = index if self.threads else 0
        cdef Guest *g = self.world.guests[n]
        cdef void *arena
        if g != NULL:
            return g
        g = <Guest *>PyMem_RawCalloc(1, sizeof(Guest))
        if g == NULL:
            raise MemoryError
        g.world = &self.world
        g.size = ARENA
        g.near.start = 1
        g.cpus = &self.table[n]
        g.buckets = <Block **>PyMem_RawCalloc(BUCKETS, sizeof(Block *))
        g.pages = <Block **>PyMem_RawCalloc(PAGE_BUCKETS, sizeof(Block *))
        g.jcache = <JumpEntry *>PyMem_RawCalloc(JCACHE_SIZE, sizeof(JumpEntry))
        # blocks, code to execute, the same to write; at an address for great pages
        self.taken = ARENA + 2 * self.room + GREAT
        arena = mmap(NULL, self.taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if arena != MAP_FAILED:
            g.memory = <u8 *>arena
            g.arena = <u8 *>((<u64>arena + GREAT - 1) & ~<u64>(GREAT - 1))
            madvise(g.arena, ARENA, MADV_HUGEPAGE)
        if g.arena == NULL or g.buckets == NULL or g.pages == NULL or g.jcache == NULL:
            self.drop_guest(g)
            raise AccelFailure("the host has no memory for the code cache", "", "free some of the host's memory")
        self.translates = self.room and open_room(
            g, g.arena + ARENA, g.arena + ARENA + self.room, self.room, self.hot, hotspot
        )
        return g

    cdef void drop_guest(self, Guest *g) noexcept:
        if g.memory != NULL:
            munmap(g.memory, self.taken)
        PyMem_RawFree(g.buckets)
        PyMem_RawFree(g.pages)
        PyMem_RawFree(g.jcache)
        PyMem_RawFree(g)

    def __dealloc__(self):
        cdef u32 n
        for n in range(MOST_GUESTS):
            if self.world.guests[n] != NULL:
                self.drop_guest(self.world.guests[n])
        free(self.world.map)
        if self.bell >= 0:
            close(self.bell)

    cdef u64 ticks(self, i64 ns) noexcept nogil:
        """Of the TSC."""
        if self.tsc_hz == 1000000000:
            return <u64>ns
        return <u64>ns // 1000000000 * self.tsc_hz + <u64>ns % 1000000000 * self.tsc_hz // 1000000000

    cdef void ring(self) noexcept nogil:
        """End the sleep, or the next one."""
        cdef u64 one = 1
        if vr_get32i(&self.asleep):
            write(self.bell, &one, 8)

    def flush(self):
        """The layout of memory changed, or somebody looks for writes: nothing cached stays."""
        cdef u32 n
        for n in range(self.world.count):
            self.world.guests[n].near.start, self.world.guests[n].near.last = 1, 0
        for n in range(self.count):
            vr_or32(&self.table[n].pending, PEND_FLUSH)

    def flush_now(self):
        """The TLBs, at once: no processor is executing."""
        cdef u32 n
        for n in range(self.count):
            flush(self.table[n], True)

    def drop_now(self):
        """The same at once: no processor is executing, or this is their thread."""
        cdef u32 n
        if keep_layout(&self.world):
            raise MemoryError
        forget_world(&self.world)
        for n in range(self.count):
            flush(self.table[n], True)
            vr_or32(&self.table[n].pending, PEND_FLUSH)     # the block that runs must not go on to others

    @property
    def statistics(self):
        """Counts of the first processor: instructions, blocks built, looked up (and not at hand), TLB fills, page
        faults, accesses that the TLB did not answer."""
        cdef Cpu *c = self.table[0]
        return {
            "instructions": c.executed, "builds": c.builds, "lookups": c.lookups, "misses": c.misses,
            "fills": c.fills, "faults": c.faults, "slow": c.slow,
            "cache": sum(self.world.guests[n].used for n in range(self.world.count)),
            "drops": sum(self.world.guests[n].drops for n in range(self.world.count)),
            "code": sum(code_of_guest(self.world.guests[n]) for n in range(self.world.count)) if self.translates else 0,
        }


cdef class SoftPort(CpuPort):
    """Pins of a processor, for its local APIC."""

    def __cinit__(self, SoftCpu owner):
        self.owner = owner

    cdef void set_intr(self, int level) noexcept nogil:
        if level:
            self.owner.pend(PEND_INTR)
        else:
            vr_and32(&self.owner.c.pending, ~<u32>PEND_INTR)

    cdef void set_nmi(self) noexcept nogil:
        self.owner.pend(PEND_NMI)

    cdef void init(self) noexcept nogil:
        self.owner.pend(PEND_INIT)

    cdef void sipi(self, u8 vector) noexcept nogil:
        self.owner.c.sipi_vector = vector
        self.owner.pend(PEND_SIPI)

    cdef void smi(self) noexcept nogil:
        self.owner.pend(PEND_SMI)

    cdef i64 tsc_time(self, u64 tsc) noexcept nogil:
        cdef u64 hz = self.owner.machine.tsc_hz, at = tsc - self.owner.c.tsc_offset
        if at >= <u64>1 << 62:
            return 0 if <i64>at < 0 else <i64>1 << 62
        return <i64>at if hz == 1000000000 else <i64>(at // hz * 1000000000 + at % hz * 1000000000 // hz)


cdef class SoftCpu(CpuThread):
    """A processor. The first one's thread runs all; `launch()` is called for it alone."""

    def __cinit__(self, RunControl control, u32 index, Machine machine, *args):
        cdef void *room = mmap(NULL, CPU_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if room == MAP_FAILED:
            raise MemoryError
        self.c = <Cpu *>(<u8 *>room + SIGNALS)
        self.c.owner = <void *>self

    def __init__(self, RunControl control, u32 index, Machine machine, cpuid):
        super().__init__(control, index)
        cdef Cpu *c = self.c
        cdef u32 n
        cdef Guest *g = machine.guest_of(index)
        self.machine = machine
        self.port = SoftPort(self)
        c.index = index
        c.exact = machine.exact
        c.guest = <void *>g
        c.a20_mask = ~<u64>0
        c.phys_mask = (<u64>1 << 40) - 1
        c.scratch = PyMem_RawCalloc(1, SCRATCH_SIZE)
        c.jcache, c.arena = g.jcache, g.arena
        for n in range(2):
            c.itlbs[n] = <ItlbEntry *>PyMem_RawCalloc(ITLB_SIZE, sizeof(ItlbEntry))
            if c.itlbs[n] == NULL:
                raise MemoryError
        c.fx = <u8 *>mmap(NULL, FX_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        for n in range(3):
            c.tlbs[n] = <TlbEntry *>PyMem_RawCalloc(TLB_ALL, sizeof(TlbEntry))
            if c.tlbs[n] == NULL:
                raise MemoryError
        if c.scratch == NULL or c.fx == MAP_FAILED:
            raise MemoryError
        self.take_cpuid(cpuid)
        c.hooks.port_in, c.hooks.port_out = port_in, port_out
        c.hooks.port_in_string, c.hooks.port_out_string = port_in_string, port_out_string
        c.hooks.phys_load, c.hooks.phys_store = phys_load, phys_store
        c.hooks.tsc, c.hooks.rdmsr, c.hooks.wrmsr = tsc, rdmsr, wrmsr
        c.hooks.get_tpr, c.hooks.set_tpr, c.hooks.acknowledge = get_tpr, set_tpr, acknowledge
        install(c)
        c.unlinked = unlinked
        machine.table[index] = c
        machine.count = max(machine.count, index + 1)
        g.count = 1 if machine.threads else machine.count
        n = index if machine.threads else 0
        machine.world.guests[n] = g
        machine.world.count = max(machine.world.count, n + 1)
        machine.cpus.append(self)
        reset_cpu(c, False)
        c.wait_sipi = index != 0

    def take_cpuid(self, cpuid):
        """The leaves that its guest reads; of a processor that does not run."""
        cdef Cpu *c = self.c
        cdef CpuidLeaf *leaf
        cdef CpuidLeaf *leaves = <CpuidLeaf *>PyMem_RawCalloc(len(cpuid) + 1, sizeof(CpuidLeaf))
        if leaves == NULL:
            raise MemoryError
        PyMem_RawFree(c.cpuid)
        c.keys_at, c.counting = PKRU, 0
        self.leaves, c.cpuid, c.cpuid_count = list(cpuid), leaves, <u32>len(cpuid)
        for n, entry in enumerate(cpuid):
            leaf = &c.cpuid[n]
            leaf.function, leaf.index, leaf.flags = entry["function"], entry["index"], entry["flags"]
            leaf.eax, leaf.ebx, leaf.ecx, leaf.edx = entry["eax"], entry["ebx"], entry["ecx"], entry["edx"]
            self.note_leaf(leaf)

    cdef void note_leaf(self, CpuidLeaf *leaf) noexcept nogil:
        cdef Cpu *c = self.c
        if leaf.function == 1:
            c.features[0], c.features[1] = leaf.edx, leaf.ecx
        elif leaf.function == <u32>0x80000001:
            c.features[2], c.features[3] = leaf.edx, leaf.ecx
        elif leaf.function == 7 and leaf.index == 0:
            c.features[4], c.features[5], c.features[6] = leaf.ebx, leaf.ecx, leaf.edx
        elif leaf.function == <u32>0x80000008:
            c.phys_mask = (<u64>1 << (leaf.eax & 0xFF)) - 1
            c.features[7] = leaf.ebx
        elif leaf.function == 0xD and leaf.index == 0:
            c.xcr_mask = leaf.eax & 0x207
        elif leaf.function == 0xD and leaf.index == 9 and YMM0 + 256 <= leaf.ebx <= FX_SIZE - 8:
            c.keys_at = leaf.ebx
        elif leaf.function == 0xA:
            c.counting = leaf.eax & 0xFF
        elif leaf.function == 0x40000001:
            self.use_kvmclock = leaf.eax & 9
            self.kvm_features = leaf.eax

    def __dealloc__(self):
        cdef u32 n
        if self.c != NULL:
            for n in range(3):
                PyMem_RawFree(self.c.tlbs[n])
            PyMem_RawFree(self.c.cpuid)
            PyMem_RawFree(self.c.scratch)
            for n in range(2):
                PyMem_RawFree(self.c.itlbs[n])
            if self.c.fx != NULL:
                munmap(self.c.fx, FX_SIZE)
            munmap(<u8 *>self.c - SIGNALS, CPU_ROOM)


    cdef void take_lock(self) noexcept nogil:
        """The device lock."""
        if self.machine.threads and not self.alone:
            self.control.leave_guest(self)
        self.machine.lock.acquire()

    cdef void give_lock(self) noexcept nogil:
        self.machine.lock.release()
        if self.machine.threads and not self.alone:
            self.control.enter_guest(self)

    cdef bint owns_apic(self, u64 phys) noexcept nogil:
        cdef u64 base
        if self.source is None:
            return False
        base = self.source.get_base()
        return base & 0x800 and not base & 0x400 and (phys ^ base) & self.c.phys_mask & ~<u64>0xFFF == 0

    cdef bint hides_apic(self, u64 phys) noexcept nogil:
        """In x2APIC mode nothing is where the registers were; the window is for the messages of others."""
        cdef u64 base
        if self.source is None or phys >> 20 != 0xFEE:
            return False
        base = self.source.get_base()
        return base & 0xC00 == 0xC00 and (phys ^ base) & self.c.phys_mask & ~<u64>0xFFF == 0

    cdef void pend(self, u32 flags) noexcept nogil:
        """Something waits for this processor; from any thread."""
        vr_or32(&self.c.pending, flags)
        if not self.machine.threads:
            self.machine.ring()
        elif vr_get32i(&self.asleep):
            self.control.wake(self)

    cdef void kick(self) noexcept nogil:
        """Where runs are to be repeatable the slice ends as it would have ended."""
        cdef u32 n
        if self.machine.threads:
            self.pend(PEND_STOP)
            return
        if not self.machine.exact:
            for n in range(self.machine.count):
                vr_or32(&self.machine.table[n].pending, PEND_STOP)
        self.machine.ring()

    cdef void pin(self, int kind, int level, int before) noexcept nogil:
        cdef u32 n
        if kind == 0:
            self.port.set_intr(level)
        elif kind == 1 and level and not before:
            self.port.set_nmi()
        elif kind == 2 and level and not before:
            self.port.smi()
        elif kind == 3:
            for n in range(self.machine.count):
                self.machine.table[n].a20_mask = ~<u64>0 if level else ~(<u64>1 << 20)
                vr_or32(&self.machine.table[n].pending, PEND_FLUSH)

    def init(self):
        vr_quiet()

    def reset(self):
        """As after power-on; the machine is stopped."""
        self.c.pending = 0
        self.c.seed = <u64>0x9E3779B97F4A7C15 * (self.index + 1) if self.machine.exact else 0
        self.machine.turn = 0
        reset_cpu(self.c, False)
        self.c.tsc_offset = 0 - self.machine.ticks(self.machine.clock.now())
        self.c.halted = False
        self.c.wait_sipi = self.index != 0
        self.kvmclock_msr = self.wall_msr = 0
        self.offers[0] = self.offers[1] = self.offers[2] = 0

    cdef u64 read_register(self, u32 n) noexcept nogil:
        return self.c.regs[n & 15]

    cdef void write_register(self, u32 n, u64 value) noexcept nogil:
        self.c.regs[n & 15] = value

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
            if self.source is not None:
                self.machine.lock.acquire()
                self.source.counter_overflowed()
                self.machine.lock.release()
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
        """The same by the clock of instructions: as long as it takes, but to the timer's time exactly."""
        cdef i64 began = self.machine.paced.host_now(), sleep = LONGEST_SLEEP
        cdef u64 rung
        cdef u32 n
        if deadline >= 0 and deadline - self.machine.paced.at - self.machine.paced.slept < sleep:
            sleep = deadline - self.machine.paced.at - self.machine.paced.slept
        if not awake and sleep > 0:
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
        self.machine.paced.rest(self.machine.paced.host_now() - began, awake)
        self.run_timers()

    # --- the KVM clock --------------------------------------------------------------------------------------

    cdef int set_kvmclock(self, u64 value) noexcept nogil:
        """The page that tells TSC and time since boot belong together. It never needs another update: one clock."""
        cdef u8 page[32]
        cdef u64 now = <u64>self.machine.clock.now(), at = self.machine.ticks(<i64>now) + self.c.tsc_offset
        cdef u64 hz = self.machine.tsc_hz
        cdef int shift = 0
        self.kvmclock_msr = value
        if not value & 1:
            return 0
        # ns = (ticks << shift) * multiplier >> 32
        while hz > 2000000000:
            hz >>= 1
            shift -= 1
        while hz <= 1000000000:
            hz <<= 1
            shift += 1
        memset(page, 0, sizeof(page))
        (<u32 *>page)[0] = 2
        (<u64 *>page)[1] = at
        (<u64 *>page)[2] = now
        (<u32 *>page)[6] = <u32>((<u64>1000000000 << 32) // hz)
        page[28] = <u8>shift
        page[29] = 1                # stable: the same for all processors
        self.take_lock()
        self.machine.memory.copy_in(value & ~<u64>1, page, 32)
        self.give_lock()
        return 0

    cdef int set_wall(self, u64 value) noexcept nogil:
        """Wall-clock time at boot: version, seconds, ns."""
        cdef u32 words[3]
        cdef timespec t
        cdef i64 boot
        clock_gettime(CLOCK_REALTIME, &t)
        boot = <i64>t.tv_sec * 1000000000 + t.tv_nsec - self.machine.clock.now()
        if self.machine.started >= 0:
            boot = self.machine.started * 1000000000
        self.wall_msr = value
        words[0] = 2
        words[1] = <u32>(boot // 1000000000)
        words[2] = <u32>(boot % 1000000000)
        self.take_lock()
        self.machine.memory.copy_in(value, <u8 *>words, 12)
        self.give_lock()
        return 0

    def describe(self):
        """Registers and the bytes at RIP, for a person; the machine is stopped."""
        return {**describe_cpu(self.c), "cpu": self.index}

    # --- a debugger -------------------------------------------------------------------------------------------

    def watch(self, bint step, bint software, hardware, bint frozen):
        """Of a machine that is stopped: Accelerator.watch."""
        cdef Cpu *c = self.c
        cdef u32 n = 0
        c.host_step, c.host_int3, c.host_frozen = step, software, frozen
        self.frozen = frozen and self.machine.threads
        c.host_dr7 = 0
        for kind, address, size in hardware:
            c.host_dr[n] = address
            length = 2 if size == 8 else size - 1
            c.host_dr7 |= <u64>(2 << 2 * n) | <u64>(kind | length << 2) << (16 + 4 * n)
            n += 1
        c.host_hits = c.host_stop = 0
        c.link = NULL
        with nogil:
            flush(c, True)
            set_mode(c)

    def debug_stop(self):
        """("step" | "software" | "hardware", point) since the last call, or None."""
        cdef Cpu *c = self.c
        stop, hits, c.host_stop, c.host_hits = c.host_stop, c.host_hits, 0, 0
        if not stop:
            return None
        if stop == HOST_SOFTWARE:
            return "software", 0
        return ("step", 0) if stop == HOST_STEP else ("hardware", (hits & -hits).bit_length() - 1)

    def save(self):
        return cpu_state(self.c)

    def load(self, state):
        return set_cpu_state(self.c, state)

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

    def registers(self):
        """General registers, RIP and RFLAGS by name."""
        names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                 "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
        found = {name: self.c.regs[n] for n, name in enumerate(names)}
        found["rip"], found["rflags"] = self.c.rip, get_eflags(self.c)
        return found


cdef class SoftPin(IrqSink):
    """An input of the first processor: intr (through LINT0 of its APIC when it has one), nmi, smi, a20."""

    def __init__(self, SoftCpu cpu or None, str name):
        self.cpu = cpu
        self.name = name
        self.kind = PINS[name]

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        cdef int before = self.level
        self.level = level
        if self.lint is not None:
            self.lint.set_irq(0, level)
        elif self.cpu is not None:
            self.cpu.pin(self.kind, level, before)
