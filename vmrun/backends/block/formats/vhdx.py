"""VHDX: images of Hyper-V since 2012. A table gives blocks of 1 to 256 MiB their places; a log keeps the tables whole.

Ref: Microsoft's VHDX Format Specification (MS-VHDX). Not modelled: the log. An image whose log holds changes that are
not in its tables yet is refused; entries are written in place, each of which lies in one sector, so that a crash leaves
an image as it was before or after.
"""

from __future__ import annotations

import os
import struct
import uuid

from vmrun.backends.block.create import new_file, preallocate
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.formats import MOST_TABLE, Layout, Table, grown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.images import Access
    from vmrun.backends.block.node import Node

MIB = 1 << 20
SIGNATURE = b"vhdxfile"
HEADERS, REGIONS = (64 << 10, 128 << 10), (192 << 10, 256 << 10)
HEADER_SIZE, REGION_SIZE = 4096, 64 << 10
# signature, checksum, sequence, file's and data's write GUIDs, log's GUID, its version, version, log's length and place
HEADER = struct.Struct("<4sIQ16s16s16sHHIQ")
REGION = struct.Struct("<16sQII")  # GUID, place, length, whether one must know it
ITEM = struct.Struct("<16sIIII")  # GUID, place in the region, length, flags, -
BAT = uuid.UUID("2DC27766-F623-4200-9D64-115E9BFD4A08").bytes_le
METADATA = uuid.UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
FILE_PARAMETERS = uuid.UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
DISK_SIZE = uuid.UUID("2FA54224-CD1B-4876-B211-5DBED83BF4B8").bytes_le
PAGE_83 = uuid.UUID("BECA12AB-B2E6-4523-93EF-C309E000C746").bytes_le
LOGICAL = uuid.UUID("8141BF1D-A96F-4709-BA47-F233A8FAAB5F").bytes_le
PHYSICAL = uuid.UUID("CDA348C7-445D-4471-9CC9-E9885251C556").bytes_le
NOT_PRESENT, UNDEFINED, ZERO, UNMAPPED, PRESENT, PARTIAL = 0, 1, 2, 3, 6, 7
HAS_PARENT = 2
MOST_SIZE = 64 << 40
IS_USER, IS_DISK, IS_REQUIRED = 1, 2, 4

OPTIONS = {
    "size": "size", "log_size": "size", "block_size": "size", "subformat": "str", "block_state_zero": "bool",
    "preallocation": "str", "nocow": "bool",
}  # fmt: skip
SHOWN = (
    ("size", None), ("log_size", MIB), ("block_size", 0), ("subformat", None), ("block_state_zero", None),
    ("nocow", None), ("preallocation", None),
)  # fmt: skip
HELP = {
    "block_size=<size>": "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.",
    "block_state_zero=<bool (on/off)>":
        "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using "
        "'qemu-img convert' with subformat=dynamic.",
    "log_size=<size>": "Log size; min 1MB.", "size=<size>": "Virtual disk size; max of 64TB.",
    "subformat=<str>": "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'.",
}  # fmt: skip


def _summed(data: bytes) -> bytes:
    """With its checksum, which is behind the signature."""
    from vmrun.backends.block.mapped import crc32c

    return data[:4] + struct.pack("<I", crc32c(data[:4] + bytes(4) + data[8:])) + data[8:]


class Vhdx(Layout):
    driver = "vhdx"

    def __init__(self, file: Node, size: int, block: int, sector: int, table: Table, header: tuple[Any, ...]) -> None:
        super().__init__(file)
        self.size, self.block, self.table, self.header = size, block, table, header
        self.ratio = (1 << 23) * sector // block  # a bitmap's entry comes behind so many
        self.held = ((file, 0, MIB), (file, table.at, table.at + table.entries * table.width))

    def _entry(self, offset: int) -> int:
        number = offset // self.block
        return number + number // self.ratio

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        within = offset % self.block
        count = min(count, self.block - within)
        entry = self.table[self._entry(offset)]
        if entry & 7 != PRESENT:
            return None, 0, count
        return self.file, (entry >> 20) * MIB + within, count

    def place(self, offset: int) -> None:
        at = grown(self.file, self.block, MIB)
        self.table.set(self._entry(offset), at | PRESENT)

    def changed(self) -> None:
        _, _, sequence, _, _, log, log_version, version, length, log_at = self.header
        for n, at in enumerate(HEADERS):
            head = HEADER.pack(
                b"head", 0, sequence + 1 + n, uuid.uuid4().bytes_le, uuid.uuid4().bytes_le, log, log_version, version,
                length, log_at,
            )  # fmt: skip
            self.file.write(at, _summed(head.ljust(HEADER_SIZE, b"\0")))

    def writable(self) -> None:
        if any(entry & 7 == PARTIAL for piece in self.table.all() for entry in set(piece)):
            raise ImageError("unsupported VHDX image: a block is partly another image's")

    def reload(self) -> None:
        self.table.forget()

    def check(self, repair: bool) -> int:
        return 0


