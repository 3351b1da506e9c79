"""What every function on a PCI bus has: configuration space, BARs, an interrupt pin, bus mastering.

Ref: PCI Local Bus Specification 2.1, chapter 6.
Not modelled: parity, bridges, latency.
"""

from __future__ import annotations

from accel.api import IoRegion, IrqLine
from accel.dma import Dma
from accel.space import Region

from vmrun.bus.pci.config import IntxPin, PciConfig
from vmrun.core.interfaces import PciFunction
from vmrun.core.object import Device
from vmrun.core.props import Prop, named, props_of, unused
from vmrun.core.state import KEEP, Part, Parts, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.bus.pci.capability import Capability
    from vmrun.core.platform import Platform

# offsets and bits of the type 0 header
COMMAND, STATUS, BAR0, ROM_BAR, CAPABILITIES, INTERRUPT_LINE, INTERRUPT_PIN = (
    4,
    6,
    0x10,
    0x30,
    0x34,
    0x3C,
    0x3D,
)
CACHE_LINE_SIZE = 0x0C
IO_ENABLE, MEMORY_ENABLE, BUS_MASTER = 1, 2, 4
CAP_LIST = 0x10
UNSET = 0xFFFFFFFF
MOST_ACPI_INDEX = 16383  # that guests take: 14 bits
NO_EXPRESS = "an i440FX has no PCI Express"

KINDS = {
    "io": 1,
    "mem32": 0,
    "mem32-pref": 8,
    "mem64": 4,
    "mem64-pref": 12,
}


class Bar:
    """One base address register and what it shows."""

    def __init__(self, n: int, offset: int, size: int, flags: int, region: Region) -> None:
        self.n, self.offset, self.size, self.flags, self.region = n, offset, size, flags, region
        self.mapped: int | None = None


def for_function(image: bytes, vendor: int, device: int) -> bytes:
    """An option ROM that serves several cards, with the ids of this one: a firmware runs no ROM that is another's. QEMU
    does so with the ROM that a card has by itself.
    """
    at = int.from_bytes(image[0x18:0x1A], "little")
    if image[at : at + 4] != b"PCIR" or at + 8 > len(image):
        return image
    rom = bytearray(image)
    fresh = vendor.to_bytes(2, "little") + device.to_bytes(2, "little")
    rom[6] = (rom[6] + sum(rom[at + 4 : at + 8]) - sum(fresh)) & 0xFF  # the sum of all bytes stays what it is
    rom[at + 4 : at + 8] = fresh
    return bytes(rom)


