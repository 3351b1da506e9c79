"""A screen as a file: PPM, PNG, and JPEG where Pillow is installed.

Ref: netpbm's ppm(5); PNG (ISO/IEC 15948), colour type 2, no interlace.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.surface import Surface

FORMATS = ("ppm", "png", "jpeg")


def encode(surface: Surface, kind: str) -> bytes:
    """`kind` is one of FORMATS. ImportError for a JPEG without Pillow."""
    if kind == "jpeg":
        from vmrun.core.jpeg import encode_bgrx

        return encode_bgrx(bytes(surface), surface.width, surface.height, 92)
    return _png(surface) if kind == "png" else _ppm(surface)


def _ppm(surface: Surface) -> bytes:
    return b"P6\n%d %d\n255\n" % (surface.width, surface.height) + surface.rgb()


def _png(surface: Surface) -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pitch = 3 * surface.width
    pixels = memoryview(surface.rgb())
    packer = zlib.compressobj(1)
    parts: list[bytes] = []
    for at in range(0, len(pixels), pitch):
        parts += (packer.compress(b"\0"), packer.compress(pixels[at : at + pitch]))
    parts.append(packer.flush())
    head = struct.pack(">IIBBBBB", surface.width, surface.height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(parts)) + chunk(b"IEND", b"")
