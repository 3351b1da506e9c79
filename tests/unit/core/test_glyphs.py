"""Text read off pictures: fonts, cells, places, cursors."""

from __future__ import annotations

import pathlib
import random
import struct

import pytest
from accel.ram import RamBlock

from vmrun.core.fonts import FACE_AT, FACES, PictureReader, pf2_font, vga_fonts
from vmrun.core.glyphs import UNKNOWN, Font, seek
from vmrun.core.surface import Surface

PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


def rom_font(height: int = 16, seed: int = 1) -> bytes:
    """256 characters that look like nothing, but stand where a video BIOS has them."""
    rng = random.Random(seed)
    glyphs = [bytes([0, *rng.randbytes(height - 3), 0, 0]) for _ in range(256)]
    glyphs[0] = glyphs[0x20] = glyphs[0xFF] = bytes(height)
    face = bytes(FACE_AT[height]) + FACES[height]
    glyphs[1] = face.ljust(height, b"\0")
    return b"".join(glyphs)


def draw(
    surface: Surface, font: bytes, text: str, x: int, y: int, ink: int = 0xAAAAAA, paper: int = 0, height: int = 16
) -> None:
    for column, character in enumerate(text):
        surface.fill(x + 8 * column, y, 8, height, paper)
        for line in range(height):
            bits = font[ord(character) * height + line]
            for dot in range(8):
                if bits >> (7 - dot) & 1:
                    surface.fill(x + 8 * column + dot, y + line, 1, 1, ink)


def pixels(surface: Surface) -> memoryview:
    return memoryview(surface)


def the_font(data: bytes) -> Font:
    (font,) = vga_fonts("VGA", data)
    return font


def test_characters_of_a_rom_font_are_read_back() -> None:
    data = rom_font()
    surface = Surface(len(PRINTABLE) * 8, 32)
    draw(surface, data, PRINTABLE, 0, 16)
    reading = the_font(bytes(1000) + data + bytes(1000)).read(pixels(surface), surface.width, surface.height)
    assert reading.rows == [" " * len(PRINTABLE), PRINTABLE]
    assert (reading.known, reading.drawn, reading.strange) == (62, 94, 0)


def test_colours_do_not_matter() -> None:
    data = rom_font()
    surface = Surface(160, 16)
    draw(surface, data, "root", 0, 0, 0x123456, 0xFFFFFF)
    draw(surface, data, "MENU", 32, 0, 0x000000, 0x0000AA)
    assert the_font(data).read(pixels(surface), 160, 16).rows == ["rootMENU".ljust(20)]


def test_a_cell_of_three_colours_is_no_character() -> None:
    data = rom_font()
    surface = Surface(32, 16)
    draw(surface, data, "ABCD", 0, 0)
    surface.fill(8, 0, 1, 1, 0xFF0000)
    assert the_font(data).read(pixels(surface), 32, 16).rows == [f"A{UNKNOWN}CD"]


def test_a_cursor_is_looked_through() -> None:
    data = rom_font()
    surface = Surface(32, 16)
    draw(surface, data, "A CD", 0, 0)
    surface.fill(8, 14, 8, 2, 0xAAAAAA)
    surface.fill(16, 14, 8, 2, 0xAAAAAA)
    # nothing but the cursor in the second cell, the cursor below the third
    assert the_font(data).read(pixels(surface), 32, 16).rows == ["A CD"]


def test_text_is_found_wherever_it_begins() -> None:
    data = rom_font()
    surface = Surface(300, 200)
    surface.fill(0, 0, 300, 200, 0x202020)
    draw(surface, data, "GNU GRUB", 13, 43, paper=0x202020)
    reading = the_font(data).find(pixels(surface), 300, 200)
    assert (reading.x % 8, reading.y % 16) == (13 % 8, 43 % 16)
    assert "GNU GRUB" in "\n".join(reading.rows)
    assert reading.good


def test_noise_is_no_text() -> None:
    surface = Surface(320, 200)
    rng = random.Random(3)
    for _ in range(2000):
        surface.fill(rng.randrange(320), rng.randrange(200), 9, 9, rng.getrandbits(24))
    assert not the_font(rom_font()).find(pixels(surface), 320, 200).good


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (8, 16), (0, 0)])
def test_small_pictures_are_no_fault(size: tuple[int, int]) -> None:
    data = bytes(4 * size[0] * size[1])
    assert the_font(rom_font()).find(data, *size).known == 0


