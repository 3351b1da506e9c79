"""virtio-gpu-pci: virtio's display, 2D, with up to 16 outputs, each a console of its own.

Only the first one has a monitor from the beginning; another gets one when a viewer of it asks for a size, as with QEMU.

Ref: as virtio_gpu_chip.pyx.
Not modelled: 3D, blobs.
"""

from __future__ import annotations

from vmrun.bus.virtio.pci import VirtioPci
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Bytes
from vmrun.devices.display.pointer import HardwarePointer
from vmrun.devices.display.virtio_gpu_chip import GpuChip, GpuScanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.console import Console
    from vmrun.core.platform import Platform

QUEUES = [64, 16]  # control, pointer
EDID_FEATURE = 1 << 1
MOST_CONTENT = 1 << 30  # bytes of saved resources
SMALLEST, LARGEST = 64, 8192  # pixels of a monitor, both ways


class Head(HardwarePointer):
    """One output: its console, and its pointer on the way there."""

    console: Console

    def __init__(self, chip: GpuChip, number: int, platform: Platform) -> None:
        self.chip, self.number, self.platform = chip, number, platform
        self.waiting_pointer = []
        chip.outputs[number].on_pointer = self.pointer_changed

    def resize(self, width: int, height: int) -> bool:
        """A viewer wants another size: the driver may follow. False for one that cannot be."""
        if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
            return False
        with self.platform.lock:
            self.chip.set_screen(width, height, self.number)
        return True


@register("virtio-gpu-pci", "virtio-gpu", description="virtio display")
class VirtioGpu(VirtioPci):
    """Owns `heads`, each with a console that shows an output."""

    heads: list[Head]
    parents = (*VirtioPci.parents, "virtio-gpu-device")
    class_code = 0x038000
    state = VirtioPci.state.extend("virtio-gpu", 1, Bytes("content", most=MOST_CONTENT))
    virtio_id = 16

    disable_legacy = named(
        "disable-legacy", "enum", "on", "no legacy registers: it has none", choices=("auto", "on", "off")
    )
    max_outputs = Prop("uint32", 1, "screens; a viewer's size brings up those behind the first", min=1, max=16)
    max_hostmem = Prop("size", 256 << 20, "memory for the guest's pictures", unit="B", visible=False)
    edid = Prop("bool", True, "offer: a description of the monitor")
    xres = Prop("uint32", 1280, "preferred width", min=SMALLEST, max=LARGEST)
    yres = Prop("uint32", 800, "preferred height", min=SMALLEST, max=LARGEST)

    def default_vectors(self) -> int:
        return 3

    def pci_realize(self, platform: Platform) -> None:
        self.disable_modern, self.disable_legacy = False, "on"  # whatever the machine type says of virtio
        super().pci_realize(platform)

    def make_chip(self, platform: Platform) -> GpuChip:
        chip = GpuChip(self.dma, QUEUES, self.max_hostmem, (self.xres, self.yres), self.max_outputs)
        chip.offered |= EDID_FEATURE if self.edid else 0
        chip.call_soon = platform.call_soon
        self.heads = [Head(chip, number, platform) for number in range(self.max_outputs)]
        for head in self.heads:
            head.console = self.add_console(GpuScanout(chip, platform.lock, head.number), head.number)
            head.console.on_resize = head.resize
        return chip

    def add_console(self, scanout: GpuScanout, head: int) -> Any:
        """What it shows, as the machine's viewers reach it."""
        return self.platform.add_console(self, scanout, head)

    @property
    def content(self) -> bytes:
        data: bytes = self.chip.content
        return data

    @content.setter
    def content(self, data: bytes) -> None:
        self.chip.content = data

    def check_state(self, values: dict[str, Any]) -> None:
        self.chip.read_content(values["content"])

    def unrealize(self) -> None:
        for head in self.heads:
            self.platform.remove_console(head.console)
        super().unrealize()
