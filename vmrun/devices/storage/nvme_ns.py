"""nvme-ns: a namespace of an NVMe controller; nvme-subsys: what several controllers and namespaces have in common.

Ref: NVM Express 1.4. Not modelled: metadata (`ms`), protection (`pi`), zones. Departures: a copy that cannot be is
refused with the status that says why (QEMU: an internal error).
"""

from __future__ import annotations

import uuid

from vmrun.bus.nvme import Subsystem
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.filled import filled
from vmrun.core.object import Device
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.core.state import Part
from vmrun.devices.storage.ide_hd import ERRORS
from vmrun.devices.storage.nvme_space import NvmeSpace
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

GRANULARITY = 4096
EUI64 = 0x5254 << 48  # of namespaces that are given none, with their number among all
ONLY = "there is no other value here"
NO_ZONES = "the namespace has no zones"


def granularity(device: Any) -> int:
    """Bytes that are given back at once."""
    given = device.discard_granularity
    return max(int(device.logical_block_size), GRANULARITY) if given is None else int(given)


@register("nvme-subsys", description="NVM subsystem: NVMe controllers that share namespaces")
class NvmeSubsys(Device):
    hotpluggable = False

    nqn = Prop("str", None, "the end of its qualified name; its id when it is not given")

    def realize(self, platform: Platform) -> None:
        self.qualified_name = f"nqn.2019-08.org.qemu:{self.nqn or self.name}"
        self.subsystem = Subsystem(self.path)


@register("nvme-ns", description="a namespace of an NVMe controller")
class NvmeNs(Device):
    bus = "nvme-bus"
    hotpluggable = False

    state = Device.state.extend("nvme-ns", 1, Part("space"))

    drive = Prop("drive", None, "the drive whose image it shows", visible=False)
    nsid = Prop("uint32", 0, "its number, 1 to 256; 0: the first that is free")
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    shared = Prop("bool", True, "all controllers of the subsystem have it; without one there is one controller")
    detached = Prop("bool", False, "attached to no controller until a guest does that; for controllers of a subsystem")
    uuid = Prop("str", None, "UUID that it tells, or auto for a new one; none: it tells none")
    eui64 = Prop("uint64", 0, "extended unique identifier, 0 for none")
    eui64_default = named("eui64-default", "bool", False, "it has an eui64 where none is given, as before 7.1")
    logical_block_size = Prop("size", 512, "bytes per block", min=512, max=2097152)
    physical_block_size = Prop("size", 512, "told to nobody; not less than a block", min=512, max=2097152)
    min_io_size = Prop("size", 0, "told to nobody", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "told to nobody", max=0xFFFFFFFF)
    discard_granularity = Prop(
        "size", None, "bytes that are given back at once; 4096 when it is not given", max=0xFFFFFFFF
    )
    mcl = Prop("uint32", 128, "blocks of a copy")
    mssrl = Prop("uint16", 128, "blocks of a copy's range")
    msrc = Prop("uint8", 127, "ranges of a copy, less one")
    ms = Prop("uint16", 0, "bytes of metadata per block; only 0", max=0, visible=False, idle=ONLY)
    mset = Prop("uint8", 0, "where metadata is", visible=False, idle="no block has metadata")
    pi = Prop("uint8", 0, "protection; only 0", max=0, visible=False, idle=ONLY)
    pil = Prop("uint8", 0, "where protection is", visible=False, idle="no block is protected")
    pif = Prop("uint8", 0, "the form of protection", visible=False, idle="no block is protected")
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)
    zoned = Prop("bool", False, "it has zones; only off", visible=False, idle=ONLY)
    zone_size = named("zoned.zone_size", "size", 128 << 20, "bytes of a zone", visible=False, idle=NO_ZONES)
    zone_capacity = named("zoned.zone_capacity", "size", 0, "bytes of it in use", visible=False, idle=NO_ZONES)
    cross_read = named("zoned.cross_read", "bool", False, "reads go over zones", visible=False, idle=NO_ZONES)
    for _name in ("max_active", "max_open", "descr_ext_size", "numzrwa"):
        locals()[f"zone_{_name}"] = named(f"zoned.{_name}", "uint32", 0, "of zones", visible=False, idle=NO_ZONES)
    for _name, _default in (("zrwas", 0), ("zrwafg", None)):
        locals()[f"zone_{_name}"] = named(f"zoned.{_name}", "size", _default, "of zones", visible=False, idle=NO_ZONES)
    del _name, _default

    def realize(self, platform: Platform) -> None:
        if not self.drive:
            raise BuildError(f"{self.path}: block backend not configured", remedy="add `drive: <id of a drive>`")
        if self.zoned:
            raise BuildError(f"{self.path}: namespaces with zones are not modelled", remedy="leave `zoned` out")
        bus: Any = self.parent_bus
        if self.detached and not bus.subsystem.name:
            raise BuildError("detached requires that the nvme device is linked to an nvme-subsys device")
        backend = filled(platform, self.drive)
        check_block_sizes(self)
        backend.set_errors(self.rerror, self.werror)
        if self.write_cache != "auto":
            backend.write_cache = self.write_cache == "on"
        self.subsystem = bus.subsystem
        self.space = NvmeSpace(
            backend,
            self.subsystem.free(self.nsid),
            self.logical_block_size,
            granularity(self),
            (self.mcl, self.msrc, self.mssrl),
            self.eui64 or (EUI64 + self._count() if self.eui64_default else 0),
            self._uuid(),
            bool(self.shared and self.subsystem.name),
        )
        self.subsystem.add(self.space, None if self.detached else bus.chip)

    def _count(self) -> int:
        """Which of the machine's namespaces it is, from 1 on."""
        root: Any = self
        while root.parent is not None:
            root = root.parent
        spaces = (each for each in root.walk() if each.driver == "nvme-ns" or each.driver == "nvme" and each.drive)
        return 1 + sum(1 for each in spaces if each.realized)

    def _uuid(self) -> bytes | None:
        if not self.uuid:
            return None
        try:
            return uuid.uuid4().bytes if self.uuid == "auto" else uuid.UUID(self.uuid).bytes
        except ValueError:
            raise BuildError(f"{self.path}.uuid: '{self.uuid}' is no UUID") from None

    def resized(self) -> None:
        """The drive has another size now."""
        self.subsystem.resized(self.space)

    def unrealize(self) -> None:
        self.subsystem.remove(self.space)
        super().unrealize()
