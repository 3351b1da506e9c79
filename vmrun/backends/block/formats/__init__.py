"""Formats of images that other programs have: what their files say, and where a disk's blocks lie in them.

Each module has one: `open_layout(file, name, access)` gives a Layout, which mapped.MappedNode reads and writes,
`create(path, size, options)` makes an image. Everything in a file is checked before it is used; tables are bounded.
"""

from __future__ import annotations

import errno
from array import array
from importlib import import_module

from vmrun.backends.block.errors import ImageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmrun.backends.block.images import Access
    from vmrun.backends.block.node import Node

SECTOR = 512
MOST_TABLE = 64 << 20  # bytes of a table that is gone through when an image is opened
KEPT = 64  # pieces of a table, and tables of two levels, that are kept


class Layout:
    """Where the blocks of a disk lie. Called by one thread at a time."""

    driver = ""
    block = 0  # bytes that have one place; 0: the whole disk
    packs = False  # blocks are written compressed, whole, and once
    answers = False  # what has no place is told to be the image's own zeros, not nobody's
    holes = False  # data has its place from the beginning: the file knows better where there is none
    extents: tuple[Any, ...] = ()  # nodes besides the file itself
    held: tuple[tuple[Any, int, int], ...] = ()  # (node, from, to): headers and tables, where data is never written
    size = 0

    def __init__(self, file: Node) -> None:
        self.file: Any = file

    def find(self, offset: int, count: int) -> tuple[Any, int, int]:
        """(None, 0, bytes) without a place; (node, where, bytes); (what unpacked() takes, offset in it, bytes): as far
        as that is so, at most `count` bytes: here the file is the disk. OSError.
        """
        return self.file, offset, count

    def unpacked(self, what: Any, offset: int) -> bytes:
        """A compressed block from `offset` on. OSError."""
        raise OSError(errno.EIO, "nothing is compressed here")

    def place(self, offset: int) -> None:
        """Give the block around `offset` a place, where it reads as zeros. OSError."""
        raise OSError(errno.EIO, "everything has its place here")

    def pack(self, offset: int, data: bytes) -> None:
        """Write a block compressed. OSError."""
        raise OSError(errno.EIO, "nothing is compressed here")

    def resize(self, size: int, preallocation: str) -> None:
        raise OSError(errno.ENOTSUP, "Image format driver does not support resize")

    def writable(self) -> None:
        """Before the first write. ImageError when the image must not be written."""

    def changed(self) -> None:
        """Before the first write since it was opened: who knew the image knows it no more. OSError."""

    def reload(self) -> None:
        """Another program has written the image."""

    def check(self, repair: bool) -> int:
        """How many errors there are. ImageError when the format has no check, or none that repairs."""
        raise ImageError("This image format does not support checks")

    def told(self, name: str) -> dict[str, Any]:
        """QEMU's ImageInfoSpecific, or nothing. `name`: of the image."""
        return {}


class Table:
    """A table of a file, whose pieces that were used last are kept: entries of 4 or 8 bytes, big-endian or not."""

    PIECE = 1 << 14  # entries

    def __init__(
        self, file: Any, at: int, entries: int, kind: str, swapped: bool = False, most: int = MOST_TABLE
    ) -> None:
        """`kind`: I or Q. `most`: bytes that it may have. ImageError, when it has more or does not lie in the file."""
        self.file, self.at, self.entries, self.kind, self.swapped = file, at, entries, kind, swapped
        self.width = 4 if kind == "I" else 8
        if entries * self.width > most:
            raise ImageError(f"a table of {entries * self.width} bytes is more than the {most} that are read")
        if at + entries * self.width > file.size:
            raise ImageError("a table lies beyond the end of the file")
        self.pieces: dict[int, Any] = {}

    def forget(self) -> None:
        """It may be another's by now."""
        self.pieces.clear()

    def _piece(self, number: int) -> Any:
        found = self.pieces.pop(number, None)
        if found is None:
            first = number * self.PIECE
            count = min(self.PIECE, self.entries - first)
            found = array(self.kind, self.file.read(self.at + first * self.width, count * self.width))
            if self.swapped:
                found.byteswap()
            while len(self.pieces) >= KEPT:
                self.pieces.pop(next(iter(self.pieces)))
        self.pieces[number] = found
        return found

    def __getitem__(self, number: int) -> int:
        return int(self._piece(number // self.PIECE)[number % self.PIECE])

    def all(self) -> Iterator[Any]:
        """Its pieces, in order."""
        return map(self._piece, range(-(-self.entries // self.PIECE)))

    def set(self, number: int, value: int) -> None:
        """In the file first. OSError."""
        data = value.to_bytes(self.width, "big" if self.swapped else "little")
        self.file.write(self.at + number * self.width, data)
        self._piece(number // self.PIECE)[number % self.PIECE] = value


def module(name: str) -> Any:
    return import_module(f"vmrun.backends.block.formats.{name}")


def open_format(file: Node, name: str, format: str, access: Access) -> Node:
    """The node of an image of one of images.MAPPED. ImageError."""
    from vmrun.backends.block.mapped import MappedNode

    try:
        layout = module(format).open_layout(file, name, access)
    except ImageError as error:
        if error.text.startswith("Could not open '"):
            raise
        raise ImageError(f"Could not open '{name}': {error.text}", error.remedy) from None
    except OSError as error:
        raise ImageError(f"Could not open '{name}': {error.strerror}") from None
    try:
        if not access.readonly and not file.asleep:
            layout.writable()
        node: Node = MappedNode(file, layout, access.readonly)
        return node
    except BaseException as error:
        for one in layout.extents:
            one.close()
        if isinstance(error, ImageError) and not error.text.startswith("Could not open '"):
            raise ImageError(f"Could not open '{name}': {error.text}", error.remedy) from None
        raise


def grown(file: Any, count: int, align: int = SECTOR) -> int:
    """Where a piece of `count` bytes at the file's end begins, which are zeros. OSError."""
    at: int = -(-file.size // align) * align
    file.truncate(at + count)
    return at
