"""isa-parallel: a printer port at an LPT port's address, with ISA interrupt 7 and a chardev."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.char.parallel import ParallelPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PORTS = [0x378, 0x278, 0x3BC]


@register("isa-parallel", description="parallel port")
class IsaParallel(IsaDevice):
    resources = {"ports": [["iobase", 8]], "irqs": ["irq"], "dmas": []}
    index = {"prop": "index", "sets": {"iobase": PORTS}}

    number = named("index", "uint32", doc="LPT port counted from 0; gives iobase", max=2)
    iobase = Prop("uint32", doc="first of 8 ports", max=0xFFF8)
    irq = Prop("uint32", 7, doc="ISA interrupt", max=15)
    chardev = Prop("chardev", doc="where the printed bytes go", visible=False)

    def realize(self, platform: Platform) -> None:
        iobase = self.iobase if self.iobase is not None else PORTS[self.number or 0]
        backend = platform.chardev(self.chardev) if self.chardev is not None else None
        self.chip = ParallelPort(self.isa_irq(self.irq), backend)
        self.map_io(self.chip, iobase, 8, "parallel")
