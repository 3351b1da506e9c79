"""The PIIX3's interrupt router: four PIRQ lines onto the ISA interrupts, compiled.

Ref: Intel 82371SB PIIX3 (290550) 2.2.10, PIRQRC[A:D].
"""

from accel.api cimport IrqLine, IrqSink, u8, u32

from accel.api import IrqLine as _IrqLine


cdef class PirqRouter(IrqSink):
    """Inputs 0..3 are PIRQA..D. `irq` are 16 outputs; an ISA interrupt is high while a PIRQ routed to it is."""

    cdef readonly list irq
    cdef void *lines[16]
    cdef u8 route[4]
    cdef int level[4]

    def __cinit__(self):
        self.irq = [_IrqLine() for _ in range(16)]
        for i in range(16):
            self.lines[i] = <void *>self.irq[i]
        for i in range(4):
            self.route[i] = 0x80

    def set_route(self, u32 pirq, u8 value):
        """PIRQRC: 0..15 routes, bit 7 (or more) disables."""
        self.route[pirq & 3] = value
        self.update()

    cdef void update(self) noexcept nogil:
        cdef u32 n, p
        cdef int level
        for n in range(16):
            level = 0
            for p in range(4):
                if self.route[p] == n and self.level[p]:
                    level = 1
            (<IrqLine>self.lines[n]).set(level)

    cdef void set_irq(self, u32 n, int level) noexcept nogil:
        if n < 4:
            self.level[n] = level
            if self.route[n] < 16:
                self.update()
