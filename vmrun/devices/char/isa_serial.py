"""isa-serial: a 16550 at a COM port's address, with an ISA interrupt and a chardev."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.char.uart16550 import Uart16550

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PORTS = [0x3F8, 0x2F8, 0x3E8, 0x2E8]
IRQS = [4, 3, 4, 3]


@register("isa-serial", description="16550A serial port")
class IsaSerial(IsaDevice):
    resources = {"ports": [["iobase", 8]], "irqs": ["irq"], "dmas": []}
    index = {"prop": "index", "sets": {"iobase": PORTS, "irq": IRQS}}

    number = named("index", "uint32", doc="COM port counted from 0; gives iobase and irq", max=3)
    iobase = Prop("uint32", doc="first of 8 ports", max=0xFFF8)
    irq = Prop("uint32", doc="ISA interrupt", max=15)
    chardev = Prop("chardev", doc="the other end of the line", visible=False)
    baudbase = Prop("uint32", 115200, doc="rate at divisor 1", unit="bit/s", min=1)
    wakeup = Prop("bool", False, doc="received bytes wake the machine from sleep")

    def realize(self, platform: Platform) -> None:
        number = self.number or 0
        iobase = self.iobase if self.iobase is not None else PORTS[number]
        irq = self.irq if self.irq is not None else IRQS[number]
        backend = platform.chardev(self.chardev) if self.chardev is not None else None
        self.chip = Uart16550(self.isa_irq(irq), platform.timers, backend, self.baudbase)
        self.map_io(self.chip, iobase, 8, "serial")

    def unrealize(self) -> None:
        super().unrealize()
        if self.chip is not None:
            self.chip.detach()
