"""A processor of the soft accelerator as data: how it begins, its CPUID, pins, KVM's clock; a debugger's and a save's view.

What runs it is in vcpu.pyx, what it asks of devices in hooks.pyx.
"""

from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.string cimport memset
from posix.mman cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from accel.run cimport RunControl
from accel.soft.branch cimport unlinked
from accel.soft.control cimport reset_cpu
from accel.soft.fpstate cimport PKRU, YMM0
from accel.soft.guest cimport *
from accel.soft.mmu cimport flush, install, set_mode
from accel.soft.paging cimport TLB_ALL
from accel.soft.pending cimport *
from accel.soft.state cimport cpu_state, describe_cpu, set_cpu_state

from accel.soft.block import SCRATCH_SIZE

PINS = {"intr": 0, "nmi": 1, "smi": 2, "a20": 3}

cdef enum:
    FX_SIZE = 4096
    SIGNALS = 65536             # below a Cpu, which RSP points to in translated code: for the frames of signals

cdef u64 CPU_ROOM = (SIGNALS + sizeof(Cpu) + 4095) & ~<u64>4095


cdef class SoftPort(CpuPort):
    """Pins of a processor, for its local APIC."""

    def __cinit__(self, Processor owner):
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


cdef class Processor(CpuThread):
    """A processor as data: its state, pins, CPUID and clock, and what a debugger and a save ask of it."""

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

    def registers(self):
        """General registers, RIP and RFLAGS by name."""
        names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                 "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
        found = {name: self.c.regs[n] for n, name in enumerate(names)}
        found["rip"], found["rflags"] = self.c.rip, get_eflags(self.c)
        return found


cdef class SoftPin(IrqSink):
    """An input of the first processor: intr (through LINT0 of its APIC when it has one), nmi, smi, a20."""

    def __init__(self, Processor cpu or None, str name):
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
