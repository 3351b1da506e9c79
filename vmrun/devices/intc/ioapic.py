"""The I/O APIC on the board: its window, its pins, and the messages it sends through the accelerator."""

from __future__ import annotations

from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.intc.ioapic_chip import Ioapic, IoapicEoi, IoapicInputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

WINDOW = 0x1000


@register("ioapic", description="82093AA I/O APIC with 24 pins")
class IoapicDevice(Device):
    user_creatable = False
    controls_interrupts = True

    base = Prop("uint32", 0xFEC00000, "address of the window")
    version = Prop("uint8", 0x20, "version register")

    def realize(self, platform: Platform) -> None:
        self.chip = Ioapic(platform.accelerator.msi_sink(), self.version)
        self.add_input("in", IoapicInputs(self.chip), 24)
        platform.accelerator.set_eoi_handler(IoapicEoi(self.chip))
        self.map(platform.system_memory, self.chip, self.base, WINDOW, name="ioapic", priority=1)
