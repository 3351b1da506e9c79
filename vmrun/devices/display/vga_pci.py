"""The standard VGA as PCI cards: the chip of vga.pyx with a frame buffer and registers in BARs; `VGA` with the VGA's
ports and window too, `secondary-vga` without.

Ref: QEMU docs/specs/standard-vga.txt (the cards exist only there): 1234:1111, BAR 0 frame buffer, BAR 2 registers:
the monitor's description from 0, the VGA's ports from 0x400, VBE from 0x500, the byte order from 0x600.
"""

from __future__ import annotations

from _thread import get_ident

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.edid import edid
from vmrun.core.interfaces import Coalesced
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_regions import Contents, ExtendedRegs, VbeMmio, VbePorts, VgaPorts, VgaWindow
from vmrun.devices.display.vga_scanout import VgaScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

WINDOW, WINDOW_SIZE = 0xA0000, 0x20000
# The ports of a VGA, which leave out 0x3b6-0x3b9, 0x3bb-0x3bf and so on: (first, count)
PORTS = ((0x3B4, 2), (0x3BA, 1), (0x3C0, 16), (0x3D4, 2), (0x3DA, 1))
# Where GR06 puts the window: (offset, size)
MAPPINGS = ((0, 0x20000), (0, 0x10000), (0x10000, 0x8000), (0x18000, 0x8000))
VBE_PORTS, VBE_COUNT = 0x1CE, 4
MMIO_SIZE = 0x1000
EDID_SIZE = 0x180  # of BAR 2


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
        size = 1 << 20
        while size < self.vgamem_mb << 20:
            size *= 2
        self.vram = RamBlock(f"{self.name}.vram", size)
        self.ram_blocks.append(self.vram)
        self.vga = Vga(self.vram, platform.virtual)
        scanout, text = VgaScanout(self.vga, platform.lock), TextScreen(self.vga, platform.lock)
        self.console = platform.add_console(self, scanout, text=text)
        memory = Region.ram("vga.vram", self.vram)
        self.add_bar(0, memory, size, "mem32-pref")
        if self.mmio:
            self.add_bar(2, self._registers(), MMIO_SIZE, "mem32")
        self.vga.starts_big_endian = self.big_endian
        return memory

    def _registers(self) -> Region:
        bar = Region.container("vga.mmio", MMIO_SIZE)
        if self.edid:
            bar.add(Region.device("edid", Contents(self.monitor_says().ljust(EDID_SIZE, b"\0")), EDID_SIZE), 0)
        bar.add(Region.device("vga ioports", VgaPorts(self.vga, 0x3C0), 0x20), 0x400)
        bar.add(Region.device("bochs dispi", VbeMmio(self.vga), 0x16), 0x500)
        if self.extended:
            bar.add(Region.device("qemu extended regs", ExtendedRegs(self.vga), 8), 0x600)
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
class VgaPci(VgaCard, Coalesced):
    class_code = 0x030000
    hotpluggable = False
    resources = {"ports": [[0x3B4, 2], [0x3BA, 1], [0x3C0, 16], [0x3D4, 2], [0x3DA, 1], [0x1CE, 4]]}

    state = PciDevice.state.extend("VGA", 1, Part("vga"))

    # Writes that may reach the chip late, as long as they come in order: (space, address, size). Whoever looks at the
    # screen has them drained first.
    # the window, and the index registers, which do nothing until their data port is accessed
    coalesced = (("memory", WINDOW, WINDOW_SIZE), *(("io", port, 1) for port in (0x3C4, 0x3CE, 0x3D4)))

    romfile = Prop("str", "vgabios-stdvga.bin", "video BIOS; empty for none")
    rombar = Prop("uint32", 1, "0: the video BIOS is no ROM BAR but a file that the firmware finds", max=1)
    mmio = Prop("bool", True, "registers in BAR 2")
    linear_window = named("x-linear-window", "bool", True, "a linear window used a lot is memory", visible=False)
    pci_revision = named("pci-revision", "uint8", 2, "PCI revision; 0 in RHEL 6")
    global_vmstate = named("global-vmstate", "bool", False, "naming of saved state in QEMU", visible=False)

    def pci_realize(self, platform: Platform) -> None:
        # revision 2 says that the extended registers are there (QEMU's rule)
        self.revision = self.pci_revision if self.extended else 0
        memory = self.make(platform)
        self._map_legacy(platform)
        if self.linear_window:
            self._map_linear(platform, memory)
        self.vga.reset()

    def _map_legacy(self, platform: Platform) -> None:
        """The fixed ports and the window; decoded whatever the command register says, as QEMU does."""
        ports = Region.device("vga.ports", VgaPorts(self.vga), 0x30)
        for first, count in PORTS:
            self.map(platform.system_io, Region.alias("vga", ports, first - 0x3B0, count), first)
        self.map(platform.system_io, Region.device("vbe", VbePorts(self.vga), VBE_COUNT), VBE_PORTS)
        self.map(
            platform.pci_memory, Region.device("vga.window", VgaWindow(self.vga), WINDOW_SIZE), WINDOW, priority=1
        )

    def _map_linear(self, platform: Platform, memory: Region) -> None:
        """Over the window, memory itself for each of GR06's mappings; at most one is enabled."""
        self.main_thread = get_ident()
        self.linear: list[Region] = []
        for offset, size in MAPPINGS:
            region = Region.alias("vga.linear", memory, 0, size)
            region.set_enabled(False)
            self.map(platform.pci_memory, region, WINDOW + offset, priority=2)
            self.linear.append(region)
        self.vga.watch_window(self._window_changed)

    def _window_changed(self) -> None:
        now = self.vga.linear_window
        if now is not None and get_ident() == self.main_thread:
            # writes that were kept back are being done: a processor may be writing there now, which must not come first
            self.vga.mapped = False
            return
        with self.platform.memory.transaction():
            for mapping, region in enumerate(self.linear):
                region.set_enabled(now is not None and mapping == now[0])
                if now is not None and mapping == now[0]:
                    region.set_alias(region.target, now[1])
