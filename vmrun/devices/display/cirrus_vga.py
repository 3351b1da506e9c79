"""The Cirrus adapters on their buses: cirrus-vga, a CL-GD5446 on PCI, and isa-cirrus-vga, a CL-GD5430.

Ref: as cirrus.pyx. BAR 0 (32 MiB): video memory, and from 16 MiB bytes for blits; BAR 1: registers.
"""

from __future__ import annotations

from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.isa import IsaDevice
from vmrun.bus.pci import PciDevice
from vmrun.core.ddc import Ddc
from vmrun.core.edid import edid
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part, Table
from vmrun.devices.display.cirrus import Cirrus
from vmrun.devices.display.cirrus_regions import CirrusFeed, CirrusLinear, CirrusRegisters
from vmrun.devices.display.cirrus_scanout import CirrusScanout
from vmrun.devices.display.legacy_vga import PORTS as VGA_PORTS
from vmrun.devices.display.legacy_vga import WINDOW, WINDOW_SIZE, LegacyVga
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga_regions import VgaPorts, VgaWindow
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

SIZES = (4, 8, 16)  # MiB of video memory, QEMU's
PORTS, PORT_COUNT = 0x3B0, 0x30
MEMORY_BAR, FEED_AT, FEED_SIZE, REGISTERS_BAR = 0x2000000, 0x1000000, 0x400000, 0x1000
DECODED: Any = {"ports": [list(ports) for ports in VGA_PORTS]}


def make(device: Any, platform: Platform, mib: int, pci: bool, ddc: Ddc | None = None) -> Region:
    """The chip with its ports, window and screen; its memory. BuildError for a size that there is none of."""
    if mib not in SIZES:
        raise BuildError(f"{device.path}: there is no Cirrus adapter with {mib} MiB", remedy="vgamem_mb: 4, 8 or 16")
    device.vram = RamBlock(f"{device.name}.vram", mib << 20)
    device.ram_blocks.append(device.vram)
    chip = device.vga = Cirrus(device.vram, platform.virtual, pci, device.blitter, platform.lock, ddc)
    scanout, text = CirrusScanout(chip, platform.lock), TextScreen(chip, platform.lock)
    device.console = platform.add_console(device, scanout, text=text)
    device.map(platform.system_io, Region.device("cirrus.ports", VgaPorts(chip), PORT_COUNT), PORTS)
    window = Region.device("cirrus.window", VgaWindow(chip), WINDOW_SIZE)
    device.map(platform.pci_memory, window, WINDOW, priority=1)
    memory = Region.ram("cirrus.vram", device.vram)
    device.map_linear(platform, memory)
    chip.reset()
    return memory


@register("cirrus-vga", description="Cirrus CLGD 5446 display")
class CirrusVga(LegacyVga, PciDevice):
    """Owns `vga` (the chip), `console` (what it shows)."""

    vga: Cirrus
    vram: RamBlock
    console: Console
    ddc: Ddc | None

    vendor_id = 0x1013
    device_id = 0x00B8
    class_code = 0x030000
    hotpluggable = False
    resources = DECODED

    state = PciDevice.state.extend(
        "cirrus-vga", 2, Part("vga"), Part("ddc"), readers={1: lambda old: {**old, "ddc": None}}
    )

    vgamem_mb = Prop("uint32", 4, "video memory that BAR 0 shows; the chip uses 4 MiB", unit="MiB")
    romfile = Prop("str", "vgabios-cirrus.bin", "video BIOS; empty for none")
    rombar = Prop("uint32", 1, "0: the video BIOS is no ROM BAR but a file that the firmware finds", max=1)
    blitter = Prop("bool", True, "blits are done; without, they end at once with nothing drawn")
    edid = Prop("bool", False, "a monitor tells what it is by the wires of SR08 (DDC2B), which QEMU's does not")
    global_vmstate = named(
        "global-vmstate", "bool", False, "naming of saved state in QEMU", visible=False,
        idle="QEMU's saved state alone has it",
    )

    def pci_realize(self, platform: Platform) -> None:
        self.ddc = Ddc(edid(1024, 768, 1280, 1024)) if self.edid else None
        memory = make(self, platform, self.vgamem_mb, True, self.ddc)
        size = self.vgamem_mb << 20
        bar = Region.container("cirrus.bar0", MEMORY_BAR)
        bar.add(Region.device("cirrus.linear", CirrusLinear(self.vga), size), 0)
        self.direct = Region.alias("cirrus.vram", memory, 0, size)
        self.direct.set_enabled(self.vga.is_memory)
        bar.add(self.direct, 0, 1)
        bar.add(Region.device("cirrus.feed", CirrusFeed(self.vga), FEED_SIZE), FEED_AT)
        self.add_bar(0, bar, MEMORY_BAR, "mem32-pref")
        registers = Region.container("cirrus.bar1", REGISTERS_BAR)
        registers.add(Region.device("cirrus.registers", CirrusRegisters(self.vga), REGISTERS_BAR), 0)
        self.add_bar(1, registers, REGISTERS_BAR, "mem32")

    def _window_changed(self) -> None:
        """BAR 0 is memory, or must be asked, and so is the window."""
        with self.platform.memory.transaction():
            self.direct.set_enabled(self.vga.is_memory)
            super()._window_changed()

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()


@register("isa-cirrus-vga", description="Cirrus display (ISA)")
class IsaCirrus(LegacyVga, IsaDevice):
    """Its memory is seen through the window alone; the firmware finds its video BIOS in fw_cfg."""

    vram: RamBlock
    console: Console

    resources = DECODED
    state = Table("isa-cirrus-vga", 1, Part("vga"))

    vgamem_mb = Prop("uint32", 4, "video memory; the chip uses 2 MiB", unit="MiB")
    blitter = Prop("bool", True, "blits are done; without, they end at once with nothing drawn")

    def realize(self, platform: Platform) -> None:
        self.platform = platform
        make(self, platform, self.vgamem_mb, False)

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()
