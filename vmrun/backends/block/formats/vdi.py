"""VDI: images of VirtualBox, version 1.1. One table gives blocks of 1 MiB their places.

Ref: the description of the format in VirtualBox's forum (All about VDIs) and what qemu-img 7.2 reads and writes.
"""

from __future__ import annotations

import errno
import os
import struct
import uuid
from array import array

from vmrun.backends.block.create import new_file, preallocate
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.formats import SECTOR, Layout, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.images import Access
    from vmrun.backends.block.node import Node

# text, signature, version, header's size, type, flags, description, table at, data at, geometry (4), -, size, block,
# extra, blocks, blocks with a place, then four UUIDs: image, last snapshot, link, parent
HEADER = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16s56x")
SIGNATURE, VERSION = 0xBEDA107F, 0x00010001
DYNAMIC, STATIC = 1, 2
ALLOCATED_AT = 0x184  # where in the header the number of blocks with a place is
BLOCK = 1 << 20
NOWHERE, DISCARDED = 0xFFFFFFFF, 0xFFFFFFFE
MOST_BLOCKS = 0x1FFFFF80
MOST_SIZE = MOST_BLOCKS * BLOCK

OPTIONS = {"static": "bool", "preallocation": "str", "size": "size", "nocow": "bool"}
SHOWN = (("size", None), ("static", False), ("nocow", None), ("preallocation", None))
HELP = {
    "size=<size>": "Virtual disk size", "static=<bool (on/off)>": "VDI static (pre-allocated) image",
}  # fmt: skip


class Vdi(Layout):
    driver, block, answers = "vdi", BLOCK, True

    def __init__(self, file: Node, header: tuple[Any, ...]) -> None:
        super().__init__(file)
        self.size, self.data, self.blocks, self.allocated = header[14], header[8], header[17], header[18]
        self.holes = header[4] == STATIC
        self.table = Table(file, header[7], self.blocks, "I", most=MOST_BLOCKS * 4)
        self.held = ((file, 0, SECTOR), (file, header[7], header[7] + self.blocks * 4))

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        number, within = divmod(offset, BLOCK)
        count = min(count, BLOCK - within)
        place = self.table[number]
        if place >= DISCARDED:
            return None, 0, count
        return self.file, self.data + place * BLOCK + within, count

    def place(self, offset: int) -> None:
        free = max(self.allocated, -(-(self.file.size - self.data) // BLOCK))
        if self.allocated >= self.blocks:
            raise OSError(errno.EIO, "more blocks of the VDI image have a place than there are")
        if free >= DISCARDED:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self.file.truncate(self.data + (free + 1) * BLOCK)
        self.table.set(offset // BLOCK, free)
        self.allocated += 1
        self.file.write(ALLOCATED_AT, struct.pack("<I", self.allocated))

    def reload(self) -> None:
        self.table.forget()
        (self.allocated,) = struct.unpack("<I", self.file.read(ALLOCATED_AT, 4))

    def check(self, repair: bool) -> int:
        if repair:
            return super().check(repair)
        errors = there = 0
        seen = bytearray(self.blocks // 8 + 1)
        for piece in self.table.all():
            places = set(piece) - {NOWHERE, DISCARDED}
            there += len(places)
            errors += len(piece) - piece.count(NOWHERE) - piece.count(DISCARDED) - len(places)
            for place in places:
                if place >= self.blocks or seen[place >> 3] >> (place & 7) & 1:
                    errors += 1
                else:
                    seen[place >> 3] |= 1 << (place & 7)
        return int(errors + (there != self.allocated))


def open_layout(file: Node, name: str, access: Access) -> Layout:
    head = file.read(0, min(HEADER.size, file.size)).ljust(HEADER.size, b"\0")
    header = HEADER.unpack(head)
    _, signature, version, _, kind, _, _, table, data, _, _, _, sector, _, size, block, extra, blocks = header[:18]
    if size > MOST_SIZE:
        raise ImageError(f"Unsupported VDI image size (size is 0x{size:x}, max supported is 0x{MOST_SIZE:x})")
    if signature != SIGNATURE:
        raise ImageError(f"Image not in VDI format (bad signature {signature:08x})")
    if version != VERSION:
        raise ImageError(f"unsupported VDI image (version {version >> 16}.{version & 0xFFFF})")
    size = (size + SECTOR - 1) // SECTOR * SECTOR  # VirtualBox may have bytes beyond the last sector
    if table % SECTOR:
        raise ImageError(f"unsupported VDI image (unaligned block map offset 0x{table:x})")
    if data % SECTOR:
        raise ImageError(f"unsupported VDI image (unaligned data offset 0x{data:x})")
    if sector != SECTOR:
        raise ImageError(f"unsupported VDI image (sector size {sector} is not {SECTOR})")
    if block != BLOCK:
        raise ImageError(f"unsupported VDI image (block size {block} is not {BLOCK})")
    if extra:
        raise ImageError(f"unsupported VDI image ({extra} bytes beside each block)")
    if size > blocks * BLOCK:
        raise ImageError(
            f"unsupported VDI image (disk size {size}, image bitmap has room for {blocks * BLOCK})"
        )
    if header[21] != bytes(16):
        raise ImageError("unsupported VDI image (non-NULL link UUID)")
    if header[22] != bytes(16):
        raise ImageError("unsupported VDI image (non-NULL parent UUID)")
    if blocks > MOST_BLOCKS:
        raise ImageError(f"unsupported VDI image (too many blocks {blocks}, max is {MOST_BLOCKS})")
    return Vdi(file, (*header[:14], size, *header[15:]))


def create(path: str, size: int, options: dict[str, Any]) -> None:
    """In place of what is at `path`. ImageError, OSError."""
    how = options.get("preallocation", "off")
    if size > MOST_SIZE:
        raise ImageError(f"Unsupported VDI image size (size is 0x{size:x}, max supported is 0x{MOST_SIZE:x})")
    static = options.get("static", False) or how in ("falloc", "full")
    blocks = -(-size // BLOCK)
    table = -(-blocks * 4 // SECTOR) * SECTOR
    header = HEADER.pack(
        b"<<< QEMU VM Virtual Disk Image >>>\n", SIGNATURE, VERSION, 0x180, STATIC if static else DYNAMIC, 0, b"",
        SECTOR, SECTOR + table, 0, 0, 0, SECTOR, 0, size, BLOCK, 0, blocks, blocks if static else 0, uuid.uuid4().bytes,
        uuid.uuid4().bytes, bytes(16), bytes(16),
    )  # fmt: skip
    new_file(path, 0)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, header, 0)
        os.ftruncate(fd, SECTOR + table)
        for first in range(0, blocks, Table.PIECE):  # all at once is 2 GiB, and more than a write takes
            count = min(Table.PIECE, blocks - first)
            piece = array("I", range(first, first + count)).tobytes() if static else b"\xff" * (count * 4)
            os.pwrite(fd, piece, SECTOR + first * 4)
        if static:
            os.ftruncate(fd, SECTOR + table + blocks * BLOCK)
            preallocate(fd, SECTOR + table, blocks * BLOCK, how)
    finally:
        os.close(fd)
