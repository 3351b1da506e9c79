"""virtio-vga: virtio's display that starts as a VGA. Firmware and boot loaders draw on the VGA; what the driver shows
takes its place until the driver is reset.

    BAR 0  the VGA's memory       BAR 2  0x400 the VGA's registers as BAR 2 of `VGA` has them; virtio's behind them
    BAR 4  MSI-X

Ref: as virtio_gpu.py and vga_pci.py; where things are in BAR 2 is QEMU's.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.virtio.pci import COMMON_TYPE, CONFIG_TYPE, ISR_TYPE, NOTIFY_TYPE, PART
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.display.either import EitherScanout, EitherText
from vmrun.devices.display.legacy_vga import LegacyVga, video_memory
from vmrun.devices.display.textscreen import TextScreen
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_pci import add_registers
from vmrun.devices.display.vga_scanout import VgaScanout
from vmrun.devices.display.virtio_gpu import VirtioGpu
from vmrun.devices.display.virtio_gpu_chip import GpuScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.ram import RamBlock

    from vmrun.core.platform import Platform

MEMORY = 8  # MiB
HALF = PART // 2  # common and ISR registers share a page, so that the VGA's have one


@register("virtio-vga", description="virtio display with VGA")
class VirtioVga(LegacyVga, VirtioGpu):
    """Owns `vga` (its half of the chips), `chip` (virtio's), `heads` (the first shows either)."""

    vram: RamBlock
    parents = (*VirtioGpu.parents, "virtio-vga-base")
    class_code = 0x030000
    hotpluggable = False
    modern_bar, msix_bar, port_bar = 2, 4, 5
    state = VirtioGpu.state.extend("virtio-vga", 1, Part("vga"))

    romfile = Prop("str", "vgabios-virtio.bin", "video BIOS; empty for none")
    rombar = Prop("uint32", 1, "0: the video BIOS is no ROM BAR but a file that the firmware finds", max=1)
    big_endian = named("big-endian-framebuffer", "bool", False, "byte order of the VGA's frame buffer at power-on")

    def modern_parts(self, kicks: int) -> dict[int, tuple[int, int]]:
        """At the end of the BAR; the VGA's registers are in the first page."""
        size = PART if self.page_per_vq else HALF
        notify = max(kicks, 3 * PART)
        config = notify - PART
        return {
            COMMON_TYPE: (config - 2 * size, size), ISR_TYPE: (config - size, size), CONFIG_TYPE: (config, PART),
            NOTIFY_TYPE: (notify, kicks),
        }  # fmt: skip

    def pci_realize(self, platform: Platform) -> None:
        self.vram = video_memory(self.name, MEMORY)
        self.ram_blocks.append(self.vram)
        self.vga = Vga(self.vram, platform.virtual)
        self.vga.starts_big_endian = self.big_endian
        memory = Region.ram("vga.vram", self.vram)
        self.add_bar(0, memory, self.vram.size, "mem32-pref")
        super().pci_realize(platform)
        add_registers(self.modern, self.vga, True)
        self.map_legacy(platform)
        self.map_linear(platform, memory)
        self.vga.reset()

    def add_console(self, scanout: GpuScanout, head: int) -> Any:
        if head:
            return super().add_console(scanout, head)
        lock = self.platform.lock
        either = EitherScanout(VgaScanout(self.vga, lock), scanout)
        text = EitherText(TextScreen(self.vga, lock), scanout)
        return self.platform.add_console(self, either, text=text)
