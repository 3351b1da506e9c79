"""isa-debug-exit: a port that ends vmrun with a code of the guest's choice; for test kernels.

Ref: QEMU's device of that name: status (value << 1) | 1, so that 0 is never a guest's.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion

from vmrun.bus.isa import IsaDevice
from vmrun.core.interfaces import GuestExit
from vmrun.core.props import Prop
from vmrun.core.registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("isa-debug-exit", description="port that ends vmrun with an exit status")
class IsaDebugExit(IsaDevice, GuestExit):
    """After Action.EXIT, `exit_code` is what the guest asked for."""

    resources = {"ports": [["iobase", "iosize"]], "irqs": [], "dmas": []}

    iobase = Prop("uint32", 0x501, doc="first port", max=0xFFFF)
    iosize = Prop("uint32", 2, doc="number of ports", min=1, max=4)

    def realize(self, platform: Platform) -> None:
        self.map_io(PyIoRegion("isa-debug-exit", self.read, self.write), self.iobase, self.iosize)

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> int:
        self.exit_code = (value << 1 | 1) & 0xFF
        return int(Action.EXIT)
