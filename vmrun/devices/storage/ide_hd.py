"""An IDE hard disk: a drive's image on a unit of an IDE bus."""

from __future__ import annotations

from vmrun.core.bios_geometry import BiosGeometry
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.filled import filled
from vmrun.core.interfaces import DiskGeometry
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.identify import guess_geometry, identify
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.core.platform import Platform

MOST_SECTORS = 1 << 48
ERRORS = ("auto", "report", "ignore", "stop", "enospc")  # auto: as the drive says


class IdeDisk(Device, DiskGeometry):
    bus = "IDE"

    unit = Prop("uint32", None, "0 master, 1 slave; the first free one when it is not given", max=1)
    drive = Prop("drive", None, "the drive whose image it shows", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    serial = Prop("str", None, "serial number, 20 characters; QM0000n when it is not given")
    ver = Prop("str", None, "firmware revision, 8 characters; the machine type's when it is not given")
    wwn = Prop("uint64", 0, "world-wide name, 0 for none")
    cyls = Prop("uint32", 0, "cylinders, 0 to work the geometry out", max=16383)
    heads = Prop("uint32", 0, "heads", max=16)
    secs = Prop("uint32", 0, "sectors per track", max=63)
    logical_block_size = Prop("size", 512, "bytes per sector", min=512, max=512)
    physical_block_size = Prop("size", 512, "bytes per physical sector", min=512, max=2097152)
    min_io_size = Prop("size", 0, "told to nobody by an IDE disk", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "told to nobody by an IDE disk", max=0xFFFFFFFF)
    discard_granularity = Prop("size", 0, "0: the disk knows no TRIM", max=0xFFFFFFFF)
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)

    model_name = "QEMU HARDDISK"

    def realize(self, platform: Platform) -> None:
        if not self.drive:
            raise BuildError(f"{self.path}: {self.driver} needs a drive", remedy="add `drive: <id of a drive>`")
        check_block_sizes(self, ide=True)
        self.backend = filled(platform, self.drive)
        if self.backend.size // 512 > MOST_SECTORS:
            raise BuildError(f"{self.path}: the image is larger than ATA can address")
        self.backend.set_errors(self.rerror, self.werror)
        unit = self.parent_bus.take_unit(self.unit, self)
        geometry = self.geometry()
        channel = self.parent_bus.channel
        number = 2 * list(self.parent_bus.owner.buses).index(self.parent_bus.name) + unit + 1
        serial = self.serial or self.backend.serial or f"QM{number:05d}"
        data = identify(
            self.backend.size // 512,
            geometry,
            serial=serial,
            model=self.shown_model(),
            firmware=self.ver or platform.hw_version,
            physical_exponent=(self.physical_block_size // self.logical_block_size).bit_length() - 1,
            wwn=self.wwn,
            rotation_rate=self.shown_rotation(),
            discard=self.discards(),
        )
        channel.attach(unit, self.backend, data, *geometry)

    def shown_model(self) -> str:
        return self.model_name

    def shown_rotation(self) -> int:
        return 0

    def discards(self) -> bool:
        return bool(self.discard_granularity != 0)

    def geometry(self) -> tuple[int, int, int]:
        """(cylinders, heads, sectors) that the disk reports."""
        if self.cyls and self.heads and self.secs:
            return self.cyls, self.heads, self.secs
        return guess_geometry(self.backend.read_bytes(0, 512), self.backend.size // 512)


@register("ide-hd", description="IDE hard disk")
class IdeHd(IdeDisk, BiosGeometry):
    model = Prop("str", None, "model name, 40 characters")
    discard_granularity = Prop("size", None, "0: the disk knows no TRIM", max=0xFFFFFFFF)
    rotation_rate = Prop("uint16", 0, "1: solid state; revolutions per minute; 0: not told")
    trans = named(
        "bios-chs-trans",
        "enum",
        "auto",
        "geometry translation that the firmware is told",
        choices=("auto", "none", "lba", "large", "rechs"),
    )
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)

    def shown_model(self) -> str:
        return self.model or self.model_name

    def shown_rotation(self) -> int:
        return int(self.rotation_rate)
