"""ELF executables as kernels: where their parts go in memory, where they are entered, and the note for PVH.

Ref: System V ABI, gABI 4.1 (object files); Xen docs/misc/pvh.pandoc (the note XEN_ELFNOTE_PHYS32_ENTRY).
Not modelled: relocation, big-endian files, sections.

The file is not trusted: every offset is checked against its length, and what it asks of memory is known before
any of it is copied.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\x7fELF"
CLASS_32, CLASS_64, LITTLE = 1, 2, 1
EXECUTABLE, SHARED = 2, 3
MACHINES = {3: 32, 62: 64}  # EM_386, EM_X86_64
LOAD, NOTE = 1, 4
MAY_EXECUTE = 1
MOST_SEGMENTS = 256
MOST_NOTES = 1 << 20  # bytes of one segment of notes that are looked at
PHYS32_ENTRY = 18
FOUR_GIB = 1 << 32
ROMS_AT, ROMS_END = 0xC0000, 0x100000

REMEDY = "give an uncompressed kernel for x86, as its build leaves it (vmlinux, not vmlinux.o)"


class Piece:
    """`size` bytes at `addr`: `data`, then zeros."""

    __slots__ = ("addr", "data", "size")

    def __init__(self, addr: int, data: bytes | memoryview, size: int | None = None) -> None:
        self.addr, self.data = addr, data
        self.size = len(data) if size is None else size

    @property
    def end(self) -> int:
        return self.addr + self.size


class Elf:
    """bits: 32 or 64. entry: physical. pvh: the 32-bit entry of the note, or None. pieces: by address."""

    __slots__ = ("bits", "entry", "pieces", "pvh")

    def __init__(self, bits: int, entry: int, pieces: list[Piece], pvh: int | None) -> None:
        self.bits, self.entry, self.pieces, self.pvh = bits, entry, pieces, pvh

    @property
    def low(self) -> int:
        return self.pieces[0].addr

    @property
    def high(self) -> int:
        return self.pieces[-1].end

    def inside(self, addr: int) -> bool:
        return any(piece.addr <= addr < piece.end for piece in self.pieces)


def parse(data: bytes | memoryview) -> Elf:
    """BuildError: not an ELF executable for x86, cut off, or with parts that cannot be placed."""
    view = memoryview(data)
    if len(view) < 52 or bytes(view[:4]) != MAGIC:
        raise _wrong("is no ELF file")
    kind, order = view[4], view[5]
    if kind not in (CLASS_32, CLASS_64) or order != LITTLE:
        raise _wrong("is no little-endian ELF file of 32 or 64 bits")
    wide = kind == CLASS_64
    if wide and len(view) < 64:
        raise _wrong("is cut off in its header")
    form, machine = struct.unpack_from("<HH", view, 16)
    if machine not in MACHINES:
        raise _wrong(f"is for another processor (ELF machine {machine})")
    entry, table = struct.unpack_from("<QQ" if wide else "<II", view, 24)
    size, count = struct.unpack_from("<HH", view, 54 if wide else 42)
    if not count and form not in (EXECUTABLE, SHARED):  # the type alone keeps nobody from loading it
        raise _wrong(f"is no executable (ELF type {form})")
    if not 0 < count <= MOST_SEGMENTS:
        raise _wrong(f"has {count} program headers; 1 to {MOST_SEGMENTS} can be")
    if size < (56 if wide else 32) or table + size * count > len(view):
        raise _wrong("is cut off in its program headers")
    pieces: list[Piece] = []
    pvh = None
    for n in range(count):
        at = table + n * size
        if wide:
            what, flags, offset, virtual, addr, held, taken = struct.unpack_from("<IIQQQQQ", view, at)
        else:
            what, offset, virtual, addr, held, taken, flags = struct.unpack_from("<IIIIIII", view, at)
        if what == NOTE and pvh is None:
            pvh = _pvh(view[offset : min(offset + held, offset + MOST_NOTES)])
        if what != LOAD or not taken:
            continue
        if held > taken or offset + held > len(view):
            raise _wrong(f"is cut off: segment {n} has {held} bytes at {offset:#x} of {len(view)}")
        if addr + taken > FOUR_GIB:
            raise _wrong(f"wants segment {n} at {addr:#x}, {taken:#x} bytes, which ends above 4 GiB")
        pieces.append(Piece(addr, view[offset : offset + held], taken))
        # The entry point may be given as a virtual address of the code.
        if flags & MAY_EXECUTE and virtual != addr and virtual <= entry < virtual + taken:
            entry = entry - virtual + addr
    if not pieces:
        raise _wrong("has no segment to load")
    pieces.sort(key=lambda piece: piece.addr)
    pieces = _above_roms(pieces)
    for before, after in zip(pieces, pieces[1:], strict=False):
        if before.end > after.addr:
            raise _wrong(f"has segments that overlap: {before.addr:#x} to {before.end:#x}, and {after.addr:#x}")
    return Elf(64 if wide else 32, entry, pieces, pvh)


def _above_roms(pieces: list[Piece]) -> list[Piece]:
    """Without what would lie in the ROM area below 1 MiB: a linker told only -Ttext 0x100000 puts the file's headers
    in front of the code, where a loader's writes are lost. The rest is the kernel.
    """
    found = []
    for piece in pieces:
        if ROMS_AT <= piece.addr < ROMS_END:
            skip = min(ROMS_END, piece.end) - piece.addr
            piece = Piece(ROMS_END, piece.data[skip:], piece.size - skip)
        found.append(piece)
    return [piece for piece in found if piece.size] or pieces


def _pvh(notes: memoryview) -> int | None:
    """The entry point named by Xen's note, or None."""
    for name, kind, desc in _notes(notes):
        if name == b"Xen\0" and kind == PHYS32_ENTRY and len(desc) in (4, 8):
            return int.from_bytes(desc, "little")
    return None


def _notes(view: memoryview) -> Iterator[tuple[bytes, int, bytes]]:
    """(name with its NUL, type, description); it ends where the notes make no sense."""
    at = 0
    while at + 12 <= len(view):
        name_size, desc_size, kind = struct.unpack_from("<III", view, at)
        name_at = at + 12
        desc_at = name_at + (name_size + 3 & ~3)
        end = desc_at + desc_size
        if end > len(view):
            return
        yield bytes(view[name_at : name_at + min(name_size, 16)]), kind, bytes(view[desc_at : min(end, desc_at + 16)])
        at = desc_at + (desc_size + 3 & ~3)


def _wrong(what: str) -> BuildError:
    return BuildError(f"the kernel {what}", remedy=REMEDY)
