"""Parallel port of the PC (SPP), the chip alone, with a printer on it that is always ready.

Ref: IBM PC/AT Technical Reference, 'Printer adapter'; IEEE 1284-1994 for the names of the lines.
Not modelled: EPP and ECP (RHEL 6 claims the ECP registers at base + 400h for a host's real port only); the printer
takes its byte at the strobe and acknowledges when the status is read.
"""

from accel.api cimport ACTION_NONE, IoRegion, IrqLine, u8, u32, u64
from vmrun.backends.protocols cimport CharBackend

from vmrun.core.state import Flag, Table, U8

cdef enum:
    STROBE = 0x01               # control; the pins are inverted
    AUTOFEED = 0x02
    INIT = 0x04
    SELECT = 0x08
    IRQ_ENABLE = 0x10
    DIRECTION = 0x20            # 1: the data lines are inputs

    TIMEOUT = 0x01              # status
    ERROR = 0x08
    ONLINE = 0x10
    PAPER = 0x20
    ACK = 0x40                  # the level of the pin: low while acknowledging
    BUSY = 0x80                 # inverted: 1 is ready


cdef class ParallelPort(IoRegion):
    state = Table(
        "parallel", 1,
        U8("data", 0xFF), U8("status", BUSY | ACK | ONLINE | ERROR | TIMEOUT), U8("control", 0xC0 | SELECT | INIT),
        Flag("irq_pending"),
    )
    reset, save, load_state = state.methods()

    cdef readonly IrqLine irq
    cdef readonly CharBackend backend
    cdef public u8 data, status, control
    cdef public bint irq_pending

    def __init__(self, IrqLine irq, CharBackend backend=None):
        self.max_access, self.widest = 1, 2
        self.irq = irq
        self.backend = backend
        self.reset()

    cdef void update(self) noexcept nogil:
        self.irq.set(self.irq_pending and self.control & IRQ_ENABLE)

    cdef u64 read(self, u64 offset, u32 size) noexcept nogil:
        cdef u8 value = 0xFF
        if offset == 0:
            # Turned round, the lines float: nothing drives them.
            value = 0xFF if self.control & DIRECTION else self.data
        elif offset == 1:
            value = self.status
            self.irq_pending = False
            if not self.status & BUSY and not self.control & STROBE:
                # Acknowledged first, ready again afterwards: drivers look for both.
                if self.status & ACK:
                    self.status &= ~ACK & 0xFF
                else:
                    self.status |= ACK | BUSY
        elif offset == 2:
            value = self.control
        self.update()
        return value

    cdef u32 write(self, u64 offset, u32 size, u64 written) noexcept nogil:
        cdef u8 value = written & 0xFF
        if offset == 0:
            self.data = value
        elif offset == 2:
            value |= 0xC0
            if not value & INIT:
                self.status = BUSY | ACK | ONLINE | ERROR
            elif value & SELECT:
                if value & STROBE:
                    self.status &= ~BUSY & 0xFF
                    if not self.control & STROBE and self.backend is not None:
                        self.backend.put(self.data)
                elif value & IRQ_ENABLE and self.control & STROBE:
                    self.irq_pending = True
            self.control = value
        self.update()
        return ACTION_NONE

    def settle(self):
        self.update()
