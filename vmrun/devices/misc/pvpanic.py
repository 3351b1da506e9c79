"""pvpanic and pvpanic-pci: the guest's kernel says here that it crashed.

Ref: QEMU docs/specs/pvpanic. A read tells which events the device knows, a write reports some.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion
from accel.space import Region

from vmrun.bus.isa import IsaDevice
from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U8, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

PANICKED = 1
SIZE = 16  # of the BAR, whose first two bytes there are
CRASH_LOADED = 2  # a crash kernel has taken over: the guest looks after itself


class _Events:
    """`last_event` is what the guest wrote last; Action.PANIC follows PANICKED only."""

    events: int
    last_event = 0
    platform: Any

    def read(self, offset: int, size: int) -> int:
        return self.events

    def write(self, offset: int, size: int, value: int) -> int:
        self.last_event = value
        if value & PANICKED:
            return int(Action.PANIC)
        if value & CRASH_LOADED:
            self.platform.tell("GUEST_CRASHLOADED", action="run")
        return int(Action.NONE)


@register("pvpanic", description="port where a guest reports that it crashed")
class Pvpanic(_Events, IsaDevice):
    resources = {"ports": [["ioport", 1]], "irqs": [], "dmas": []}

    ioport = Prop("uint16", 0x505, doc="the port")
    events = Prop("uint8", PANICKED | CRASH_LOADED, doc="events that the guest may report", max=3)

    state = Table("pvpanic", 1, U8("last_event"))

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.map_io(PyIoRegion("pvpanic", self.read, self.write, max_access=1), self.ioport, 1)
        platform.add_fw_cfg_file("etc/pvpanic-port", self.ioport.to_bytes(2, "little"))


@register("pvpanic-pci", description="panic notification (PCI)")
class PvpanicPci(_Events, PciDevice):
    vendor_id = 0x1B36
    device_id = 0x0011
    revision = 1
    class_code = 0x088000

    events = Prop("uint8", PANICKED | CRASH_LOADED, doc="events that the guest may report", max=3)

    state = PciDevice.state.extend("pvpanic-pci", 1, U8("last_event"))

    def pci_realize(self, platform: Platform) -> None:
        bar = Region.container("pvpanic-pci", SIZE)
        bar.add(Region.device("pvpanic-event", PyIoRegion("pvpanic", self.read, self.write, max_access=1), 2), 0)
        self.add_bar(0, bar, SIZE, "mem32")
