"""PCI: configuration space (`config`, compiled), functions (`device`), what they can (`capability`, `msi`), buses
(`bus`) and the bridges between them (`bridge`).
"""

from vmrun.bus.pci.bus import PciBus, RootBus
from vmrun.bus.pci.capability import Capability, Msi, Msix
from vmrun.bus.pci.device import Bar, PciDevice

__all__ = ["Bar", "Capability", "Msi", "Msix", "PciBus", "PciDevice", "RootBus"]
