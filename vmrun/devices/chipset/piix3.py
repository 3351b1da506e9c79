"""Function 0 of the PIIX3: the PCI-to-ISA bridge with its interrupt router and reset register.

Ref: Intel 82371SB PIIX3 (290550): 2.2 configuration registers, 2.5.7 RC.
Not modelled: X-bus chip selects, power management of the PIIX3 (the board has a PIIX4's), USB and APIC enables;
those registers are storage.
Departure: a reset leaves what is behind the header and no register of 2.2, as qemu-kvm's does.
"""

from __future__ import annotations

from accel.api import Action, PyIoRegion

from vmrun.bus.isa import IsaBus
from vmrun.bus.pci import PciDevice
from vmrun.core.interfaces import BusOwner
from vmrun.core.props import named
from vmrun.core.registry import register
from vmrun.core.state import U8
from vmrun.devices.chipset.pirq import PirqRouter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PIRQRC = 0x60
RC, RC_SYSTEM, RC_CPU = 0xCF9, 0x02, 0x04
RESET = {
    0x07: 0x02, 0x4C: 0x4D, 0x4E: 0x03, 0x60: 0x80, 0x61: 0x80, 0x62: 0x80, 0x63: 0x80,
    0x69: 0x02, 0x70: 0x80, 0x76: 0x0C, 0x77: 0x0C, 0x78: 0x02, 0xA0: 0x08, 0xA8: 0x0F,
    **dict.fromkeys((0x4F, 0x79, 0x80, 0x82, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xAA, 0xAB, 0xAC, 0xAE), 0),
}  # fmt: skip


@register("PIIX3", description="82371SB PCI-to-ISA bridge: interrupt routing, reset control")
class Piix3(PciDevice, BusOwner):
    user_creatable = False
    vendor_id = 0x8086
    device_id = 0x7000
    class_code = 0x060100
    hotpluggable = False
    provides = ("ISA",)
    resources = {"ports": [[0xCF9, 1, 0, "reset-control"]]}

    state = PciDevice.state.extend("PIIX3", 1, U8("rc", only=(0, RC_SYSTEM)))

    reset_control = named("reset-control", "bool", True, "the reset control register at 0xcf9")

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.buses[names[0]] = IsaBus(names[0], platform)

    def pci_realize(self, platform: Platform) -> None:
        self.router = PirqRouter()
        self.rc = 0
        self.add_input("pirq", self.router, 4)
        self.outputs["irq"] = self.router.irq
        self.config.watch(PIRQRC, 4)
        if self.reset_control:
            io = PyIoRegion("piix3-reset-control", self._read_rc, self._write_rc, 1, 1)
            self.map(platform.system_io, io, RC, 1, priority=1)

    def pci_reset(self) -> None:
        for offset, value in RESET.items():
            self.config.set_byte(offset, value)

    def settle(self) -> None:
        super().settle()
        self._route()

    def config_written(self, offset: int, size: int) -> None:
        if offset < PIRQRC + 4 and offset + size > PIRQRC:
            self._route()

    def _route(self) -> None:
        for pirq in range(4):
            self.router.set_route(pirq, self.config.get(PIRQRC + pirq, 1))

    def _read_rc(self, offset: int, size: int) -> int:
        return self.rc

    def _write_rc(self, offset: int, size: int, value: int) -> int:
        self.rc = value & RC_SYSTEM
        return int(Action.RESET if value & RC_CPU else Action.NONE)
