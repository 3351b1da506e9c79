"""Intel's EtherExpress PRO/100 cards and their relatives: one chip in thirteen versions."""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci.capability import PowerManagement
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.i8255x import I8255x

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

MEMORY, PORTS, FLASH = 0x1000, 64, 0x20000
STATUS, LATENCY, MIN_GNT, MAX_LAT = 6, 0x0D, 0x3E, 0x3F
POWER = 0xDC


class EePro100(PciNic):
    """A subclass is a version: `extended` from the 82558, `tco` from the 82559 on."""

    vendor_id, device_id = 0x8086, 0x1209
    parents: tuple[str, ...] = ()
    extended = tco = power = True

    romfile = Prop("str", "pxe-eepro100.rom", "option ROM, found in the firmware directories")

    def make_chip(self, platform: Platform) -> I8255x:
        config = self.config
        config.set_word(STATUS, config.get(STATUS, 2) | 0x0280)  # medium timing, fast back-to-back
        config.set_byte(LATENCY, 0x20)
        config.set_byte(MIN_GNT, 0x08)
        config.set_byte(MAX_LAT, 0x18)
        if self.power:
            self.add_capability(PowerManagement(0x7E21, 0), POWER)
        chip = I8255x(self.dma, self.intx, platform.timers, self.address, self.extended, self.tco)
        registers = Region.container(f"{self.name}.memory", MEMORY)
        registers.add(Region.device(f"{self.name}.registers", chip, PORTS), 0, 0)
        self.add_bar(0, registers, MEMORY, "mem32-pref")
        self.add_bar(1, Region.device(f"{self.name}.ports", chip, PORTS), PORTS, "io")
        self.add_bar(2, Region.container(f"{self.name}.flash", FLASH), FLASH, "mem32")
        return chip


@register("i82550", description="Intel 82550 Fast Ethernet")
class I82550(EePro100):
    revision = 0x0E


@register("i82551", description="Intel 82551 Fast Ethernet")
class I82551(EePro100):
    revision = 0x0F


@register("i82557a", description="Intel 82557 A Fast Ethernet")
class I82557a(EePro100):
    device_id, revision = 0x1229, 0x01
    extended = tco = power = False


@register("i82557b", description="Intel 82557 B Fast Ethernet")
class I82557b(I82557a):
    revision = 0x02


@register("i82557c", description="Intel 82557 C Fast Ethernet")
class I82557c(I82557a):
    revision = 0x03


@register("i82558a", description="Intel 82558 A Fast Ethernet")
class I82558a(EePro100):
    device_id, revision = 0x1229, 0x04
    tco = False


@register("i82558b", description="Intel 82558 B Fast Ethernet")
class I82558b(I82558a):
    revision = 0x05


@register("i82559a", description="Intel 82559 A Fast Ethernet")
class I82559a(EePro100):
    device_id, revision = 0x1229, 0x06


@register("i82559b", description="Intel 82559 B Fast Ethernet")
class I82559b(I82559a):
    revision = 0x07


@register("i82559c", description="Intel 82559 C Fast Ethernet")
class I82559c(I82559a):
    revision = 0x0C
    subsystem_vendor_id, subsystem_id = 0x8086, 0x0040


@register("i82559er", description="Intel 82559ER Fast Ethernet")
class I82559er(EePro100):
    revision = 0x09


@register("i82562", description="Intel 82562 Fast Ethernet")
class I82562(EePro100):
    revision = 0x0E


@register("i82801", description="Intel 82801 Fast Ethernet")
class I82801(EePro100):
    device_id, revision = 0x2449, 0x03
