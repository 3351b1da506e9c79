"""Pictures (width, height, three bytes a pixel) as files: PPM and PNG.

Ref: netpbm's ppm(5); PNG (ISO/IEC 15948), colour type 2, no interlace.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMATS = ("ppm", "png")


def encode(picture: Any, kind: str) -> bytes:
    return _png(picture) if kind == "png" else _ppm(picture)


def _ppm(picture: Any) -> bytes:
    return b"P6\n%d %d\n255\n" % (picture.width, picture.height) + bytes(picture.pixels)


def _png(picture: Any) -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pitch = 3 * picture.width
    rows = b"".join(b"\0" + picture.pixels[at : at + pitch] for at in range(0, len(picture.pixels), pitch))
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 6)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
