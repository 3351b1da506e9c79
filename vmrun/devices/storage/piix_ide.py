"""The IDE function of the PIIX3: two channels at the legacy ports and their bus-master registers in BAR 4.

Ref: Intel 82371SB PIIX3 (290550) 2.3 and 2.7. Not modelled: the timing registers (storage), the enable bits in
IDETIM (QEMU decodes the ports whatever they say).
Departure: a reset leaves IDETIM and what is behind it, as qemu-kvm's does. Firmware enables the channels when the
machine starts, not when it leaves S3, and drivers (Linux's ata_piix) take a channel for absent that is not enabled.
"""

from __future__ import annotations

from accel.api import IrqLine

from vmrun.bus.ide import IdeBus
from vmrun.bus.pci import PciDevice
from vmrun.core.interfaces import BusOwner
from vmrun.core.registry import register
from vmrun.core.state import Parts
from vmrun.devices.storage.ata import AtaChannel
from vmrun.devices.storage.ata_regions import BusMaster, CommandBlock, ControlBlock
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

# (command block, control block) of each channel
LEGACY = ((0x1F0, 0x3F6), (0x170, 0x376))


@register("piix3-ide", description="IDE controller of the PIIX3, two channels with bus mastering")
class Piix3Ide(PciDevice, BusOwner):
    user_creatable = False
    vendor_id = 0x8086
    device_id = 0x7010
    class_code = 0x010180
    hotpluggable = False
    provides = ("IDE", "IDE")
    resources = {"ports": [[0x1F0, 8], [0x3F6, 1], [0x170, 8], [0x376, 1]]}

    state = PciDevice.state.extend("piix3-ide", 1, Parts("channels"))

    def make_buses(self, names: list[str], platform: Platform) -> None:
        for name in names:
            self.buses[name] = IdeBus(name, platform)

    def pci_realize(self, platform: Platform) -> None:
        if len(self.buses) != 2:
            raise BuildError(f"{self.path}: a PIIX3 has two IDE buses, not {len(self.buses)}")
        lines: list[IrqLine] = self.add_output("irq", 2)
        self.channels = [AtaChannel(lines[n], self.dma) for n in range(2)]
        for bus, channel, (command, control) in zip(self.buses.values(), self.channels, LEGACY, strict=True):
            bus.channel = channel
            for io, port, size in ((CommandBlock(channel), command, 8), (ControlBlock(channel), control, 1)):
                self.map(platform.system_io, io, port, size, name="ide")
        self.add_bar(4, BusMaster(*self.channels), 16, "io")

    def pci_reset(self) -> None:
        self.config.set_word(6, 0x0280)
