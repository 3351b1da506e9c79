"""The interrupt controllers on the board: ports, edge/level control, pins."""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.space import ALONE

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.intc.i8259 import I8259, I8259Ack, I8259Inputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("isa-i8259", description="8259A interrupt controller, one of the pair")
class IsaI8259(IsaDevice):
    user_creatable = False
    controls_interrupts = True
    resources = {"ports": [["iobase", 2], ["elcr_addr", 1]]}

    iobase = Prop("uint32", doc="first of two ports", max=0xFFFF)
    elcr_addr = Prop("uint32", doc="port of the edge/level control register", max=0xFFFF)
    elcr_mask = Prop("uint8", 0xFF, "inputs that can be level-triggered")
    master = Prop("bool", False, "the one that interrupts the processor")

    def realize(self, platform: Platform) -> None:
        self.chip = I8259()
        self.chip.elcr_mask = self.elcr_mask
        self.chip.widest = ALONE
        self.add_input("in", I8259Inputs(self.chip), 8)
        self.outputs["int"] = [self.chip.output]
        self.map_io(self.chip, self.iobase, 2)
        elcr = PyIoRegion("elcr", lambda o, s: self.chip.get_elcr(), self._write_elcr, 1, 1, widest=ALONE)
        self.map_io(elcr, self.elcr_addr, 1)
        pair: list[IsaI8259] = [
            d for d in self.parent_bus.devices if isinstance(d, IsaI8259) and d.realized or d is self
        ]
        masters = [d for d in pair if d.master]
        slaves = [d for d in pair if not d.master]
        if masters and slaves:
            masters[0].chip.slave = slaves[0].chip
        if self.master:
            platform.accelerator.set_int_ack(I8259Ack(self.chip))

    def _write_elcr(self, offset: int, size: int, value: int) -> None:
        self.chip.set_elcr(value & 0xFF)
