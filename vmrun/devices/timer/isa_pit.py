"""The interval timer on the board: ports 40h to 43h, OUT0 on interrupt 0."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.timer.i8254 import I8254, PitEnable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("isa-pit", description="8254 interval timer")
class IsaPit(IsaDevice):
    user_creatable = False
    resources = {"ports": [["iobase", 4]], "irqs": ["irq"]}

    iobase = Prop("uint32", 0x40, "first of four ports", max=0xFFFF)
    irq = Prop("uint8", 0, "interrupt of counter 0")

    def realize(self, platform: Platform) -> None:
        line = self.add_output("irq")[0]
        line.connect(self.parent_bus.irqs, self.irq)
        self.chip = self.pit = I8254(platform.virtual, platform.timers, line)
        self.add_input("enable", PitEnable(self.pit))
        self.map_io(self.pit, self.iobase, 4)

    def get_out(self, channel: int) -> int:
        return int(self.pit.get_out(channel))

    def get_gate(self, channel: int) -> int:
        return int(self.pit.get_gate(channel))

    def set_gate(self, channel: int, level: int) -> None:
        self.pit.set_gate(channel, bool(level))
