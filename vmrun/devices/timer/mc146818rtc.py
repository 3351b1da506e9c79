"""The real-time clock on the board: ports, interrupt 8, and where its time comes from (`rtc:`)."""

from __future__ import annotations

import time

from accel.api import PyIrqSink
from accel.clock import Clock

from vmrun.bus.isa import IsaDevice
from vmrun.core.interfaces import Coalesced, Sleeper
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.timer.mc146818 import Mc146818
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.core.platform import Platform

SECOND = 1_000_000_000
SHUTDOWN_STATUS, WOKEN = 0x0F, 0xFE


@register("mc146818rtc", description="real-time clock and CMOS")
class Mc146818Rtc(IsaDevice, Coalesced, Sleeper):
    user_creatable = False
    resources = {"ports": [["iobase", 2]], "irqs": ["irq"]}

    iobase = Prop("uint16", 0x70, "first port")
    irq = Prop("uint8", 8, "interrupt")
    base_year = Prop(
        "int32", 1980, "year that year register 0 means; 2000 on a PC, which keeps the century in CMOS"
    )
    lost_tick_policy = Prop(
        "enum", "discard", "what becomes of lost periodic ticks", choices=("discard", "slew")
    )

    def realize(self, platform: Platform) -> None:
        settings = platform.rtc
        kind = settings.get("clock", "host")
        timers = platform.timers if kind == "vm" else platform.host_timers
        clock = timers.clock
        line = self.add_output("irq")[0]
        line.connect(self.parent_bus.irqs, self.irq)
        self.chip = self.rtc = Mc146818(clock, timers, line)
        self.rtc.slew = settings.get("driftfix") == "slew" or self.lost_tick_policy == "slew"
        self.rtc.base_year = 0 if self.base_year == 2000 else self.base_year
        self.rtc.set_time_of_day(start_time(settings.get("base", "utc"), platform.host, self.path))
        self.rtc.alarm.connect(PyIrqSink(lambda n, level: platform.wakeup("rtc") if level else None), 0)
        self.platform = platform
        self.first_offset, self.told_offset = self.rtc.offset, 0
        self.clock = clock
        self.rtc.moved.connect(PyIrqSink(lambda n, level: self._moved() if level else None), 0)
        self.map_io(self.rtc, self.iobase, 2)
        # the index alone does nothing: it may wait for the access to the data port, which is an exit
        self.coalesced = (("io", self.iobase, 1),)

    def _moved(self) -> None:
        """The guest has set the clock: how far it is now from where it would be, in seconds."""
        away = (self.rtc.offset - self.first_offset) // SECOND
        if away != self.told_offset:
            self.told_offset = away
            self.platform.tell("RTC_CHANGE", offset=away, **{"qom-path": self.path})

    def seconds(self) -> int:
        """Since 1970, as the guest's clock goes."""
        return int(self.clock.time() + self.rtc.offset) // SECOND

    def sleep(self) -> None:
        """The firmware finds that the reset was the end of a sleep."""
        self.rtc.set_cmos(SHUTDOWN_STATUS, WOKEN)

    def set_cmos(self, index: int, value: int) -> None:
        self.rtc.set_cmos(index, value)

    def get_cmos(self, index: int) -> int:
        value: int = self.rtc.get_cmos(index)
        return value


def start_time(base: str, host: Clock, path: str) -> int:
    """ns since 1970 that the clock shows at power-on. BuildError for a date that is none."""
    now: int = host.time()
    if base == "utc":
        return now
    if base == "localtime":
        return now + time.localtime(now // SECOND).tm_gmtoff * SECOND
    from vmrun.core.values import FIRST_YEAR, LAST_YEAR, seconds

    given = seconds(base)
    if given is not None:
        return given * SECOND
    raise BuildError(  # rtc() in vmrun.config.settings says it with its line
        f"{path}: rtc base {base!r} is not utc, localtime or a date between {FIRST_YEAR} and {LAST_YEAR} "
        "like 2026-11-23T10:00:00"
    )
