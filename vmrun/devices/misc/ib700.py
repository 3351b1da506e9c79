"""ib700: the watchdog of iBASE's single-board computers; a port that starts it and one that stops it.

Ref: iBASE IB700 manual, watchdog timer: 443h takes the time out, in steps of two seconds from 30 down; 441h stops it.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion
from accel.clock import PyTimer

from vmrun.bus.isa import IsaDevice
from vmrun.core.registry import register
from vmrun.core.state import Deadline, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

STOP, START = 0x441, 0x443
LONGEST, STEP = 30, 2  # seconds
SECOND = 1_000_000_000


@register("ib700", description="watchdog (ISA)")
class Ib700(IsaDevice):
    resources = {"ports": [[STOP, 4]], "irqs": [], "dmas": []}

    state = Table("ib700", 1, Deadline("timer"))

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.timer = PyTimer(platform.timers, self._ran_out)
        self.map_io(PyIoRegion("ib700-stop", None, self._stop, max_access=1), STOP, 2)
        self.map_io(PyIoRegion("ib700-start", None, self._start, max_access=1), START, 2)

    def unrealize(self) -> None:
        self.timer.stop()
        super().unrealize()

    def _stop(self, offset: int, size: int, value: int) -> None:
        self.timer.stop()

    def _start(self, offset: int, size: int, value: int) -> None:
        seconds = LONGEST - STEP * (value & 0xF)
        self.timer.schedule(self.platform.virtual.time() + seconds * SECOND)

    def _ran_out(self) -> None:
        self.platform.request(Action.WATCHDOG)
