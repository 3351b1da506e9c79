"""Port 92h: A20 and a fast reset.

Ref: IBM PS/2 hardware interface reference, system control port A. Not modelled: security lock, watchdog, LEDs.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion
from accel.space import ALONE

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import U8, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

A20, FAST_RESET = 0x02, 0x01


@register("port92", description="system control port A: A20 and fast reset")
class Port92(IsaDevice):
    user_creatable = False
    resources = {"ports": [["iobase", 1]]}

    state = Table("port92", 1, U8("value"))

    iobase = Prop("uint16", 0x92, "port")
    fast_reset = named("fast-reset", "bool", True, "bit 0 resets the machine; RHEL 6 ignores it")

    def realize(self, platform: Platform) -> None:
        self.a20 = self.add_output("a20")[0]
        self.value = 0
        self.map_io(PyIoRegion("port92", self._read, self._write, 1, 1, widest=ALONE), self.iobase, 1)

    def settle(self) -> None:
        self.a20.drive(1 if self.value & A20 else 0)

    def _read(self, offset: int, size: int) -> int:
        return self.value

    def _write(self, offset: int, size: int, value: int) -> int:
        rising = value & FAST_RESET and not self.value & FAST_RESET
        self.value = value & 0xFF
        self.a20.drive(1 if value & A20 else 0)
        return int(Action.RESET if rising and self.fast_reset else Action.NONE)
