"""Pictures as JPEG, by Pillow (vmrun's extra `vnc`). ImportError where it is missing."""

from __future__ import annotations

import io

from PIL import Image


def encode(pixels: bytes, width: int, height: int, quality: int, order: str) -> bytes:
    """`order` is that of a pixel's bytes: "RGB", or "BGRX" with one that nobody looks at."""
    out = io.BytesIO()
    Image.frombuffer("RGB", (width, height), pixels, "raw", order, 0, 1).save(out, "JPEG", quality=quality)
    return out.getvalue()
