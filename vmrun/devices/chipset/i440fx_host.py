"""The i440FX's host side: PCI configuration mechanism #1 and the root bus.

Ref: Intel 82441FX PMC (290549) 3.1, CONFADD and CONFDATA.
Not modelled: the special cycle (bus 0, device 31, function 7).
"""

from __future__ import annotations

from vmrun.bus.pci import RootBus
from vmrun.bus.pci.config import ConfigAddress, ConfigData
from vmrun.core.interfaces import BusOwner
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register(
    "i440FX-pcihost", description="host bridge of the 82441FX: PCI configuration ports and the root bus"
)
class I440fxPciHost(Device, BusOwner):
    user_creatable = False
    provides = ("PCI",)
    resources = {"ports": [["config-address", 4], ["config-data", 4]]}

    config_address = named("config-address", "uint16", 0xCF8, "port of CONFADD")
    config_data = named("config-data", "uint16", 0xCFC, "port of CONFDATA")
    first_slot = Prop("uint8", 1, "slot whose INTA# is PIRQA")
    hole64_fix = named("x-pci-hole64-fix", "bool", True, "64-bit hole as later QEMU declares it in ACPI")
    short_root_bus = Prop(
        "uint32", 0, "name of the root bus in saved state", visible=False, idle="QEMU's saved state alone has it",
    )
    pci_hole64_size = named("pci-hole64-size", "size", 2 << 30, "64-bit PCI hole that ACPI declares")

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.bus_made = RootBus(names[0], platform, self.first_slot)
        self.buses[names[0]] = self.bus_made

    def realize(self, platform: Platform) -> None:
        self.chip = ConfigAddress()
        self.map(platform.system_io, self.chip, self.config_address, 4, name="pci-conf-idx")
        data = ConfigData(self.chip, self.bus_made.functions)
        self.map(platform.system_io, data, self.config_data, 4, name="pci-conf-data")