def test_another_number_of_bytes_than_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="are not 16 x 16 pixels"):
        the_font(rom_font()).read(bytes(12), 16, 16)
    with pytest.raises(ValueError, match="are not 16 x 16 pixels"):
        the_font(rom_font()).find(bytes(12), 16, 16)


@pytest.mark.parametrize("height", [8, 14, 16])
def test_fonts_of_each_height_are_found_in_a_rom(height: int) -> None:
    (font,) = vga_fonts("VGA", b"\x55\xaa" + bytes(77) + rom_font(height) + b"rest")
    assert (font.name, font.height) == (f"VGA 8x{height}", height)


def test_a_face_without_a_font_around_it_is_none() -> None:
    assert not list(vga_fonts("VGA", b"\xff" * 100 + FACES[16] + b"\xff" * 5000))
    assert not list(vga_fonts("VGA", bytes(20) + FACES[16]))


def test_bytes_are_found_in_memory_that_the_guest_has_touched() -> None:
    block = RamBlock("ram", 8 << 20)
    for offset in (0x1000, 0x2FFFF8, 0x7FFFF0):
        block.write(offset, b"needle in a page")
    assert seek(block, b"needle in a page") == [0x1000, 0x2FFFF8, 0x7FFFF0]
    assert seek(block, b"needle in a page", 1) == [0x1000]
    assert seek(block, b"nothing") == []


def test_a_console_font_is_found_in_the_guests_memory() -> None:
    block, data = RamBlock("ram", 16 << 20), rom_font(seed=5)
    block.write(0xABCDE0, data)
    surface = Surface(160, 64)
    draw(surface, data, "debian login:", 0, 16)
    reader = PictureReader(lambda: bytes(0x20000), lambda: [block])
    reading, font = reader.read(pixels(surface), 160, 64)
    assert reading is not None
    assert (reading.rows[1].rstrip(), font) == ("debian login:", "console 8x16")


def test_the_font_of_the_video_bios_is_tried_first() -> None:
    data = rom_font()
    surface = Surface(160, 64)
    draw(surface, data, "Boot Menu", 0, 16)
    reader = PictureReader(lambda: data.ljust(0x20000, b"\0"), lambda: [])
    reading, font = reader.read(pixels(surface), 160, 64)
    assert reading is not None
    assert (reading.rows[1].rstrip(), font) == ("Boot Menu", "VGA 8x16")
    assert reader.read(bytes(4 * 160 * 64), 160, 64) == (None, "")


def pf2(glyphs: dict[str, tuple[int, int, int, int, int, bytes]]) -> bytes:
    """A font file of GRUB's: character → width, height, x, y, step, bits."""

    def section(name: bytes, data: bytes) -> bytes:
        return name + struct.pack(">I", len(data)) + data

    head = section(b"FILE", b"PFF2") + section(b"NAME", b"Made up\0")
    head += section(b"MAXH", struct.pack(">H", 16)) + section(b"ASCE", struct.pack(">H", 14))
    head += section(b"DESC", struct.pack(">H", 2))
    at, index, data = len(head) + 8 + 9 * len(glyphs) + 8, b"", b""
    for character, (*numbers, bits) in glyphs.items():
        index += struct.pack(">IBI", ord(character), 0, at + len(data))
        data += struct.pack(">HHhhH", *numbers) + bits
    return head + section(b"CHIX", index) + b"DATA\xff\xff\xff\xff" + data


def test_grubs_glyphs_stand_on_their_baseline() -> None:
    # a box of 3 x 2 dots, one from the left, its foot one below the baseline
    font = pf2_font(pf2({"A": (3, 2, 1, -1, 8, bytes([0b11110100]))}))
    surface = Surface(8, 16)
    surface.fill(1, 13, 3, 1, 0xFFFFFF)
    surface.fill(1, 14, 1, 1, 0xFFFFFF)
    surface.fill(3, 14, 1, 1, 0xFFFFFF)
    assert font.read(pixels(surface), 8, 16).rows == ["A"]


@pytest.mark.parametrize(
    "data",
    [b"", b"FILE", pf2({})[:20], b"FILE\0\0\0\4PFF3", b"FILE\xff\xff\xff\xffPFF2", pathlib.Path(__file__).read_bytes()],
)
def test_what_is_no_font_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="no PFF2 font"):
        pf2_font(data)


def test_glyphs_that_lead_outside_the_file_are_left_out() -> None:
    whole = pf2({"A": (3, 2, 1, -1, 8, b"\xf4"), "B": (4000, 4000, 0, 0, 8, b"")})
    assert pf2_font(whole[:-20]).height == 16
