"""PNG pictures: written as the standard has it, read back, damaged ones refused."""

from __future__ import annotations

import io
import random
import struct

import pytest
from PIL import Image

from vmrun.core.png import animate, decode, encode, pack

NOISE = random.Random(2).randbytes(3 * 37 * 11)


def test_what_is_written_is_what_others_read() -> None:
    with Image.open(io.BytesIO(encode(37, 11, NOISE))) as image:
        assert (image.size, image.mode, image.tobytes()) == ((37, 11), "RGB", NOISE)


def test_what_is_written_is_read_back() -> None:
    assert decode(encode(37, 11, NOISE)) == (37, 11, NOISE)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P"])
def test_pictures_of_other_programs_are_read(mode: str) -> None:
    # something smooth, so that all filters are used
    image = Image.linear_gradient("L").resize((64, 48)).convert("RGB").rotate(30).convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    assert decode(out.getvalue()) == (64, 48, image.convert("RGB").tobytes())


def test_an_animation_shows_its_frames_one_after_the_other() -> None:
    pictures = [(8, 4, bytes(96)), (8, 4, b"\xff" * 96), (4, 4, b"\x80" * 48)]
    data = animate([(w, h, pack(w, p), 0.25) for w, h, p in pictures])
    with Image.open(io.BytesIO(data)) as image:
        # Pillow counts what programs without animations show
        assert (image.n_frames, image.size) == (1 + 3, (8, 4))  # type: ignore[attr-defined]
        image.seek(2)
        assert image.convert("RGB").tobytes() == b"\xff" * 96
        image.seek(3)
        assert image.convert("RGB").crop((0, 0, 4, 4)).tobytes() == b"\x80" * 48
        assert image.info["duration"] == 250


def header(width: int, height: int, depth: int = 8, kind: int = 2, interlace: int = 0) -> bytes:
    body = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + bytes(4)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a PNG"),
        (b"GIF89a", "not a PNG"),
        (encode(37, 11, NOISE)[:200], "ends too early"),
        (encode(37, 11, NOISE).replace(b"IDAT\x78", b"IDAT\x00"), "damaged"),
        (header(1 << 30, 1 << 30), "is not read"),
        (header(0, 5), "is not read"),
        (header(8, 8, depth=16), "is not read"),
        (header(8, 8, interlace=1), "is not read"),
        (b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIDAT", "PNG"),
    ],
)
def test_damaged_pictures_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        decode(data)
