"""The 82801BA's hub-interface-to-PCI bridge (ICH2 to ICH9 have it too).

Ref: Intel I/O Controller Hub 9 (316972), chapter 11 (D30:F0).
Not modelled: its own registers beside the bridge header: retry, secondary PCI device hiding.
"""

from __future__ import annotations

from vmrun.bus.pci.bridge import PciBridge
from vmrun.bus.pci.capability import BridgeSubsystem
from vmrun.core.registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

SSVID = 0x50


@register("i82801b11-bridge", description="82801B PCI-to-PCI bridge")
class I82801b11Bridge(PciBridge):
    vendor_id = 0x8086
    device_id = 0x244E
    revision = 0x92
    class_code = 0x060401

    def pci_realize(self, platform: Platform) -> None:
        self.add_capability(BridgeSubsystem(), SSVID)
