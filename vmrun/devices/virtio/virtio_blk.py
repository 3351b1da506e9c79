"""virtio-blk-pci: a drive as a virtio disk.

Not modelled: SCSI commands (the feature of old types is offered and each is answered 'unsupported').
"""

from __future__ import annotations

import struct

from vmrun.bus.virtio.pci import UNSET, NonTransitional, Transitional, VirtioPci
from vmrun.core.bios_geometry import BiosGeometry
from vmrun.core.blocksizes import check_block_sizes
from vmrun.core.filled import filled
from vmrun.core.props import Prop, named
from vmrun.core.registry import register
from vmrun.devices.virtio.blk import BlkChip
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

SEG_MAX, GEOMETRY, READ_ONLY, BLK_SIZE, SCSI, FLUSH, TOPOLOGY, CONFIG_WCE, MULTI_QUEUE, DISCARD, WRITE_ZEROES = (
    1 << n for n in (2, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14)
)
ERRORS = ("auto", "report", "ignore", "stop", "enospc")
SECTOR = 512
WCE_OFFSET = 32
MOST_DISCARD = 0x7FFFFFFF // SECTOR
AUTO_QUEUES = 0xFFFF
OLD_SEG_MAX = 126


@register("virtio-blk-pci", "virtio-blk", description="virtio disk")
class VirtioBlk(VirtioPci, BiosGeometry):
    parents = (*VirtioPci.parents, "virtio-blk-device")
    class_code = 0x010000
    virtio_id, legacy_device_id = 2, 0x1001
    own_locks = True

    iothread = Prop("object", None, "the iothread that serves its queues", visible=False, of=("iothread",))
    drive = Prop("drive", None, "the drive whose image it shows", visible=False)
    bootindex = Prop("int32", None, "place in the boot order, 0 first")
    serial = Prop("str", None, "serial number, 20 characters")
    cyls = Prop("uint32", 0, "cylinders, 0 to work the geometry out", max=65535)
    heads = Prop("uint32", 0, "heads", max=255)
    secs = Prop("uint32", 0, "sectors per track", max=255)
    logical_block_size = Prop("size", 512, "bytes per block", min=512, max=32768)
    physical_block_size = Prop("size", 512, "bytes per physical block", min=512, max=2097152)
    min_io_size = Prop("size", 0, "bytes that are moved at least, as a hint", max=0xFFFFFFFF)
    opt_io_size = Prop("size", 0, "bytes that are best moved at once, as a hint", max=0xFFFFFFFF)
    discard_granularity = Prop("size", None, "bytes; the block size when it is not given", max=0xFFFFFFFF)
    rerror = Prop("enum", "auto", "what a read error does", choices=ERRORS, visible=False)
    werror = Prop("enum", "auto", "what a write error does", choices=ERRORS, visible=False)
    write_cache = named("write-cache", "enum", "auto", "volatile cache", choices=("auto", "on", "off"))
    share_rw = named("share-rw", "bool", False, "others may write the image", visible=False)
    config_wce = named("config-wce", "bool", True, "the guest may switch the volatile cache")
    discard = Prop("bool", True, "offer discard")
    write_zeroes = named("write-zeroes", "bool", True, "offer write zeroes")
    max_discard = named("max-discard-sectors", "uint32", MOST_DISCARD, "of one discard", min=1, max=MOST_DISCARD)
    max_zeroes = named("max-write-zeroes-sectors", "uint32", MOST_DISCARD, "of one", min=1, max=MOST_DISCARD)
    num_queues = named("num-queues", "uint16", AUTO_QUEUES, "queues; as many as processors when it is not given")
    queue_size = named("queue-size", "uint16", 256, "entries of a queue", min=2, max=1024)
    seg_max_adjust = named("seg-max-adjust", "bool", True, "pieces of a request follow from queue-size")
    request_merging = named(
        "request-merging", "bool", True, "neighbours may be joined on the host", visible=False,
        idle="requests are passed on as they come",
    )
    report_granularity = named("report-discard-granularity", "bool", True, "tell the drive's granularity of discards")
    wce_only_with_config = named("x-enable-wce-if-config-wce", "bool", True, "offer flushes with config-wce")
    scsi = Prop("bool", False, "offer SCSI commands; each is answered as unsupported")
    class_ = named("class", "uint32", 0, "PCI class and sub-class, 0 for a disk's")
    data_plane = named(
        "x-data-plane", "bool", False, "a thread of its own; makes no difference", visible=False,
        idle="queues have a thread anyway; `iothread` gives one of their own",
    )

    def make_chip(self, platform: Platform) -> BlkChip:
        if not self.drive:
            raise BuildError(f"{self.path}: drive property not set", remedy="add `drive: <id of a drive>`")
        if self.queue_size & (self.queue_size - 1):
            raise BuildError(f"{self.path}: queue-size {self.queue_size} is no power of two")
        check_block_sizes(self)
        self.queues = len(platform.processors) if self.num_queues == AUTO_QUEUES else self.num_queues
        if not 1 <= self.queues <= 64:
            raise BuildError(f"{self.path}: a disk has 1 to 64 queues, not {self.queues}")
        self.backend: Any = filled(platform, self.drive)
        self.backend.set_errors(self.rerror, self.werror)
        if self.write_cache != "auto":
            self.backend.write_cache = self.write_cache == "on"
        if self.class_:
            self.config.set_word(10, self.class_)
        chip = BlkChip(self.dma, [self.queue_size] * self.queues, self.backend)
        chip.block_size = self.logical_block_size
        chip.most_discard, chip.most_zeroes = self.max_discard, self.max_zeroes
        chip.set_serial((self.serial or self.backend.serial or "").encode("ascii", "replace")[:20])
        chip.offered = self._offered()
        chip.legacy_only = SCSI
        self.cached = bool(self.backend.write_cache)
        chip.on_start, chip.on_config, chip.on_stop = self._started, self._set_cache, self._stopped
        chip.set_config(self._shown())
        return chip

    def default_vectors(self) -> int:
        return self.queues + 1

    def _offered(self) -> int:
        wce = self.config_wce
        features = 0
        for wanted, bit in (
            (True, SEG_MAX | GEOMETRY | TOPOLOGY | BLK_SIZE),
            (self.backend.readonly, READ_ONLY),
            (self.scsi, SCSI),
            (wce, CONFIG_WCE),
            (self.backend.write_cache or (wce and self.wce_only_with_config) or not self.wce_only_with_config, FLUSH),
            (self.queues > 1, MULTI_QUEUE),
            (self.discard, DISCARD),
            (self.write_zeroes, WRITE_ZEROES),
        ):
            features |= bit if wanted else 0
        return features

    def _shown(self) -> bytes:
        """The device's configuration."""
        block = self.logical_block_size
        sectors = self.backend.size // SECTOR
        cylinders, heads, secs = self._geometry(sectors)
        exponent = (self.physical_block_size // block).bit_length() - 1
        data = struct.pack(
            "<QIIHBBIBBHIBxH",
            sectors,
            0,
            self.queue_size - 2 if self.seg_max_adjust else OLD_SEG_MAX,
            cylinders,
            heads,
            secs,
            block,
            exponent,
            0,
            self.min_io_size // block,
            self.opt_io_size // block,
            int(self.backend.write_cache),
            self.queues,
        )
        granularity = self.discard_granularity if self.report_granularity else None
        discard = (self.max_discard, 1, (granularity or block) // SECTOR) if self.discard else (0, 0, 0)
        if self.discard or self.write_zeroes:
            data += struct.pack("<III", *discard)
        if self.write_zeroes:
            data += struct.pack("<IIB", self.max_zeroes, 1, 1)
        return data

    def _geometry(self, sectors: int) -> tuple[int, int, int]:
        """(cylinders, heads, sectors) as a disk of an IDE channel would have them."""
        if self.cyls and self.heads and self.secs:
            return self.cyls, self.heads, self.secs
        return max(2, min(16383, sectors // (16 * 63))), 16, 63

    def _started(self, flushes: bool) -> None:
        """A driver that cannot switch the cache, and does not flush either, gets one that needs no flushing."""
        if not self.chip.accepted & CONFIG_WCE:
            self._set_cache(flushes)

    def _stopped(self) -> None:
        self._set_cache(self.cached)

    def _set_cache(self, on: bool) -> None:
        self.backend.write_cache = on
        self.chip.set_config(self._shown())

    def settle(self) -> None:
        """What of a saved configuration is the driver's is the cache; the rest is as it is."""
        super().settle()
        if self.chip.accepted & CONFIG_WCE:
            self.backend.write_cache = bool(self.chip.get_config()[WCE_OFFSET])
        self.chip.set_config(self._shown())

    def resized(self) -> None:
        """The drive has another size: tell the guest."""
        self.chip.set_config(self._shown())
        self.chip.tell_config_changed()


__all__ = ["UNSET", "VirtioBlk"]


@register("virtio-blk-pci-transitional", description="virtio disk, legacy and modern")
class VirtioBlkTransitional(Transitional, VirtioBlk):
    """The same; registers of both kinds."""


@register("virtio-blk-pci-non-transitional", description="virtio disk, modern")
class VirtioBlkNonTransitional(NonTransitional, VirtioBlk):
    """The same, without legacy registers."""
