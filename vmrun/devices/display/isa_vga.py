"""The standard VGA on ISA: the chip of vga.pyx with the VGA's ports and window, VBE's ports, and the frame buffer at a
fixed address. The firmware finds its video BIOS in fw_cfg.

Ref: QEMU docs/specs/standard-vga.txt.
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.isa import IsaDevice
from vmrun.core.interfaces import Coalesced
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Part, Table
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_pci import PORTS, VBE_COUNT, VBE_PORTS, WINDOW, WINDOW_SIZE, VgaPci
from vmrun.devices.display.vga_regions import VbePorts, VgaPorts, VgaWindow
from vmrun.devices.display.vga_scanout import VgaScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

FRAME_BUFFER = 0xE0000000


@register("isa-vga", description="standard VGA (ISA)")
class IsaVga(IsaDevice, Coalesced):
    """Owns `vga` (the chip), `console` (what it shows)."""

    console: Console
    resources = VgaPci.resources
    state = Table("isa-vga", 1, Part("vga"))
    coalesced = VgaPci.coalesced

    vgamem_mb = Prop("uint32", 8, "video memory", unit="MiB", min=1, max=256)

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        size = 1 << 20
        while size < self.vgamem_mb << 20:
            size *= 2
        self.vram = RamBlock(f"{self.name}.vram", size)
        self.ram_blocks.append(self.vram)
        self.vga = Vga(self.vram, platform.virtual)
        scanout, text = VgaScanout(self.vga, platform.lock), TextScreen(self.vga, platform.lock)
        self.console = platform.add_console(self, scanout, text=text)
        ports = Region.device("vga.ports", VgaPorts(self.vga), 0x30)
        for first, count in PORTS:
            self.map(platform.system_io, Region.alias("vga", ports, first - 0x3B0, count), first)
        self.map(platform.system_io, Region.device("vbe", VbePorts(self.vga), VBE_COUNT), VBE_PORTS)
        window = Region.device("vga.window", VgaWindow(self.vga), WINDOW_SIZE)
        self.map(platform.pci_memory, window, WINDOW, priority=1)
        self.map(platform.pci_memory, Region.ram("vga.vram", self.vram), FRAME_BUFFER)
        self.vga.reset()

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()
