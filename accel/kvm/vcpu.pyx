"""A processor of KVM: its thread, its kvm_run page, its loop around KVM_RUN.

The thread's course is accel.run's; in QEMU's names: qemu_kvm_start_vcpu creates the thread (launch),
qemu_kvm_cpu_thread_fn calls kvm_init_vcpu (KVM_CREATE_VCPU, mmap of kvm_run) and kvm_arch_init_vcpu (KVM_SET_CPUID2),
says created, waits, and loops in kvm_cpu_exec (run): KVM_RUN, then kvm_handle_io or an access to memory.

The loop runs without the GIL. The device lock is held while an exit is dispatched; what an access asks of the machine
(an Action) goes to the RunControl after the lock is dropped. A pending port or memory access is completed by the next
KVM_RUN, so the thread leaves its loop only after one that came back with EINTR.

Kicks: immediate_exit makes the next KVM_RUN return at once, a signal ends the present one; neither can be lost. The
signal's handler does nothing and other system calls are restarted, so it need not be blocked anywhere.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy, memset
from posix.ioctl cimport ioctl
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap
from posix.unistd cimport close

from accel.api cimport ACTION_NONE, ACTION_PANIC, ACTION_RESET, ACTION_SHUTDOWN, IrqSink, u8, u32, u64
from accel.cpuport cimport CpuPort, InterruptSource
from accel.kvm.uapi cimport *
from accel.kvm.vm cimport check, failure
from accel.run cimport REQUEST_DEBUG

from accel.errors import AccelFailure
from accel.kvm import state as cpu_state

cdef extern from *:
    """
    #include <signal.h>
    #include <string.h>
    #include <unistd.h>
    #include <sys/prctl.h>
    #include <sys/syscall.h>
    #define VR_SIG_KICK (SIGRTMIN + 4)
    static void vr_on_kick(int sig) { (void)sig; }
    static int vr_install_kick(void)
    {
        struct sigaction action;
        memset(&action, 0, sizeof action);
        action.sa_handler = vr_on_kick;
        action.sa_flags = SA_RESTART;
        return sigaction(VR_SIG_KICK, &action, NULL);
    }
    /* Only kicks and faults: a SIGINT or SIGTERM is the main thread's, which would not wake for one taken here. */
    static int vr_mask_signals(void)
    {
        static const int open[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
        sigset_t set;
        unsigned i;
        sigfillset(&set);
        sigdelset(&set, VR_SIG_KICK);
        for (i = 0; i < sizeof open / sizeof *open; i++)
            sigdelset(&set, open[i]);
        return pthread_sigmask(SIG_SETMASK, &set, NULL);
    }
    #define vr_name_thread(name) prctl(PR_SET_NAME, (name), 0, 0, 0)
    #define vr_tgkill(tid) ((int)syscall(SYS_tgkill, getpid(), (tid), VR_SIG_KICK))
    #define vr_flag(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    #define vr_set_flag(p, v) __atomic_store_n((p), (v), __ATOMIC_SEQ_CST)
    #define vr_take_flag(p) __atomic_exchange_n((p), 0, __ATOMIC_SEQ_CST)
    #define vr_set_exit(run, v) __atomic_store_n(&(run)->immediate_exit, (v), __ATOMIC_SEQ_CST)
    """
    int vr_install_kick() nogil
    int vr_mask_signals() nogil
    int vr_name_thread(const char *) nogil
    int vr_tgkill(int) nogil
    int vr_flag(int *) nogil
    void vr_set_flag(int *, int) nogil
    int vr_take_flag(int *) nogil
    void vr_set_exit(kvm_run *, u8) nogil

cdef u64 NEWS = <u64>1 << 63
cdef u32 BLOCKIRQ = 0x100000      # KVM_GUESTDBG_BLOCKIRQ, since Linux 5.16: older kernels refuse it

# Pins of CpuPin
PINS = {"intr": 0, "nmi": 1, "smi": 2, "a20": 3}

EXIT_NAMES = {
    0: "UNKNOWN", 1: "EXCEPTION", 2: "IO", 3: "HYPERCALL", 4: "DEBUG", 5: "HLT", 6: "MMIO", 7: "IRQ_WINDOW_OPEN",
    8: "SHUTDOWN", 9: "FAIL_ENTRY", 10: "INTR", 11: "SET_TPR", 12: "TPR_ACCESS", 16: "NMI", 17: "INTERNAL_ERROR",
    24: "SYSTEM_EVENT", 26: "IOAPIC_EOI", 27: "HYPERV", 29: "X86_RDMSR", 30: "X86_WRMSR", 33: "X86_BUS_LOCK", 34: "XEN",
    37: "NOTIFY", 39: "MEMORY_FAULT",
}
SUBERRORS = {1: "emulation", 2: "simultaneous exceptions", 3: "event delivery", 4: "unexpected exit reason"}


cdef class KvmVcpu(CpuThread):
    """One processor. `launch()` starts the thread and returns when it is created."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.run_page = NULL

    def __init__(self, KvmVm vm, KvmIrqchip irqchip, u32 index, u32 apic_id, cpuid):
        super().__init__(vm.control, index)
        self.vm, self.irqchip = vm, irqchip
        self.memory, self.io, self.device_lock = vm.memory, vm.io, vm.lock
        self.apic_id = apic_id
        self.cpuid = list(cpuid or ())
        self.user_pic = irqchip.mode != "on"
        self.user_apic = irqchip.mode == "off"
        self.wait_sipi = self.user_apic and index != 0
        self.port = KvmPort()
        self.port.owner = <void *>self
        vr_install_kick()

    def __dealloc__(self):
        if self.run_page != NULL:
            munmap(self.run_page, self.map_size)
        if self.fd >= 0:
            close(self.fd)

    # --- life -----------------------------------------------------------------------------------------------

    def init(self):
        """In the thread: kvm_init_vcpu, then kvm_arch_init_vcpu."""
        try:
            self.init_vcpu()
            self.arch_init()
        except BaseException:
            self.release()
            raise

    def init_vcpu(self):
        """KVM_CREATE_VCPU and the mapping of kvm_run; the first processor's also carries the VM's ring."""
        cdef void *page
        cdef bytes name = f"CPU {self.index}/KVM".encode()
        vr_mask_signals()
        vr_name_thread(name)
        self.fd = check(ioctl(self.vm.fd, KVM_CREATE_VCPU, self.apic_id), f"cannot create processor {self.index}")
        page = mmap(NULL, self.vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, self.fd, 0)
        if page == MAP_FAILED:
            raise failure(f"cannot map kvm_run of processor {self.index}", errno)
        self.run_page = <kvm_run *>page
        self.map_size = self.vm.run_size
        if self.vm.ring == NULL and self.vm.ring_offset and self.vm.ring_offset + 4096 <= self.vm.run_size:
            self.vm.ring = <kvm_coalesced_mmio_ring *>(<u8 *>page + self.vm.ring_offset)

    def arch_init(self):
        """CPUID and the state of power-on, which every later reset loads again."""
        signature = features = 0
        for entry in self.cpuid:
            if entry["function"] == 1:
                signature, features = entry["eax"], entry["edx"]
        if self.cpuid:
            cpu_state.set_cpuid(self.fd, self.cpuid)
            self.setup_mce(features)
        self.reset_state = {"regs": self._reset_regs(signature or 0x600), "sregs": cpu_state.get_sregs(self.fd),
                            "mp_state": self._reset_mp_state()}
        if not self.user_apic:
            self.reset_state["lapic"] = cpu_state.get_lapic(self.fd)
        if self.cpuid and not features & 1 << 9:    # a processor without an APIC
            self.reset_state["sregs"]["apic_base"] &= ~0x800
            cpu_state.set_sregs(self.fd, self.reset_state["sregs"])
        self.load({"regs": self.reset_state["regs"], "mp_state": self.reset_state["mp_state"]})

    def setup_mce(self, u32 edx):
        """Ten machine-check banks where the processor has MCE and MCA, as under QEMU."""
        if (edx >> 7) & (edx >> 14) & 1 and self.vm.extension(KVM_CAP_MCE) >= 10:
            try:
                cpu_state.setup_mce(self.fd, 10 | 1 << 24)
            except AccelFailure:
                pass                                # a processor without banks is a valid one

    def _reset_regs(self, signature):
        names = ("rax", "rbx", "rcx", "rsi", "rdi", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)))
        return {**dict.fromkeys(names, 0), "rdx": signature, "rip": 0xFFF0, "rflags": 2}

    def _reset_mp_state(self):
        return KVM_MP_STATE_UNINITIALIZED if self.index else KVM_MP_STATE_RUNNABLE

    def release(self):
        """Unmap and close; the thread has ended or never ran."""
        cdef u8 *ring = <u8 *>self.vm.ring
        if self.run_page != NULL:
            if <u8 *>self.run_page <= ring < <u8 *>self.run_page + self.map_size:
                self.vm.ring = NULL
            munmap(self.run_page, self.map_size)
            self.run_page = NULL
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1

    cdef int check_open(self) except -1:
        if self.run_page == NULL:
            raise AccelFailure(f"processor {self.index} is closed")
        return 0

    cdef void kick(self) noexcept nogil:
        if self.run_page != NULL:
            vr_set_exit(self.run_page, 1)
        if self.tid:
            vr_tgkill(self.tid)

    # --- registers for a device -------------------------------------------------------------------------------

    cdef u64 *general(self, u32 n) noexcept nogil:
        cdef kvm_regs *regs = &self.run_page.s.regs.regs if self.sync_regs else &self.fetched
        if n == 0:
            return &regs.rax
        if n == 1:
            return &regs.rcx
        if n == 2:
            return &regs.rdx
        if n == 3:
            return &regs.rbx
        if n == 4:
            return &regs.rsp
        if n == 5:
            return &regs.rbp
        if n == 6:
            return &regs.rsi
        if n == 7:
            return &regs.rdi
        return (&regs.r8) + (n & 7)

    cdef u64 read_register(self, u32 n) noexcept nogil:
        if not self.sync_regs:
            ioctl(self.fd, KVM_GET_REGS, &self.fetched)
        return self.general(n)[0]

    cdef void write_register(self, u32 n, u64 value) noexcept nogil:
        if not self.sync_regs:
            ioctl(self.fd, KVM_GET_REGS, &self.fetched)
        self.general(n)[0] = value
        if self.sync_regs:
            self.run_page.kvm_dirty_regs |= KVM_SYNC_X86_REGS
        else:
            ioctl(self.fd, KVM_SET_REGS, &self.fetched)

    # --- the loop -------------------------------------------------------------------------------------------

    cdef void run(self) noexcept nogil:
        """kvm_cpu_exec: until the RunControl wants the thread out."""
        cdef kvm_run *run = self.run_page
        cdef int result, err
        self.sync_regs = self.vm.want_registers and self.vm.has_sync_regs
        run.kvm_valid_regs = KVM_SYNC_X86_REGS if self.sync_regs else 0
        run.kvm_dirty_regs = 0
        while True:
            if (self.halted or self.wait_sipi) and not self.wait_work():
                vr_set_exit(run, 0)
                return
            if vr_flag(&self.init_pending) or vr_flag(&self.sipi_pending):
                self.start_up()
                continue
            if self.user_pic or self.nmi_pending:
                self.inject()
            if self.source is not None:
                self.before_entry()
            self.control.enter_guest(self)
            result = ioctl(self.fd, KVM_RUN, 0)
            err = errno
            self.control.leave_guest(self)
            self.exits += 1
            if self.source is not None:
                self.after_exit()
            if result < 0:
                if err == EINTR or err == EAGAIN:
                    # First clear, then look: a kick after this sets it again.
                    vr_set_exit(run, 0)
                    if self.control.must_leave(self):
                        return
                    continue
                self.give_up(KVM_EXIT_UNKNOWN, err)
                return
            if self.handle_exit() != 0:
                return

    cdef int handle_exit(self) noexcept nogil:
        """Not 0 when the thread shall leave the loop at once."""
        cdef kvm_run *run = self.run_page
        cdef u32 reason = run.exit_reason, action = ACTION_NONE
        if reason == KVM_EXIT_IO:
            self.handle_io()
            return 0
        if reason == KVM_EXIT_MMIO:
            self.handle_mmio()
            return 0
        if reason == KVM_EXIT_INTR or reason == KVM_EXIT_IRQ_WINDOW_OPEN:
            return 0
        if reason == KVM_EXIT_HLT:
            return self.handle_halt()
        self.device_lock.acquire()
        action = self.vm.drain_ring()
        if reason == KVM_EXIT_IOAPIC_EOI and self.eoi is not None:
            self.eoi.set_irq(run.eoi.vector, 1)
        self.device_lock.release()
        if reason == KVM_EXIT_SYSTEM_EVENT:
            if run.system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN:
                action |= ACTION_SHUTDOWN
            elif run.system_event.type == KVM_SYSTEM_EVENT_RESET:
                action |= ACTION_RESET
            elif run.system_event.type == KVM_SYSTEM_EVENT_CRASH:
                action |= ACTION_PANIC
            self.control.request(self, action)
            return 0
        self.control.request(self, action)
        if reason == KVM_EXIT_DEBUG:
            self.debug_exception, self.debug_dr6 = run.debug.arch.exception, run.debug.arch.dr6 | NEWS
            self.control.request(self, REQUEST_DEBUG)
            return 1
        if reason == KVM_EXIT_IOAPIC_EOI or reason == KVM_EXIT_SET_TPR:
            return 0
        self.give_up(reason, 0)
        return 1

    cdef void handle_io(self) noexcept nogil:
        """kvm_handle_io: `count` items of `size` bytes, in or out of one port."""
        cdef kvm_run *run = self.run_page
        cdef u8 *data = <u8 *>run + run.io.data_offset
        cdef u32 size = run.io.size, count = run.io.count, action
        cdef u64 value = 0
        self.io_exits += 1
        self.device_lock.acquire()
        self.dispatching = 1
        self.control.current = <void *>self
        action = self.vm.drain_ring()
        if run.io.direction == KVM_EXIT_IO_OUT:
            if count == 1:
                memcpy(&value, data, size)
                action |= self.io.store(run.io.port, size, value)
            else:
                action |= self.io.store_string(run.io.port, size, data, count)
        elif count == 1:
            value = self.io.load(run.io.port, size)
            memcpy(data, &value, size)
        else:
            action |= self.io.load_string(run.io.port, size, data, count)
        self.control.current = NULL
        self.dispatching = 0
        self.device_lock.release()
        if action:
            self.control.request(self, action)

    cdef void handle_mmio(self) noexcept nogil:
        cdef kvm_run *run = self.run_page
        cdef u32 size = run.mmio.len, action
        cdef u64 value = 0
        self.mmio_exits += 1
        self.device_lock.acquire()
        self.dispatching = 1
        action = self.vm.drain_ring()
        if self.source is not None and self.owns_apic(run.mmio.phys_addr):
            self.access_apic()
            size = 0
        if size == 1 or size == 2 or size == 4 or size == 8:
            if run.mmio.is_write:
                memcpy(&value, run.mmio.data, size)
                action |= self.memory.store(run.mmio.phys_addr, size, value)
            else:
                value = self.memory.load(run.mmio.phys_addr, size)
                memcpy(run.mmio.data, &value, size)
        elif size and size < 8:
            if run.mmio.is_write:
                self.memory.copy_in(run.mmio.phys_addr, run.mmio.data, size)
            else:
                self.memory.copy_out(run.mmio.phys_addr, run.mmio.data, size)
        self.dispatching = 0
        self.device_lock.release()
        if action:
            self.control.request(self, action)

    cdef int handle_halt(self) noexcept nogil:
        """HLT with no APIC in the kernel: the loop waits for INTR or NMI before it goes on."""
        cdef u32 action
        self.device_lock.acquire()
        action = self.vm.drain_ring()
        self.device_lock.release()
        self.control.request(self, action)
        self.halted = 1
        return 0

    cdef int wait_work(self) noexcept nogil:
        """Halted: 1 when there is something to do, 0 when the thread must leave. With IF clear only an NMI counts."""
        while not self.control.must_leave(self):
            if vr_flag(&self.init_pending) or (self.wait_sipi and vr_flag(&self.sipi_pending)):
                return 1
            if not self.wait_sipi and (vr_flag(&self.nmi_pending) or (self.takes_intr() and self.run_page.if_flag)):
                self.halted = 0
                return 1
            self.control.halt(self)
        return 0

    cdef bint takes_intr(self) noexcept nogil:
        """An interrupt waits for this processor. Without an APIC of its own only the first one gets any."""
        return vr_flag(&self.intr) and (self.index == 0 or self.source is not None)

    # --- a local APIC of ours -------------------------------------------------------------------------------

    cdef void call_out(self) noexcept nogil:
        """Something waits for the thread. It is in the guest, asleep, or dispatching, and then looks by itself."""
        if not self.dispatching:
            self.kick()
        self.control.wake(self)

    cdef bint owns_apic(self, u64 phys) noexcept nogil:
        cdef u64 base = self.source.get_base()
        return base & 0x800 and (phys ^ base) & ~<u64>0xFFF == 0

    cdef void access_apic(self) noexcept nogil:
        """A read or write within the APIC's page. Registers are 32 bits wide on 16-byte boundaries."""
        cdef kvm_run *run = self.run_page
        cdef u32 offset = <u32>run.mmio.phys_addr & 0xFFF, value = 0, size = min(run.mmio.len, <u32>8)
        cdef u64 wide
        if run.mmio.is_write:
            memcpy(&value, run.mmio.data, min(size, <u32>4))
            if offset & 3 == 0:
                self.source.mmio_write(offset, value)
            return
        wide = <u64>self.source.mmio_read(offset & 0xFFC) >> (8 * (offset & 3))
        memcpy(run.mmio.data, &wide, size)

    cdef void before_entry(self) noexcept nogil:
        """CR8 is the upper half of our APIC's task priority."""
        self.run_page.cr8 = self.source.get_tpr() >> 4

    cdef void after_exit(self) noexcept nogil:
        """What the guest did to CR8 and to the APIC's base meanwhile."""
        cdef u64 cr8 = self.run_page.cr8 & 15, base = self.run_page.apic_base
        if cr8 == self.source.get_tpr() >> 4 and base == self.source.get_base():
            return
        self.device_lock.acquire()
        self.dispatching = 1
        if cr8 != self.source.get_tpr() >> 4:
            self.source.set_tpr(<u8>(cr8 << 4))
        if base != self.source.get_base():
            self.source.set_base(base)
        self.dispatching = 0
        self.device_lock.release()

    cdef void start_up(self) noexcept with gil:
        """INIT: as after a reset, but FPU and MSRs stay. SIPI: real mode at its vector."""
        cdef int vector
        if vr_take_flag(&self.init_pending):
            self.wait_sipi, self.halted, self.nmi_pending = self.index != 0, 0, 0
            self._load_quietly({"regs": self.reset_state["regs"], "sregs": self._init_sregs()})
            return
        vector = vr_take_flag(&self.sipi_pending) - 1
        if not self.wait_sipi or vector < 0:
            return
        sregs = self._init_sregs()
        sregs["cs"] = {**sregs["cs"], "selector": vector << 8, "base": vector << 12}
        self._load_quietly({"regs": {**self.reset_state["regs"], "rip": 0}, "sregs": sregs})
        self.wait_sipi = self.halted = 0

    def _init_sregs(self):
        """The APIC's base stays where the guest has put it."""
        return {**self.reset_state["sregs"], "apic_base": self.source.get_base()}

    def _load_quietly(self, state):
        """In the processor's thread: a failure becomes a report."""
        try:
            cpu_state.clear_events(self.fd)
            cpu_state.set_state(self.fd, state)
        except AccelFailure as exc:
            self.control.report(self, {"cpu": self.index, "exit": "KVM_RUN", "error": str(exc)})

    cdef void inject(self) noexcept nogil:
        """Hand a pending NMI over; with our own 8259A also its interrupt, or ask to be told when one can be taken."""
        cdef kvm_interrupt request
        cdef int vector
        cdef kvm_run *run = self.run_page
        if vr_take_flag(&self.nmi_pending):
            ioctl(self.fd, KVM_NMI, 0)
        if not self.user_pic or (self.index != 0 and self.source is None):
            return
        if vr_flag(&self.intr) and run.ready_for_interrupt_injection:
            self.device_lock.acquire()
            self.dispatching = 1
            vector = -1
            if vr_flag(&self.intr):
                if self.source is not None:
                    vector = self.source.acknowledge()
                elif self.ack is not None:
                    vector = self.ack.acknowledge()
            self.dispatching = 0
            self.device_lock.release()
            if vector >= 0:
                request.irq = <u32>vector
                ioctl(self.fd, KVM_INTERRUPT, &request)
                run.ready_for_interrupt_injection = 0
        run.request_interrupt_window = vr_flag(&self.intr) != 0

    # --- when it goes wrong ---------------------------------------------------------------------------------

    cdef void give_up(self, u32 reason, int err) noexcept with gil:
        """SHUTDOWN, FAIL_ENTRY, INTERNAL_ERROR and all that nobody expects."""
        try:
            report = self.describe(reason, err)
        except Exception as exc:                    # the report must not make it worse
            report = {"cpu": self.index, "exit": EXIT_NAMES.get(reason, str(reason)), "problem": repr(exc)}
        self.control.report(self, report)

    def describe(self, reason=None, err=0):
        """A report: exit, its data, registers, the bytes at RIP."""
        cdef kvm_run *run
        cdef u32 i
        self.check_open()
        run = self.run_page
        if reason is None:
            reason = run.exit_reason
        report = {"cpu": self.index, "exit": EXIT_NAMES.get(reason, f"exit {reason}")}
        if err:
            report.update(exit="KVM_RUN", error=failure("KVM_RUN", err).why)
        elif reason == KVM_EXIT_SHUTDOWN:
            report["why"] = "triple fault"
        elif reason == KVM_EXIT_FAIL_ENTRY:
            report["hardware_reason"] = run.fail_entry.hardware_entry_failure_reason
        elif reason == KVM_EXIT_UNKNOWN:
            report["hardware_reason"] = run.hw.hardware_exit_reason
        elif reason == KVM_EXIT_INTERNAL_ERROR:
            report["suberror"] = run.internal.suberror
            report["why"] = SUBERRORS.get(run.internal.suberror, "unknown")
            report["data"] = [run.internal.data[i] for i in range(min(run.internal.ndata, <u32>16))]
            if (run.internal.suberror == KVM_INTERNAL_ERROR_EMULATION and run.internal.ndata >= 3
                    and run.emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES):
                report["instruction"] = run.emulation_failure.insn_bytes[:min(run.emulation_failure.insn_size, 15)]
        report["regs"] = regs = cpu_state.get_regs(self.fd)
        report["sregs"] = sregs = cpu_state.get_sregs(self.fd)
        report["mode"] = _mode(sregs)
        report["linear_rip"] = linear = _linear(regs, sregs)
        report["code"] = self.bytes_at(linear, 16)
        return report

    def bytes_at(self, u64 linear, u32 count):
        """Up to `count` bytes of guest memory at a linear address; it ends where nothing is mapped."""
        out = b""
        while len(out) < count:
            physical = cpu_state.translate(self.fd, linear + len(out))
            if physical is None or physical == 0xFFFFFFFFFFFFFFFF:
                break
            part = min(count - len(out), 0x1000 - (physical & 0xFFF))
            out += self.memory.read_bytes(physical, part)
        return out

    # --- state ----------------------------------------------------------------------------------------------

    def save(self, msr_indices):
        state = cpu_state.get_state(self.fd, msr_indices, not self.user_apic, self.vm.extension(KVM_CAP_XSAVE) > 0,
                                    self.vm.extension(KVM_CAP_XCRS) > 0)
        if self.user_apic:
            state["mp_state"] = KVM_MP_STATE_HALTED if self.halted else KVM_MP_STATE_RUNNABLE
            if self.wait_sipi:
                state["mp_state"] = KVM_MP_STATE_UNINITIALIZED
        return state

    def load(self, dict state):
        """The MSRs that KVM refused."""
        if self.user_apic and "mp_state" in state:  # the kernel knows this state only together with its APIC
            state = dict(state)
            mp_state = state.pop("mp_state")
            self.halted, self.wait_sipi = mp_state == KVM_MP_STATE_HALTED, mp_state == KVM_MP_STATE_UNINITIALIZED
        return cpu_state.set_state(self.fd, state)

    def take_power_on(self, power_on):
        """MSRs, FPU, XCR0 and debug registers as a processor has them when it is created."""
        self.reset_state.update(power_on)

    def reset(self):
        """The state of power-on. The machine is stopped."""
        self.check_open()
        self.nmi_pending = self.init_pending = self.sipi_pending = 0
        self.run_page.request_interrupt_window = 0
        cpu_state.clear_events(self.fd)
        self.load(self.reset_state)

    # --- a debugger -------------------------------------------------------------------------------------------

    def watch(self, bint step, bint software, hardware):
        """KVM_SET_GUEST_DEBUG. `hardware`: up to four of (kind, address, bytes), in DR7's kinds."""
        cdef kvm_guest_debug wanted
        cdef u32 n = 0
        memset(&wanted, 0, sizeof(wanted))
        if step or software or hardware:
            wanted.control = KVM_GUESTDBG_ENABLE
        if step:
            wanted.control |= KVM_GUESTDBG_SINGLESTEP | BLOCKIRQ
        if software:
            wanted.control |= KVM_GUESTDBG_USE_SW_BP
        if hardware:
            wanted.control |= KVM_GUESTDBG_USE_HW_BP
            wanted.arch.debugreg[7] = 0x600
            for kind, address, size in hardware:
                wanted.arch.debugreg[n] = address
                length = 2 if size == 8 else size - 1
                wanted.arch.debugreg[7] |= <u64>(2 << 2 * n) | <u64>(kind | length << 2) << (16 + 4 * n)
                n += 1
        if ioctl(self.fd, KVM_SET_GUEST_DEBUG, &wanted) < 0:
            wanted.control &= ~BLOCKIRQ
            check(ioctl(self.fd, KVM_SET_GUEST_DEBUG, &wanted), f"cannot debug processor {self.index}")

    def debug_stop(self):
        """("step" | "software" | "hardware", point) since the last call, or None."""
        cdef u64 dr6 = self.debug_dr6
        if not dr6 & NEWS:
            return None
        self.debug_dr6 = 0
        if self.debug_exception == 3:
            return "software", 0
        for n in range(4):
            if dr6 >> n & 1:
                return "hardware", n
        return "step", 0

    def kvmclock_ctrl(self):
        """Tell the guest that it was stopped, so that its watchdogs do not bark."""
        ioctl(self.fd, KVM_KVMCLOCK_CTRL, 0)

    def set_msrs(self, dict values):
        """The MSRs that KVM refused."""
        return cpu_state.set_msrs(self.fd, values)

    def tsc_khz(self):
        """Frequency of the guest's time-stamp counter; 0 when KVM does not tell."""
        return max(ioctl(self.fd, KVM_GET_TSC_KHZ, 0), 0)

    def attach_apic(self, InterruptSource source):
        """This processor's interrupts come from an APIC of ours."""
        self.source = source

    def connect(self, IntAck ack=None, IrqSink eoi=None):
        if ack is not None:
            self.ack = ack
        if eoi is not None:
            self.eoi = eoi


