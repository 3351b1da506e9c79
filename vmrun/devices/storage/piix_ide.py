"""The IDE function of the PIIX3: two channels at the legacy ports and their bus-master registers in BAR 4.

Ref: Intel 82371SB PIIX3 (290550) 2.3 and 2.7. Not modelled: the timing registers (storage), the enable bits in
IDETIM (QEMU decodes the ports whatever they say).
"""

from __future__ import annotations

from accel.api import IrqLine
from accel.space import Region

from vmrun.bus.ide import IdeBus
from vmrun.bus.pci import PciDevice
from vmrun.core.registry import register
from vmrun.devices.storage.ata import AtaChannel, BusMaster, CommandBlock, ControlBlock
from vmrun.errors import BuildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

# (command block, control block) of each channel
LEGACY = ((0x1F0, 0x3F6), (0x170, 0x376))


@register("piix3-ide", description="IDE controller of the PIIX3, two channels with bus mastering")
class Piix3Ide(PciDevice):
    vendor_id = 0x8086
    device_id = 0x7010
    class_code = 0x010180
    hotpluggable = False
    provides = ("IDE", "IDE")
    resources = {"ports": [[0x1F0, 8], [0x3F6, 1], [0x170, 8], [0x376, 1]]}

    def make_buses(self, names: list[str], platform: Platform) -> None:
        for name in names:
            self.buses[name] = IdeBus(name, platform)

    def pci_realize(self, platform: Platform) -> None:
        if len(self.buses) != 2:
            raise BuildError(f"{self.path}: a PIIX3 has two IDE buses, not {len(self.buses)}")
        lines: list[IrqLine] = self.add_output("irq", 2)
        self.channels = [AtaChannel(lines[n], self.dma) for n in range(2)]
        self.legacy: list[Region] = []
        for bus, channel, (command, control) in zip(self.buses.values(), self.channels, LEGACY, strict=True):
            bus.channel = channel
            for io, port, size in ((CommandBlock(channel), command, 8), (ControlBlock(channel), control, 1)):
                region = Region.device("ide", io, size)
                region.owner = self
                platform.system_io.add(region, port)
                self.legacy.append(region)
        self.add_bar(4, BusMaster(*self.channels), 16, "io")

    def unrealize(self) -> None:
        for region in self.legacy:
            self.platform.system_io.remove(region)
        super().unrealize()

    def pci_reset(self) -> None:
        for offset in range(0x40, 0x100):
            self.config.set_byte(offset, 0)
        self.config.set_word(6, 0x0280)
        for channel in self.channels:
            channel.reset()

    def save(self) -> dict[str, Any]:
        return {**super().save(), "channels": [channel.save() for channel in self.channels]}

    def load(self, state: dict[str, Any]) -> None:
        channels = state.get("channels")
        if not isinstance(channels, list) or len(channels) != 2:
            raise StateError(f"{self.path}: a PIIX3 has two channels")
        super().load({"config": state.get("config")})
        for channel, saved in zip(self.channels, channels, strict=True):
            channel.load(saved)
