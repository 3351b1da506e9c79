"""PNG pictures: written, read, and put together into an animation (APNG). Pixels are red, green, blue, a byte each.

Ref: PNG (ISO/IEC 15948, third edition: acTL, fcTL, fdAT). What is written is colour type 2 without interlace; read are
eight bits a channel, palettes included, without interlace.
"""

from __future__ import annotations

import struct
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
MOST_PIXELS = 1 << 25
SECOND = 1000  # units of a frame's time


def encode(width: int, height: int, pixels: bytes | bytearray) -> bytes:
    return SIGNATURE + _header(width, height) + _chunk(b"IDAT", pack(width, pixels)) + _chunk(b"IEND", b"")


def pack(width: int, pixels: bytes | bytearray) -> bytes:
    """The compressed lines of a picture, as `animate` takes them."""
    view = memoryview(pixels)
    packer = zlib.compressobj(1)
    parts: list[bytes] = []
    for at in range(0, len(view), 3 * width):
        parts += (packer.compress(b"\0"), packer.compress(view[at : at + 3 * width]))
    return b"".join(parts) + packer.flush()


def animate(frames: Sequence[tuple[int, int, bytes, float]]) -> bytes:
    """(width, height, packed, seconds) each: shown one after the other, once. The picture is as large as the largest;
    a program that knows no animations shows the last frame.
    """
    width, height = max(frame[0] for frame in frames), max(frame[1] for frame in frames)
    last = frames[-1]
    still = last[2] if last[:2] == (width, height) else pack(width, bytes(3 * width * height))
    parts = [SIGNATURE, _header(width, height), _chunk(b"acTL", struct.pack(">II", len(frames), 1))]
    parts.append(_chunk(b"IDAT", still))
    number = 0
    for wide, high, packed, seconds in frames:
        time = min(max(int(seconds * SECOND), 1), 65535)
        # dispose: to black; blend: over nothing
        parts.append(_chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, wide, high, 0, 0, time, SECOND, 1, 0)))
        parts.append(_chunk(b"fdAT", struct.pack(">I", number + 1) + packed))
        number += 2
    return b"".join(parts) + _chunk(b"IEND", b"")


def decode(data: bytes) -> tuple[int, int, bytes]:
    """(width, height, pixels); what is transparent is black. ValueError for what is no PNG, or one of another kind."""
    if not data.startswith(SIGNATURE):
        raise ValueError("not a PNG picture")
    width = height = kind = 0
    palette, packed = b"", []
    for name, body in _chunks(data):
        if name == b"IHDR" and len(body) == 13:
            width, height, depth, kind, _, _, interlace = struct.unpack(">IIBBBBB", body)
            if depth != 8 or kind not in CHANNELS or interlace or not 0 < width * height <= MOST_PIXELS:
                raise ValueError(f"a PNG of {width} x {height} pixels, {depth} bits, colour type {kind} is not read")
        elif name == b"PLTE":
            palette = body
        elif name == b"IDAT":
            packed.append(body)
    size = width * CHANNELS[kind]
    try:
        lines = zlib.decompressobj().decompress(b"".join(packed), (size + 1) * height)
    except zlib.error as error:
        raise ValueError(f"a damaged PNG: {error}") from None
    if not width or len(lines) != (size + 1) * height:
        raise ValueError("a PNG that ends too early")
    out, before = [], bytes(size)
    for at in range(0, len(lines), size + 1):
        before = _unfilter(lines[at], lines[at + 1 : at + 1 + size], before, CHANNELS[kind])
        out.append(before)
    return width, height, _colours(b"".join(out), kind, palette)


def _header(width: int, height: int) -> bytes:
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(SIGNATURE)
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _unfilter(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    if kind == 0:
        return line
    if kind == 2:
        return bytes([(a + b) & 0xFF for a, b in zip(line, above, strict=True)])
    out = bytearray(step) + line  # a pixel of zeros on the left
    for n, up in enumerate(above):
        left, corner = out[n], above[n - step] if n >= step else 0
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        elif kind == 4:
            guess = left + up - corner
            a, b, c = abs(guess - left), abs(guess - up), abs(guess - corner)
            guess = left if a <= b and a <= c else up if b <= c else corner
        else:
            raise ValueError(f"a PNG with filter {kind}")
        out[n + step] = (line[n] + guess) & 0xFF
    return bytes(out[step:])


def _colours(data: bytes, kind: int, palette: bytes) -> bytes:
    if kind == 2:
        return data
    count = len(data) // CHANNELS[kind]
    out = bytearray(3 * count)
    for part in range(3):
        if kind == 3:
            table = palette[part::3].ljust(256, b"\0")
            out[part::3] = data.translate(table)
        else:
            out[part::3] = data[part::4] if kind == 6 else data[:: CHANNELS[kind]]
    return bytes(out)
