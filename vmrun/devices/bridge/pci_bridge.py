"""The standard PCI-to-PCI bridge of qemu-kvm: a hot-plug controller (SHPC) with MSI, and the number of its chassis.

Ref: QEMU docs/specs/pci-ids.txt; PCI Standard Hot-Plug Controller and Subsystem Specification 1.0.
Not modelled: hints for firmware about room to keep (bus-reserve and the like). Writing the SHPC's registers through
configuration space: they are read there.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.pci import Msi
from vmrun.bus.pci.bridge import PciBridge
from vmrun.bus.pci.capability import SlotId
from vmrun.bus.pci.shpc import BAR_SIZE, Shpc, ShpcCapability
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform


@register("pci-bridge", description="PCI-to-PCI bridge with a hot-plug controller")
class StandardBridge(PciBridge):
    vendor_id = 0x1B36
    device_id = 0x0001

    chassis_nr = Prop("uint8", 0, "number of the chassis, above 0 and of no other bridge")
    msi = Prop("enum", "auto", "the hot-plug controller has MSI", choices=("auto", "on", "off"))
    shpc = Prop("bool", True, "it has a hot-plug controller")

    state = PciBridge.state.extend("pci-bridge", 1, Part("controller"))

    def pci_realize(self, platform: Platform) -> None:
        if not self.chassis_nr:
            raise BuildError(
                f"{self.path}: Bridge chassis not specified. Each bridge is required to be assigned a unique chassis "
                "id > 0.",
                remedy="add `chassis_nr: 1`",
            )
        self.controller: Shpc | None = None
        self.message: Msi | None = None
        if self.shpc:
            self.controller = Shpc(self.secondary, self._changed, lambda card: platform.let_go(card))
            self.secondary.hotplug = self.controller
            self.config.set_byte(0x3D, 1)
            self.add_capability(ShpcCapability(self.controller))
            io = PyIoRegion("shpc", self.controller.read, self.controller.write, 1, 4)
            self.add_bar(0, io, BAR_SIZE, "mem64")
        self.add_capability(SlotId(self.chassis_nr))
        if self.shpc and self.msi != "off":
            self.message = Msi(1, True, True)
            self.add_capability(self.message)

    def _changed(self, level: bool) -> None:
        if self.message is not None and self.message.enabled:
            if self.controller is not None and level != self.controller.level:
                self.message.chip.raise_vector(0)
        else:
            self.intx.drive(int(level))
