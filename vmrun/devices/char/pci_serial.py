"""pci-serial, pci-serial-2x and pci-serial-4x: one, two or four 16550s on a PCI card, one interrupt for all.

Ref: QEMU docs/specs/pci-serial. Port n lies at 8 * n of the I/O BAR.
"""

from __future__ import annotations

from accel.api import IrqFan, IrqLine
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Parts
from vmrun.devices.char.uart16550 import Uart16550

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

PORT = 8  # bytes


class _SerialCard(PciDevice):
    vendor_id = 0x1B36
    revision = 1
    interrupt_pin = 1

    prog_if = named("prog_if", "uint8", 2, "programming interface of the class code: 2 is a 16550")

    state = PciDevice.state.extend("pci-serial", 1, Parts("ports"))

    baud = 115200

    def chardevs(self) -> tuple[str | None, ...]:
        raise NotImplementedError

    def pci_realize(self, platform: Platform) -> None:
        self.config.set_byte(9, self.prog_if)
        any_of = IrqFan(self.name, 1)
        any_of.connect(0, self.pin, 0)
        names = self.chardevs()
        bar = Region.container(self.driver, PORT * len(names))
        self.ports: list[Any] = []
        for n, name in enumerate(names):
            backend = platform.chardev(name) if name is not None else None
            port = Uart16550(IrqLine(any_of, 0), platform.timers, backend, self.baud)
            bar.add(Region.device(f"serial{n}", port, PORT), PORT * n)
            self.ports.append(port)
        self.any_of = any_of
        self.add_bar(0, bar, PORT * len(names), "io")

    def unrealize(self) -> None:
        super().unrealize()
        for port in self.ports:
            port.detach()


@register("pci-serial", description="serial port (PCI)")
class PciSerial(_SerialCard):
    device_id = 2
    class_code = 0x070000

    chardev = Prop("chardev", doc="the other end of the line", visible=False)
    baudbase = Prop("uint32", 115200, doc="rate at divisor 1", unit="bit/s", min=1)
    wakeup = Prop("bool", False, doc="received bytes wake the machine from sleep")

    def chardevs(self) -> tuple[str | None, ...]:
        self.baud = self.baudbase
        return (self.chardev,)


@register("pci-serial-2x", description="two serial ports (PCI)")
class PciSerial2x(_SerialCard):
    device_id = 3
    class_code = 0x070000

    chardev1 = Prop("chardev", doc="the other end of the first line", visible=False)
    chardev2 = Prop("chardev", doc="that of the second", visible=False)

    def chardevs(self) -> tuple[str | None, ...]:
        return self.chardev1, self.chardev2


@register("pci-serial-4x", description="four serial ports (PCI)")
class PciSerial4x(_SerialCard):
    device_id = 4
    class_code = 0x070000

    chardev1 = Prop("chardev", doc="the other end of the first line", visible=False)
    chardev2 = Prop("chardev", doc="that of the second", visible=False)
    chardev3 = Prop("chardev", doc="that of the third", visible=False)
    chardev4 = Prop("chardev", doc="that of the fourth", visible=False)

    def chardevs(self) -> tuple[str | None, ...]:
        return self.chardev1, self.chardev2, self.chardev3, self.chardev4