def _header(file: Any) -> tuple[Any, ...]:
    """The newer of those that are whole."""
    found: list[tuple[Any, ...]] = []
    for at in HEADERS:
        data = file.read(at, HEADER_SIZE)
        if data[:4] == b"head" and _summed(data) == data:
            found.append(HEADER.unpack(data[: HEADER.size]))
    if not found:
        raise ImageError("No valid VHDX header found")
    return max(found, key=lambda one: int(one[2]))


def _regions(file: Any) -> dict[bytes, tuple[int, int]]:
    for at in REGIONS:
        data = file.read(at, REGION_SIZE)
        if data[:4] != b"regi" or _summed(data) != data:
            continue
        (count,) = struct.unpack_from("<I", data, 8)
        if count > 2047:
            continue
        found: dict[bytes, tuple[int, int]] = {}
        for n in range(count):
            guid, place, length, needed = REGION.unpack_from(data, 16 + n * REGION.size)
            if guid in found or needed & 1 and guid not in (BAT, METADATA):
                raise ImageError("unsupported VHDX image: a region that one must know is unknown, or there twice")
            if place < MIB or place % MIB or place + length > file.size + MIB:
                raise ImageError("a region of the VHDX image lies outside the file")
            found[guid] = place, length
        if BAT in found and METADATA in found:
            return found
    raise ImageError("No valid VHDX region table found")


def _metadata(file: Any, at: int) -> dict[bytes, bytes]:
    data = file.read(at, 64 << 10)
    if data[:8] != b"metadata":
        raise ImageError("the VHDX image has no metadata")
    (count,) = struct.unpack_from("<H", data, 10)
    if count > 2047:
        raise ImageError("the VHDX image has more metadata than may be")
    found: dict[bytes, bytes] = {}
    for n in range(count):
        guid, place, length, flags, _ = ITEM.unpack_from(data, 32 + n * ITEM.size)
        known = (FILE_PARAMETERS, DISK_SIZE, PAGE_83, LOGICAL, PHYSICAL)
        if guid in known:
            if place < 64 << 10 or place > MIB or length < 4 or length > 64:
                raise ImageError("metadata of the VHDX image lie outside their place")
            found[guid] = file.read(at + place, length).ljust(8, b"\0")
        elif flags & IS_REQUIRED and not flags & IS_USER:
            raise ImageError("unsupported VHDX image: metadata that one must know are unknown")
    if not {FILE_PARAMETERS, DISK_SIZE, LOGICAL} <= found.keys():
        raise ImageError("the VHDX image lacks metadata")
    return found


