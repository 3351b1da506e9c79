"""A backing chain as one disk: what is where, and in which image of the chain."""

from __future__ import annotations

from vmrun.backends.block.node import (
    EXTENT_ALLOCATED,
    EXTENT_COMPRESSED,
    EXTENT_DATA,
    EXTENT_HOLE,
    EXTENT_OFFSET,
    EXTENT_ZERO,
)  # fmt: skip

SECTOR = 512

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from vmrun.backends.block.node import Node

__all__ = ["Piece", "backing_of", "below_of", "deep", "pieces", "images", "seen"]


FILTERS = ("blkdebug", "copy-on-read", "throttle")  # drivers whose nodes show what is below them, place by place


class Piece:
    """`length` bytes from `start` on that are alike; `depth` images below the top, `node` is the one that has them.
    A `hole` that is no `zero` is data to whoever reads it: a server's, which does not say what it reads as.
    """

    __slots__ = ("compressed", "data", "depth", "hole", "length", "node", "offset", "present", "start", "zero")

    def __init__(self, start: int, length: int, depth: int, flags: int, host: int, node: Node) -> None:
        self.start, self.length, self.depth, self.node = start, length, depth, node
        self.data, self.zero = bool(flags & EXTENT_DATA), bool(flags & EXTENT_ZERO)
        self.present = bool(flags & EXTENT_ALLOCATED)
        self.compressed, self.hole = bool(flags & EXTENT_COMPRESSED), bool(flags & EXTENT_HOLE)
        self.offset: int | None = host if flags & EXTENT_OFFSET else None

    def follows(self, other: Piece) -> bool:
        """Whether it only continues the one before."""
        return (
            (self.depth, self.data, self.zero, self.present, self.compressed, self.hole, self.node is other.node)
            == (other.depth, other.data, other.zero, other.present, other.compressed, other.hole, True)
            and (self.offset is None) == (other.offset is None)
            and (self.offset is None or self.offset == (other.offset or 0) + other.length)
        )


def backing_of(node: Node) -> Node | None:
    return next((child for role, child in node.children() if role == "backing"), None)


def below_of(node: Node) -> Node | None:
    """The same of a filter that is above an image."""
    at: Any = node
    while at is not None and at.driver in FILTERS:
        at = next((child for role, child in at.children() if role == "file"), None)
    return None if at is None else backing_of(at)


def images(node: Node) -> Iterator[Node]:
    """The node and those below it."""
    at: Node | None = node
    while at is not None:
        yield at
        at = backing_of(at)


def _hollow(node: Any) -> bool:
    """Whether much that has a place in the image was never written: then it is worth asking the file for its holes."""
    known = getattr(node, "hollow", None)
    if known is None:
        return False
    if known < 0:
        import os

        fd = getattr(node.file, "fd", -1)
        cluster, there = node.cluster_size, os.fstat(fd).st_blocks * 512 if fd >= 0 else node.file.size
        node.hollow = int(node.file.size // cluster >= max(there // cluster * 10 // 9, there // cluster + 2))
    return bool(node.hollow)


def _one(node: Any, start: int, length: int, base: Node | None) -> Piece:
    depth = 0
    while True:
        found, flags, host = node.extent(start, length)
        length = min(length, found)
        if flags & EXTENT_DATA and flags & EXTENT_OFFSET and _hollow(node):
            inner, below_flags, _ = node.data.extent(host, length)
            return Piece(start, min(length, inner), depth, flags | below_flags & EXTENT_ZERO, host, node)
        if flags & (EXTENT_DATA | EXTENT_ZERO):
            return Piece(start, length, depth, flags, host, node)
        below = below_of(node)
        if below is None or start >= below.size:
            return Piece(start, length, depth, flags | EXTENT_ZERO, host, node)
        if below is base:
            return Piece(start, length, depth + 1, 0, 0, below)
        if start + length > below.size:
            length = below.size - start
        node = below
        depth += 1


def _salvaged(
    node: Node, start: int, length: int, base: Node | None, failed: Callable[[int, int, OSError], None]
) -> Piece:
    """As far as the image says what it has; a sector of which it does not is data."""
    while True:
        try:
            return _one(node, start, length, base)
        except OSError as error:
            failed(start, length, error)
            if length <= SECTOR:
                return Piece(start, length, 0, EXTENT_DATA | EXTENT_ALLOCATED, 0, node)
            length = max(SECTOR, length // 2 // SECTOR * SECTOR)


def pieces(
    node: Node, start: int = 0, length: int | None = None, base: Node | None = None,
    failed: Callable[[int, int, OSError], None] | None = None,
) -> Iterator[Piece]:  # fmt: skip
    """All of the disk from `start` on. What only `base` or images below it have comes with neither data nor zero.
    `failed` is told (where, for how many bytes, why) the image does not say what it has: it is asked for less, and a
    sector of which it says nothing is data; without `failed` that is an OSError.
    """
    end = node.size if length is None else min(node.size, start + length)
    pending: Piece | None = None
    while start < end:
        if failed is None:
            piece = _one(node, start, end - start, base)
        else:
            piece = _salvaged(node, start, end - start, base, failed)
        start += piece.length
        if pending is not None and piece.follows(pending):
            pending.length += piece.length
            continue
        if pending is not None:
            yield pending
        pending = piece
    if pending is not None:
        yield pending


def whole(found: Iterable[Piece], size: int, align: int) -> Iterator[Piece]:
    """The same pieces with what lacks in the disk's last sector, of which `size` says the beginning: zeros behind the
    file's end, part of the last piece where files are read in units of `align` bytes.
    """
    last: Piece | None = None
    missing = -size % SECTOR
    for piece in found:
        if last is not None:
            yield last
        last = piece
    if last is None:
        return
    if missing and last.start + last.length == size:
        if align > 1 or last.zero and not last.data:
            last.length += missing
        elif last.node is not None:
            flags = EXTENT_ZERO | (EXTENT_ALLOCATED if last.present else 0)
            rest = Piece(size, missing, last.depth, flags, 0, last.node)
            rest.offset = None if last.offset is None else last.offset + last.length
            yield last
            last = rest
    yield last


def seen(node: Any, offset: int, count: int) -> tuple[int, bool, bool]:
    """(bytes, whether something is stored for them in this image or below, whether they read as zeros) from `offset`
    on, as far as that is the same. OSError.
    """
    while node is not None and offset < node.size:
        length, flags, _ = node.extent(offset, min(count, node.size - offset))
        count = max(1, min(count, length))
        if flags & EXTENT_ALLOCATED:
            return count, bool(flags & EXTENT_DATA), bool(flags & EXTENT_ZERO)
        node = backing_of(node)
    return count, False, True


def deep(node: Any, offset: int, count: int) -> tuple[int, int]:
    """(bytes, which image of the chain answers for them: 1 is the node itself, 0 none) from `offset` on, as far as that
    is the same. OSError.
    """
    depth = 0
    while node is not None and offset < node.size:
        depth += 1
        length, flags, _ = node.extent(offset, min(count, node.size - offset))
        count = max(1, min(count, length))
        if flags & EXTENT_ALLOCATED:
            return count, depth
        node = backing_of(node)
    return count, 0


def unlike(one: Node | None, other: Node | None, start: int, count: int) -> Iterator[tuple[int, int]]:
    """(start, length) of what is not known to be zeros in both; a disk has zeros behind its end, None everywhere."""
    end = start + count
    while start < end:
        length, _, zero = seen(one, start, end - start)
        length, _, other_zero = seen(other, start, length)
        if not (zero and other_zero):
            yield start, length
        start += length
