"""What every PCI-to-PCI bridge has: a type 1 header, a bus behind it, and windows through which that bus is seen.

Ref: PCI-to-PCI Bridge Architecture 1.1, chapters 3 and 4.
Not modelled: windows towards the primary side: a bus master behind a bridge reaches all memory; the discard timer,
ISA mode, VGA palette snooping, error forwarding.
"""

from __future__ import annotations

from accel.space import Region

from vmrun.bus.pci.bus import SecondaryBus
from vmrun.bus.pci.config import IntxBehind
from vmrun.bus.pci.device import COMMAND, IO_ENABLE, MEMORY_ENABLE, PciDevice
from vmrun.core.interfaces import BusOwner

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.platform import Platform

(
    PRIMARY, IO_BASE, IO_LIMIT, SECONDARY_STATUS, MEMORY_BASE, PREFETCH_BASE, PREFETCH_HIGH, IO_HIGH, CONTROL,
) = 0x18, 0x1C, 0x1D, 0x1E, 0x20, 0x24, 0x28, 0x30, 0x3E  # fmt: skip
CONTROL_MASK = 0x0BFF
VGA_ENABLE, VGA_16BIT, BUS_RESET = 0x08, 0x10, 0x40
FAST_66 = 0x00A0  # status: 66 MHz, fast back-to-back
WIDE_PREFETCH = 1
VGA_MEMORY, VGA_PORTS = (0xA0000, 0x20000), ((0x3B0, 0x0C), (0x3C0, 0x20))
WINDOW_PRIORITY = 1


class PciBridge(PciDevice, BusOwner):
    """Subclasses give the ids and, in pci_realize, capabilities and BARs 0 and 1."""

    header_type = 1
    rom_offset = 0x38
    class_code = 0x060400
    provides = ("PCI",)

    def make_buses(self, names: list[str], platform: Platform) -> None:
        self.secondary = SecondaryBus(names[0], platform)
        self.secondary.bridge = self
        self.buses[names[0]] = self.secondary

    def realize(self, platform: Platform) -> None:
        bus = self.secondary
        self.windows = {
            "io": Region.alias(f"{self.name}-io", bus.io, 0, 1),
            "memory": Region.alias(f"{self.name}-memory", bus.memory, 0, 1),
            "prefetch": Region.alias(f"{self.name}-prefetch", bus.memory, 0, 1),
            "vga": Region.alias(f"{self.name}-vga", bus.memory, VGA_MEMORY[0], VGA_MEMORY[1]),
        }
        for base, size in VGA_PORTS:
            self.windows[f"vga-{base:x}"] = Region.alias(f"{self.name}-vga-{base:x}", bus.io, base, size)
        for region in self.windows.values():
            region.owner = self
        self.in_reset = False
        super().realize(platform)
        bus.intx = IntxBehind(self.parent_bus.intx, self.devfn >> 3)
        self.parent_bus.functions.put(self.devfn, self.config, bus.functions)

    def unrealize(self) -> None:
        with self.platform.memory.transaction(), self.platform.io.transaction():
            for region in self.windows.values():
                self._show(region, None)
            super().unrealize()

    def _header(self) -> None:
        super()._header()
        config = self.config
        config.set_word(6, FAST_66)
        config.set_word(SECONDARY_STATUS, FAST_66)
        config.set_word(PREFETCH_BASE, WIDE_PREFETCH)
        config.set_word(PREFETCH_BASE + 2, WIDE_PREFETCH)
        config.allow(PRIMARY, 4, 0xFFFFFFFF)
        config.allow(IO_BASE, 2, 0xF0F0)
        config.allow_clear(SECONDARY_STATUS, 2, 0xF900)
        config.allow(MEMORY_BASE, 4, 0xFFF0FFF0)
        config.allow(PREFETCH_BASE, 4, 0xFFF0FFF0)
        config.allow(PREFETCH_HIGH, 4, 0xFFFFFFFF)
        config.allow(PREFETCH_HIGH + 4, 4, 0xFFFFFFFF)
        config.allow(CONTROL, 2, CONTROL_MASK)
        for offset, size in ((IO_BASE, 2), (MEMORY_BASE, 16), (CONTROL, 2)):
            config.watch(offset, size, True)
        config.watch(COMMAND, 2, True)

    def reset(self) -> None:
        config = self.config
        config.set_dword(PRIMARY, 0)
        config.set_word(IO_BASE, 0)
        config.set_dword(MEMORY_BASE, 0)
        config.set_dword(PREFETCH_BASE, WIDE_PREFETCH << 16 | WIDE_PREFETCH)
        config.set_dword(PREFETCH_HIGH, 0)
        config.set_dword(PREFETCH_HIGH + 4, 0)
        config.set_word(CONTROL, 0)
        self.in_reset = False
        super().reset()

    def _remap(self) -> None:
        with self.platform.memory.transaction(), self.platform.io.transaction():
            super()._remap()
            self._open_windows()
        reset = bool(self.config.get(CONTROL, 2) & BUS_RESET)
        if reset and not self.in_reset:
            self.secondary.reset()
        self.in_reset = reset

    def ranges(self) -> dict[str, tuple[int, int]]:
        """(base, limit) of the windows `io`, `memory` and `prefetch` as the registers have them; a limit below its base
        closes one.
        """
        get = self.config.get
        memory, limit = get(MEMORY_BASE, 2) & 0xFFF0, get(MEMORY_BASE + 2, 2) & 0xFFF0
        base = (get(PREFETCH_BASE, 2) & 0xFFF0) << 16 | get(PREFETCH_HIGH, 4) << 32
        last = (get(PREFETCH_BASE + 2, 2) & 0xFFF0) << 16 | 0xFFFFF | get(PREFETCH_HIGH + 4, 4) << 32
        return {
            "io": ((get(IO_BASE, 1) & 0xF0) << 8, (get(IO_LIMIT, 1) & 0xF0) << 8 | 0xFFF),
            "memory": (memory << 16, limit << 16 | 0xFFFFF),
            "prefetch": (base, last),
        }

    def _open_windows(self) -> None:
        """Each window from its base to its limit, if the command register lets it."""
        command = self.config.get(COMMAND, 2)
        io, memory = bool(command & IO_ENABLE), bool(command & MEMORY_ENABLE)
        vga = bool(self.config.get(CONTROL, 2) & VGA_ENABLE)
        for name, (base, limit) in self.ranges().items():
            self._window(name, io if name == "io" else memory, base, limit)
        self._show(self.windows["vga"], VGA_MEMORY[0] if vga and memory else None)
        for base, _ in VGA_PORTS:
            self._show(self.windows[f"vga-{base:x}"], base if vga and io else None)

    def _window(self, name: str, enabled: bool, base: int, limit: int) -> None:
        region = self.windows[name]
        if not enabled or limit < base:
            self._show(region, None)
            return
        target = self.secondary.io if name == "io" else self.secondary.memory
        region.set_alias(target, base, limit + 1 - base)
        self._show(region, base)

    def _show(self, region: Region, where: int | None) -> None:
        """Put it there anew, above what overlaps it: as qemu-kvm does with every write to the window registers."""
        container = self.parent_bus.io if region.target is self.secondary.io else self.parent_bus.memory
        if region.parent is not None:
            container.remove(region)
        if where is not None:
            container.add(region, where, WINDOW_PRIORITY)
