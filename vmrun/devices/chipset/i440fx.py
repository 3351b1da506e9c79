"""Function 0:0.0 of the i440FX: which memory shows at 640 KiB to 1 MiB.

Ref: Intel 82441FX PMC (290549) 3.2.18 PAM, 3.2.22 SMRAM.
Not modelled: DRAM timing, ECC, error reporting, AGP-less arbitration (registers are plain storage), D_LCK.

A machine type whose memory map says `low-rom-ram-backed` has no working PAM: native RHEL 6 under KVM always showed
writable RAM from 0xc0000 up, and its guests came to depend on it. The builder puts the firmware there.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.interfaces import Sleeper
from vmrun.core.props import named
from vmrun.core.registry import register

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

PAM, SMRAM, SIZE_HINT = 0x59, 0x72, 0x57
D_OPEN = 0x40
VGA_WINDOW, VGA_SIZE = 0xA0000, 0x20000
READ, WRITE = 1, 2
# (start, size, register, shift of its nibble)
SEGMENTS = [(0xF0000, 0x10000, PAM, 4)] + [
    (0xC0000 + 0x4000 * n, 0x4000, PAM + 1 + n // 2, 4 * (n % 2)) for n in range(12)
]


@register("i440FX", description="82441FX PCI and memory controller: PAM and SMRAM")
class I440fx(PciDevice, Sleeper):
    user_creatable = False
    vendor_id = 0x8086
    device_id = 0x1237
    revision = 2
    class_code = 0x060000
    hotpluggable = False
    suspend_well = True  # memory has power in S3: what the firmware made of it is there when the guest wakes

    size_hint = named("ram-size-hint", "bool", True, "RAM in 8 MiB units at 0x57, for coreboot")

    def pci_realize(self, platform: Platform) -> None:
        pci, ram = platform.pci_memory, platform.ram_low
        self.pam_works = not platform.memory_map.get("low-rom-ram-backed", False)
        self.segments: list[tuple[Region, int, int, int]] = []
        # Behind a closed SMRAM the PCI side shows: the VGA's window.
        self.window = Region.alias("smram-closed", pci, VGA_WINDOW, VGA_SIZE)
        self.map(platform.system_memory, self.window, VGA_WINDOW, priority=1)
        for start, size, register_, shift in SEGMENTS:
            segment = Region.alias(f"pam-{start:x}", pci if self.pam_works else ram, start, size)
            self.map(platform.system_memory, segment, start, priority=1)
            self.segments.append((segment, start, register_, shift))
        self.config.watch(PAM, 7)
        self.config.watch(SMRAM, 1)

    def pci_reset(self) -> None:
        config = self.config
        config.set_word(6, 0)
        for offset in range(PAM, PAM + 7):
            config.set_byte(offset, 0)
        config.set_byte(SMRAM, 0x02)
        if self.size_hint:
            config.set_byte(SIZE_HINT, min(self.platform.ram_size >> 23, 255))

    def config_written(self, offset: int, size: int) -> None:
        if offset <= SMRAM and offset + size > PAM:
            self._show()

    def _show(self) -> None:
        """Lay out memory as PAM and SMRAM say. Mode 2 (write-only) is RAM, as qemu-kvm has it."""
        if not self.pam_works:
            return
        ram, pci = self.platform.ram_low, self.platform.pci_memory
        with self.platform.memory.transaction():
            for segment, start, register_, shift in self.segments:
                mode = self.config.get(register_, 1) >> shift & 3
                segment.set_alias(ram if mode else pci, start)
                segment.set_readonly(mode == READ)
            smram = self.config.get(SMRAM, 1)
            self.window.set_enabled(not smram & D_OPEN)  # qemu-kvm asks for no G_SMRAME

    def settle(self) -> None:
        super().settle()
        self._show()
