"""The standard VGA on ISA: the chip of vga.pyx with the VGA's ports and window, VBE's ports, and the frame buffer at a
fixed address. The firmware finds its video BIOS in fw_cfg.

Ref: QEMU docs/specs/standard-vga.txt.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.isa import IsaDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Part, Table
from vmrun.devices.display.legacy_vga import LegacyVga, video_memory
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_scanout import VgaScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

FRAME_BUFFER = 0xE0000000


@register("isa-vga", description="standard VGA (ISA)")
class IsaVga(LegacyVga, IsaDevice):
    """Owns `vga` (the chip), `console` (what it shows)."""

    console: Console
    state = Table("isa-vga", 1, Part("vga"))

    vgamem_mb = Prop("uint32", 8, "video memory", unit="MiB", min=1, max=256)

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        self.vram = video_memory(self.name, self.vgamem_mb)
        self.ram_blocks.append(self.vram)
        self.vga = Vga(self.vram, platform.virtual)
        scanout, text = VgaScanout(self.vga, platform.lock), TextScreen(self.vga, platform.lock)
        self.console = platform.add_console(self, scanout, text=text)
        self.map_legacy(platform)
        memory = Region.ram("vga.vram", self.vram)
        self.map(platform.pci_memory, memory, FRAME_BUFFER)
        self.map_linear(platform, memory)
        self.vga.reset()

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()
