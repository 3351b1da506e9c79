"""VMDK: images of VMware. A descriptor, in a file of its own or in the image, names extents; sparse ones have a
directory of tables that give grains of 64 KiB their places, those of streamOptimized images are compressed.

Ref: VMware's Virtual Disk Format 1.1 and 5.0; spelling of what is written as qemu-img 7.2 has it. Not modelled: images
that are based on others, SESPARSE extents.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import struct
import zlib
from array import array

from vmrun.backends.block.create import new_file
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.formats import KEPT, SECTOR, Layout, Table, grown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.block.images import Access
    from vmrun.backends.block.node import Node

# magic, version, flags, capacity, grain, descriptor's place and size, entries of a table, the redundant directory, the
# directory, overhead, unclean, ends of line, compression: places and sizes in sectors
HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
COWD = struct.Struct("<4sIIIIIIII")  # magic, version, flags, size, grain, directory, its entries, free, -
MARKER = struct.Struct("<QI")  # a compressed grain's first sector, its bytes
MAGIC, OLD_MAGIC = b"KDMV", b"COWD"
REDUNDANT, ZEROED, COMPRESSED, MARKERS = 1 << 1, 1 << 2, 1 << 16, 1 << 17
AT_END = (1 << 64) - 1  # the directory is told by a copy of the header at the file's end
GRAIN, PER_TABLE = 65536, 512
TEXT_SECTORS = 20  # of the descriptor in an image of one file
MOST_DIRECTORY = 32 << 20  # bytes
SPLIT = 2 << 30
MOST_GRAIN = 32 << 20
MOST_TEXT = 2 << 20
MOST_EXTENTS = 4096
NO_PARENT = 0xFFFFFFFF
EXTENT = re.compile(rb'^(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\w+)(?:\s+"([^"\r\n]*)"(?:\s+(\d+))?)?', re.M)
ADAPTERS = ("ide", "buslogic", "lsilogic", "legacyESX")
SUBFORMATS = ("monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized")
KINDS = (
    "monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized", "vmfs",
    "vmfsSparse", "custom",
)  # fmt: skip

OPTIONS = {
    "size": "size", "adapter_type": "str", "backing_file": "str", "backing_fmt": "str", "compat6": "bool",
    "hwversion": "str", "toolsversion": "str", "subformat": "str", "zeroed_grain": "bool", "preallocation": "str",
    "nocow": "bool",
}  # fmt: skip
SHOWN = (
    ("size", None), ("adapter_type", None), ("backing_file", None), ("backing_fmt", None), ("compat6", False),
    ("hwversion", "undefined"), ("toolsversion", None), ("subformat", None), ("zeroed_grain", None), ("nocow", None),
    ("preallocation", None),
)  # fmt: skip
HELP = {
    "adapter_type=<str>": "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX",
    "backing_file=<str>": "File name of a base image", "backing_fmt=<str>": "Must be 'vmdk' if present",
    "compat6=<bool (on/off)>": "VMDK version 6 image", "hwversion=<str>": "VMDK hardware version",
    "size=<size>": "Virtual disk size",
    "subformat=<str>": "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | "
        "twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} ",
    "toolsversion=<str>": "VMware guest tools version",
    "zeroed_grain=<bool (on/off)>": "Enable efficient zero writes using the zeroed-grain GTE feature",
}  # fmt: skip


class Flat:
    """An extent that is a file's bytes; `node` None: zeros."""

    block, kind, compressed, held = 0, "FLAT", False, ()

    def __init__(self, node: Any, start: int, size: int) -> None:
        self.node, self.start, self.size = node, start, size

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        return (None, 0, count) if self.node is None else (self.node, self.start + offset, count)


