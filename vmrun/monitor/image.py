"""A screen as a file: PPM, PNG, and JPEG where Pillow is installed.

Ref: netpbm's ppm(5); PNG (ISO/IEC 15948), colour type 2, no interlace.
"""

from __future__ import annotations

FORMATS = ("ppm", "png", "jpeg")
JPEG_QUALITY = 92


def encode(width: int, height: int, pixels: bytes | bytearray, kind: str) -> list[bytes | bytearray]:
    """The file in parts. `pixels`: red, green, blue, a byte each, line by line. `kind` is one of FORMATS. ImportError
    for a JPEG without Pillow.
    """
    if kind == "jpeg":
        from vmrun.core.jpeg import encode as jpeg

        return [jpeg(bytes(pixels), width, height, JPEG_QUALITY, "RGB")]
    if kind == "png":
        from vmrun.core.png import encode as png

        return [png(width, height, pixels)]
    return [b"P6\n%d %d\n255\n" % (width, height), pixels]
