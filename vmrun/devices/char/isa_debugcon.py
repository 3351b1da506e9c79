"""isa-debugcon: the port that Bochs' firmware logs to (0xe9), and SeaBIOS at 0x402."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.char.debugcon import DebugPort

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("isa-debugcon", description="debug output port")
class IsaDebugcon(IsaDevice):
    resources = {"ports": [["iobase", 1]], "irqs": [], "dmas": []}

    iobase = Prop("uint32", 0xE9, doc="the port", max=0xFFFF)
    readback = Prop("uint32", 0xE9, doc="what a read gives")
    chardev = Prop("chardev", doc="where the output goes", visible=False)

    def realize(self, platform: Platform) -> None:
        backend = platform.chardev(self.chardev) if self.chardev is not None else None
        self.port = DebugPort(backend, self.readback)
        self.map_io(self.port, self.iobase, 1)
