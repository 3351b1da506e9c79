"""An NE2000 on PCI: the RTL8029."""

from __future__ import annotations

from accel.space import Region

from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.ne2000 import Ne2000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

BAR = 0x100


@register("ne2k_pci", description="NE2000 Ethernet on PCI")
class Ne2kPci(PciNic):
    vendor_id, device_id = 0x10EC, 0x8029

    romfile = Prop("str", "efi-ne2k_pci.rom", "option ROM, found in the firmware directories")

    def make_chip(self, platform: Platform) -> Ne2000:
        chip = Ne2000(self.intx, platform.timers, self.address, True)
        self.add_bar(0, Region.device(f"{self.name}.ports", chip, BAR), BAR, "io")
        return chip
