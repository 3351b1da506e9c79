"""A PCI bus: who sits in which slot, and where the interrupt pins of its slots go.

Ref: PCI Local Bus Specification 2.1, 2.2.6.
"""

from __future__ import annotations

from vmrun.bus.pci.config import IntxRouter, PciFunctions
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import IrqLine

    from vmrun.bus.pci.device import PciDevice
    from vmrun.core.platform import Platform


class PciBus:
    """32 slots of 8 functions. `pirq` are its four interrupt lines, which the machine's wires lead on."""

    kind = "PCI"

    def __init__(self, name: str, platform: Platform, first_slot: int = 1) -> None:
        self.name = name
        self.platform = platform
        self.functions = PciFunctions()
        self.intx_first_slot = first_slot
        self.intx = IntxRouter(first_slot)
        self.pirq: list[IrqLine] = self.intx.pirq
        self.devices: list[PciDevice] = []

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
