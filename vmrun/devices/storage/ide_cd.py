"""A CD-ROM drive on a unit of an IDE bus: the packet unit, its drive and its tray."""

from __future__ import annotations

from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.atapi import PacketUnit
from vmrun.devices.storage.ide_hd import ERRORS, IdeDisk
from vmrun.devices.storage.identify import identify_packet
from vmrun.devices.storage.tray import Tray

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

MODEL = "QEMU DVD-ROM"


def names(serial: str, model: str, wwn: int) -> bytes:
    """Designators of INQUIRY's page 83h (SPC-3 7.6.3): the serial number; vendor, model and serial number; the WWN."""
    number = serial.encode("ascii", "replace")[:20].ljust(20)
    whole = b"ATA     " + model.encode("ascii", "replace")[:40].ljust(40) + number
    found = bytes((2, 0, 0, len(number))) + number + bytes((2, 1, 0, len(whole))) + whole
    return found + bytes((1, 3, 0, 8)) + wwn.to_bytes(8, "big") if wwn else found


def attach(device: Any, platform: Platform, model: str = MODEL) -> PacketUnit:
    """Put a CD-ROM drive on `device`'s bus and unit."""
    check_block_sizes(device, ide=True)
    backend: Any = platform.drive(device.drive) if device.drive else platform.bay(device)
    backend.set_errors(device.rerror, device.werror)
    unit = device.parent_bus.take_unit(device.unit, device)
    number = 2 * list(device.parent_bus.owner.buses).index(device.parent_bus.name) + unit + 1
    serial = device.serial or backend.serial or f"QM{number:05d}"
    firmware = device.ver or platform.hw_version
    text = f"QEMU    {MODEL:16}{firmware:4.4}".encode("ascii", "replace")
    packets = PacketUnit(backend, text, names(serial, model, device.wwn))
    data = identify_packet(serial=serial, model=model, firmware=firmware, wwn=device.wwn)
    device.parent_bus.channel.attach_packet(unit, packets, data)
    return packets


@register("ide-cd", description="CD-ROM drive on IDE")
class IdeCd(Device, Tray):
    """A drive without a medium, or without a `drive`, is empty. `chip` is its PacketUnit."""

    bus = "IDE"
    reads_only = True

    unit = Prop("uint32", None, "0 master, 1 slave; the first free one when it is not given", max=1)
    drive = Prop("drive", None, "the drive whose image is the medium; none: an empty tray", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    serial = Prop("str", None, "serial number, 20 characters; QM0000n when it is not given")
    ver = Prop("str", None, "firmware revision, 8 characters; the machine type's when it is not given")
    model = Prop("str", None, "model name, 40 characters")
    wwn = Prop("uint64", 0, "world-wide name, 0 for none")
    logical_block_size = Prop("size", 512, "no effect", min=512, max=2048, idle="a disc has sectors of 2048 bytes")
    physical_block_size = Prop("size", 512, "no effect", min=512, max=2097152, idle="a disc has sectors of 2048 bytes")
    min_io_size = Prop("size", 0, "told to nobody by an IDE drive", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "told to nobody by an IDE drive", max=0xFFFFFFFF)
    discard_granularity = Prop("size", None, "no effect", max=0xFFFFFFFF, idle="compact discs discard nothing")
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error would do", choices=ERRORS, visible=False)
    write_cache = named(
        "write-cache", "enum", "auto", "no effect", choices=("auto", "on", "off"), idle="nothing is written",
    )
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)

    def realize(self, platform: Platform) -> None:
        self.chip = attach(self, platform, self.model or MODEL)
        self.watch_tray(platform)


@register("ide-drive", description="IDE disk or CD-ROM drive, as RHEL 6 names it")
class IdeDrive(IdeDisk, Tray):
    """RHEL 6 has this one driver for disks and CD-ROMs; the drive's medium decides."""

    removable = False

    def realize(self, platform: Platform) -> None:
        if self.drive and platform.drive(self.drive).cdrom:
            self.chip = attach(self, platform)
            self.removable = True
            self.watch_tray(platform)
        else:
            super().realize(platform)
