"""VPC, also called VHD: images of Virtual PC, Hyper-V and Azure. Fixed ones are raw with a footer; in dynamic ones a
table gives blocks their places, each behind a bitmap of its sectors.

Ref: Virtual Hard Disk Image Format Specification, version 1.0; how a disk's size follows from who made it is as
qemu-img 7.2 has it.
"""

from __future__ import annotations

import os
import struct
import time
import uuid

from vmrun.backends.block.create import new_file, preallocate
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.formats import SECTOR, Layout, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.images import Access
    from vmrun.backends.block.node import Node

# cookie, features, version, data at, time, creator, its version, its host, original size, size, cylinders, heads,
# sectors, type, checksum, UUID, saved state
FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB427x")
# cookie, data at, table at, version, entries, block, checksum; what is behind is about parents
DYNAMIC_HEADER = struct.Struct(">8sQQIIII16sII512s192s256x")
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4
COOKIE, SPARSE = b"conectix", b"cxsparse"
NOWHERE = 0xFFFFFFFF
BLOCK = 2 << 20
EPOCH = 946684800  # of 2000-01-01
MOST_CHS = 65535 * 16 * 255
MOST_SIZE = 0xFF000000 * SECTOR  # 2040 GiB
# those who mean the size that the footer says; with all others geometry counts
EXACT = (b"win ", b"qem2", b"d2v ", b"tap\0", b"vs  ", b"wa\0\0")

OPTIONS = {"subformat": "str", "force_size": "bool", "preallocation": "str", "size": "size", "nocow": "bool"}
SHOWN = (("size", None), ("subformat", None), ("force_size", None), ("nocow", None), ("preallocation", None))
HELP = {
    "force_size=<bool (on/off)>":
        "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based "
        "calculation",
    "size=<size>": "Virtual disk size",
    "subformat=<str>": "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} ",
}  # fmt: skip


class Fixed(Layout):
    driver, answers, holes = "vpc", True, True

    def __init__(self, file: Node, size: int) -> None:
        super().__init__(file)
        self.size = size


