"""pvscsi: VMware's paravirtual SCSI adapter, for guests that came from there.

BAR 0  32 KiB of memory: command 0, interrupts 1000h and 2000h, kicks 3000h and 4000h
"""

from __future__ import annotations

from vmrun.bus.pci import Msi, PciDevice
from vmrun.bus.scsi import ScsiBus
from vmrun.core.interfaces import BusOwner
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.pvscsi_chip import PvscsiChip, PvscsiRegisters
from vmrun.devices.storage.scsi import ScsiUnits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

MOST_TARGET = 63
SIZE = 0x8000
MSI_AT, MSI_AT_FIRST = 0x7C, 0x50
PATIENCE = 0xFF


@register("pvscsi", description="VMware paravirtual SCSI adapter")
class Pvscsi(PciDevice, BusOwner):
    vendor_id, device_id, class_code, revision = 0x15AD, 0x07C0, 0x010000, 0x02
    interrupt_pin = 1
    provides = ("SCSI",)

    state = PciDevice.state.extend("pvscsi", 1, Part("chip"), Part("units"))

    use_msg = Prop("bool", True, "tell the guest of disks that come and go")
    old = named("x-old-pci-configuration", "bool", False, "subsystem and MSI of types before 2.5")
    no_express = named(
        "x-disable-pcie", "bool", False, "no PCI Express capability; this board has none", visible=False,
        idle="an i440FX has no PCI Express",
    )

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.units = ScsiUnits(True, platform.hw_version.encode()[:3].ljust(4, b"\0"))
        for name in names:
            self.buses[name] = ScsiBus(name, platform, self.units, targets=MOST_TARGET, luns=0)

    def pci_realize(self, platform: Platform) -> None:
        if not self.buses:
            self.make_buses([], platform)
        self.config.set_word(0x2C, 0 if self.old else self.vendor_id)
        self.config.set_word(0x2E, 0x1000 if self.old else self.device_id)
        if self.old:
            self.revision = 0
        self.config.set_byte(0x0D, PATIENCE)
        self.chip = PvscsiChip(self.dma, self.intx, self.units, bool(self.use_msg))
        self.chip.serve_on(platform.iothread)
        self.add_bar(0, PvscsiRegisters(self.chip), SIZE, "mem32")
        made = Msi(1, True, False)
        self.add_capability(made, MSI_AT_FIRST if self.old else MSI_AT)
        self.chip.msi = made.chip
        for bus in self.buses.values():
            bus.appeared, bus.leaving = self._appeared, self._left

    def _appeared(self, unit: Any) -> None:
        self.chip.tell(True, unit.channel, unit.target, unit.lun)

    def _left(self, unit: Any) -> None:
        self.chip.tell(False, unit.channel, unit.target, unit.lun)

    def unrealize(self) -> None:
        self.chip.reset()
        self.chip.quit()
        super().unrealize()
