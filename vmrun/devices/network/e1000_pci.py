"""Intel's PRO/1000 cards: the 82540EM, 82544GC and 82545EM on PCI.

Not modelled: access to registers through the I/O BAR, which reads as 0.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.network.card import PciNic
from vmrun.devices.network.e1000 import E1000

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

REGISTERS, PORTS = 0x20000, 64
CAP_LIST = 0x10


@register("e1000", "e1000-82540em", description="Intel 82540EM gigabit Ethernet")
class E1000Card(PciNic):
    parents: tuple[str, ...] = ("e1000-base", "e1000-82540em")
    vendor_id, device_id, revision = 0x8086, 0x100E, 3
    phy_id2 = 0x0C20

    romfile = Prop("str", "efi-e1000.rom", "option ROM, found in the firmware directories")
    autonegotiation = Prop("bool", True, "links after half a second; false: at once")
    mitigation = Prop("bool", True, "interrupts are held apart, and ITR, RADV, RDTR and TADV are there")
    extra_mac_registers = Prop("bool", True, "all statistics and the filters of wake-up are there")
    init_vet = named("init-vet", "bool", True, "the type of VLAN tags is 0x8100 after reset, not 0")
    migrate_tso_props = Prop(
        "bool", True, "QEMU's migration format", visible=False, idle="QEMU's saved state alone has it",
    )
    old_link = named(
        "x-__com_redhat_rhel630_compat", "bool", False, "RHEL 6.3's card: links at once, a capability list without one"
    )

    def make_chip(self, platform: Platform) -> E1000:
        chip = E1000(self.dma, self.intx, platform.timers, self.address, self.device_id, self.phy_id2)
        chip.autonegotiation = self.autonegotiation and not self.old_link
        chip.mitigation = self.mitigation
        chip.extra = self.extra_mac_registers
        chip.tag_type_at_reset = self.init_vet
        if self.old_link:
            self.config.set_word(6, self.config.get(6, 2) | CAP_LIST)
        self.add_bar(0, chip, REGISTERS, "mem32")
        self.add_bar(1, PyIoRegion(f"{self.name}.ports", _nothing, _ignored, 1, 4), PORTS, "io")
        return chip


@register("e1000-82544gc", description="Intel 82544GC gigabit Ethernet")
class E1000Gc(E1000Card):
    parents = ("e1000-base",)
    device_id = 0x100C
    phy_id2 = 0x0C30


@register("e1000-82545em", description="Intel 82545EM gigabit Ethernet")
class E1000Em(E1000Card):
    parents = ("e1000-base",)
    device_id = 0x100F


def _nothing(offset: int, size: int) -> int:
    return 0


def _ignored(offset: int, size: int, value: int) -> None:
    pass
