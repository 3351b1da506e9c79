"""lsi53c895a and lsi53c810: PCI cards with an LSI SCSI controller.

    BAR 0  registers (ports, 256)   BAR 1  registers (memory, 1 KiB)   BAR 2  memory for SCRIPTS (8 KiB)

The 53C810 is told apart by its ids alone, as QEMU's is.
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.bus.scsi import ScsiBus
from vmrun.core.interfaces import BusOwner
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.lsi53c895a_chip import LsiChip, LsiRegisters
from vmrun.devices.storage.scsi import ScsiUnits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PROGRAMS = 8192


@register("lsi53c895a", "lsi", description="LSI 53C895A SCSI adapter")
class Lsi53c895a(PciDevice, BusOwner):
    vendor_id, device_id, class_code = 0x1000, 0x0012, 0x010000
    subsystem_vendor_id, subsystem_id = 0x0000, 0x1000
    interrupt_pin = 1
    provides = ("SCSI",)
    targets = 7

    state = PciDevice.state.extend("lsi53c895a", 1, Part("chip"), Part("units"))

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.units = ScsiUnits(True, platform.hw_version.encode()[:3].ljust(4, b"\0"))
        for name in names:
            self.buses[name] = ScsiBus(name, platform, self.units, targets=self.targets)

    def pci_realize(self, platform: Platform) -> None:
        if not self.buses:
            self.make_buses([], platform)
        self.config.set_byte(0x0D, 0xFF)  # latency timer
        self.chip = LsiChip(self.dma, self.intx, self.config, self.units)
        self.chip.serve_on(platform.iothread)
        memory = RamBlock(f"{self.name}.scripts", PROGRAMS)
        self.ram_blocks.append(memory)
        self.add_bar(0, LsiRegisters(self.chip), 256, "io")
        self.add_bar(1, LsiRegisters(self.chip), 1024, "mem32")
        self.add_bar(2, Region.ram(f"{self.name}.scripts", memory), PROGRAMS, "mem32")

    def unrealize(self) -> None:
        self.chip.reset()
        self.chip.quit()
        super().unrealize()


@register("lsi53c810", description="LSI 53C810 SCSI adapter")
class Lsi53c810(Lsi53c895a):
    device_id = 0x0001
