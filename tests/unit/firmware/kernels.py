"""Kernels for tests without a compiler: only their headers mean something."""

from __future__ import annotations

import struct


def elf(
    segments: list[tuple[int, bytes, int]],
    *,
    bits: int = 64,
    entry: int | None = None,
    pvh: int | None = None,
    virtual: int = 0,
    form: int = 2,
) -> bytes:
    """segments: (physical address, contents, bytes in memory); `virtual` is added to make their virtual addresses.
    form: the file's type, 2 for an executable.
    """
    entry = segments[0][0] if entry is None else entry
    note = b"" if pvh is None else struct.pack("<III4sI", 4, 4, 18, b"Xen\0", pvh)
    count = len(segments) + bool(note)
    head, row = (64, 56) if bits == 64 else (52, 32)
    at = head + row * count
    rows, body = [], b""
    for kind, addr, data, size in [(1, *segment) for segment in segments] + ([(4, 0, note, len(note))] if note else []):
        offset = at + len(body)
        if bits == 64:
            rows.append(struct.pack("<IIQQQQQQ", kind, 7, offset, addr + virtual, addr, len(data), size, 4))
        else:
            rows.append(struct.pack("<8I", kind, offset, addr + virtual, addr, len(data), size, 7, 4))
        body += data
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    if bits == 64:
        start = struct.pack("<HHIQQQIHHHHHH", form, 62, 1, entry, head, 0, 0, head, row, count, 0, 0, 0)
    else:
        start = struct.pack("<HHIIIIIHHHHHH", form, 3, 1, entry, head, 0, 0, head, row, count, 0, 0, 0)
    return ident + start + b"".join(rows) + body


def multiboot(flags: int = 3, addresses: tuple[int, ...] = (), before: bytes = b"") -> bytes:
    """A first-version header; `addresses`: header, load, load end, bss end, entry."""
    head = struct.pack("<III", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF)
    return before + head + struct.pack(f"<{len(addresses)}I", *addresses) + b"\xf4" * 64


def multiboot2(*tags: bytes) -> bytes:
    """A second-version header with these tags."""
    body = b"".join(tag + bytes(-len(tag) % 8) for tag in tags) + struct.pack("<HHI", 0, 0, 8)
    total = 16 + len(body)
    return struct.pack("<IIII", 0xE85250D6, 0, total, -(0xE85250D6 + total) & 0xFFFFFFFF) + body


def linux(version: int = 0x20F, *, high: bool = True, xload: int = 1, size: int = 8192, init: int = 0x20000) -> bytes:
    """A setup header of that version with two sectors of setup."""
    image = bytearray(1536)
    image[0x1F1] = 2
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x201] = 0x66
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    image[0x211] = int(high)
    struct.pack_into("<I", image, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<IBBH", image, 0x230, 0x200000, 1, 0, xload)
    struct.pack_into("<I", image, 0x238, 2047)
    struct.pack_into("<QI", image, 0x258, 0x1000000, init)
    return bytes(image) + bytes(size)


def old_linux(size: int = 8192) -> bytes:
    """Before the header was invented: a boot sector that says how long the rest is."""
    image = bytearray(512 * 5)
    image[0x1F1] = 4
    struct.pack_into("<H", image, 0x1F4, size // 16)
    image[0x1FE:0x200] = b"\x55\xaa"
    return bytes(image) + bytes(size)
