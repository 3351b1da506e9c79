"""am53c974: a PCI card with AMD's PCscsi controller.

    BAR 0  128 ports: the SCSI core's registers four bytes apart, the DMA engine from 40h on
"""

from __future__ import annotations

from vmrun.bus.pci import PciDevice
from vmrun.bus.scsi import ScsiBus
from vmrun.core.interfaces import BusOwner
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.am53c974_chip import EspChip, EspRegisters
from vmrun.devices.storage.scsi import ScsiUnits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PORTS = 128


@register("am53c974", description="AMD Am53C974 SCSI adapter")
class Am53c974(PciDevice, BusOwner):
    vendor_id, device_id, class_code, revision = 0x1022, 0x2020, 0x010000, 0x10
    interrupt_pin = 1
    provides = ("SCSI",)

    state = PciDevice.state.extend("am53c974", 1, Part("chip"), Part("units"))

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.units = ScsiUnits(False, platform.hw_version.encode()[:3].ljust(4, b"\0"))
        for name in names:
            self.buses[name] = ScsiBus(name, platform, self.units)

    def pci_realize(self, platform: Platform) -> None:
        if not self.buses:
            self.make_buses([], platform)
        self.chip = EspChip(self.dma, self.intx, self.units)
        self.add_bar(0, EspRegisters(self.chip), PORTS, "io")

    def unrealize(self) -> None:
        self.chip.reset()
        super().unrealize()
