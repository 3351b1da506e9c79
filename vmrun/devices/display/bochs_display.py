"""bochs-display: a frame buffer with the VBE registers in a BAR and nothing of a VGA.

Ref: QEMU docs/specs/standard-vga.txt for the registers (the card exists only there): 1234:1111, BAR 0 frame buffer,
BAR 2 registers. They are plain storage; what does not fit the memory shows nothing.
"""

from __future__ import annotations

from accel.api import PyIoRegion
from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import Flag, Words
from vmrun.devices.display.linear_scanout import LinearScanout
from vmrun.devices.display.vga_pci import MMIO_SIZE, Monitor
from vmrun.devices.display.vga_regions import Contents
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

(ID, XRES, YRES, BPP, ENABLE, BANK, VIRTUAL_WIDTH, VIRTUAL_HEIGHT, X_OFFSET, Y_OFFSET) = range(10)
COUNT, MEMORY = 10, 10
VERSION = 0xB0C5
LITTLE, BIG = 0x1E1E1E1E, 0xBEBEBEBE
SMALLEST = 64  # pixels, both ways, that are shown
EDID_SIZE = 256


@register("bochs-display", description="display without VGA")
class BochsDisplay(Monitor):
    """Owns `console`, what it shows."""

    vram: RamBlock
    console: Console
    vendor_id = 0x1234
    device_id = 0x1111
    revision = 2
    class_code = 0x038000
    state = PciDevice.state.extend("bochs-display", 1, Words("vbe", COUNT, 0xFFFF), Flag("big"))

    vgamem = Prop("size", 16 << 20, "video memory", unit="B")

    def pci_realize(self, platform: Platform) -> None:
        size = 4096
        while size < self.vgamem:
            size *= 2
        if not 1 << 20 <= size <= 256 << 20:
            raise BuildError(f"{self.path}: video memory of {self.vgamem} bytes", remedy="vgamem: 1MiB to 256MiB")
        self.vbe, self.big = [0] * COUNT, False
        self.vram = RamBlock(f"{self.name}.vram", size)
        self.ram_blocks.append(self.vram)
        self.console = platform.add_console(self, LinearScanout(self.vram, platform.lock, self._mode))
        self.add_bar(0, Region.ram("bochs.vram", self.vram), size, "mem32-pref")
        bar = Region.container("bochs.mmio", MMIO_SIZE)
        if self.edid:
            bar.add(Region.device("edid", Contents(self.monitor_says()[:EDID_SIZE]), EDID_SIZE), 0)
        vbe = PyIoRegion("bochs dispi", self._read, self._write, 2, 2)
        bar.add(Region.device("bochs dispi", vbe, 0x16), 0x500)
        order = PyIoRegion("qemu extended regs", self._order, self._set_order, 4, 4)
        bar.add(Region.device("qemu extended regs", order, 8), 0x600)
        self.add_bar(2, bar, MMIO_SIZE, "mem32")

    def _read(self, offset: int, size: int) -> int:
        index = offset >> 1
        if index == ID:
            return VERSION
        if index == MEMORY:
            return (self.vram.size >> 16) & 0xFFFF
        return self.vbe[index] if index < COUNT else 0

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset >> 1 < COUNT:
            self.vbe[offset >> 1] = value & 0xFFFF

    def _order(self, offset: int, size: int) -> int:
        return (BIG if self.big else LITTLE) if offset == 4 else 8

    def _set_order(self, offset: int, size: int, value: int) -> None:
        if offset == 4 and value in (LITTLE, BIG):
            self.big = value == BIG

    def _mode(self) -> tuple[int, int, int, int, int, bool] | None:
        """What is shown, for the scanout; None: nothing."""
        vbe = self.vbe
        size = {16: 2, 32: 4}.get(vbe[BPP])
        width, height = vbe[XRES], vbe[YRES]
        if not vbe[ENABLE] & 1 or size is None or width < SMALLEST or height < SMALLEST:
            return None
        pitch = max(vbe[VIRTUAL_WIDTH], width) * size
        offset = vbe[X_OFFSET] * size + vbe[Y_OFFSET] * pitch
        if pitch * height + offset > self.vram.size:
            return None
        return width, height, size, pitch, offset, self.big and size == 4

    def unrealize(self) -> None:
        self.platform.remove_console(self.console)
        super().unrealize()
