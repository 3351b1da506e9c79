"""Multiboot kernels, versions 1 and 2: the header, what is loaded, and the information that the kernel is handed.

Ref: Multiboot Specification 0.6.96; Multiboot2 Specification 2.0.
Not modelled: video modes and frame buffers (the kernel gets none), relocation, EFI, symbols, drives, APM.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError
from vmrun.firmware import elf
from vmrun.firmware.elf import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmrun.firmware.modules import Module

    Row = tuple[int, int, int]  # of a memory map: address, size, type

MAGIC_1, FOUND_1, SEARCH_1 = 0x1BADB002, 0x2BADB002, 8192
MAGIC_2, FOUND_2, SEARCH_2 = 0xE85250D6, 0x36D76289, 32768
LOADER = b"vmrun"

# flags of the first version's header: what the kernel needs
ALIGN, MEMORY, VIDEO, ADDRESSES, NEEDS = 1 << 0, 1 << 1, 1 << 2, 1 << 16, 0xFFFF
# flags of the information handed over
INFO_MEMORY, INFO_CMDLINE, INFO_MODULES, INFO_MAP, INFO_LOADER = 1 << 0, 1 << 2, 1 << 3, 1 << 6, 1 << 9
INFO_DEVICE = 1 << 1
INFO_SIZE = 88
FIRST_DISK = 0x8000FFFF
PAGE = 4096


class Kernel:
    """version: 1 or 2. entry: 32-bit code. pieces: by address."""

    __slots__ = ("entry", "pieces", "version")

    def __init__(self, version: int, entry: int, pieces: list[Piece]) -> None:
        self.version, self.entry, self.pieces = version, entry, pieces

    @property
    def low(self) -> int:
        return self.pieces[0].addr

    @property
    def high(self) -> int:
        return self.pieces[-1].end


def find(data: bytes, version: int) -> int | None:
    """Offset of the header of that version, or None."""
    magic, most, step = (MAGIC_1, SEARCH_1, 4) if version == 1 else (MAGIC_2, SEARCH_2, 8)
    wanted, at = struct.pack("<I", magic), -1
    while (at := data.find(wanted, at + 1, most)) >= 0:
        if at % step == 0 and _sums_up(data, at, 3 if version == 1 else 4):
            return at
    return None


def _sums_up(data: bytes, at: int, words: int) -> bool:
    if at + 4 * words > len(data):
        return False
    return not sum(struct.unpack_from(f"<{words}I", data, at)) & 0xFFFFFFFF


def load(data: bytes, version: int) -> Kernel:
    """A kernel that `find` found. BuildError: it needs what there is not, or its parts cannot be placed."""
    at = find(data, version)
    assert at is not None
    return _load_1(data, at) if version == 1 else _load_2(data, at)


def _load_1(data: bytes, at: int) -> Kernel:
    (flags,) = struct.unpack_from("<I", data, at + 4)
    if flags & NEEDS & ~(ALIGN | MEMORY | VIDEO):
        raise BuildError(
            f"the multiboot kernel needs features {flags & NEEDS & ~7:#x} of its loader, which do not exist",
            remedy="its header is damaged, or it is meant for another loader",
        )
    if not flags & ADDRESSES:
        return _load_elf(data, 1)
    if at + 32 > len(data):
        raise BuildError("the multiboot kernel is cut off in its header")
    header, first, end, bss_end, entry = struct.unpack_from("<5I", data, at + 12)
    return Kernel(1, entry, [_addressed(data, at, header, first, end, bss_end)])


def _load_elf(data: bytes, version: int) -> Kernel:
    if data[:4] != elf.MAGIC:
        raise BuildError("the multiboot kernel is no ELF file and its header does not say where it is to be loaded")
    found = elf.parse(data)
    if version == 1 and found.bits == 64:
        raise BuildError(
            "the multiboot kernel is a 64-bit ELF file, and multiboot starts 32-bit code",
            remedy="build it as ELF32, e.g. objcopy -O elf32-i386",
        )
    return Kernel(version, found.entry, found.pieces)


def _addressed(data: bytes, at: int, header: int, first: int, end: int, bss_end: int) -> Piece:
    """The part of a file that its header's addresses name. `end` 0: to the end of the file; `bss_end` 0: no more."""
    start = at - (header - first)
    size = (end or first + len(data) - start) - first
    if header < first or start < 0 or size < 0 or start + size > len(data):
        raise BuildError(
            f"the multiboot header's addresses do not fit the file: {first:#x} to {end:#x}, its header at {header:#x}"
        )
    if bss_end and bss_end < first + size:
        raise BuildError(f"the multiboot header's memory ends at {bss_end:#x}, within what is loaded")
    return Piece(first, memoryview(data)[start : start + size], (bss_end or first + size) - first)


