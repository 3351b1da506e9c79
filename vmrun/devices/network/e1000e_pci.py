"""Intel's 82574L gigabit Ethernet card."""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.space import Region

from vmrun.bus.pci import Msi, Msix
from vmrun.bus.pci.capability import PcieEndpoint, PowerManagement
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.i82574 import I82574

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

REGISTERS, PORTS, MESSAGES = 0x20000, 32, 0x4000
VECTORS, PENDING = 5, 0x2000


@register("e1000e", description="Intel 82574L gigabit Ethernet")
class E1000e(PciNic):
    parents: tuple[str, ...] = ()
    vendor_id, device_id = 0x8086, 0x10D3

    romfile = Prop("str", "efi-e1000e.rom", "option ROM, found in the firmware directories")
    init_vet = named("init-vet", "bool", True, "the type of VLAN tags is 0x8100 after reset, not 0")
    subsys_ven = Prop("uint16", 0x8086, "subsystem vendor id")
    subsys = Prop("uint16", 0, "subsystem id")
    disable_vnet_hdr = Prop(
        "uint8", 0, "QEMU's: sums and segments are made here in any case", visible=False,
        idle="sums and segments are made in the card",
    )

    def make_chip(self, platform: Platform) -> I82574:
        self.config.set_word(0x2C, self.subsys_ven)
        self.config.set_word(0x2E, self.subsys)
        chip = I82574(self.dma, self.intx, platform.timers, self.address)
        chip.tag_type_at_reset = self.init_vet
        self.add_bar(0, chip, REGISTERS, "mem32")
        self.add_bar(1, Region.container(f"{self.name}.flash", REGISTERS), REGISTERS, "mem32")
        ports = PyIoRegion(f"{self.name}.ports", self._port_read, self._port_write, 4, 4)
        self.add_bar(2, ports, PORTS, "io")
        messages = Region.container(f"{self.name}.msix", MESSAGES)
        self.add_bar(3, messages, MESSAGES, "mem32")
        msix, msi = Msix(VECTORS, 3, 0, 3, PENDING), Msi(1)
        self.add_capability(msix, 0xA0)
        self.add_capability(PcieEndpoint(1), 0xE0)
        self.add_capability(msi, 0xD0)
        self.add_capability(PowerManagement(0x22, 0x1F03), 0xC8)
        msix.show(messages)
        chip.msix, chip.msi = msix.chip, msi.chip
        return chip

    def _port_read(self, offset: int, size: int) -> int:
        if offset == 0:
            return int(self.chip.ioaddr)
        return int(self.chip.peek(self.chip.ioaddr)) if offset == 4 and self.chip.ioaddr < REGISTERS else 0

    def _port_write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.chip.ioaddr = value
        elif offset == 4 and self.chip.ioaddr < REGISTERS:
            self.chip.poke(self.chip.ioaddr, value)
