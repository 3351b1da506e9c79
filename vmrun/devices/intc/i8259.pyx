"""8259A interrupt controller, compiled: the chip alone; isa_i8259.py pairs two of them.

Ref: Intel 8259A (231468); ELCR: Intel 82371SB PIIX3 (290550) 2.5.6.
Not modelled: MCS-80 mode (calls always give an 8086 vector), buffered mode, the cascade bus's identity (a slave
answers when its master acknowledges the input it is wired to).
"""

from accel.api cimport IoRegion, IrqLine, IrqSink, u8, u32, u64
from accel.run cimport IntAck

from accel.api import IrqLine as _IrqLine

from vmrun.core.state import Table, U8


def from_kernel(fields):
    """The state of the same chip in KVM's kernel."""
    chip = fields["registers"]
    same = ("irr", "imr", "isr", "elcr", "priority_add", "poll", "special_mask", "auto_eoi", "rotate_on_auto_eoi", "init4")
    return {
        **{name: chip[name] for name in same}, "last": chip["last_irr"], "vector_base": chip["irq_base"],
        "init_step": chip["init_state"], "read_isr": chip["read_reg_select"],
        "special_nested": chip["special_fully_nested_mode"], "single": 0, "ltim": 0,
    }


cdef class I8259(IoRegion):
    """Two ports. `output` is INT. `cascade_input` says where a slave's INT arrives (master only)."""

    # Not `lines`: what drives the inputs has been loaded before, and drives them.
    state = Table(
        "i8259", 1,
        *map(U8, ("irr", "imr", "isr", "last", "elcr")), U8("priority_add", most=7), U8("vector_base"),
        U8("init_step", most=3),
        U8("read_isr", most=1), U8("poll", most=1), U8("special_mask", most=1), U8("auto_eoi", most=1),
        U8("rotate_on_auto_eoi", most=1), U8("special_nested", most=1), U8("init4", most=1), U8("single", most=1),
        U8("ltim", most=1),
        readers={("kvm-i8259", 1): from_kernel},
    )
    reset, save, load_state = state.methods()

    cdef readonly IrqLine output
    cdef public I8259 slave
    cdef public u8 elcr_mask
    cdef public u8 irr, imr, isr, last, elcr, priority_add, vector_base, lines
    cdef public u8 read_isr, poll, special_mask, init_step, auto_eoi, rotate_on_auto_eoi, special_nested, init4, single
    cdef public u8 ltim
    cdef u64 raised[8]                  # how often each input was, since the machine is there

    def __init__(self):
        self.output = _IrqLine()
        self.max_access = 1

    cdef void clear(self) noexcept nogil:
        self.irr = self.imr = self.isr = self.last = self.priority_add = self.vector_base = 0
        self.read_isr = self.poll = self.special_mask = self.init_step = 0
        self.auto_eoi = self.rotate_on_auto_eoi = self.special_nested = self.init4 = self.single = self.ltim = 0

    # --- priorities -------------------------------------------------------------------------------------

    cdef int highest(self, u8 mask) noexcept nogil:
        """Priority (0 is the highest) of the first set bit, 8 for none."""
        cdef int priority = 0
        if mask == 0:
            return 8
        while not mask & (1 << ((priority + self.priority_add) & 7)):
            priority += 1
        return priority

    cdef int pending(self) noexcept nogil:
        """The input to serve now, or -1."""
        cdef int priority = self.highest(self.irr & ~self.imr), current
        cdef u8 in_service = self.isr
        if priority == 8:
            return -1
        if self.special_mask:
            in_service &= ~self.imr
        if self.special_nested and self.slave is not None:
            in_service &= ~(1 << 2)
        current = self.highest(in_service)
        return (priority + self.priority_add) & 7 if priority < current else -1

    cdef void update(self) noexcept nogil:
        self.output.set(self.pending() >= 0)

    cdef void set_input(self, u32 n, int level) noexcept nogil:
        cdef u8 bit = 1 << n
        if level:
            self.raised[n] += not self.lines & bit
            self.lines |= bit
        else:
            self.lines &= ~bit
        if (self.elcr | (0xFF if self.ltim else 0)) & bit:
            if level:
                self.irr |= bit
                self.last |= bit
            else:
                self.irr &= ~bit
                self.last &= ~bit
        elif level:
            if not self.last & bit:
                self.irr |= bit
            self.last |= bit
        else:
            self.last &= ~bit
        self.update()

    cdef void served(self, int n) noexcept nogil:
        cdef u8 bit = 1 << n
        if self.auto_eoi:
            if self.rotate_on_auto_eoi:
                self.priority_add = (n + 1) & 7
        else:
            self.isr |= bit
        if not (self.elcr | (0xFF if self.ltim else 0)) & bit:
            self.irr &= ~bit
        self.update()

    cdef int vector(self) noexcept nogil:
        """The INTA cycle: a vector. Nothing pending any more gives the spurious one, input 7."""
        cdef int n = self.pending(), vector
        if n < 0:
            return self.vector_base + 7
        if n == 2 and self.slave is not None:
            vector = self.slave.vector()
        else:
            vector = self.vector_base + n
        self.served(n)
        return vector

    # --- ports ------------------------------------------------------------------------------------------

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef int n
        if self.poll:
            self.poll = 0
            n = self.pending()
            if n < 0:
                return 0
            self.served(n)
            return n | 0x80
        if offset:
            return self.imr
        return self.isr if self.read_isr else self.irr

    cdef u32 write(self, u64 offset, u32 size, u64 value) noexcept nogil:
        cdef u8 byte = value & 0xFF
        cdef int command, priority, n
        if offset == 0:
            if byte & 0x10:                                   # ICW1
                self.clear()
                self.init_step = 1
                self.init4 = byte & 1
                self.single = byte & 2
                self.ltim = byte & 8
                # Inputs that are high count as edges again only after they fall; level inputs ask at once.
                self.last = self.lines
                self.irr = self.lines & self.elcr
            elif byte & 0x08:                                 # OCW3
                if byte & 0x04:
                    self.poll = 1
                if byte & 0x02:
                    self.read_isr = byte & 1
                if byte & 0x40:
                    self.special_mask = (byte >> 5) & 1
            else:                                             # OCW2
                command = byte >> 5
                if command in (0, 4):
                    self.rotate_on_auto_eoi = command >> 2
                elif command in (1, 5):
                    priority = self.highest(self.isr)
                    if priority != 8:
                        n = (priority + self.priority_add) & 7
                        self.isr &= ~(1 << n)
                        if command == 5:
                            self.priority_add = (n + 1) & 7
                elif command == 3:
                    self.isr &= ~(1 << (byte & 7))
                elif command == 6:
                    self.priority_add = (byte + 1) & 7
                elif command == 7:
                    self.isr &= ~(1 << (byte & 7))
                    self.priority_add = ((byte & 7) + 1) & 7
        elif self.init_step == 0:
            self.imr = byte
        elif self.init_step == 1:                             # ICW2
            self.vector_base = byte & 0xF8
            self.init_step = (3 if self.init4 else 0) if self.single else 2
        elif self.init_step == 2:                             # ICW3: the wiring is the board's
            self.init_step = 3 if self.init4 else 0
        else:                                                 # ICW4
            self.special_nested = (byte >> 4) & 1
            self.auto_eoi = (byte >> 1) & 1
            self.init_step = 0
        self.update()
        return 0

    # --- ELCR, state --------------------------------------------------------------------------------------

    def counts(self):
        """How often each input was raised: for people, no part of the state."""
        return [self.raised[n] for n in range(8)]

    def get_elcr(self):
        return self.elcr

    def set_elcr(self, u8 value):
        self.elcr = value & self.elcr_mask

    def settle(self):
        self.update()


cdef class I8259Inputs(IrqSink):
    """Pins IR0 to IR7."""

    cdef I8259 chip

    def __init__(self, I8259 chip):
        self.chip = chip

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        if n < 8:
            self.chip.set_input(n, level)


cdef class I8259Ack(IntAck):
    """The processor's acknowledge cycle, answered by the master."""

    cdef I8259 master

    def __init__(self, I8259 master):
        self.master = master

    cdef int acknowledge(self) noexcept nogil:
        return self.master.vector()