cdef void c_set_intr(KvmVcpu cpu, int level) noexcept nogil:
    vr_set_flag(&cpu.intr, level != 0)
    if level:
        cpu.call_out()


cdef void c_set_flag(KvmVcpu cpu, int what, int value) noexcept nogil:
    if what == 0:
        vr_set_flag(&cpu.nmi_pending, value)
    elif what == 1:
        vr_set_flag(&cpu.sipi_pending, 0)           # one that came before says nothing any more
        vr_set_flag(&cpu.init_pending, value)
    else:
        vr_set_flag(&cpu.sipi_pending, value)
    cpu.call_out()


cdef void c_smi(void *cpu) noexcept nogil:
    ioctl((<KvmVcpu>cpu).fd, KVM_SMI, 0)


cdef class KvmPort(CpuPort):
    """Pins of a processor, for a local APIC of ours. The device lock is held."""

    cdef void set_intr(self, int level) noexcept nogil:
        c_set_intr(<KvmVcpu>self.owner, level)

    cdef void set_nmi(self) noexcept nogil:
        c_set_flag(<KvmVcpu>self.owner, 0, 1)

    cdef void init(self) noexcept nogil:
        c_set_flag(<KvmVcpu>self.owner, 1, 1)

    cdef void sipi(self, u8 vector) noexcept nogil:
        c_set_flag(<KvmVcpu>self.owner, 2, vector + 1)

    cdef void smi(self) noexcept nogil:
        c_smi(self.owner)


