"""What a VGA has at fixed addresses: its ports, VBE's, and the window at 0xa0000, mixed into the cards that have them.

Ref: as vga.pyx. Decoded whatever a PCI card's command register says, as QEMU does.
"""

from __future__ import annotations

from _thread import get_ident

from accel.ram import RamBlock
from accel.space import Region

from vmrun.core.interfaces import Coalesced
from vmrun.devices.display.vga_regions import VbePorts, VgaPorts, VgaWindow

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform
    from vmrun.devices.display.vga import Vga

WINDOW, WINDOW_SIZE = 0xA0000, 0x20000
# The ports of a VGA, which leave out 0x3b6-0x3b9, 0x3bb-0x3bf and so on: (first, count)
PORTS = ((0x3B4, 2), (0x3BA, 1), (0x3C0, 16), (0x3D4, 2), (0x3DA, 1))
# Where GR06 puts the window: (offset, size)
MAPPINGS = ((0, 0x20000), (0, 0x10000), (0x10000, 0x8000), (0x18000, 0x8000))
BANKS = ((0, 0x8000), (0x8000, 0x8000))  # of a Cirrus
VBE_PORTS, VBE_COUNT = 0x1CE, 4
DECODED: Any = {"ports": [[0x3B4, 2], [0x3BA, 1], [0x3C0, 16], [0x3D4, 2], [0x3DA, 1], [0x1CE, 4]]}


def video_memory(name: str, mib: int) -> RamBlock:
    """`mib` MiB, rounded up to a power of two."""
    return RamBlock(f"{name}.vram", 1 << max((mib << 20) - 1, 1).bit_length())


class LegacyVga(Coalesced):
    """The chip is `vga`; the device's own `map` puts things where they are."""

    resources = DECODED
    # Writes that may reach the chip late, as long as they come in order: (space, address, size). Whoever looks at the
    # screen has them drained first.
    # the window, and the index registers, which do nothing until their data port is accessed
    coalesced = (("memory", WINDOW, WINDOW_SIZE), *(("io", port, 1) for port in (0x3C4, 0x3CE, 0x3D4)))

    vga: Vga
    platform: Platform
    map: Any

    def map_legacy(self, platform: Platform) -> None:
        """The fixed ports and the window."""
        ports = Region.device("vga.ports", VgaPorts(self.vga), 0x30)
        for first, count in PORTS:
            self.map(platform.system_io, Region.alias("vga", ports, first - 0x3B0, count), first)
        self.map(platform.system_io, Region.device("vbe", VbePorts(self.vga), VBE_COUNT), VBE_PORTS)
        window = Region.device("vga.window", VgaWindow(self.vga), WINDOW_SIZE)
        self.map(platform.pci_memory, window, WINDOW, priority=1)

    def map_linear(self, platform: Platform, memory: Region) -> None:
        """Over the window, memory itself where the chip's `windows` say that it is shown."""
        self.main_thread = get_ident()
        self.linear: list[Region] = []
        for offset, size in MAPPINGS + BANKS:
            region = Region.alias("vga.linear", memory, 0, size)
            region.set_enabled(False)
            self.map(platform.pci_memory, region, WINDOW + offset, priority=2)
            self.linear.append(region)
        self.vga.watch_window(self._window_changed)

    def _window_changed(self) -> None:
        shown = self.vga.windows
        if shown and get_ident() == self.main_thread:
            # writes that were kept back are being done: a processor may be writing there now, which must not come first
            self.vga.mapped = False
            return
        with self.platform.memory.transaction():
            for place, region in enumerate(self.linear):
                region.set_enabled(place in shown)
                if place in shown:
                    region.set_alias(region.target, shown[place])
