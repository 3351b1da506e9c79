"""Capabilities of a PCI function: each has its bytes after reset, the bits a guest may write, and maybe a state of its
own (`state`) beside configuration space. `PciDevice.add_capability` puts one into the list.

Ref: PCI Local Bus Specification 3.0, 6.7 and 6.8; PCI-to-PCI Bridge Architecture 1.2, 13.
"""

from __future__ import annotations

from vmrun.bus.pci.msi import MsiChip, MsixChip
from vmrun.core.state import Part, Stateful, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.space import Region

    from vmrun.bus.pci.device import PciDevice

POWER, SLOT_ID, MSI, VENDOR, BRIDGE_SUBSYSTEM, EXPRESS, MSIX = 1, 4, 5, 9, 0x0D, 0x10, 0x11


class Capability(Stateful):
    """`body`: what follows the two bytes of the header, after reset; `mask`: which of its bits a guest may write."""

    def __init__(self, id: int, body: bytes, mask: bytes = b"") -> None:
        self.id, self.body, self.mask = id, body, mask.ljust(len(body), b"\0")
        self.offset = 0
        self.device: Any = None

    @property
    def size(self) -> int:
        return 2 + len(self.body)

    def attach(self, device: PciDevice, offset: int) -> None:
        """It lies at `offset` of the function's configuration space from now on."""
        self.device, self.offset = device, offset
        for n, bits in enumerate(self.mask):
            device.config.allow(offset + 2 + n, 1, bits)
        if any(self.mask):
            device.config.watch(offset + 2, len(self.body), True)
        self.reset()

    def reset(self) -> None:
        for n, value in enumerate(self.body):
            self.device.config.set_byte(self.offset + 2 + n, value)

    def written(self) -> None:
        """The guest wrote to it."""


class Msi(Capability):
    """1, 2, 4 … 32 vectors. `wide`: 64-bit address; `masks`: a mask bit for each vector."""

    def __init__(self, vectors: int = 1, wide: bool = True, masks: bool = False) -> None:
        if vectors not in (1, 2, 4, 8, 16, 32):
            raise BuildError(f"MSI has 1, 2, 4, 8, 16 or 32 vectors, not {vectors}")
        self.vectors, self.wide, self.masks = vectors, wide, masks
        control = (vectors.bit_length() - 1) << 1 | (0x80 if wide else 0) | (0x100 if masks else 0)
        body = control.to_bytes(2, "little")
        mask = b"\x71\0\xfc\xff\xff\xff"
        if wide:
            mask += b"\xff" * 4
        mask += b"\xff\xff"
        if masks:
            mask += b"\0\0" + ((1 << vectors) - 1).to_bytes(4, "little") + bytes(4)
        super().__init__(MSI, body.ljust(len(mask), b"\0"), mask)

    def attach(self, device: PciDevice, offset: int) -> None:
        sink = device.platform.accelerator.msi_sink()
        self.chip = MsiChip(device.config, device.dma, sink, offset, self.vectors, self.wide, self.masks)
        super().attach(device, offset)

    @property
    def enabled(self) -> bool:
        return bool(self.chip.is_enabled())

    def written(self) -> None:
        if self.enabled:
            self.device.intx.drive(0)  # one way of interrupting or the other
        self.chip.settle()


MOST_VECTORS = 2048


class Msix(Capability):
    """Up to 2048 vectors, whose table and pending bits lie in BARs. `show` maps them."""

    state = Table("msix", 1, Part("chip"))

    def __init__(self, vectors: int, table_bar: int, table: int, pending_bar: int, pending: int) -> None:
        if not 0 < vectors <= MOST_VECTORS:
            raise BuildError(f"{vectors} MSI-X vectors; a function has 1 to {MOST_VECTORS}")
        self.vectors, self.table, self.pending = vectors, table, pending
        body = (vectors - 1).to_bytes(2, "little")
        body += (table | table_bar).to_bytes(4, "little") + (pending | pending_bar).to_bytes(4, "little")
        super().__init__(MSIX, body, b"\0\xc0")

    def attach(self, device: PciDevice, offset: int) -> None:
        sink = device.platform.accelerator.msi_sink()
        self.chip = MsixChip(device.config, device.dma, sink, offset, self.vectors)
        super().attach(device, offset)

    def show(self, bar: Region) -> None:
        """Put table and pending bits into the container that is their BAR."""
        from accel.space import Region

        size = (self.vectors + 63) // 64 * 8
        bar.add(Region.device("msix-table", self.chip.table_io, 16 * self.vectors), self.table, 1)
        bar.add(Region.device("msix-pba", self.chip.pending_io, size), self.pending, 1)

    @property
    def enabled(self) -> bool:
        return bool(self.chip.is_enabled())

    def reset(self) -> None:
        super().reset()
        self.chip.reset()

    def written(self) -> None:
        if self.enabled:
            self.device.intx.drive(0)
        self.chip.settle()


class SlotId(Capability):
    """Number of the chassis that a bridge's slots are in, and how many slots those are."""

    def __init__(self, chassis: int, slots: int = 0) -> None:
        super().__init__(SLOT_ID, bytes((0x20 | slots, chassis)), b"\0\xff")


class BridgeSubsystem(Capability):
    """Subsystem ids of a bridge, whose header has no room for them."""

    def __init__(self, vendor: int = 0, device: int = 0) -> None:
        super().__init__(BRIDGE_SUBSYSTEM, bytes(2) + vendor.to_bytes(2, "little") + device.to_bytes(2, "little"))


class Vendor(Capability):
    """The vendor's own: a length byte is put before `body`."""

    def __init__(self, body: bytes, mask: bytes = b"") -> None:
        super().__init__(VENDOR, bytes((3 + len(body),)) + body, b"\0" + mask)


class PowerManagement(Capability):
    """`capabilities` is PMC, `mask` what a guest may write of PMCSR, the power state by default: the function's own
    behaviour stays as it is in D0, as in qemu-kvm.
    """

    def __init__(self, capabilities: int = 0x0003, mask: int = 0x0003, control: int = 0) -> None:
        body = capabilities.to_bytes(2, "little") + control.to_bytes(2, "little") + bytes(2)
        super().__init__(POWER, body, bytes(2) + mask.to_bytes(2, "little"))


class PcieEndpoint(Capability):
    """A PCI Express endpoint, version 1 or 2, whose link of one lane at 2.5 GT/s is always up. `function_reset`: it
    says that it can be reset alone.
    """

    def __init__(self, version: int = 2, function_reset: bool = False) -> None:
        body = bytearray(0x3A if version == 2 else 0x12)
        mask = bytearray(len(body))

        def put(offset: int, value: int, size: int) -> None:
            body[offset - 2 : offset - 2 + size] = value.to_bytes(size, "little")

        put(0x02, version, 2)
        put(0x04, 0x8000 | function_reset << 28, 4)  # device capabilities: role-based errors
        put(0x0C, 0x0411, 4)  # link capabilities: L0s, one lane, 2.5 GT/s
        put(0x12, 0x0011, 2)  # link status: the same, negotiated
        if version == 2:
            put(0x24, 0x00300000, 4)  # device capabilities 2: extended format, end-end TLP prefixes
            mask[0x29 - 2] = 0x80  # device control 2: those prefixes blocked
        super().__init__(EXPRESS, bytes(body), bytes(mask))
