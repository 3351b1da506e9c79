"""Realtek's RTL8139C+ on PCI."""

from __future__ import annotations

from accel.space import Region

from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.rtl8139 import Rtl8139

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

SIZE = 0x100
CAPABILITIES, NOTHING_THERE = 0x34, 0xDC


@register("rtl8139", description="Realtek RTL8139C+ Fast Ethernet")
class Rtl8139Card(PciNic):
    vendor_id, device_id, revision = 0x10EC, 0x8139, 0x20

    romfile = Prop("str", "efi-rtl8139.rom", "option ROM, found in the firmware directories")

    def make_chip(self, platform: Platform) -> Rtl8139:
        chip = Rtl8139(self.dma, self.intx, platform.timers, self.address, self.device_id, self.vendor_id)
        self.config.set_byte(CAPABILITIES, NOTHING_THERE)  # though the status register says that there is no list
        self.add_bar(0, Region.device(f"{self.name}.ports", chip, SIZE), SIZE, "io")
        self.add_bar(1, Region.device(f"{self.name}.memory", chip, SIZE), SIZE, "mem32")
        return chip
