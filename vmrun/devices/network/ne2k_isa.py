"""An NE2000 on the ISA bus."""

from __future__ import annotations

from vmrun.bus.isa import IsaDevice
from vmrun.core.interfaces import NetworkCard
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.network.card import station_address
from vmrun.devices.network.ne2000 import Ne2000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PORTS = 32


@register("ne2k_isa", description="NE2000 Ethernet on ISA")
class Ne2kIsa(IsaDevice, NetworkCard):
    resources = {"ports": [["iobase", PORTS]], "irqs": ["irq"]}

    mac = Prop("mac", None, "station address")
    netdev = Prop("netdev", None, "the host's side of the wire; none: a card whose cable leads nowhere", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    iobase = Prop("uint32", 0x300, "first of 32 ports", max=0xFFE0)
    irq = Prop("uint32", 9, "ISA interrupt", max=15)

    def realize(self, platform: Platform) -> None:
        self.address = station_address(self.mac, f"{self.path}.mac")
        self.chip = Ne2000(self.isa_irq(self.irq), platform.timers, self.address)
        self.map_io(self.chip, self.iobase, PORTS, "ne2000")
        if self.netdev:
            self.chip.attach(platform.netdev(self.netdev))

    def unrealize(self) -> None:
        self.chip.detach()
        self.chip.stop()
        super().unrealize()

    def set_link(self, up: bool) -> None:
        self.chip.set_link(up)