class PciDevice(Device, PciFunction):
    """Base of PCI functions: subclasses give the ids, extend `state`, and override pci_realize, pci_reset,
    config_written and settle.
    """

    bus = "PCI"
    vendor_id = 0
    device_id = 0
    revision = 0
    class_code = 0  # base class, sub-class, programming interface: 24 bits
    subsystem_vendor_id = 0x1AF4
    subsystem_id = 0x1100
    interrupt_pin = 0  # 1 is INTA#
    header_type = 0
    rom_offset = ROM_BAR

    addr = Prop("pci-addr", doc="slot.function, in hex")
    multifunction = Prop("bool", False, "bit 7 of the header type: the slot has other functions")
    romfile = Prop("str", "", "option ROM, found in the firmware directories")
    rombar = Prop("uint32", 1, "1: the option ROM is in the ROM BAR; 0: in fw_cfg", max=1)
    romsize = Prop("uint32", UNSET, "bytes of the ROM BAR, a power of two; not given: what the ROM needs")
    command_serr_enable = Prop("bool", True, "software may set SERR# enable (bit 8 of the command register)")
    acpi_index = named("acpi-index", "uint32", 0, "number that the firmware tells of the card, for its name; 0: none")
    failover_pair_id = Prop("str", "", "id of the virtio-net card that this one stands in for", visible=False)
    lnksta_dllla = unused("x-pcie-lnksta-dllla", "bool", True, "a bit of PCI Express", NO_EXPRESS)
    extcap_init = unused("x-pcie-extcap-init", "bool", True, "extended capabilities", NO_EXPRESS)

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.config = PciConfig(self._config_changed)
        self.bars: dict[int, Bar] = {}
        self.intx = IrqLine()
        self.platform: Any = None
        self.devfn = -1
        self.capabilities: list[Capability] = []
        self._capability_end = 0x40

    # --- life -------------------------------------------------------------------------------------------

    def realize(self, platform: Platform) -> None:
        slot, _, function = (self.addr or "").partition(".")
        try:
            self.devfn = int(slot, 16) * 8 + int(function or "0", 16)
        except ValueError:
            raise BuildError(f"{self.path}: {self.addr!r} is no PCI address") from None
        self.platform = platform
        self._check()
        self.dma = Dma(platform.memory, False)
        self.parent_bus.plug(self)
        try:
            self._header()
            input = (self.devfn >> 3) * 4 + max(self.interrupt_pin - 1, 0)
            self.pin = IntxPin(self.config, self.parent_bus.intx, input)
            self.intx = IrqLine(self.pin, 0)
            self.pci_realize(platform)
            self.config.set_byte(8, self.revision)  # a property may have changed it
            if self.romfile and self.rombar and 6 not in self.bars:
                image = platform.add_option_rom(self.romfile)
                own = self.romfile == props_of(type(self))["romfile"].default
                self._add_rom(for_function(image, self.config.get(0, 2), self.config.get(2, 2)) if own else image)
        except BaseException:
            self.parent_bus.unplug(self)
            raise

    def _check(self) -> None:
        """What no type of a property says, in QEMU's words."""
        if self.acpi_index > MOST_ACPI_INDEX:
            raise BuildError(f"{self.path}: acpi-index should be less or equal to {MOST_ACPI_INDEX}")
        if self.romsize != UNSET and self.romsize.bit_count() != 1:
            raise BuildError(f"{self.path}: ROM size {self.romsize} is not a power of two")
        if self.failover_pair_id:
            raise BuildError(
                f"{self.path}: failover primary device must be on PCIExpress bus",
                remedy="no i440FX has one: leave `failover_pair_id` out",
            )

    def unrealize(self) -> None:
        self.intx.drive(0)
        self.dma.enabled = False
        for bar in self.bars.values():
            self._unmap(bar)
        self.parent_bus.unplug(self)
        super().unrealize()

    def reset(self) -> None:
        config = self.config
        config.set_word(COMMAND, config.get(COMMAND, 2) & ~config_mask(COMMAND))
        config.set_byte(INTERRUPT_LINE, 0)
        config.set_byte(CACHE_LINE_SIZE, 0)
        for bar in self.bars.values():
            config.set_dword(bar.offset, bar.flags)
            if bar.flags & 4 and bar.n != 6:
                config.set_dword(bar.offset + 4, 0)
        self.intx.drive(0)
        self.pci_reset()
        super().reset()

    def pci_realize(self, platform: Platform) -> None:
        """Add BARs, ports, pins. Runs once the function answers on its bus."""

    def pci_reset(self) -> None:
        """The function's own part of configuration space; the header is already reset, the fields of `state` follow."""

    def config_written(self, offset: int, size: int) -> None:
        """Bytes watched with config.watch were written; BARs and command are already acted upon."""

    # --- header -----------------------------------------------------------------------------------------

    def _header(self) -> None:
        config = self.config
        config.set_word(0, self.vendor_id)
        config.set_word(2, self.device_id)
        config.set_byte(8, self.revision)
        config.set_byte(9, self.class_code & 0xFF)
        config.set_word(10, self.class_code >> 8)
        config.set_byte(14, self.header_type | (0x80 if self.multifunction else 0))
        if not self.header_type:
            config.set_word(0x2C, self.subsystem_vendor_id)
            config.set_word(0x2E, self.subsystem_id)
        config.set_byte(INTERRUPT_PIN, self.interrupt_pin)
        config.allow(COMMAND, 2, config_mask(COMMAND) if self.command_serr_enable else config_mask(COMMAND) & ~0x100)
        config.allow(INTERRUPT_LINE, 1, 0xFF)
        config.allow(CACHE_LINE_SIZE, 1, 0xFF)
        config.allow_clear(STATUS, 2, 0xF900)
        config.watch(COMMAND, 2)
        for offset in range(0x40, 0x100, 4):
            config.allow(offset, 4, 0xFFFFFFFF)  # QEMU's rule: what a device does not say is plain storage

    def add_capability(self, capability: Capability, offset: int = 0) -> None:
        """Put it at the head of the list, at `offset` or at the first free place. In pci_realize."""
        config = self.config
        offset = offset or self._capability_end
        end = offset + capability.size
        if offset < 0x40 or offset & 3 or end > 0x100:
            raise BuildError(f"{self.path}: no capability of {capability.size} bytes fits at {offset:#x}")
        self._capability_end = max(self._capability_end, (end + 3) & ~3)
        for byte in range(offset, end):
            config.allow(byte, 1, 0)
        config.set_byte(offset, capability.id)
        config.set_byte(offset + 1, config.get(CAPABILITIES, 1))
        config.set_byte(CAPABILITIES, offset)
        config.set_word(STATUS, config.get(STATUS, 2) | CAP_LIST)
        self.capabilities.append(capability)
        capability.attach(self, offset)

    # --- base address registers --------------------------------------------------------------------------

    def add_bar(self, n: int, what: IoRegion | Region, size: int, kind: str) -> Bar:
        """BAR `n` (0..5) of `size` bytes, a power of two; kind: io, mem32, mem32-pref, mem64, mem64-pref."""
        flags = KINDS[kind]
        if size & (size - 1) or size < (4 if flags & 1 else 16):
            raise BuildError(f"{self.path}: BAR {n} cannot have {size} bytes")
        region = what if isinstance(what, Region) else Region.device(f"{self.name}.bar{n}", what, size)
        region.owner = self
        bar = Bar(n, BAR0 + 4 * n, size, flags, region)
        self._declare(bar)
        return bar

    def _declare(self, bar: Bar) -> None:
        self.bars[bar.n] = bar
        mask = (~(bar.size - 1)) & 0xFFFFFFFFFFFFFFFF
        self.config.set_dword(bar.offset, bar.flags)
        self.config.allow(bar.offset, 4, (mask & 0xFFFFFFFF) | (1 if bar.n == 6 else 0))
        self.config.watch(bar.offset, 4)
        if bar.flags & 4 and bar.n != 6:
            self.config.allow(bar.offset + 4, 4, mask >> 32)
            self.config.watch(bar.offset + 4, 4)

    def _add_rom(self, image: bytes) -> None:
        from accel.ram import RamBlock

        if self.romsize == UNSET:
            size = max(0x1000, 1 << (len(image) - 1).bit_length())
        elif self.romsize < len(image):
            raise BuildError(
                f'{self.path}: romfile "{self.romfile}" ({len(image)} bytes) is too large for ROM size {self.romsize}'
            )
        else:
            size = self.romsize
        block = RamBlock(f"{self.name}.rom", size)
        block.write(0, image)
        region = Region.rom(f"{self.name}.rom", block)
        region.owner = self
        self._declare(Bar(6, self.rom_offset, size, 0, region))

    def _config_changed(self, offset: int, size: int) -> None:
        if offset < 0x40:
            self._remap()
            self.pin.refresh()
        for capability in self.capabilities:
            if offset < capability.offset + capability.size and offset + size > capability.offset:
                capability.written()
        self.config_written(offset, size)

    def _remap(self) -> None:
        """Show each BAR where the guest put it, or nowhere."""
        command = self.config.get(COMMAND, 2)
        self.dma.enabled = bool(command & BUS_MASTER)
        changes = []
        for bar in self.bars.values():
            where = self._place(bar, command)
            if where != bar.mapped:
                changes.append((bar, where))
        if not changes:
            return
        with self.platform.memory.transaction(), self.platform.io.transaction():
            for bar, _ in changes:
                self._unmap(bar)
            for bar, where in changes:
                if where is not None:
                    self._space(bar).add(bar.region, where, 1)
                    bar.mapped = where

    def _place(self, bar: Bar, command: int) -> int | None:
        value = self.config.get(bar.offset, 4)
        if bar.flags & 1:
            where = value & ~(bar.size - 1) & 0xFFFFFFFC
            # QEMU's rule: port 0 and anything past 64 KiB are not decoded.
            return where if command & IO_ENABLE and where > 0 and where + bar.size <= 0x10000 else None
        if not command & MEMORY_ENABLE or (bar.n == 6 and not value & 1):
            return None
        if bar.flags & 4 and bar.n != 6:
            value |= self.config.get(bar.offset + 4, 4) << 32
        where = value & ~(bar.size - 1) & ~0xF
        last = where + bar.size - 1
        # While a BAR is sized it holds all ones: nothing is decoded there.
        return where if where and last < (1 << 40) and not (where < 1 << 32 and last >= 0xFFFFFFFF) else None

    def _space(self, bar: Bar) -> Region:
        container: Region = self.parent_bus.io if bar.flags & 1 else self.parent_bus.memory
        return container

    def _unmap(self, bar: Bar) -> None:
        if bar.mapped is not None:
            self._space(bar).remove(bar.region)
            bar.mapped = None

    # --- state ------------------------------------------------------------------------------------------

    state = Table("pci", 1, Part("config", KEEP), Parts("capabilities"))

    def settle(self) -> None:
        """The windows where the guest put them. Subclasses with more to work out call this first."""
        self._remap()


def config_mask(offset: int) -> int:
    """Bits of the command register that software may set (those that qemu-kvm lets change)."""
    return 0x0507 if offset == COMMAND else 0
