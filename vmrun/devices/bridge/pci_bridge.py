"""The standard PCI-to-PCI bridge of qemu-kvm: a hot-plug controller (SHPC) with MSI, and the number of its chassis.

Ref: QEMU docs/specs/pci-ids.txt, docs/pcie_pci_bridge.txt (the capability); PCI Standard Hot-Plug Controller and
Subsystem Specification 1.0.
What `bus-reserve` and the like ask for is told to the firmware by a capability: room for cards that come later.
Not modelled: writing the SHPC's registers through configuration space: they are read there.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.bus.pci import Msi
from vmrun.bus.pci.bridge import PciBridge
from vmrun.bus.pci.capability import SlotId, Vendor
from vmrun.bus.pci.shpc import BAR_SIZE, Shpc, ShpcCapability
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

RESERVE = 1  # type of the capability
NO_BUSES, NO_ROOM = (1 << 32) - 1, (1 << 64) - 1  # nothing asked for
FOUR_GIB = 1 << 32


@register("pci-bridge", description="PCI-to-PCI bridge with a hot-plug controller")
class StandardBridge(PciBridge):
    vendor_id = 0x1B36
    device_id = 0x0001

    chassis_nr = Prop("uint8", 0, "number of the chassis, above 0 and of no other bridge")
    msi = Prop("enum", "auto", "the hot-plug controller has MSI", choices=("auto", "on", "off"))
    shpc = Prop("bool", True, "it has a hot-plug controller")

    bus_reserve = named("bus-reserve", "uint32", NO_BUSES, "bus numbers to keep for bridges behind it")
    io_reserve = named("io-reserve", "size", NO_ROOM, "bytes of ports to keep")
    mem_reserve = named("mem-reserve", "size", NO_ROOM, "bytes of memory to keep, below 4 GiB")
    pref32_reserve = named("pref32-reserve", "size", NO_ROOM, "bytes of prefetchable memory, below 4 GiB")
    pref64_reserve = named("pref64-reserve", "size", NO_ROOM, "bytes of prefetchable memory, anywhere")

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
        self._reserve()

    def _reserve(self) -> None:
        """The capability that tells what shall be kept, if anything shall."""
        narrow, prefetch, wide = self.mem_reserve, self.pref32_reserve, self.pref64_reserve
        if (self.bus_reserve, self.io_reserve, narrow, prefetch, wide) == (NO_BUSES, *[NO_ROOM] * 4):
            return
        told = f"{self.path}: PCI resource reserve cap: "
        if NO_ROOM not in (prefetch, wide):
            raise BuildError(f"{told}PREF32 and PREF64 conflict", remedy="give one of them")
        for name, value in (("mem", narrow), ("pref32", prefetch)):
            if FOUR_GIB <= value < NO_ROOM:
                raise BuildError(f"{told}{name}-reserve must be less then 4G")
        sizes = ((self.bus_reserve, 4), (self.io_reserve, 8), (narrow, 4), (prefetch, 4), (wide, 8))
        body = b"".join((value & (1 << 8 * size) - 1).to_bytes(size, "little") for value, size in sizes)
        self.add_capability(Vendor(bytes((RESERVE,)) + body))

    def _changed(self, level: bool) -> None:
        if self.message is not None and self.message.enabled:
            if self.controller is not None and level != self.controller.level:
                self.message.chip.raise_vector(0)
        else:
            self.intx.drive(int(level))
