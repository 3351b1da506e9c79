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
    """A subclass is a version: `extended` and `power` management from the 82558, `tco` from the 82559 on."""

    vendor_id = 0x8086
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


# name, device id, revision, generation: 7, 8 and 9 are the 82557, the 82558, and the 82559 with all that came after it
VERSIONS = (
    ("i82550", 0x1209, 0x0E, 9),
    ("i82551", 0x1209, 0x0F, 9),
    ("i82557a", 0x1229, 0x01, 7),
    ("i82557b", 0x1229, 0x02, 7),
    ("i82557c", 0x1229, 0x03, 7),
    ("i82558a", 0x1229, 0x04, 8),
    ("i82558b", 0x1229, 0x05, 8),
    ("i82559a", 0x1229, 0x06, 9),
    ("i82559b", 0x1229, 0x07, 9),
    ("i82559c", 0x1229, 0x0C, 9),
    ("i82559er", 0x1209, 0x09, 9),
    ("i82562", 0x1209, 0x0E, 9),
    ("i82801", 0x2449, 0x03, 9),
)


def _version(name: str, device_id: int, revision: int, generation: int) -> type[EePro100]:
    later = generation > 7
    facts = {"device_id": device_id, "revision": revision, "extended": later, "power": later, "tco": generation > 8}
    if name == "i82559c":
        facts.update(subsystem_vendor_id=0x8086, subsystem_id=0x0040)
    kind = type(name.capitalize(), (EePro100,), {**facts, "__module__": __name__})
    shown = name[1:6] + (f" {name[6:].upper()}" if len(name) == 7 else name[6:].upper())
    return register(name, description=f"Intel {shown} Fast Ethernet")(kind)


for _row in VERSIONS:
    globals()[_row[0].capitalize()] = _version(*_row)
