"""PCI: configuration space (`config`, compiled), functions (`device`), buses (`bus`)."""

from vmrun.bus.pci.bus import PciBus
from vmrun.bus.pci.device import Bar, PciDevice

__all__ = ["Bar", "PciBus", "PciDevice"]
