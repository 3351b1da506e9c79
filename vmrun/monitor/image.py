"""A screen as a file: PPM, PNG, and JPEG where Pillow is installed.

Ref: netpbm's ppm(5); PNG (ISO/IEC 15948), colour type 2, no interlace.
"""

from __future__ import annotations

FORMATS = ("ppm", "png", "jpeg")
JPEG_QUALITY = 92


def encode(width: int, height: int, pixels: bytes | bytearray, kind: str) -> bytes:
    """`pixels`: red, green, blue, a byte each, line by line. `kind` is one of FORMATS. ImportError for a JPEG without
    Pillow.
    """
    if kind == "jpeg":
        from vmrun.core.jpeg import encode as jpeg

        return jpeg(bytes(pixels), width, height, JPEG_QUALITY, "RGB")
    if kind == "png":
        return _png(width, height, memoryview(pixels))
    return b"P6\n%d %d\n255\n" % (width, height) + pixels


def _png(width: int, height: int, pixels: memoryview) -> bytes:
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(1)
    parts: list[bytes] = []
    for at in range(0, len(pixels), 3 * width):
        parts += (packer.compress(b"\0"), packer.compress(pixels[at : at + 3 * width]))
    parts.append(packer.flush())
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"".join(parts)) + chunk(b"IEND", b"")
