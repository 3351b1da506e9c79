"""A guest's memory as kdump's compressed file, a page at a time, as QEMU writes it: crash and makedumpfile open it.

Ref: makedumpfile's diskdump_mod.h and IMPLEMENTATION (header version 6), and its flattened format (makedumpfile -F):
records of offset, size and data in any order, so that nothing needs to be written twice or sought.

    block 0         header, of 4096 bytes
    block 1 …       sub-header, then the processors' notes, then the guest's (vmcoreinfo)
    then            two bitmaps of the pages that there are, equal here
    then            a descriptor of 24 bytes for each such page; then their contents, all empty pages sharing one
"""

from __future__ import annotations

import struct
import zlib

from vmrun.machine import memorydump

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from vmrun.machine.machine import Machine
    from vmrun.machine.memorydump import Span

BLOCK = PAGE = 4096
VERSION = 6
COMPRESSED_ZLIB = 1
NO_EMPTY_PAGES = 1  # the dump level: what the reader need not look for
DESCRIPTOR = struct.Struct("<QIIQ")
HEADER = struct.Struct("<8sI65s65s65s65s65s65s6x16xIIIIIIIIII")
SUB_HEADER = struct.Struct("<QIIQQQQQQQQQQQ")
EMPTY = bytes(PAGE)
START = b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)
END = struct.pack(">qq", -1, -1)
FASTEST = 1


def write(
    machine: Machine, write_to: Callable[[bytes], object], states: list[dict[str, Any]], found: list[Span],
    told: Callable[[int], bool],
) -> None:  # fmt: skip
    """All of it. `told(bytes of memory that are done)` returns True to give up. OSError from write_to."""

    def put(offset: int, data: bytes) -> None:
        write_to(struct.pack(">qq", offset, len(data)) + data)

    note, guests = memorydump.notes_of_processors(machine, states), memorydump.guests_note(machine)
    pages = [(span.physical // PAGE, span.size // PAGE) for span in found]
    most = max(first + count for first, count in pages)
    map_size = (most + 8 * BLOCK - 1) // (8 * BLOCK) * BLOCK
    sub_blocks = -(-(SUB_HEADER.size + len(note) + len(guests)) // BLOCK)
    table = (1 + sub_blocks) * BLOCK + 2 * map_size
    data = table + DESCRIPTOR.size * sum(count for _, count in pages)
    write_to(START.ljust(BLOCK, b"\0"))
    put(0, _header(most, sub_blocks, 2 * map_size // BLOCK, len(states)))
    put(BLOCK, _sub_header(most, note, guests) + note + guests)
    for at in range(2):
        put((1 + sub_blocks) * BLOCK + at * map_size, _bitmap(pages, map_size))
    put(data, EMPTY)
    empty, data = DESCRIPTOR.pack(data, PAGE, 0, 0), data + PAGE
    done = 0
    for piece in memorydump.contents(machine, found):
        rows, bodies, size = [], [], 0
        for page in _pages(piece):
            if page == EMPTY:
                rows.append(empty)
                continue
            packed = zlib.compress(page, FASTEST)
            flags = COMPRESSED_ZLIB if len(packed) < PAGE else 0
            body = packed if flags else page
            rows.append(DESCRIPTOR.pack(data + size, len(body), flags, 0))
            bodies.append(body)
            size += len(body)
        put(table, b"".join(rows))
        table += DESCRIPTOR.size * len(rows)
        if size:
            put(data, b"".join(bodies))
            data += size
        done += len(piece)
        if told(done):
            return
    write_to(END)


def _pages(piece: bytes) -> Iterator[bytes]:
    for at in range(0, len(piece), PAGE):
        yield piece[at : at + PAGE]


def _header(most: int, sub_blocks: int, map_blocks: int, processors: int) -> bytes:
    names = [b"", b"", b"", b"", b"x86_64", b""]
    numbers = (COMPRESSED_ZLIB, BLOCK, sub_blocks, map_blocks, min(most, 0xFFFFFFFF), 0, 0, 0, 0, processors)
    return HEADER.pack(b"KDUMP   ", VERSION, *names, *numbers)


def _sub_header(most: int, note: bytes, guests: bytes) -> bytes:
    at = BLOCK + SUB_HEADER.size
    body = struct.unpack_from("<I", guests, 4)[0] if guests else 0
    inside = -(-struct.unpack_from("<I", guests)[0] // 4) * 4 + 12 if guests else 0  # behind the note's own name
    info = (at + len(note) + inside, body) if guests else (0, 0)
    base = memorydump.physical_base(guests)
    return SUB_HEADER.pack(base, NO_EMPTY_PAGES, 0, 0, 0, *info, at, len(note), 0, 0, 0, 0, most)


def _bitmap(pages: list[tuple[int, int]], size: int) -> bytes:
    """A bit for each page that there is."""
    bits = bytearray(size)
    for first, count in pages:
        at, end = first, first + count
        while at < end and at % 8:
            bits[at // 8] |= 1 << at % 8
            at += 1
        whole = (end - at) // 8
        bits[at // 8 : at // 8 + whole] = b"\xff" * whole
        for last in range(at + 8 * whole, end):
            bits[last // 8] |= 1 << last % 8
    return bytes(bits)
