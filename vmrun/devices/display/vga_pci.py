"""The standard VGA as PCI cards: the chip of vga.pyx with a frame buffer and registers in BARs; `VGA` with the VGA's
ports and window too, `secondary-vga` without.

Ref: QEMU docs/specs/standard-vga.txt (the cards exist only there): 1234:1111, BAR 0 frame buffer, BAR 2 registers:
the monitor's description from 0, the VGA's ports from 0x400, VBE from 0x500, the byte order from 0x600.
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.edid import edid
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.display.legacy_vga import LegacyVga, video_memory
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_regions import Contents, ExtendedRegs, VbeMmio, VgaPorts
from vmrun.devices.display.vga_scanout import VgaScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

MMIO_SIZE = 0x1000
EDID_SIZE = 0x180  # of BAR 2


def add_registers(bar: Region, vga: Vga, extended: bool) -> None:
    """The VGA's ports, VBE's registers and those for the byte order, as they are in BAR 2."""
    bar.add(Region.device("vga ioports", VgaPorts(vga, 0x3C0), 0x20), 0x400)
    bar.add(Region.device("bochs dispi", VbeMmio(vga), 0x16), 0x500)
    if extended:
        bar.add(Region.device("qemu extended regs", ExtendedRegs(vga), 8), 0x600)


class Monitor(PciDevice):
    """What a card says of the monitor that hangs on it."""

    edid = Prop("bool", True, "a description of the monitor (EDID) in BAR 2")
    xres = Prop("uint32", 0, "preferred width, told by EDID; 0: 1280")
    yres = Prop("uint32", 0, "preferred height, told by EDID; 0: 800")
    xmax = Prop("uint32", 0, "EDID leaves out wider modes")
    ymax = Prop("uint32", 0, "EDID leaves out higher modes")
    refresh_rate = Prop("uint32", 0, "refresh rate told by EDID; 0: 75000", unit="mHz")

    def monitor_says(self) -> bytes:
        """EDID as the properties have it."""
        return edid(self.xres, self.yres, self.xmax, self.ymax, self.refresh_rate)


class VgaCard(Monitor):
    """What both have. Owns `vga` (the chip), `console` (what it shows)."""

    vram: RamBlock
    console: Console
    mmio = True
    vendor_id = 0x1234
    device_id = 0x1111
    revision = 2

    vgamem_mb = Prop("uint32", 16, "video memory", unit="MiB", min=1, max=256)
    extended = named("qemu-extended-regs", "bool", True, "registers for the byte order, from 0x600 of BAR 2")
    big_endian = named("big-endian-framebuffer", "bool", False, "byte order of the frame buffer at power-on")

    def make(self, platform: Platform) -> Region:
        """The chip, its screen and its BARs; video memory as a region."""
        self.vram = video_memory(self.name, self.vgamem_mb)
        self.ram_blocks.append(self.vram)
        self.vga = Vga(self.vram, platform.virtual)
        scanout, text = VgaScanout(self.vga, platform.lock), TextScreen(self.vga, platform.lock)
        self.console = platform.add_console(self, scanout, text=text)
        memory = Region.ram("vga.vram", self.vram)
        self.add_bar(0, memory, self.vram.size, "mem32-pref")
        if self.mmio:
            self.add_bar(2, self._registers(), MMIO_SIZE, "mem32")
        self.vga.starts_big_endian = self.big_endian
        return memory

    def _registers(self) -> Region:
        bar = Region.container("vga.mmio", MMIO_SIZE)
        if self.edid:
            bar.add(Region.device("edid", Contents(self.monitor_says().ljust(EDID_SIZE, b"\0")), EDID_SIZE), 0)
        add_registers(bar, self.vga, self.extended)
        return bar

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()


@register("secondary-vga", description="standard display without legacy VGA")
class SecondaryVga(VgaCard):
    """Nothing of it is at the VGA's fixed addresses, so there may be several."""

    class_code = 0x038000
    state = PciDevice.state.extend("secondary-vga", 1, Part("vga"))

    def pci_realize(self, platform: Platform) -> None:
        self.revision = 2 if self.extended else 0
        self.make(platform)
        self.vga.reset()


@register("VGA", description="standard VGA with Bochs' VBE registers")
class VgaPci(LegacyVga, VgaCard):
    class_code = 0x030000
    hotpluggable = False

    state = PciDevice.state.extend("VGA", 1, Part("vga"))

    romfile = Prop("str", "vgabios-stdvga.bin", "video BIOS; empty for none")
    rombar = Prop("uint32", 1, "0: the video BIOS is no ROM BAR but a file that the firmware finds", max=1)
    mmio = Prop("bool", True, "registers in BAR 2")
    linear_window = named("x-linear-window", "bool", True, "a linear window used a lot is memory", visible=False)
    pci_revision = named("pci-revision", "uint8", 2, "PCI revision; 0 in RHEL 6")
    global_vmstate = named(
        "global-vmstate", "bool", False, "naming of saved state in QEMU", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def pci_realize(self, platform: Platform) -> None:
        # revision 2 says that the extended registers are there (QEMU's rule)
        self.revision = self.pci_revision if self.extended else 0
        memory = self.make(platform)
        self.map_legacy(platform)
        if self.linear_window:
            self.map_linear(platform, memory)
        self.vga.reset()