class Dynamic(Layout):
    driver, answers = "vpc", True

    def __init__(self, file: Node, size: int, block: int, table: Table, header: int, footer: bytes) -> None:
        """`header`: where it lies."""
        super().__init__(file)
        self.held = (
            (file, 0, FOOTER.size), (file, header, header + DYNAMIC_HEADER.size),
            (file, table.at, table.at + table.entries * table.width),
        )  # fmt: skip
        self.size, self.block, self.table, self.footer = size, block, table, footer
        self.bitmap = -(-(block // SECTOR // 8) // SECTOR) * SECTOR
        self._free()

    def _free(self) -> None:
        """The next block goes behind all others, where the footer is."""
        self.free = self.table.at + -(-self.table.entries * 4 // SECTOR) * SECTOR
        for piece in self.table.all():
            last = max((place for place in set(piece) if place != NOWHERE), default=0)
            if last:
                self.free = max(self.free, last * SECTOR + self.bitmap + self.block)

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        number, within = divmod(offset, self.block)
        count = min(count, self.block - within)
        place = self.table[number]
        if place == NOWHERE:
            return None, 0, count
        return self.file, place * SECTOR + self.bitmap + within, count

    def place(self, offset: int) -> None:
        at = self.free
        end = at + self.bitmap + self.block
        if end // SECTOR > NOWHERE:
            raise OSError(27, os.strerror(27))
        stale = min(self.file.size, end) - at - self.bitmap  # a file may have more than its footer there
        self.file.truncate(max(self.file.size, end + len(self.footer)))
        self.file.write(end, self.footer)
        if stale > 0:
            self.file.write_zeroes(at + self.bitmap, stale)
        self.file.write(at, b"\xff" * self.bitmap)  # all sectors count as written, over what was the footer
        self.table.set(offset // self.block, at // SECTOR)
        self.free = end

    def reload(self) -> None:
        self.table.forget()
        self._free()


def _summed(data: bytes, at: int) -> bytes:
    """With its checksum, which is at `at`."""
    total = ~(sum(data) - sum(data[at : at + 4])) & 0xFFFFFFFF
    return data[:at] + struct.pack(">I", total) + data[at + 4 :]


def open_layout(file: Node, name: str, access: Access) -> Layout:
    head = file.read(0, FOOTER.size)
    kind = DYNAMIC
    if head[:8] != COOKIE:
        if file.size < FOOTER.size:
            raise ImageError("invalid VPC image" if file.size else "File too small for a VHD header")
        head = file.read(file.size - FOOTER.size, FOOTER.size)
        if head[:8] != COOKIE:
            raise ImageError("invalid VPC image")
        kind = FIXED
    footer = FOOTER.unpack(head)
    if _summed(head, 64) != head:
        raise ImageError("Incorrect header checksum")
    creator, current, cylinders, heads, per_track = footer[5], *footer[9:13]
    size = cylinders * heads * per_track * SECTOR
    if creator in EXACT or size == MOST_CHS * SECTOR:
        size = current // SECTOR * SECTOR
    if footer[13] == DIFFERENCING:
        raise ImageError("differencing images are not modelled", "merge it into its parent where it was made")
    if size > MOST_SIZE:
        raise OSError(27, os.strerror(27))
    if kind == FIXED or footer[13] == FIXED:
        return Fixed(file, size)
    at = footer[3]
    data = file.read(at, DYNAMIC_HEADER.size) if at + DYNAMIC_HEADER.size <= file.size else b""
    if data[:8] != SPARSE:
        raise ImageError("invalid VPC image")
    _, _, table, _, entries, block, *_ = DYNAMIC_HEADER.unpack(data)
    if not block or block & (block - 1):
        raise ImageError(f"Invalid block size {block}")
    if block < SECTOR or block > 1 << 30:
        raise ImageError(f"Invalid block size {block}")
    if entries * block < size:
        raise ImageError("Page table too small")
    if table + entries * 4 > file.size:
        raise ImageError("Page table too large")
    return Dynamic(file, size, block, Table(file, table, entries, "I", swapped=True), at, head)


def geometry(sectors: int) -> tuple[int, int, int]:
    """Cylinders, heads, sectors per track: the specification's appendix."""
    sectors = min(sectors, MOST_CHS)
    if sectors > 65535 * 16 * 63:
        per_track, heads, cylinders_heads = 255, 16, sectors // 255
    else:
        per_track = 17
        cylinders_heads = sectors // per_track
        heads = max(-(-cylinders_heads // 1024), 4)
        if cylinders_heads >= heads * 1024 or heads > 16:
            per_track, heads = 31, 16
            cylinders_heads = sectors // per_track
        if cylinders_heads >= heads * 1024:
            per_track, heads = 63, 16
            cylinders_heads = sectors // per_track
    return cylinders_heads // heads, heads, per_track


def _sized(size: int, exact: bool) -> tuple[int, tuple[int, int, int]]:
    """(bytes, geometry) of a new disk, at least `size`."""
    sectors = size // SECTOR
    if exact:
        return size, (65535, 16, 255)
    tried = sectors
    while True:
        cylinders, heads, per_track = geometry(tried)
        found = cylinders * heads * per_track
        if found >= min(sectors, MOST_CHS):
            break
        tried += 1
    if found == MOST_CHS:
        return size, (cylinders, heads, per_track)
    return found * SECTOR, (cylinders, heads, per_track)


def create(path: str, size: int, options: dict[str, Any]) -> None:
    """In place of what is at `path`. ImageError, OSError."""
    subformat, how = options.get("subformat", "dynamic"), options.get("preallocation", "off")
    if subformat not in ("dynamic", "fixed"):
        raise ImageError(f"Parameter 'subformat' does not accept value '{subformat}'")
    exact = options.get("force_size", False)
    if size > MOST_SIZE:
        raise ImageError("The image size is too large for file format 'vpc'")
    size, (cylinders, heads, per_track) = _sized(size, exact)
    fixed = subformat == "fixed"
    footer = FOOTER.pack(
        COOKIE, 2, 0x00010000, 0xFFFFFFFFFFFFFFFF if fixed else SECTOR, max(0, int(time.time()) - EPOCH) & 0xFFFFFFFF,
        b"qem2" if exact else b"qemu", 0x00050003, b"Wi2k", size, size, cylinders, heads, per_track,
        FIXED if fixed else DYNAMIC, 0, uuid.uuid4().bytes, 0,
    )  # fmt: skip
    footer = _summed(footer, 64)
    new_file(path, 0)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if fixed:
            os.ftruncate(fd, size)
            preallocate(fd, 0, size, how)
            os.pwrite(fd, footer, size)
            return
        entries = -(-size // BLOCK)
        table = -(-entries * 4 // SECTOR) * SECTOR
        header = DYNAMIC_HEADER.pack(
            SPARSE, 0xFFFFFFFFFFFFFFFF, 3 * SECTOR, 0x00010000, entries, BLOCK, 0, bytes(16), 0, 0, b"", b""
        )
        os.pwrite(fd, footer + _summed(header, 36) + b"\xff" * table + footer, 0)
    finally:
        os.close(fd)
