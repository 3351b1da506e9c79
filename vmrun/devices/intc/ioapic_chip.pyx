"""82093AA I/O APIC, compiled: the chip alone; ioapic.py maps it.

Ref: Intel 82093AA (290566). Interrupts leave as messages (SDM vol. 3, 11.11), so the chip needs no knowledge of the
processors' APICs. Not modelled: the APIC bus's arbitration ID, polarity (pins are active as wired).
"""

from accel.api cimport IoRegion, IrqSink, u8, u32, u64
from accel.run cimport MsiSink

from vmrun.core.state import Table, U32, Words

cdef enum:
    PINS = 24
    MASKED = 1 << 16
    LEVEL = 1 << 15
    REMOTE_IRR = 1 << 14
    PENDING = 1 << 12
    WRITABLE_LOW = 0x1AFFF


def from_kernel(fields):
    """The state of the same chip in KVM's kernel."""
    chip = fields["registers"]
    return {"table": chip["redirtbl"], "select": chip["ioregsel"], "id": chip["id"] & 15, "irr": chip["irr"]}


cdef class Ioapic(IoRegion):
    """Registers at 0x00 (IOREGSEL), 0x10 (IOWIN) and, from version 0x20, 0x40 (EOI)."""

    # Not `lines`: what drives the pins has been loaded before, and drives them.
    state = Table(
        "ioapic", 1,
        Words("table", PINS, (1 << 64) - 1, [MASKED] * PINS), U32("select", most=0xFF), U32("id", most=0xF),
        U32("irr", most=0xFFFFFF),
        readers={("kvm-ioapic", 1): from_kernel},
    )
    reset, save, load_state = state.methods()

    cdef readonly MsiSink messages
    cdef public u32 version
    cdef u64 raised[PINS]               # how often each pin was, since the machine is there
    cdef public u64 table[24]
    cdef public u32 select, id, lines, irr

    def __init__(self, MsiSink messages, u32 version):
        self.messages = messages
        self.version = version
        self.reset()

    cdef void serve(self, u32 n) noexcept nogil:
        """Send pin `n`'s message when it may go."""
        cdef u64 entry = self.table[n]
        if not self.irr >> n & 1 or entry & MASKED or (entry & LEVEL and entry & REMOTE_IRR):
            return
        if entry & LEVEL:
            self.table[n] |= REMOTE_IRR
        else:
            self.irr &= ~(<u32>1 << n)
        self.messages.send(
            <u64>0xFEE00000 | (entry >> 56) << 12 | (entry >> 11 & 1) << 2,
            <u32>(entry & 0x7FF) | (<u32>(entry >> 15 & 1) << 15) | 0x4000,
        )

    cdef void set_pin(self, u32 n, int level) noexcept nogil:
        cdef u32 bit = <u32>1 << n
        cdef bint was = (self.lines & bit) != 0
        if level:
            self.raised[n] += not was
            self.lines |= bit
        else:
            self.lines &= ~bit
        if self.table[n] & LEVEL:
            self.irr = self.irr | bit if level else self.irr & ~bit
        elif level and not was:
            self.irr |= bit
        self.serve(n)

    def counts(self):
        """How often each pin was raised: for people, no part of the state."""
        return [self.raised[n] for n in range(PINS)]

    cdef void end_of_interrupt(self, u32 vector) noexcept nogil:
        cdef u32 n
        for n in range(PINS):
            if self.table[n] & 0xFF == vector and self.table[n] & LEVEL and self.table[n] & REMOTE_IRR:
                self.table[n] &= ~<u64>REMOTE_IRR
                self.serve(n)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u32 n
        if offset == 0:
            return self.select
        if offset != 0x10:
            return 0
        if self.select == 0 or self.select == 2:
            return self.id << 24
        if self.select == 1:
            return self.version | (PINS - 1) << 16
        if 0x10 <= self.select < 0x10 + 2 * PINS:
            n = (self.select - 0x10) >> 1
            return self.table[n] >> 32 if self.select & 1 else self.table[n] & <u64>0xFFFFFFFF
        return 0

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u32 n
        cdef u64 old
        if offset == 0:
            self.select = value & 0xFF
        elif offset == 0x10:
            if self.select == 0:
                self.id = (value >> 24) & 0xF
            elif 0x10 <= self.select < 0x10 + 2 * PINS:
                n = (self.select - 0x10) >> 1
                old = self.table[n]
                if self.select & 1:
                    self.table[n] = (old & <u64>0xFFFFFFFF) | value << 32
                else:
                    self.table[n] = (old & ~<u64>WRITABLE_LOW) | (value & WRITABLE_LOW)
                    if not self.table[n] & LEVEL:
                        self.table[n] &= ~<u64>REMOTE_IRR
                    elif self.lines >> n & 1:
                        self.irr |= <u32>1 << n
                    else:
                        self.irr &= ~(<u32>1 << n)
                self.serve(n)
        elif offset == 0x40 and self.version >= 0x20:
            self.end_of_interrupt(value & 0xFF)
        return 0


cdef class IoapicInputs(IrqSink):
    """Pins INTIN0 to INTIN23."""

    cdef Ioapic chip

    def __init__(self, Ioapic chip):
        self.chip = chip

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        if n < PINS:
            self.chip.set_pin(n, level)


cdef class IoapicEoi(IrqSink):
    """End of interrupt, broadcast by a local APIC: input number is the vector."""

    cdef Ioapic chip

    def __init__(self, Ioapic chip):
        self.chip = chip

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        self.chip.end_of_interrupt(n)
