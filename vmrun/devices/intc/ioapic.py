"""The I/O APIC on the board: its window, its pins, and the messages it sends through the accelerator."""

from __future__ import annotations

from accel.space import Region

from vmrun.core.object import Device
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.devices.intc.ioapic_chip import Ioapic, IoapicEoi, IoapicInputs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

WINDOW = 0x1000


@register("ioapic", description="82093AA I/O APIC with 24 pins")
class IoapicDevice(Device):
    base = Prop("uint32", 0xFEC00000, "address of the window")
    version = Prop("uint8", 0x20, "version register")

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.chip = Ioapic(platform.accelerator.msi_sink(), self.version)
        self.add_input("in", IoapicInputs(self.chip))
        platform.accelerator.set_eoi_handler(IoapicEoi(self.chip))
        self.region = Region.device("ioapic", self.chip, WINDOW)
        self.region.owner = self
        platform.system_memory.add(self.region, self.base, 1)

    def unrealize(self) -> None:
        self.platform.system_memory.remove(self.region)

    def reset(self) -> None:
        self.chip.reset()

    def save(self) -> dict[str, Any]:
        state: dict[str, Any] = self.chip.save()
        return state

    def load(self, state: dict[str, Any]) -> None:
        self.chip.load(state)
