"""PCI configuration space, compiled: 256 bytes with write masks, mechanism #1, and the INTx swizzle.

Ref: PCI Local Bus Specification 2.1, chapter 6 and 3.7.4.1 (mechanism #1).
Not modelled: type 1 cycles to buses behind bridges (there are none yet): they read all ones.
"""

from libc.string cimport memcpy, memset

from accel.api import IrqLine as _IrqLine, _report


cdef class PciConfig:
    """The space of one function. `hook(offset, size)` runs, with the GIL, after a write to bytes it watches.

    `set_byte/word/dword` write as the device itself, without masks; `allow` opens bits to the guest.
    """

    def __cinit__(self, hook=None):
        self.hook = hook

    cdef u32 read(self, u32 offset, u32 size) noexcept nogil:
        cdef u32 value = 0
        if offset + size > 256:
            return 0xFFFFFFFF
        memcpy(&value, self.data + offset, size)
        return value

    cdef void write(self, u32 offset, u32 size, u32 value) noexcept nogil:
        cdef u32 i, tell = 0
        cdef u8 byte, mask, new
        if offset + size > 256:
            return
        for i in range(offset, offset + size):
            byte = (value >> (8 * (i - offset))) & 0xFF
            mask = self.writable[i]
            new = (self.data[i] & ~mask) | (byte & mask)
            new &= ~(byte & self.clear[i])
            if self.hooked[i] == 2 or (self.hooked[i] == 1 and new != self.data[i]):
                tell = 1
            self.data[i] = new
        if tell:
            self.call_hook(offset, size)

    cdef void call_hook(self, u32 offset, u32 size) noexcept with gil:
        try:
            self.hook(offset, size)
        except Exception as exc:
            _report(f"PCI configuration write at {offset:#x}", exc)

    cdef void show_interrupt(self, int level) noexcept nogil:
        """Interrupt Status, bit 3 of the status register."""
        self.data[6] = (self.data[6] & 0xF7) | (8 if level else 0)

    # --- for the device, the bus and views ---------------------------------------------------------------

    def watch(self, u32 offset, u32 size, bint always=False):
        """Call the hook when one of these bytes changes (`always`: when it is written)."""
        memset(self.hooked + offset, 2 if always else 1, size)

    def allow(self, u32 offset, u32 size, u32 mask):
        """Bits of `mask` in the little-endian field at `offset` may be written by the guest."""
        memcpy(self.writable + offset, &mask, size)

    def allow_clear(self, u32 offset, u32 size, u32 mask):
        """Bits of `mask` are cleared by writing 1."""
        memcpy(self.clear + offset, &mask, size)

    def set_byte(self, u32 offset, u8 value):
        self.data[offset] = value

    def set_word(self, u32 offset, u32 value):
        memcpy(self.data + offset, &value, 2)

    def set_dword(self, u32 offset, u32 value):
        memcpy(self.data + offset, &value, 4)

    def get(self, u32 offset, u32 size):
        return self.read(offset, size)

    def poke(self, u32 offset, u32 size, u32 value):
        """A write as the guest makes it."""
        with nogil:
            self.write(offset, size, value)

    def snapshot(self):
        """All 256 bytes."""
        return bytes(self.data[:256])

    def restore(self, bytes state):
        """Take bytes as `snapshot` gave them. ValueError when there are not 256."""
        if len(state) != 256:
            raise ValueError("a configuration space has 256 bytes")
        memcpy(self.data, <const u8 *>state, 256)


cdef class PciFunctions:
    """The functions of one bus by devfn (slot * 8 + function)."""

    def __cinit__(self):
        self.held = [None] * 256

    def put(self, u32 devfn, PciConfig config):
        if not 0 <= devfn < 256:
            raise IndexError(devfn)
        self.held[devfn] = config
        self.by_devfn[devfn] = <void *>config if config is not None else NULL

    def get(self, u32 devfn):
        return self.held[devfn]


cdef class ConfigAddress(IoRegion):
    """CONFADD at 0xcf8: only a dword access reaches it; bytes and words are ordinary ports that nobody has."""

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        return self.latch if offset == 0 and size == 4 else <u64>-1

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset == 0 and size == 4:
            self.latch = <u32>value
        return 0


cdef u32 _config_read(PciConfig config, u32 offset, u32 size) noexcept nogil:
    return config.read(offset, size)


cdef void _config_write(PciConfig config, u32 offset, u32 size, u32 value) noexcept nogil:
    config.write(offset, size, value)


ctypedef u32 (*config_read_fn)(void *, u32, u32) noexcept nogil
ctypedef void (*config_write_fn)(void *, u32, u32, u32) noexcept nogil
cdef config_read_fn config_read = <config_read_fn>_config_read
cdef config_write_fn config_write = <config_write_fn>_config_write


cdef class ConfigData(IoRegion):
    """CONFDATA at 0xcfc..0xcff: the register that CONFADD names, in accesses of 1, 2 or 4 bytes."""

    def __init__(self, ConfigAddress address, PciFunctions functions):
        self.address = address
        self.functions = functions

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 latch = self.address.latch
        cdef void *config
        if latch >> 31 == 0 or latch & 0xFF0000 or offset + size > 4:
            return <u64>-1
        config = self.functions.by_devfn[(latch >> 8) & 0xFF]
        if config == NULL:
            return <u64>-1
        return config_read(config, (latch & 0xFC) + <u32>offset, size)

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 latch = self.address.latch
        cdef void *config
        if latch >> 31 == 0 or latch & 0xFF0000 or offset + size > 4:
            return 0
        config = self.functions.by_devfn[(latch >> 8) & 0xFF]
        if config != NULL:
            config_write(config, (latch & 0xFC) + <u32>offset, size, <u32>value)
        return 0


cdef void _line_set(IrqLine line, int level) noexcept nogil:
    line.set(level)


ctypedef void (*line_fn)(void *, int) noexcept nogil
cdef line_fn line_set = <line_fn>_line_set


cdef class IntxPin(IrqSink):
    """A function's INTx#: Interrupt Status follows it, Interrupt Disable of the command register holds it back.

    Ref: PCI Local Bus Specification 2.3, 6.2.2 and 6.2.3.
    """

    def __init__(self, PciConfig config, IrqSink router, u32 n):
        self.config = config
        self.out = _IrqLine(router, n)

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.level = level
        self.config.show_interrupt(level)
        if self.config.read(5, 1) & 0x04:
            level = 0
        self.out.set(level)

    def refresh(self):
        """The command register changed."""
        self.set_irq(0, self.level)


cdef class IntxRouter(IrqSink):
    """INTA..INTD of 32 slots → four PIRQ lines, wired-OR. Input: slot * 4 + pin - 1.

    A device in `first_slot` has its INTA on PIRQA; each slot further moves it by one.
    """

    def __cinit__(self, u32 first_slot=1):
        self.first_slot = first_slot
        self.pirq = [IrqLine() for _ in range(4)]
        for i in range(4):
            self.lines[i] = <void *>self.pirq[i]

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        cdef u32 slot = n >> 2, pin = n & 3
        cdef u32 line = (slot + pin - self.first_slot) & 3
        if level:
            self.asserted[line] += 1
        elif self.asserted[line] > 0:
            self.asserted[line] -= 1
        line_set(self.lines[line], self.asserted[line] != 0)
