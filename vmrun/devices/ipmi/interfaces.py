"""isa-ipmi-kcs, isa-ipmi-bt, pci-ipmi-kcs and pci-ipmi-bt: how a system reaches its management controller.

Ref: IPMI v2.0 rev. 1.1, 9 and 11; Appendix C1 (where they are on each bus).
"""

from __future__ import annotations

from accel.api import IrqLine, PyIoRegion
from accel.space import Region

from vmrun.bus.isa import IsaDevice
from vmrun.bus.pci import PciDevice
from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Part, Table
from vmrun.devices.ipmi import bt, kcs
from vmrun.devices.ipmi.bmc import IpmiBmcSim
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

BAR_SIZE = 8


class _Interface(Device):
    """`form` is the chip's class, `ports` how many bytes it has."""

    form: type[kcs.Kcs] | type[bt.Bt]
    ports: int

    bmc = Prop("link", doc="the management controller: the id of an ipmi-bmc-sim", visible=False)

    def make(self, platform: Platform, line: IrqLine | None) -> PyIoRegion:
        """The chip, joined with its controller, as a region."""
        if not self.bmc:
            raise BuildError("IPMI device requires a bmc attribute to be set")
        bmc = platform.device(self.bmc)
        if not isinstance(bmc, IpmiBmcSim):
            raise BuildError(f"Device '{self.bmc}' is not an ipmi-bmc-sim")
        self.interface = self.form(bmc, line)
        bmc.take(self.interface)
        self.controller = bmc
        return PyIoRegion(self.driver, self.interface.read, self.interface.write, 1, 1)

    def unrealize(self) -> None:
        super().unrealize()
        self.controller.let_go()


class _Isa(_Interface, IsaDevice):
    hotpluggable = False

    irq = Prop("int32", 5, "interrupt; 0: none", max=15)

    state = Table("isa-ipmi", 1, Part("interface"))

    ioport: int

    def realize(self, platform: Platform) -> None:
        line = self.isa_irq(self.irq) if self.irq > 0 else None
        self.map_io(self.make(platform, line), self.ioport, self.ports)


@register("isa-ipmi-kcs", description="IPMI, keyboard controller style (ISA)")
class IsaKcs(_Isa):
    resources = {"ports": [["ioport", kcs.PORTS]], "irqs": [], "dmas": []}
    form, ports = kcs.Kcs, kcs.PORTS

    ioport = Prop("uint32", 0xCA2, "first port", max=0xFFFF)


@register("isa-ipmi-bt", description="IPMI, block transfer (ISA)")
class IsaBt(_Isa):
    resources = {"ports": [["ioport", bt.PORTS]], "irqs": [], "dmas": []}
    form, ports = bt.Bt, bt.PORTS

    ioport = Prop("uint32", 0xE4, "first port", max=0xFFFF)


class _Pci(_Interface, PciDevice):
    vendor_id, device_id = 0x1234, 0x1112
    revision = 1
    interrupt_pin = 1

    state = PciDevice.state.extend("pci-ipmi", 1, Part("interface"))

    def pci_realize(self, platform: Platform) -> None:
        bar = Region.container(self.driver, BAR_SIZE)
        bar.add(Region.device(f"{self.driver}-ports", self.make(platform, IrqLine(self.pin, 0)), self.ports), 0)
        self.add_bar(0, bar, BAR_SIZE, "io")


@register("pci-ipmi-kcs", description="IPMI, keyboard controller style (PCI)")
class PciKcs(_Pci):
    class_code = 0x0C0701
    form, ports = kcs.Kcs, kcs.PORTS


@register("pci-ipmi-bt", description="IPMI, block transfer (PCI)")
class PciBt(_Pci):
    class_code = 0x0C0702
    form, ports = bt.Bt, bt.PORTS