def open_layout(file: Node, name: str, access: Access) -> Layout:
    if file.size < MIB or file.read(0, 8) != SIGNATURE:
        raise ImageError("Invalid VHDX file signature found: it is no VHDX image")
    header = _header(file)
    if header[7] != 1 or header[6]:
        raise ImageError(f"unsupported VHDX image (version {header[7]}, log {header[6]})")
    if header[5] != bytes(16):
        raise ImageError(
            f"VHDX image file '{name}' opened read-only, but contains a log that needs to be replayed",
            "qemu-img check -r all replays it, as does opening the disk once where it was written",
        )
    regions = _regions(file)
    items = _metadata(file, regions[METADATA][0])
    block, flags = struct.unpack_from("<II", items[FILE_PARAMETERS])
    (size,) = struct.unpack_from("<Q", items[DISK_SIZE])
    (sector,) = struct.unpack_from("<I", items[LOGICAL])
    if flags & HAS_PARENT:
        raise ImageError("differencing images are not modelled", "merge it into its parent where it was made")
    if sector not in (512, 4096):
        raise ImageError(f"unsupported VHDX image (sectors of {sector} bytes)")
    if block & (block - 1) or not MIB <= block <= 256 * MIB:
        raise ImageError(f"unsupported VHDX image (blocks of {block} bytes)")
    if size > MOST_SIZE or size % sector:
        raise ImageError(f"unsupported VHDX image (size of {size} bytes)")
    place, length = regions[BAT]
    blocks = -(-size // block)
    entries = blocks + (blocks - 1) // ((1 << 23) * sector // block) if blocks else 0
    if entries * 8 > min(length, MOST_TABLE):
        raise ImageError("the VHDX image's table is too small for it, or larger than is read")
    table = Table(file, place, entries, "Q")
    for entry in (entry for piece in table.all() for entry in set(piece)):
        if entry & 7 == PRESENT and not MIB <= (entry >> 20) * MIB <= file.size:
            raise ImageError("a block of the VHDX image lies outside the file")
    return Vhdx(file, size, block, sector, table, header)


def _block_size(size: int) -> int:
    """As qemu-img chooses."""
    if size > 32 << 40:
        return 64 * MIB
    if size > 100 << 30:
        return 32 * MIB
    return 16 * MIB if size > 1 << 30 else 8 * MIB


def create(path: str, size: int, options: dict[str, Any]) -> None:
    """In place of what is at `path`. ImageError, OSError."""
    subformat, how = options.get("subformat", "dynamic"), options.get("preallocation", "off")
    if subformat not in ("dynamic", "fixed"):
        raise ImageError(f"Parameter 'subformat' does not accept value '{subformat}'")
    if size > MOST_SIZE:
        raise ImageError("Image size too large; max of 64TB")
    log, block = max(options.get("log_size", MIB), MIB), options.get("block_size", 0) or _block_size(size)
    block = min(max(block, MIB), 256 * MIB)
    if log % MIB:
        raise ImageError("Log size must be a multiple of 1 MB")
    if block % MIB:
        raise ImageError("Block size must be a multiple of 1 MB")
    if block & (block - 1):
        raise ImageError("Block size must be a power of two")
    if log >= 1 << 32:
        raise ImageError("Log size must be smaller than 4 GB")
    fixed = subformat == "fixed"
    ratio = (1 << 23) * 512 // block
    blocks = -(-size // block)
    entries = blocks + (blocks - 1) // ratio if blocks else 0
    metadata_at = MIB + log
    table_at, table_size = metadata_at + MIB, max(MIB, -(-entries * 8 // MIB) * MIB)
    data_at = table_at + table_size
    if entries * 8 > MOST_TABLE:
        raise ImageError("the table would be larger than is read", "take a larger block_size")
    new_file(path, 0)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, SIGNATURE + "vmrun".encode("utf-16-le"), 0)
        for n, at in enumerate(HEADERS):
            head = HEADER.pack(
                b"head", 0, n, uuid.uuid4().bytes_le, uuid.uuid4().bytes_le, bytes(16), 0, 1, log, MIB
            )
            os.pwrite(fd, _summed(head.ljust(HEADER_SIZE, b"\0")), at)
        regions = struct.pack("<4sIII", b"regi", 0, 2, 0)
        regions += REGION.pack(BAT, table_at, table_size, 1) + REGION.pack(METADATA, metadata_at, MIB, 1)
        for at in REGIONS:
            os.pwrite(fd, _summed(regions.ljust(REGION_SIZE, b"\0")), at)
        items, data = b"", b""
        for guid, value, flags in (
            (FILE_PARAMETERS, struct.pack("<II", block, int(fixed)), IS_REQUIRED),
            (DISK_SIZE, struct.pack("<Q", size), IS_DISK | IS_REQUIRED),
            (PAGE_83, uuid.uuid4().bytes_le, IS_DISK | IS_REQUIRED),
            (LOGICAL, struct.pack("<I", 512), IS_DISK | IS_REQUIRED),
            (PHYSICAL, struct.pack("<I", 512), IS_DISK | IS_REQUIRED),
        ):
            items += ITEM.pack(guid, (64 << 10) + len(data), len(value), flags, 0)
            data += value
        os.pwrite(fd, struct.pack("<8sHH20x", b"metadata", 0, 5) + items, metadata_at)
        os.pwrite(fd, data, metadata_at + (64 << 10))
        if fixed:
            table = [0] * entries
            for n in range(blocks):
                table[n + n // ratio] = data_at + n * block | PRESENT
            os.pwrite(fd, struct.pack(f"<{entries}Q", *table), table_at)
            os.ftruncate(fd, data_at + blocks * block)
            preallocate(fd, data_at, blocks * block, how)
        else:
            os.ftruncate(fd, data_at)
    finally:
        os.close(fd)
