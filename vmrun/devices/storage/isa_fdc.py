"""The PC's floppy disk controller at 0x3f0, and the drives on it."""

from __future__ import annotations

from vmrun.bus.floppy import FloppyBus
from vmrun.bus.isa import IsaDevice
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.floppies import TYPES, drive_type
from vmrun.core.interfaces import BusOwner, Removable
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.storage.fdc import Fdc, FdcPorts
from vmrun.devices.storage.ide_hd import ERRORS
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

SECTOR = 512


@register("isa-fdc", description="floppy disk controller")
class IsaFdc(IsaDevice, BusOwner):
    """Port 6 from its base belongs to the IDE channel."""

    provides = ("floppy",)
    hotpluggable = False
    resources = {"ports": [["iobase", 5, 1], ["iobase", 1, 7]], "irqs": ["irq"], "dmas": ["dma"]}

    iobase = Prop("uint32", 0x3F0, "first I/O port")
    irq = Prop("uint32", 6, "ISA interrupt")
    dma = Prop("uint32", 2, "DMA channel", max=3)
    drive_a = named("driveA", "drive", None, "the drive in A; the `floppy` device is the other way", visible=False)
    drive_b = named("driveB", "drive", None, "the drive in B", visible=False)
    type_a = named("fdtypeA", "enum", "auto", "type of drive A", choices=TYPES)
    type_b = named("fdtypeB", "enum", "auto", "type of drive B", choices=TYPES)
    fallback = Prop("enum", "288", "type of an empty drive", choices=TYPES)
    bootindex_a = named("bootindexA", "int32", None, "place of A in the boot order, 0 first")
    bootindex_b = named("bootindexB", "int32", None, "place of B in the boot order")
    check_media_rate = Prop("bool", True, "a data rate that is not the disk's fails")
    migrate_dir = Prop("bool", True, "no effect here", visible=False, idle="QEMU's saved state alone has it")

    def make_buses(self, names: list[str], platform: Platform) -> None:
        for name in names:
            self.buses[name] = FloppyBus(name, self)

    def realize(self, platform: Platform) -> None:
        if self.fallback in ("auto", "none"):
            raise BuildError(f"{self.path}.fallback: an empty drive is one of 120, 144 or 288")
        controller, channel = self.parent_bus.dma[self.dma] or (None, 0)
        self.chip = Fdc(self.isa_irq(self.irq), platform.timers, controller, channel, self.check_media_rate)
        self.map_io(FdcPorts(self.chip, 1), self.iobase + 1, 5)
        self.map_io(FdcPorts(self.chip, 7), self.iobase + 7, 1)
        for unit, (drive, kind) in enumerate(((self.drive_a, self.type_a), (self.drive_b, self.type_b))):
            if drive:
                for bus in self.buses.values():
                    bus.take_unit(unit, self)
                self.connect(unit, platform.drive(drive), kind)

    def unrealize(self) -> None:
        if self.chip is not None:
            self.chip.detach()
        super().unrealize()

    def connect(self, unit: int, backend: Any, kind: str) -> None:
        """A drive of that type; `auto` is as the disk in it needs."""
        sectors = int(backend.size) // SECTOR if backend.size else None
        self.chip.connect(unit, backend, drive_type(kind, sectors, self.fallback), self.fallback)


@register("floppy", description="floppy drive")
class Floppy(Device, Removable):
    """The medium of its drive is the disk; without one it is empty."""

    bus = "floppy"
    hotpluggable = False
    has_tray = False

    unit = Prop("uint32", None, "0: A, 1: B; the first free one when it is not given", max=1)
    drive = Prop("drive", None, "the drive whose image is the disk; none: an empty drive", visible=False)
    drive_type = named("drive-type", "enum", "auto", "what kind of drive; auto: as the first disk needs", choices=TYPES)
    logical_block_size = Prop("size", 512, "bytes per sector", min=512, max=512)
    physical_block_size = Prop("size", 512, "bytes per sector", min=512, max=512)
    min_io_size = Prop("size", 0, "told to nobody by a floppy drive", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "told to nobody by a floppy drive", max=0xFFFFFFFF)
    discard_granularity = Prop("size", None, "no effect", max=0xFFFFFFFF, idle="floppy disks discard nothing")
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)

    def realize(self, platform: Platform) -> None:
        check_block_sizes(self)
        backend: Any = platform.drive(self.drive) if self.drive else platform.bay(self)
        backend.set_errors(self.rerror, self.werror)
        if self.drive_type == "none":
            raise BuildError(f"{self.path}: a drive of type none is no drive", remedy="leave the device out")
        self.place = self.parent_bus.take_unit(self.unit, self)
        self.prop_values["unit"] = self.place
        self.controller = self.parent_bus.controller
        self.controller.connect(self.place, backend, self.drive_type)
        self.opened = False

    # --- Removable: a disk is just pulled out ---------------------------------------------------------------

    @property
    def tray_is_open(self) -> bool:
        return self.opened

    def open_tray(self, force: bool) -> tuple[bool, bool]:
        if self.opened:
            return False, False
        self.opened = True
        self.controller.chip.take_out(self.place)
        return True, False

    def close_tray(self) -> bool:
        if not self.opened:
            return False
        self.opened = False
        if self.controller.chip.backends[self.place].size:
            self.controller.chip.put_in(self.place)
        return True

