"""PCI configuration space, compiled: 256 bytes with write masks, mechanism #1, and the INTx swizzle.

Ref: PCI Local Bus Specification 2.1, chapter 6 and 3.7.4.1 (mechanism #1); PCI-to-PCI Bridge Architecture 1.1, 3.1.2.1
(type 1 cycles) and 9.1 (interrupt routing).
"""

from libc.string cimport memcpy, memset

from accel.api import IrqLine as _IrqLine, _report
from vmrun.core.cells cimport cells

from vmrun.core.state import KEEP, Bytes, Table, U32
from vmrun.errors import StateError


cdef class PciConfig:
    """The space of one function. `hook(offset, size)` runs, with the GIL, after a write to bytes it watches.

    `set_byte/word/dword` write as the device itself, without masks; `allow` opens bits to the guest.
    """

    state = Table("pci-config", 1, Bytes("space", 256, KEEP))

    def __cinit__(self, hook=None):
        self.hook = hook

    cdef u32 read(self, u32 offset, u32 size) noexcept nogil:
        """What lies beyond the last byte reads as 0."""
        cdef u32 value = 0
        if offset < 256:
            if self.shown[offset]:
                self.call_read(offset, size)
            memcpy(&value, self.data + offset, min(size, 256 - offset))
        return value

    cdef void call_read(self, u32 offset, u32 size) noexcept with gil:
        if self.on_read is None:
            return
        try:
            self.on_read(offset, size)
        except Exception as exc:
            _report(f"PCI configuration read at {offset:#x}", exc)

    cdef void write(self, u32 offset, u32 size, u32 value) noexcept nogil:
        cdef u32 i, tell = 0
        cdef u8 byte, mask, new
        for i in range(offset, min(offset + size, 256)):
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

    def watch_reads(self, u32 offset, u32 size):
        """Call `on_read(offset, size)` before the guest reads these bytes."""
        memset(self.shown + offset, 1, size)

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

    @property
    def space(self):
        """All 256 bytes, as a buffer."""
        return cells(self, self.data, 256)

    def check_state(self, values):
        if values["space"][:4] != self.data[:4]:
            raise StateError("the saved configuration space is another device's")


cdef u8 config_byte(void *config, u32 offset) noexcept nogil:
    return (<PciConfig>config).data[offset]


cdef void *bus_function(void *bus, u32 devfn) noexcept nogil:
    return (<PciFunctions>bus).by_devfn[devfn]


cdef enum:
    SECONDARY = 0x19
    SUBORDINATE = 0x1A
    BRIDGE_CONTROL = 0x3E
    SECONDARY_RESET = 0x40


cdef class PciFunctions:
    """The functions of one bus by devfn (slot * 8 + function), and the buses behind its bridges."""

    def __cinit__(self):
        self.held = [None] * 256
        self.held_behind = [None] * 256

    def put(self, u32 devfn, PciConfig config or None, PciFunctions behind=None):
        """`behind`: the secondary bus, of a bridge. None for `config` takes the function away."""
        cdef u32 n
        if not 0 <= devfn < 256:
            raise IndexError(devfn)
        self.held[devfn], self.held_behind[devfn] = config, behind
        self.by_devfn[devfn] = <void *>config if config is not None else NULL
        self.behind[devfn] = <void *>behind if behind is not None else NULL
        self.bridge_count = 0
        for n in range(256):
            if self.behind[n] != NULL:
                self.bridges[self.bridge_count] = n
                self.bridge_count += 1

    def get(self, u32 devfn):
        return self.held[devfn]

    cdef void *towards(self, u32 number, bint *found) noexcept nogil:
        """The bus behind one of the bridges here that has this number (found), or leads to it; NULL: none does."""
        cdef u32 i
        cdef void *config
        for i in range(self.bridge_count):
            config = self.by_devfn[self.bridges[i]]
            if config_byte(config, SECONDARY) == number:
                found[0] = True
                return self.behind[self.bridges[i]]
            if config_byte(config, BRIDGE_CONTROL) & SECONDARY_RESET:
                continue
            if config_byte(config, SECONDARY) < number <= config_byte(config, SUBORDINATE):
                found[0] = False
                return self.behind[self.bridges[i]]
        return NULL

    cdef void *function(self, u32 number, u32 devfn) noexcept nogil:
        """The PciConfig at a place as a type 1 cycle reaches it from here, or NULL. This bus is number 0."""
        cdef void *bus
        cdef bint found = False
        if number == 0:
            return self.by_devfn[devfn]
        bus = self.towards(number, &found)
        while bus != NULL and not found:
            bus = (<PciFunctions>bus).towards(number, &found)
        return bus_function(bus, devfn) if bus != NULL else NULL


cdef class ConfigAddress(IoRegion):
    """CONFADD at 0xcf8: only a dword is written. Smaller reads, wherever, show its low bits, as qemu-kvm's does; the
    byte at 0xcf9 is the reset control register's, or nobody's.
    """

    state = Table("pci-config-address", 1, U32("latch"))
    reset, save, load_state = state.methods()

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        if offset == 1 and size == 1:
            return <u64>-1
        return self.latch if size == 4 or offset & (size - 1) == 0 else self.latch & 0xFF | (self.latch & 0xFF) << 8

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        if offset == 0 and size == 4:
            self.latch = <u32>value
        return 0


cdef u32 _aligned(u32 offset, u32 size) noexcept nogil:
    """How many bytes of an access go in one cycle: a register's worth, not across its end."""
    cdef u32 part = 4
    while part > size or offset & (part - 1):
        part >>= 1
    return part


cdef class ConfigData(IoRegion):
    """CONFDATA at 0xcfc..0xcff: the register that CONFADD names, in accesses of 1, 2 or 4 bytes. CONFADD's low two
    bits count, or-ed with the port's.
    """

    def __init__(self, ConfigAddress address, PciFunctions functions):
        self.address = address
        self.functions = functions

    cdef void *selected(self) noexcept nogil:
        cdef u32 latch = self.address.latch
        return self.functions.function(latch >> 16 & 0xFF, latch >> 8 & 0xFF) if latch >> 31 else NULL

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef void *config = self.selected()
        cdef u32 i = 0, part
        cdef u64 value = 0
        if config == NULL:
            return <u64>-1
        while i < size:
            part = _aligned(<u32>offset + i, size - i)
            value |= <u64>(<PciConfig>config).read((self.address.latch | <u32>offset + i) & 0xFF, part) << (8 * i)
            i += part
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef void *config = self.selected()
        cdef u32 i = 0, part
        if config == NULL:
            return 0
        while i < size:
            part = _aligned(<u32>offset + i, size - i)
            (<PciConfig>config).write((self.address.latch | <u32>offset + i) & 0xFF, part, <u32>(value >> (8 * i)))
            i += part
        return 0


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


cdef class IntxBehind(IrqSink):
    """INTA..INTD of the slots behind a bridge, onto the pins of the bridge's own slot. Input: slot * 4 + pin - 1."""

    def __init__(self, IrqSink parent, u32 slot):
        self.parent = parent
        self.slot = slot

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.parent.set_irq(self.slot * 4 + (((n >> 2) + n) & 3), level)


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
        (<IrqLine>self.lines[line]).set(self.asserted[line] != 0)