cdef class CpuPin(IrqSink):
    """INTR, NMI, SMI or A20M# of a processor. KVM has no A20 gate: address bit 20 always passes."""

    def __init__(self, KvmVcpu cpu or None, str pin):
        self.cpu = cpu
        self.pin = PINS[pin]

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        if self.cpu is None:
            return
        if self.pin == 0 and self.lint is not None:
            self.lint.set_irq(0, level)
        elif self.pin == 0:
            vr_set_flag(&self.cpu.intr, level != 0)
            if level and self.cpu.user_pic:
                self.cpu.kick()
                self.cpu.control.wake(self.cpu)
        elif self.pin == 1 and level:
            vr_set_flag(&self.cpu.nmi_pending, 1)
            self.cpu.kick()
            self.cpu.control.wake(self.cpu)
        elif self.pin == 2 and level:
            ioctl(self.cpu.fd, KVM_SMI, 0)

    def attach(self, KvmVcpu cpu):
        self.cpu = cpu

    def lead_to(self, IrqSink lint):
        """INTR reaches the processor through this input of its APIC."""
        self.lint = lint


def _mode(sregs):
    """16, 32 or 64: the code size that the processor executes."""
    if sregs["efer"] & 0x400 and sregs["cs"]["l"]:
        return 64
    return 32 if sregs["cs"]["db"] else 16


def _linear(regs, sregs):
    if _mode(sregs) == 64:
        return regs["rip"]
    return (sregs["cs"]["base"] + regs["rip"]) & 0xFFFFFFFF