def _load_2(data: bytes, at: int) -> Kernel:
    architecture, length = struct.unpack_from("<II", data, at + 4)
    if architecture:
        raise BuildError("the multiboot 2 kernel is for another processor")
    tags = _tags(data[at : at + length])
    for kind, optional, body in tags:
        known = kind in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
        if kind == 1 and not optional:
            known = not {number for (number,) in struct.iter_unpack("<I", body[: len(body) & ~3])} - _GIVEN
        if not known and not optional:
            raise BuildError(f"the multiboot 2 kernel needs what its loader does not have (tag {kind})")
    given = {kind: body for kind, _, body in tags}
    if 2 in given:
        header, first, end, bss_end = struct.unpack_from("<4I", given[2].ljust(16, b"\0"))
        pieces = [_addressed(data, at, header, first, end, bss_end)]
        if 3 not in given:
            raise BuildError("the multiboot 2 header says where the kernel goes, but not where it starts")
        return Kernel(2, int.from_bytes(given[3][:4], "little"), pieces)
    found = _load_elf(data, 2)
    if 3 in given:
        found.entry = int.from_bytes(given[3][:4], "little")
    return found


def _tags(header: bytes) -> list[tuple[int, bool, bytes]]:
    """(type, optional, body) of the header's tags up to its end."""
    found = []
    at = 16
    while at + 8 <= len(header):
        kind, flags, size = struct.unpack_from("<HHI", header, at)
        if kind == 0:
            break
        if size < 8 or at + size > len(header):
            raise BuildError("the multiboot 2 kernel's header is cut off")
        found.append((kind, bool(flags & 1), header[at + 8 : at + size]))
        at += size + 7 & ~7
    return found


_GIVEN = {0, 1, 2, 3, 4, 6, 14, 21}  # tags of the information that are handed over


# --- what the kernel is handed ----------------------------------------------------------------------------


def place_modules(modules: Sequence[Module], at: int) -> list[Piece]:
    """One after another from `at` on, each on a page of its own."""
    found = []
    for module in modules:
        at = -(-at // PAGE) * PAGE
        found.append(Piece(at, module.data))
        at += len(module.data)
    return found


def information_1(
    at: int, texts_at: int, words: bytes, modules: Sequence[Module], places: Sequence[Piece], rows: Sequence[Row] | None
) -> tuple[bytes, bytes]:
    """(the structure for `at`, what it points to, for `texts_at`). Without `rows` the firmware puts its map in."""
    texts = bytearray()

    def text(data: bytes) -> int:
        start = texts_at + len(texts)
        texts.extend(data + b"\0")
        return start

    line, loader = text(words), text(LOADER)
    entries = [
        struct.pack("<IIII", piece.addr, piece.end, text(module.text.encode()), 0)
        for module, piece in zip(modules, places, strict=True)
    ]
    texts.extend(bytes(-len(texts) % 4))
    modules_at = texts_at + len(texts)
    texts.extend(b"".join(entries))
    flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_LOADER
    info = bytearray(INFO_SIZE)
    struct.pack_into("<I", info, 16, line)
    struct.pack_into("<II", info, 20, len(entries), modules_at)
    struct.pack_into("<I", info, 64, loader)
    if rows is not None:
        flags |= INFO_MAP
        table = b"".join(struct.pack("<IQQI", 20, *row) for row in rows)
        struct.pack_into("<II", info, 44, len(table), texts_at + len(texts))
        struct.pack_into("<II", info, 4, *bounds(rows))
        texts.extend(table)
    struct.pack_into("<I", info, 0, flags)
    return bytes(info), bytes(texts)


def bounds(rows: Sequence[Row]) -> tuple[int, int]:
    """KiB of memory from 0 on and from 1 MiB on."""
    usable = {start: size for start, size, kind in rows if kind == 1}
    return usable.get(0, 0) >> 10, usable.get(1 << 20, 0) >> 10


def information_2(
    base: int, words: bytes, modules: Sequence[Module], places: Sequence[Piece], rows: Sequence[Row], rsdp: bytes
) -> bytes:
    """The tags. `base`: where the kernel was loaded."""
    tags = [_tag(1, words + b"\0"), _tag(2, LOADER + b"\0")]
    for module, piece in zip(modules, places, strict=True):
        tags.append(_tag(3, struct.pack("<II", piece.addr, piece.end) + module.text.encode() + b"\0"))
    tags.append(_tag(4, struct.pack("<II", *bounds(rows))))
    table = b"".join(struct.pack("<QQII", *row, 0) for row in rows)
    tags.append(_tag(6, struct.pack("<II", 24, 0) + table))
    if rsdp:
        tags.append(_tag(14, rsdp[:20]))
    tags += [_tag(21, struct.pack("<I", base)), _tag(0, b"")]
    body = b"".join(tags)
    return struct.pack("<II", len(body) + 8, 0) + body


def _tag(kind: int, body: bytes) -> bytes:
    data = struct.pack("<II", kind, 8 + len(body)) + body
    return data + bytes(-len(data) % 8)
