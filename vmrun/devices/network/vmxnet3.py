"""VMware's paravirtual network card."""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci import Msi, Msix
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.vmxnet3_chip import Vmxnet3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

REGISTERS, MESSAGES, VECTORS = 0x1000, 0x2000, 25


@register("vmxnet3", description="VMware paravirtual Ethernet")
class Vmxnet3Card(PciNic):
    vendor_id, device_id, revision = 0x15AD, 0x07B0, 1
    subsystem_vendor_id, subsystem_id = 0x15AD, 0x07B0

    romfile = Prop("str", "efi-vmxnet3.rom", "option ROM, found in the firmware directories")
    old_offsets = named("x-old-msi-offsets", "bool", False, "capabilities and pending bits where they were before 2.6")
    disable_pcie = named(
        "x-disable-pcie", "bool", False, "no PCI Express, as always on an i440FX", visible=False,
        idle="an i440FX has no PCI Express",
    )

    def make_chip(self, platform: Platform) -> Vmxnet3:
        chip = Vmxnet3(self.dma, self.intx, platform.timers, self.address)
        self.add_bar(0, chip.passthrough, REGISTERS, "mem32")
        self.add_bar(1, chip, REGISTERS, "mem32")
        messages = Region.container(f"{self.name}.msix", MESSAGES)
        self.add_bar(2, messages, MESSAGES, "mem32")
        msix, msi = Msix(VECTORS, 2, 0, 2, 0x800 if self.old_offsets else 0x1000), Msi(1)
        if self.old_offsets:
            self.add_capability(msi, 0x50)
            self.add_capability(msix, 0x40)
        else:
            self.add_capability(msi, 0x84)
            self.add_capability(msix, 0x9C)
        msix.show(messages)
        chip.msix, chip.msi = msix.chip, msi.chip
        return chip
