"""am53c974, dc390: PCI cards with AMD's PCscsi controller.

BAR 0  128 ports: the SCSI core's registers four bytes apart, the DMA engine from 40h on
"""

from __future__ import annotations

from vmrun.bus.pci import PciDevice
from vmrun.bus.scsi import ScsiBus
from vmrun.core.eeprom93 import Eeprom93
from vmrun.core.interfaces import BusOwner, Sleeper
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.am53c974_chip import EspChip, EspRegisters
from vmrun.devices.storage.scsi import ScsiUnits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.platform import Platform

PORTS = 128
WIRES, DESELECT = 0x80, 0xC0  # in configuration space, of the DC-390


@register("am53c974", description="AMD Am53C974 SCSI adapter")
class Am53c974(PciDevice, BusOwner, Sleeper):
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

    def awaken(self, reset: Callable[[], None]) -> None:
        """A driver that wakes does not set the core up anew, and waits for INTA#; SeaBIOS has not polled meanwhile."""
        configured = self.chip.configured
        reset()
        self.chip.configured = configured

    def unrealize(self) -> None:
        self.chip.reset()
        super().unrealize()


@register("dc390", description="Tekram DC-390 SCSI adapter")
class Dc390(Am53c974):
    """The same chip with an EEPROM of settings on wires that hang on configuration space: a write at 80h drives its
    clock (bit 7) and data (bit 6), one at C0h takes the select away; its data out low makes byte 0 read as zero.
    """

    state = Am53c974.state.extend("dc390", 1, Part("eeprom"))

    def make_buses(self, names: list[str], platform: Platform) -> None:
        super().make_buses(names, platform)
        self.eeprom = Eeprom93(64)
        self.eeprom.words = settings()

    def pci_realize(self, platform: Platform) -> None:
        super().pci_realize(platform)
        self.config.watch_reads(0, 1)
        self.config.on_read = self._read
        self.config.allow(WIRES, 1, 0xC0)
        self.config.watch(WIRES, 1, always=True)
        self.config.watch(DESELECT, 1, always=True)

    def _read(self, offset: int, size: int) -> None:
        shown = self.vendor_id & 0xFF if offset or size != 1 or self.eeprom.out else 0
        self.config.set_byte(0, shown)

    def config_written(self, offset: int, size: int) -> None:
        super().config_written(offset, size)
        if offset == WIRES:
            wires = self.config.get(WIRES, 1)
            self.config.set_byte(WIRES, 0)
            self.eeprom.wires(True, bool(wires & 0x80), bool(wires & 0x40))
        elif offset == DESELECT:
            self.eeprom.wires(False, False, False)


def settings() -> list[int]:
    """The words of a DC-390's EEPROM: 16 targets with parity, synchronous transfer, disconnection and tags; then the
    adapter's own number and options; the last word brings the sum to 1234h.
    """
    words = [0x0057] * 16 + [0] * 48
    words[32:35] = 0x0F07, 0x0400, 0x0007
    words[63] = (0x1234 - sum(words)) & 0xFFFF
    return words
