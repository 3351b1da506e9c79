"""Local APICs as devices: one per processor, and the window that all share.

The builder makes the bus before the devices (`ApicSystem`), because the I/O APIC and MSI devices ask the
accelerator where messages go; then one `apic` per processor.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.intc.lapic import ApicBus, ApicWindow, Lapic, LapicPins
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

BASE, WINDOW = 0xFEE00000, 0x100000


class ApicSystem:
    """The bus of a machine's APICs (an MsiSink) and, from the first APIC on, the window at 0xfee00000."""

    def __init__(self) -> None:
        self.bus = ApicBus()
        self.window: ApicWindow | None = None
        self.region: Region | None = None

    def attach(self, lapic: Lapic, platform: Platform) -> None:
        """Called by each APIC; the first brings the window."""
        if self.window is None:
            self.window = ApicWindow(self.bus, lapic)
            self.region = Region.device("apic-msi", self.window, WINDOW)
            platform.system_memory.add(self.region, BASE, 0x1000)


@register("apic", description="local APIC of a processor")
class ApicDevice(Device):
    """Inputs `lint[0..1]`. The accelerator takes `lapic` (an InterruptSource) and sets its `port`."""

    apic_id = named("id", "uint32", 0, "APIC ID")
    vapic = Prop(
        "bool", True, "TPR patching for old guests; not modelled", visible=False, idle="old guests are not patched",
    )
    version = Prop("uint8", 0x14, "version register")

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.system: ApicSystem | None = None    # both set by whoever makes the processors
        self.bsp = False

    new_system = ApicSystem
    controls_interrupts = True
    user_creatable = False

    def realize(self, platform: Platform) -> None:
        if self.system is None:
            raise BuildError(f"{self.path}: an apic belongs to a processor; it cannot be added as a device")
        self.chip = self.lapic = Lapic(
            self.system.bus, platform.virtual, platform.timers, self.apic_id, self.bsp, self.version
        )
        self.add_input("lint", LapicPins(self.lapic), 2)
        self.system.attach(self.lapic, platform)

    def unrealize(self) -> None:
        assert self.system is not None
        self.lapic.reset()
        self.system.bus.remove(self.lapic)
        super().unrealize()
