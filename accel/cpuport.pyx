"""Between a processor and its interrupts: two small classes that neither side needs to look behind.

A processor of the soft accelerator (or of KVM without its own APIC) implements CpuPort, which its local APIC
calls; it holds an InterruptSource, which it asks. All calls are made with the device lock held, from any thread:
CpuPort methods note what happened and wake the processor's thread, they do not act on its registers.

Ref: Intel SDM vol. 3, chapter 11 (APIC), 6 (interrupts).
"""

from accel.api import _report

EVENTS = ("intr", "nmi", "init", "sipi", "smi")


cdef class CpuPort:
    """The pins of a processor. A base that ignores everything: a processor that does not exist."""

    cdef void set_intr(self, int level) noexcept nogil:
        """A maskable interrupt waits (level 1): acknowledge() fetches its vector when IF and shadow allow it."""

    cdef void set_nmi(self) noexcept nogil:
        """An NMI edge; one is held while another is served."""

    cdef void init(self) noexcept nogil:
        """INIT: the processor resets (caches and FPU state stay) and, unless it is the first, waits for a SIPI.
        The APIC has reset itself already, keeping its ID and base."""

    cdef void sipi(self, u8 vector) noexcept nogil:
        """Start at vector:0000 when waiting for it; ignored otherwise."""

    cdef void smi(self) noexcept nogil:
        """A system-management interrupt."""

    cdef i64 tsc_time(self, u64 tsc) noexcept nogil:
        """ns of the machine's virtual clock at which this processor's TSC reaches `tsc`."""
        return <i64>tsc if tsc < <u64>1 << 62 else <i64>1 << 62


cdef class PyCpuPort(CpuPort):
    """In Python: `callback(event, value)` with an event of EVENTS (tests, qtest)."""

    def __init__(self, callback):
        self.callback = callback

    cdef void set_intr(self, int level) noexcept nogil:
        self.call(0, level)

    cdef void set_nmi(self) noexcept nogil:
        self.call(1, 1)

    cdef void init(self) noexcept nogil:
        self.call(2, 1)

    cdef void sipi(self, u8 vector) noexcept nogil:
        self.call(3, vector)

    cdef void smi(self) noexcept nogil:
        self.call(4, 1)

    cdef void call(self, int event, int value) noexcept with gil:
        try:
            self.callback(EVENTS[event], value)
        except Exception as exc:
            _report("processor pin", exc)


cdef class InterruptSource(IntAck):
    """Where a processor's interrupts come from. `acknowledge` (of IntAck) gives the vector, or -1 for none."""

    cdef u8 get_tpr(self) noexcept nogil:
        """The task priority register; CR8 is its upper half."""
        return 0

    cdef void set_tpr(self, u8 value) noexcept nogil:
        pass

    cdef u64 get_base(self) noexcept nogil:
        """IA32_APIC_BASE."""
        return 0

    cdef int set_base(self, u64 value) noexcept nogil:
        """-1: the write is illegal, #GP."""
        return -1

    cdef int rdmsr(self, u32 msr, u64 *value) noexcept nogil:
        """MSRs 0x1b, 0x6e0 and 0x800 to 0x8ff. -1: #GP."""
        return -1

    cdef int wrmsr(self, u32 msr, u64 value) noexcept nogil:
        return -1

    cdef u32 mmio_read(self, u32 offset) noexcept nogil:
        """A 32-bit read within the page at the APIC base, by the processor that owns it."""
        return 0xFFFFFFFF

    cdef void mmio_write(self, u32 offset, u32 value) noexcept nogil:
        pass

    cdef void reset_by_init(self) noexcept nogil:
        """INIT as the processor itself meets it (keyboard controller, port 92h)."""

    cdef void counter_overflowed(self) noexcept nogil:
        """A performance counter wants its interrupt."""

    # --- from Python (tests, monitor) ---------------------------------------------------------------------

    def ack(self):
        cdef int vector
        with nogil:
            vector = self.acknowledge()
        return vector

    @property
    def tpr(self):
        return self.get_tpr()

    @tpr.setter
    def tpr(self, u8 value):
        self.set_tpr(value)

    def read_msr(self, u32 msr):
        """The value, or None for #GP."""
        cdef u64 value = 0
        return value if self.rdmsr(msr, &value) == 0 else None

    def write_msr(self, u32 msr, u64 value):
        """True, or False for #GP."""
        return self.wrmsr(msr, value) == 0

    def read_register(self, u32 offset):
        return self.mmio_read(offset)

    def write_register(self, u32 offset, u32 value):
        self.mmio_write(offset, value)
