"""A PCI bus: who sits in which slot, where BARs appear, and where the interrupt pins of its slots go.

Ref: PCI Local Bus Specification 2.1, 2.2.6; PCI-to-PCI Bridge Architecture 1.1, 9.1.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci.config import IntxRouter, PciFunctions
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from accel.api import IrqLine, IrqSink

    from vmrun.bus.pci.device import PciDevice
    from vmrun.core.platform import Platform

    class HotplugController(Protocol):
        """Who tells the guest of cards that come and go on a bus, and hears from it. The device lock is held."""

        def check(self, device: PciDevice) -> None:
            """BuildError when a card cannot come here while the machine runs."""

        def plugged(self, device: PciDevice) -> None:
            """It is there: tell the guest."""

        def ask_unplug(self, device: PciDevice) -> None:
            """Ask the guest to let go of it; when it does, platform.let_go. BuildError when that cannot be."""

SLOTS = 32


class PciBus:
    """32 slots of 8 functions. `memory` and `io` are the containers that BARs are mapped into; `intx` takes the pins of
    its slots, as slot * 4 + pin - 1. `bridge` is the function it lies behind, None for a root.
    """

    kind = "PCI"

    def __init__(self, name: str, platform: Platform, memory: Region, io: Region) -> None:
        self.name = name
        self.platform = platform
        self.memory, self.io = memory, io
        self.functions = PciFunctions()
        self.intx: IrqSink
        self.bridge: PciDevice | None = None
        self.hotplug: HotplugController | None = None
        self.devices: list[PciDevice] = []

    @property
    def number(self) -> int:
        """As the guest has numbered it; 0 is the root."""
        return 0 if self.bridge is None else int(self.bridge.config.get(0x19, 1))

    def plug(self, device: PciDevice) -> None:
        """BuildError when the place is taken."""
        other = self.functions.get(device.devfn)
        if other is not None:
            taken = next(d for d in self.devices if d.config is other)
            raise BuildError(f"{device.path}: {self.name} {device.addr} is taken by {taken.path}")
        self.functions.put(device.devfn, device.config)
        self.devices.append(device)

    def unplug(self, device: PciDevice) -> None:
        self.functions.put(device.devfn, None)
        self.devices.remove(device)


    def reset(self) -> None:
        """Every function here and behind the bridges here."""
        for device in list(self.devices):
            device.reset()
            for bus in device.buses.values():
                if isinstance(bus, PciBus):
                    bus.reset()


class RootBus(PciBus):
    """The bus of a host bridge: BARs appear in the system, its four `pirq` lines go where the board's wires lead."""

    def __init__(self, name: str, platform: Platform, first_slot: int = 1) -> None:
        super().__init__(name, platform, platform.pci_memory, platform.system_io)
        self.intx_first_slot = first_slot
        router = IntxRouter(first_slot)
        self.intx = router
        self.pirq: list[IrqLine] = router.pirq


class SecondaryBus(PciBus):
    """The bus behind a bridge, which shows as much of it to the bus above as its windows say."""

    def __init__(self, name: str, platform: Platform) -> None:
        super().__init__(name, platform, Region.container(f"{name}-memory", 0), Region.container(f"{name}-io", 0x10000))
