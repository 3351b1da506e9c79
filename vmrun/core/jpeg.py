"""Pictures as JPEG, by Pillow (vmrun's extra `vnc`). ImportError where it is missing."""

from __future__ import annotations

import io

from PIL import Image


def encode_bgrx(pixels: bytes, width: int, height: int, quality: int) -> bytes:
    """`pixels` are four bytes each: blue, green, red and one that nobody looks at."""
    out = io.BytesIO()
    Image.frombuffer("RGB", (width, height), pixels, "raw", "BGRX", 0, 1).save(out, "JPEG", quality=quality)
    return out.getvalue()
