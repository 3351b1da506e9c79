"""AMD's PCnet-PCI II."""

from __future__ import annotations

from accel.space import Region

from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.pcnet_chip import Pcnet

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

SIZE = 0x20
STATUS, MIN_GNT, MAX_LAT = 0x06, 0x3E, 0x3F


@register("pcnet", description="AMD PCnet Ethernet")
class PcnetCard(PciNic):
    vendor_id, device_id, revision = 0x1022, 0x2000, 0x10
    subsystem_vendor_id = subsystem_id = 0

    romfile = Prop("str", "efi-pcnet.rom", "option ROM, found in the firmware directories")

    def make_chip(self, platform: Platform) -> Pcnet:
        chip = Pcnet(self.dma, self.intx, platform.timers, self.address)
        self.config.set_word(STATUS, self.config.get(STATUS, 2) | 0x0280)  # fast back-to-back, medium DEVSEL#
        self.config.set_byte(MIN_GNT, 0x06)
        self.config.set_byte(MAX_LAT, 0xFF)
        self.add_bar(0, Region.device(f"{self.name}.ports", chip, SIZE), SIZE, "io")
        self.add_bar(1, Region.device(f"{self.name}.memory", chip, SIZE), SIZE, "mem32")
        return chip