class Sparse:
    """An extent whose grains have their places from tables of two levels."""

    kind = "SPARSE"

    def __init__(
        self, node: Any, size: int, grain: int, per_table: int, directories: list[Table], flags: int = 0
    ) -> None:
        self.node, self.size, self.block, self.per_table = node, size, grain, per_table
        self.directories, self.flags = directories, flags
        self.held: tuple[tuple[Any, int, int], ...] = (
            (node, 0, SECTOR), *((node, one.at, one.at + one.entries * one.width) for one in directories),
        )  # fmt: skip
        self.compressed = bool(flags & COMPRESSED)
        self.frozen = False  # what a version has that is only to be read
        self.tables: dict[int, Any] = {}

    def _table(self, number: int) -> Any:
        found = self.tables.pop(number, None)
        if found is None:
            sector = self.directories[0][number]
            if not sector:
                return None
            if sector * SECTOR + self.per_table * 4 > self.node.size:
                raise OSError(errno.EIO, "a table of the VMDK image lies outside the file")
            found = array("I", self.node.read(sector * SECTOR, self.per_table * 4))
            while len(self.tables) >= KEPT:
                self.tables.pop(next(iter(self.tables)))
        self.tables[number] = found
        return found

    def _sector(self, grain: int) -> int:
        table = self._table(grain // self.per_table)
        sector = 0 if table is None else table[grain % self.per_table]
        return 0 if sector == 1 and self.flags & ZEROED else sector

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        grain, within = divmod(offset, self.block)
        sector = self._sector(grain)
        if self.compressed and sector:
            return (self, sector, grain), within, min(count, self.block - within)
        run = min(count, self.block - within)
        # as far as one grain follows the other in the file
        step = self.block // SECTOR if sector else 0
        while run < count and self._sector(grain + 1) == (sector + step if sector else 0):
            grain, sector, run = grain + 1, sector + step, min(count, run + self.block)
            if not sector and self._table(grain // self.per_table) is None:
                more = self.per_table - 1 - grain % self.per_table  # none of a table that is not there
                grain, run = grain + more, min(count, run + more * self.block)
        if not sector:
            return None, 0, run
        first = sector - step * (grain - offset // self.block)
        return self.node, first * SECTOR + within, run

    def unpacked(self, sector: int, grain: int) -> bytes:
        at, size = sector * SECTOR, self.block
        head = MARKER.size if self.flags & MARKERS else 0
        if at + head > self.node.size:
            raise OSError(errno.EIO, "a grain of the VMDK image lies outside the file")
        if head:
            first, size = MARKER.unpack(self.node.read(at, head))
            if first != grain * (self.block // SECTOR) or not 0 < size <= 2 * self.block:
                raise OSError(errno.EIO, "a grain of the VMDK image is not the one that it should be")
        data = self.node.read(at + head, min(size, self.node.size - at - head))
        try:
            work = zlib.decompressobj()
            plain = work.decompress(data, self.block)
        except zlib.error:
            raise OSError(errno.EIO, "a grain of the VMDK image cannot be unpacked") from None
        if len(plain) < min(self.block, self.size - grain * self.block):
            raise OSError(errno.EIO, "a grain of the VMDK image is too short")
        return plain.ljust(self.block, b"\0")

    def set(self, grain: int, sector: int) -> None:
        """In each copy of the table, then here."""
        number, within = divmod(grain, self.per_table)
        for directory in reversed(self.directories):
            if not directory[number]:
                directory.set(number, grown(self.node, self.per_table * 4) // SECTOR)
        table = self._table(number)
        for directory in reversed(self.directories):
            self.node.write(directory[number] * SECTOR + within * 4, struct.pack("<I", sector))
        table[within] = sector

    def place(self, offset: int) -> None:
        at = grown(self.node, self.block, self.block)
        if at // SECTOR > 0xFFFFFFFF:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        self.set(offset // self.block, at // SECTOR)

    def pack(self, offset: int, data: bytes) -> None:
        grain = offset // self.block
        if self._sector(grain):
            raise OSError(errno.EIO, "a grain of a streamOptimized image is written once")
        packed = zlib.compress(data.ljust(self.block, b"\0"))
        whole = MARKER.pack(grain * (self.block // SECTOR), len(packed)) + packed
        whole = whole.ljust(-(-len(whole) // SECTOR) * SECTOR, b"\0")
        at = -(-self.node.size // SECTOR) * SECTOR
        self.node.write(at, whole)
        self.set(grain, at // SECTOR)

    def errors(self) -> int:
        """Grains that have their place outside the file. OSError."""
        known: dict[int, int] = {0: 0}  # of whole tables, by their place
        errors = 0
        for number in range(-(-self.size // (self.block * self.per_table))):
            at = self.directories[0][number]
            if at not in known:
                table = self._table(number)[: -(-self.size // self.block) - number * self.per_table]
                known[at] = sum(sector * SECTOR >= self.node.size for sector in table)
            errors += known[at]
        return errors

    def reload(self) -> None:
        self.tables.clear()
        for directory in self.directories:
            directory.forget()


class Vmdk(Layout):
    driver = "vmdk"

    def __init__(self, file: Node, parts: list[Any], extents: list[Any], text: bytes, text_at: int) -> None:
        """`text`: the descriptor, which lies at `text_at` in the file, or nowhere (-1)."""
        super().__init__(file)
        self.parts, self.extents, self.text, self.text_at = parts, tuple(extents), text, text_at
        self.starts: list[int] = []
        at = 0
        for part in parts:
            self.starts.append(at)
            at += part.size
        self.size = at
        self.block = max((part.block for part in parts), default=0)
        self.holes = not self.block
        self.packs = any(part.compressed for part in parts)
        self.held = tuple(one for part in parts for one in part.held)

    def _part(self, offset: int) -> tuple[Any, int]:
        from bisect import bisect_right

        number = bisect_right(self.starts, offset) - 1
        return self.parts[number], self.starts[number]

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        part, start = self._part(offset)
        found: tuple[Any, int, int] = part.find(offset - start, min(count, start + part.size - offset))
        return found

    def unpacked(self, what: Any, offset: int) -> bytes:
        part, sector, grain = what
        return bytes(part.unpacked(sector, grain)[offset:])

    def place(self, offset: int) -> None:
        part, start = self._part(offset)
        if not isinstance(part, Sparse):
            raise OSError(errno.EIO, "zeros of the VMDK image cannot be written")
        part.place(offset - start)

    def pack(self, offset: int, data: bytes) -> None:
        part, start = self._part(offset)
        if not isinstance(part, Sparse):
            raise OSError(errno.EIO, "no grain of the VMDK image")
        part.pack(offset - start, data)

    def writable(self) -> None:
        if self.packs and len(self.parts) > 1:
            raise ImageError("compressed VMDK images of several extents are read only")
        if any(isinstance(part, Sparse) and part.frozen for part in self.parts):
            raise ImageError("VMDK version 3 must be read only")

    def changed(self) -> None:
        """Another content ID: images that are based on this one are told by it that they are no more."""
        found = re.search(rb"^CID=([0-9A-Fa-f]{8})", self.text, re.M)
        if found and self.text_at >= 0:
            self.file.write(self.text_at + found.start(1), f"{secrets.randbits(32):08x}".encode())

    def reload(self) -> None:
        for part in self.parts:
            if isinstance(part, Sparse):
                part.reload()

    def check(self, repair: bool) -> int:
        if repair:
            return super().check(repair)
        errors = 0
        for part in self.parts:
            if isinstance(part, Sparse):
                errors += part.errors()
        return errors

    def told(self, name: str) -> dict[str, Any]:
        from vmrun.backends.block.filenames import node_name

        extents = []
        for part in self.parts:
            one: dict[str, Any] = {"compressed": True} if part.compressed else {}
            one["virtual-size"] = part.size
            one["filename"] = name if part.node is None or part.node is self.file else node_name(part.node)
            if part.block:
                one["cluster-size"] = part.block
            one["format"] = "" if part.node is self.file else part.kind
            extents.append(one)
        data = {
            "cid": _number(self.text, b"CID"), "parent-cid": _number(self.text, b"parentCID"),
            "create-type": _word(self.text, b"createType"), "extents": extents,
        }  # fmt: skip
        return {"type": "vmdk", "data": data}


# --- opening ------------------------------------------------------------------------------------------------------


def _number(text: bytes, key: bytes) -> int:
    found = re.search(rb"^" + key + rb"=([0-9A-Fa-f]{1,8})\s*$", text, re.M)
    return int(found[1], 16) if found else NO_PARENT if key == b"parentCID" else 0


def _word(text: bytes, key: bytes) -> str:
    found = re.search(rb"^" + key + rb'\s*=\s*"([^"\r\n]*)"', text, re.M)
    return found[1].decode("utf-8", "replace") if found else ""


def _sparse(node: Any) -> tuple[Sparse, bytes, int]:
    """The extent that a file is, its descriptor and where that lies."""
    if node.size < SECTOR:
        raise ImageError("a VMDK extent is shorter than its header")
    header = HEADER.unpack(node.read(0, HEADER.size))
    if header[9] == AT_END:
        # …, a marker that announces it, the header, a marker that ends the file
        if node.size < 3 * SECTOR:
            raise ImageError("the footer of the VMDK image is missing")
        last = node.read(node.size - 3 * SECTOR, 3 * SECTOR)
        kind, ending = struct.unpack_from("<I", last, 12)[0], struct.unpack_from("<QII", last, 2 * SECTOR)
        footer = HEADER.unpack(last[SECTOR : SECTOR + HEADER.size])
        if kind != 3 or footer[0] != MAGIC or ending != (0, 0, 0):
            raise ImageError("the footer of the VMDK image is missing")
        header = (*footer[:5], *header[5:7], *footer[7:])
    _, version, flags, capacity, grain, text_at, text_size, per_table, redundant, directory, *_ = header
    if version > 3:
        raise ImageError(f"Unsupported VMDK version {version}")
    if not grain or grain & (grain - 1) or grain * SECTOR > MOST_GRAIN:
        raise ImageError("Invalid granularity, image may be corrupt")
    if not 0 < per_table <= 512:
        raise ImageError("L2 table size too big")
    if flags & COMPRESSED and header[13] != 1:
        raise ImageError("the VMDK image is compressed in a way that is unknown")
    entries = -(-capacity // (per_table * grain))
    if entries * 4 > MOST_DIRECTORY or capacity > 1 << 53:
        raise ImageError("L1 size too big")
    if node.size < header[10] * SECTOR:
        raise ImageError(f"File truncated, expecting at least {header[10] * SECTOR} bytes")
    directories = [Table(node, directory * SECTOR, entries, "I")]
    if flags & REDUNDANT and redundant and redundant != AT_END and not flags & COMPRESSED:
        directories.append(Table(node, redundant * SECTOR, entries, "I"))
    text, place = b"", text_at * SECTOR
    if text_at and text_size:
        if place > node.size:
            raise ImageError("the VMDK image's descriptor lies outside the file")
        text = node.read(place, min(text_size * SECTOR, MOST_TEXT)).partition(b"\0")[0]
    extent = Sparse(node, capacity * SECTOR, grain * SECTOR, per_table, directories, flags)
    extent.frozen = version == 3 and not extent.compressed
    if text:
        extent.held += ((node, place, place + min(text_size * SECTOR, MOST_TEXT)),)
    return extent, text, place


def _old_sparse(node: Any) -> Sparse:
    """ESX's: `vmfsSparse`."""
    if node.size < 4 * SECTOR:
        raise ImageError("a VMDK extent is shorter than its header")
    magic, _, _, size, grain, directory, entries, *_ = COWD.unpack(node.read(0, COWD.size))
    if magic != OLD_MAGIC or not grain or grain & (grain - 1) or grain * SECTOR > MOST_GRAIN:
        raise ImageError("a VMDK extent is not what the descriptor says")
    if entries < -(-size // (4096 * grain)) or entries > 8 << 20:
        raise ImageError("a VMDK extent's directory does not cover it")
    return Sparse(node, size * SECTOR, grain * SECTOR, 4096, [Table(node, directory * SECTOR, entries, "I")])


def _checked(text: bytes) -> None:
    if _number(text, b"parentCID") != NO_PARENT:
        raise ImageError(
            "VMDK images that are based on others are not modelled",
            "convert it where its parent is: qemu-img convert -O qcow2",
        )


def open_layout(file: Node, name: str, access: Access) -> Layout:
    head = file.read(0, SECTOR)
    if head[:4] == MAGIC:
        extent, text, place = _sparse(file)
        _checked(text)
        if _word(text, b"createType") not in ("monolithicSparse", "streamOptimized", "custom", ""):
            raise ImageError("the file is one extent of a VMDK image", "open the file with the descriptor")
        return Vmdk(file, [extent], [], text, place)
    if head[:4] == OLD_MAGIC:
        return Vmdk(file, [_old_sparse(file)], [], b"", -1)
    if file.size > MOST_TEXT:
        raise ImageError("invalid VMDK image descriptor")
    if not file.size:
        raise ImageError("File is too small, not a valid image")
    text = file.read(0, file.size)
    if not re.match(rb"(?:\s|#.*\n)*# Disk Descriptor ?File", text):
        raise ImageError("invalid VMDK image descriptor")
    _checked(text)
    kind = _word(text, b"createType")
    if not kind:
        raise ImageError("invalid VMDK image descriptor")
    if kind not in KINDS:
        raise ImageError(f"Unsupported image type '{kind}'")
    opened: list[Any] = []
    try:
        return Vmdk(file, _parts(text, name, access, opened), opened, text, 0)
    except BaseException:
        for one in opened:
            one.close()
        raise


def _parts(text: bytes, name: str, access: Access, opened: list[Any]) -> list[Any]:
    """The extents that a descriptor names; `opened` gets their files."""
    from vmrun.backends.block.images import beside, open_protocol

    parts: list[Any] = []
    total = 0
    found = list(EXTENT.finditer(text))
    if not found or len(found) > MOST_EXTENTS:
        raise ImageError("invalid VMDK image descriptor")
    for line in found:
        words = line[0].decode("utf-8", "replace")
        if max(len(line[2]), len(line[5] or b"")) > 18:
            raise ImageError(f"Invalid extent line: {words[:80]}")
        right, size, kind = line[1].decode(), int(line[2]) * SECTOR, line[3].decode()
        if right != "RW" and kind != "ZERO":
            raise ImageError(f"Unsupported extent: {words}")
        total += size
        if total > 1 << 62:
            raise ImageError(f"Invalid extent line: {words}")
        if kind == "ZERO":
            parts.append(Flat(None, 0, size))
            continue
        if kind not in ("FLAT", "VMFS", "SPARSE", "VMFSSPARSE"):
            raise ImageError(f"Unsupported extent type '{kind}'")
        if not line[4] or (kind == "FLAT") != (line[5] is not None):
            raise ImageError(f"Invalid extent line: {words}")
        path = line[4].decode("utf-8", "surrogateescape")
        node = open_protocol(beside(name, path), access)
        opened.append(node)
        if kind in ("FLAT", "VMFS"):
            parts.append(Flat(node, int(line[5] or 0) * SECTOR, size))
            parts[-1].kind = kind
            continue
        part = _sparse(node)[0] if kind == "SPARSE" else _old_sparse(node)
        if part.size < size:
            raise ImageError(f"the extent is smaller than its line says: {words}")
        part.size, part.kind = size, kind
        parts.append(part)
    return parts


# --- making -------------------------------------------------------------------------------------------------------


def create(path: str, size: int, options: dict[str, Any]) -> None:
    """In place of what is at `path`. ImageError, OSError."""
    subformat, adapter = options.get("subformat", "monolithicSparse"), options.get("adapter_type", "ide")
    for word, allowed in ((subformat, SUBFORMATS), (adapter, ADAPTERS)):
        if word not in allowed:
            raise ImageError(f"invalid parameter value: {word}")
    if options.get("backing_fmt", "vmdk") != "vmdk":
        raise ImageError("backing_file must be a vmdk image")
    if options.get("backing_file"):
        raise ImageError("VMDK images that are based on others are not modelled", "take qcow2, and convert the result")
    flat, split = subformat.endswith("Flat"), subformat.startswith("twoGb")
    if options.get("zeroed_grain") and flat:
        raise ImageError("Flat image can't enable zeroed grain")
    version = options.get("hwversion", "undefined")
    if options.get("compat6") and version != "undefined":
        raise ImageError("compat6 cannot be enabled with hwversion set")
    version = "6" if options.get("compat6") else "4" if version == "undefined" else version
    kind = "FLAT" if flat else "SPARSE"
    flags = REDUNDANT | 1 | (ZEROED if options.get("zeroed_grain") else 0)
    flags |= COMPRESSED | MARKERS if subformat == "streamOptimized" else 0
    alone = not flat and not split
    stem, dot, ending = path.rpartition(".") if "." in os.path.basename(path) else (path, "", "")
    pieces: list[tuple[str, int]] = []
    for number, at in enumerate(range(0, size or 1, SPLIT if split else size or 1), 1):
        tail = f"-{'f' if flat else 's'}{number:03d}" if split else "-flat" if flat else ""
        pieces.append((path if alone else f"{stem}{tail}{dot}{ending}", min(SPLIT, size - at) if split else size))
        if number > MOST_EXTENTS:
            told = f"VMDK images of more than {MOST_EXTENTS} extents are not modelled"
            raise ImageError(told, "take another subformat")
    if not flat and -(-pieces[0][1] // (GRAIN * PER_TABLE)) * 4 > MOST_DIRECTORY:
        raise ImageError("The image size is too large for file format 'vmdk'", "take a flat subformat")
    lines = [
        f'RW {count // SECTOR} {kind} "{os.path.basename(name)}"{" 0" if flat else ""}' for name, count in pieces
    ]
    heads = 16 if adapter == "ide" else 255
    text = os.fsencode("\n".join([
        "# Disk DescriptorFile", "version=1", f"CID={secrets.randbits(32):08x}", "parentCID=ffffffff",
        f'createType="{subformat}"', "", "# Extent description", *lines, "", "# The Disk Data Base", "#DDB", "",
        f'ddb.virtualHWVersion = "{version}"', f'ddb.geometry.cylinders = "{size // SECTOR // 63 // heads}"',
        f'ddb.geometry.heads = "{heads}"', 'ddb.geometry.sectors = "63"', f'ddb.adapterType = "{adapter}"',
        f'ddb.toolsVersion = "{options.get("toolsversion", "2147483647")}"', "",
    ]))  # fmt: skip
    if len(text) > (TEXT_SECTORS * SECTOR if alone else MOST_TEXT):
        raise ImageError("the descriptor would be longer than its place", "take shorter names and versions")
    new_file(path, 0)
    for name, count in pieces:
        if not alone:
            new_file(name, count if flat else 0, options.get("preallocation", "off") if flat else "off")
        if not flat:
            _new_sparse(name, count, flags, options.get("preallocation", "off"))
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.pwrite(fd, text, SECTOR if alone else 0)
    finally:
        os.close(fd)


def _new_sparse(path: str, size: int, flags: int, preallocation: str) -> None:
    """Header, room for a descriptor, both directories with all their tables."""
    grains = -(-size // GRAIN)
    tables = -(-grains // PER_TABLE)
    length, directory = PER_TABLE * 4 // SECTOR, -(-tables * 4 // SECTOR)
    redundant = 1 + TEXT_SECTORS
    main = redundant + directory + length * tables
    per_grain = GRAIN // SECTOR
    overhead = -(-(main + directory + length * tables) // per_grain) * per_grain
    version = 3 if flags & COMPRESSED else 2 if flags & ZEROED else 1
    header = HEADER.pack(
        MAGIC, version, flags, size // SECTOR, per_grain, 1, TEXT_SECTORS, PER_TABLE, redundant, main, overhead, 0,
        b"\n \r\n", 1 if flags & COMPRESSED else 0,
    )  # fmt: skip
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, overhead * SECTOR)
        os.pwrite(fd, header, 0)
        for at in (redundant, main):
            first = at + directory
            entries = array("I", range(first, first + length * tables, length))
            os.pwrite(fd, entries.tobytes(), at * SECTOR)
        if preallocation != "off":  # of what there is
            os.posix_fallocate(fd, 0, overhead * SECTOR)
    finally:
        os.close(fd)
