"""Disks and CD-ROM drives on a SCSI bus: a drive's image as a unit, and what it says of itself.

Ref: T10 SPC-3 7.6 (vital product data), SBC-3 6.5. The values are those that qemu-kvm's units show.
"""

from __future__ import annotations

import struct

from vmrun.core.bios_geometry import BiosGeometry
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.filled import filled
from vmrun.core.interfaces import DiskGeometry
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.identify import guess_geometry
from vmrun.devices.storage.scsi_unit import DiskUnit
from vmrun.devices.storage.tray import Tray
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

DISK, ROM = 0, 5
CD_BLOCK = 2048
ERRORS = ("auto", "report", "ignore", "stop", "enospc")
DISCARD = 4096  # bytes: granularity when it is not given
MOST_UNMAP_RANGES = 255
MOST_ID = 255 - 8
ON_THE_BUS = 5 << 4  # code sets of a SAS port's descriptors: the protocol is that of SAS


class ScsiDevice(Device, Tray):
    """What disks and CD-ROM drives share. `chip` is the DiskUnit."""

    bus = "SCSI"
    cd = False
    product_name = "QEMU HARDDISK"
    removable = False

    channel = Prop("uint32", 0, "of the bus")
    scsi_id = named("scsi-id", "uint32", None, "target; the first free one when it is not given")
    lun = Prop("uint32", None, "unit of the target; the first free one when it is not given")
    drive = Prop("drive", None, "the drive whose image it shows", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    serial = Prop("str", None, "serial number; none when neither this nor the drive gives one")
    ver = Prop("str", None, "firmware revision, 4 characters; the machine type's when it is not given")
    vendor = Prop("str", None, "8 characters; QEMU when it is not given")
    product = Prop("str", None, "16 characters")
    device_id = Prop("str", None, "designator of page 83h; the serial number or the drive's id when it is not given")
    wwn = Prop("uint64", 0, "world-wide name, 0 for none")
    port_wwn = Prop("uint64", 0, "the port's, 0 for none")
    port_index = Prop("uint16", 0, "number of the port, 0 for none")
    scsi_version = Prop("int32", 5, "what INQUIRY says: 5 is SPC-3", min=0, max=7)
    max_io_size = Prop("uint64", 0x7FFFFFFF, "bytes of one command, as page B0h tells")
    logical_block_size = Prop("size", 512, "bytes per block", min=512, max=32768)
    physical_block_size = Prop("size", 512, "bytes per physical block", min=512, max=2097152)
    min_io_size = Prop("size", 0, "bytes that are moved at least, as a hint", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "bytes that are best moved at once, as a hint", max=0xFFFFFFFF)
    discard_granularity = Prop(
        "size", None, "bytes; 4096 when it is not given, 0: blocks cannot be unmapped", max=0xFFFFFFFF
    )
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)

    def realize(self, platform: Platform) -> None:
        if not self.drive and not self.cd:
            raise BuildError(f"{self.path}: drive property not set", remedy="add `drive: <id of a drive>`")
        if not self.cd:
            backend: Any = filled(platform, self.drive)
        else:
            backend = platform.drive(self.drive) if self.drive else platform.bay(self)
        self.backend = backend
        self.backend.set_errors(self.rerror, self.werror)
        check_block_sizes(self)
        if self.drive and self.write_cache != "auto":
            backend.write_cache = self.write_cache == "on"
        bus = self.parent_bus
        place = bus.take_place(self, self.channel, self.scsi_id, self.lun)
        try:
            self.chip = self._unit(platform)
            self.chip.place(*place)
            for name, value in zip(("channel", "scsi-id", "lun"), place, strict=True):
                self.prop_values[name] = value
            self.watch_tray(platform)
            with bus.units:
                bus.units.add(self.chip)
        except BaseException:
            bus.leave(self)
            raise

    def unrealize(self) -> None:
        with self.parent_bus.units:
            self.parent_bus.units.remove(self.chip)
        self.parent_bus.leave(self)
        super().unrealize()

    def reset(self) -> None:
        with self.parent_bus.units:
            super().reset()

    def open_tray(self, force: bool) -> tuple[bool, bool]:
        with self.parent_bus.units:
            return super().open_tray(force)

    def close_tray(self) -> bool:
        with self.parent_bus.units:
            return super().close_tray()

    def resized(self) -> None:
        """The drive has another size: capacity data has changed."""
        with self.parent_bus.units:
            self.chip.tell(0x2A, 0x09)
            if self.parent_bus.changed is not None:
                self.parent_bus.changed(self.chip, 0x2A, 0x09)

    # --- what it says of itself -------------------------------------------------------------------------------

    def block_size(self) -> int:
        return CD_BLOCK if self.cd else int(self.logical_block_size)

    def granularity(self) -> int:
        if self.discard_granularity is None:
            return max(int(self.logical_block_size), DISCARD)
        return int(self.discard_granularity)

    def _unit(self, platform: Platform) -> DiskUnit:
        block = self.block_size()
        cyls, heads, secs = (0, 0, 0) if self.cd else self.geometry()
        chip = DiskUnit(
            self.backend,
            self.cd,
            block,
            self._inquiry(platform),
            self._vital(block),
            _geometry_page(cyls, heads),
            _flexible_page(cyls, heads, secs, block),
            bool(self.removable),
        )
        chip.thin = bool(self.granularity())
        chip.strict = self.scsi_version > 2
        chip.dpofua = bool(getattr(self, "dpofua", False))
        if not self.cd:
            chip.physical_exponent = (self.physical_block_size // self.logical_block_size).bit_length() - 1
        return chip

    def _inquiry(self, platform: Platform) -> bytes:
        def text(value: str, size: int) -> bytes:
            return value.encode("ascii", "replace")[:size].ljust(size)

        data = bytes((
            ROM if self.cd else DISK,
            0x80 if self.removable else 0,
            self.scsi_version,
            0x12,  # hierarchical addressing, format 2
            31,
            0,
            0,
            0x12 if self.parent_bus.units.queueing else 0x10,
        ))  # fmt: skip
        version = (self.ver or platform.hw_version).encode("ascii", "replace")[:4]
        names = text(self.vendor or "QEMU", 8) + text(self.product or self.product_name, 16)
        return data + names + version.ljust(4, b"\0")

    def _vital(self, block: int) -> dict[int, bytes]:
        """Vital product data by page, with headers."""
        serial = (self.serial or self.backend.serial or "").encode("ascii", "replace")
        pages = {0x83: self._designators(serial)}
        if serial:
            pages[0x80] = serial[:36]
        if self.cd:  # not on the list, but there
            pages |= {0xB1: self._characteristics(), 0xB2: self._provisioning()}
        else:
            pages |= {0xB0: self._limits(block), 0xB1: self._characteristics(), 0xB2: self._provisioning()}
        pages[0] = bytes(sorted((0, *(page for page in pages if not self.cd or page < 0xB0))))
        kind = ROM if self.cd else DISK
        return {code: bytes((kind, code, 0, len(data))) + data for code, data in pages.items()}

    def _designators(self, serial: bytes) -> bytes:
        id = self.device_id.encode("ascii", "replace") if self.device_id else serial[:20] or (self.drive or "").encode()
        id = id[:MOST_ID]
        data = bytes((2, 0, 0, len(id))) + id if id else b""
        if self.wwn:
            data += bytes((1, 3, 0, 8)) + self.wwn.to_bytes(8, "big")
        if self.port_wwn:
            data += bytes((0x61, 0x93, 0, 8)) + self.port_wwn.to_bytes(8, "big")
        if self.port_index:
            data += bytes((0x61, 0x94, 0, 4)) + self.port_index.to_bytes(4, "big")
        return data[:255]

    def _limits(self, block: int) -> bytes:
        most = min(self.max_io_size // block, 0xFFFFFFFF)
        least, best = (self.min_io_size // block, self.opt_io_size // block)
        if most:
            least, best = min(least, most), min(best, most)
        unmap = min(int(getattr(self, "max_unmap_size", 0)) // block, 0xFFFFFFFF)
        return struct.pack(
            ">BBHIIIIIIIQ20x",
            1,  # a WRITE SAME of no blocks is refused
            0,
            min(least, 0xFFFF),
            most,
            min(best, 0xFFFFFFFF),
            0,
            unmap,
            MOST_UNMAP_RANGES,
            self.granularity() // block,
            0,
            most,
        )[:0x3C]

    def _characteristics(self) -> bytes:
        return struct.pack(">H58x", int(getattr(self, "rotation_rate", 0)))

    def _provisioning(self) -> bytes:
        return bytes((0, 0xE0, 2 if self.granularity() else 1, 0))  # UNMAP and both WRITE SAME

    def geometry(self) -> tuple[int, int, int]:
        """(cylinders, heads, sectors)."""
        given = tuple(int(getattr(self, name, 0)) for name in ("cyls", "heads", "secs"))
        if all(given):
            return given[0], given[1], given[2]
        first = self.backend.read_bytes(0, 512) if self.backend.size >= 512 else b""
        return guess_geometry(first, self.backend.size // 512)


def _geometry_page(cyls: int, heads: int) -> bytes:
    """Rigid disk geometry, 04h: cylinders, heads, step rate in ns, landing zone, revolutions per minute."""
    at = cyls.to_bytes(4, "big")[1:]
    steps = bytes((0, 200, 0xFF, 0xFF, 0xFF, 0, 0, 0))
    return at + bytes((heads & 0xFF,)) + at + at + steps + (5400).to_bytes(2, "big") + bytes(2)


def _flexible_page(cyls: int, heads: int, secs: int, block: int) -> bytes:
    """Flexible disk, 05h: rate in kbit/s, geometry, step and motor times."""
    at = struct.pack(">H", cyls & 0xFFFF)
    head = struct.pack(">HBBH", 5000, heads & 0xFF, secs & 0xFF, block & 0xFFFF)
    return head + at * 3 + bytes((0, 1, 1, 0, 1, 1, 1)) + bytes(7) + struct.pack(">H", 5400) + bytes(2)


class ScsiDiskBase(ScsiDevice, DiskGeometry):
    cyls = Prop("uint32", 0, "cylinders, 0 to work the geometry out", max=65535)
    heads = Prop("uint32", 0, "heads", max=255)
    secs = Prop("uint32", 0, "sectors per track", max=255)
    dpofua = Prop("bool", False, "tells that it takes DPO and FUA bits")
    max_unmap_size = Prop("uint64", 1 << 30, "bytes of one UNMAP, as page B0h tells")
    rotation_rate = Prop("uint16", 0, "1: solid state; revolutions per minute; 0: not told")


@register("scsi-hd", description="SCSI disk")
class ScsiHd(ScsiDiskBase, BiosGeometry):
    removable_ = named("removable", "bool", False, "the medium can be taken out")

    def realize(self, platform: Platform) -> None:
        self.removable = bool(self.removable_)
        super().realize(platform)


@register("scsi-cd", description="SCSI CD-ROM drive")
class ScsiCd(ScsiDevice):
    """A drive without a medium, or without a `drive`, is empty."""

    cd = True
    product_name = "QEMU CD-ROM"
    removable = reads_only = True


@register("scsi-disk", description="SCSI disk or CD-ROM drive, as QEMU up to 1.x and RHEL 6 name it")
class ScsiDisk(ScsiDiskBase):
    """The drive's medium decides."""

    removable_ = named("removable", "bool", False, "the medium can be taken out")

    def realize(self, platform: Platform) -> None:
        self.cd = bool(self.drive) and bool(platform.drive(self.drive).cdrom)
        self.removable = self.cd or bool(self.removable_)
        if self.cd:
            self.product_name = "QEMU CD-ROM"
        super().realize(platform)
