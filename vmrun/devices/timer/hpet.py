"""The HPET on the board: its window, 24 interrupt outputs, and the legacy timers that it can replace."""

from __future__ import annotations

from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.timer.hpet_chip import Hpet, HpetLegacy
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

WINDOW = 0x400


@register("hpet", description="high precision event timer")
class HpetDevice(Device):
    """Outputs `irq[0..23]` and `pit-enabled` (low: interrupt 0 is taken over), inputs `pit` and `rtc`."""

    user_creatable = False
    base = Prop("uint32", 0xFED00000, "address of the window")
    timers = Prop("uint8", 3, "timers", min=3, max=32)
    intcap = named("hpet-intcap", "uint32", 0, "interrupt lines that a timer can be led to, one bit each")
    msi = Prop("bool", False, "interrupts as messages; not modelled")
    offset_saved = named(
        "hpet-offset-saved", "bool", True, "QEMU's migration format", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def realize(self, platform: Platform) -> None:
        if self.msi:
            raise BuildError(f"{self.path}: hpet with msi is not modelled yet")
        self.chip = Hpet(platform.virtual, platform.timers, self.timers, self.intcap)
        self.outputs["irq"] = self.chip.lines
        self.outputs["pit-enabled"] = [self.chip.pit_enabled]
        self.add_input("pit", HpetLegacy(self.chip, 0))
        self.add_input("rtc", HpetLegacy(self.chip, 1))
        self.map(platform.system_memory, self.chip, self.base, WINDOW, name="hpet", priority=1)
