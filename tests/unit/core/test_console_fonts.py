"""Fonts of Linux's consoles, built in and loaded, of any size: found by the words before them, read on a picture."""

from __future__ import annotations

import random
import struct

import pytest
from accel.ram import RamBlock

from vmrun.core.fonts import PictureReader, console_font
from vmrun.core.glyphs import UNKNOWN, linux_fonts
from vmrun.core.surface import Surface

SIZES = [(8, 16), (8, 8), (8, 14), (6, 12), (10, 20), (12, 22), (12, 24), (14, 28), (16, 32), (8, 13)]
WORDS = "login: The quick brown Fox 0123456789"


def made(width: int, height: int, characters: int = 256, seed: int = 1) -> bytes:
    rng, pitch = random.Random(seed), (width + 7) // 8
    found = b""
    for code in range(characters):
        lines = [rng.getrandbits(width) << (8 * pitch - width) for _ in range(height)]
        if code in (0, 0x20, 0xA0):
            lines = [0] * height
        if code == 0xDB:
            lines = [(1 << width) - 1 << (8 * pitch - width)] * height
        found += b"".join(line.to_bytes(pitch, "big") for line in lines)
    return found


def put(block: RamBlock, at: int, data: bytes, characters: int) -> None:
    """As fbcon keeps one: check sum, what is not set, size, users; a font that is built in has its size alone."""
    words = (0x12345678, 0xFFFF8881, len(data), 1) if characters else (0, 0, len(data), 0)
    block.write(at, struct.pack("<4I", *words) + data)


def drawn(data: bytes, width: int, height: int, text: str, codes: dict[str, int] | None = None) -> Surface:
    surface, pitch = Surface(width * 40, height * 3), (width + 7) // 8
    for column, character in enumerate(text):
        code = (codes or {}).get(character, ord(character))
        for line in range(height):
            start = (code * height + line) * pitch
            bits = int.from_bytes(data[start : start + pitch], "big") >> (8 * pitch - width)
            for dot in range(width):
                if bits >> (width - 1 - dot) & 1:
                    surface.fill(column * width + dot, height + line, 1, 1, 0xAAAAAA)
    return surface


def read(block: RamBlock, surface: Surface) -> tuple[str, str]:
    reader = PictureReader(lambda: bytes(0x20000), lambda: [block])
    reading, font = reader.read(memoryview(surface), surface.width, surface.height)
    assert reading is not None
    return reading.rows[1].rstrip(), font


@pytest.mark.parametrize("characters", [0, 256, 512])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_text_in_a_font_of_the_guests_is_read(width: int, height: int, characters: int) -> None:
    block, data = RamBlock("ram", 16 << 20), made(width, height, characters or 256)
    put(block, 0x8A3008, made(8, 16, seed=7), 256)  # another one, that nobody draws with
    put(block, 0xABCDE8, data, characters)
    assert read(block, drawn(data, width, height, WORDS)) == (WORDS, f"console {width}x{height}")


def test_what_a_loaded_font_has_beyond_ascii_is_not_guessed() -> None:
    block, data = RamBlock("ram", 16 << 20), made(8, 16)
    put(block, 0xABC000, data, 256)
    surface = drawn(data, 8, 16, WORDS + "\u00e9", {"\u00e9": 0x82})
    assert read(block, surface)[0] == WORDS + UNKNOWN


def test_a_font_that_is_built_in_has_code_page_437() -> None:
    block, data = RamBlock("ram", 16 << 20), made(12, 22)
    put(block, 0xABC000, data, 0)
    surface = drawn(data, 12, 22, WORDS + "\u00e9", {"\u00e9": 0x82})
    assert read(block, surface)[0] == WORDS + "\u00e9"


def test_a_font_that_is_loaded_later_is_found_then() -> None:
    block, first, second = RamBlock("ram", 16 << 20), made(8, 16), made(16, 32, seed=2)
    put(block, 0x200000, first, 256)
    reader = PictureReader(lambda: bytes(0x20000), lambda: [block])
    reader.AGAIN = 0.0
    for data, width, height in ((first, 8, 16), (second, 16, 32)):
        put(block, 0x200000, data, 256)
        surface = drawn(data, width, height, WORDS)
        reading, font = reader.read(memoryview(surface), surface.width, surface.height)
        assert reading is not None and (reading.rows[1].rstrip(), font) == (WORDS, f"console {width}x{height}")


def test_memory_that_only_looks_so_is_passed_over() -> None:
    block, rng = RamBlock("ram", 8 << 20), random.Random(3)
    for at in range(0x100000, 0x180000, 0x2000):
        block.write(at, struct.pack("<4I", 0, 0, 4096, rng.choice((0, 1, 5))) + rng.randbytes(4096))
    block.write((8 << 20) - 16, struct.pack("<4I", 1, 256, 4096, 1))  # its data would be beyond
    assert linux_fonts(block) == []
    assert console_font(bytes(4096), 256, True) is None
    same = bytearray(made(8, 16))
    same[0x41 * 16 : 0x42 * 16] = same[0x42 * 16 : 0x43 * 16]  # A looks like B
    assert console_font(bytes(same), 256, True) is None
