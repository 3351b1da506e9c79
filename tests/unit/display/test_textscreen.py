"""The text screen as it stands in video memory, and its picture on a terminal."""

from __future__ import annotations

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.ram import RamBlock
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_regions import VgaPorts, VgaWindow

from vmrun.core.cp437 import TABLE, text
from vmrun.devices.display.textscreen import TextScreen
from vmrun.ui.screen import Differ, plain, render
from vmrun.ui.viewport import Part

# CR00..CR18 of mode 3 (80x25, 16 lines a character), from IBM's parameter table
MODE_3_CRTC = bytes.fromhex("5f4f50825581bf1f004f0d0e00000000 9c8e8f281f96b9a3ff".replace(" ", ""))


class Screen80:
    def __init__(self) -> None:
        self.vga = Vga(RamBlock("vram", 1 << 20), SteppedClock())
        self.ports, self.window = VgaPorts(self.vga), VgaWindow(self.vga)
        self.out(0x3C2, 0x67)
        for index, value in enumerate([3, 0, 3, 0, 2]):
            self.set(0x3C4, index, value)
        for index, value in enumerate([0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF]):
            self.set(0x3CE, index, value)
        for index, value in enumerate(MODE_3_CRTC):
            self.set(0x3D4, index, value)
        self.ports.load(0x3DA - 0x3B0, 1)
        for value in (0x10, 0x0C, 0x20):  # text with blinking; then the screen on
            self.out(0x3C0, value)
        for cell in range(2000):
            self.put(cell, 0x20, 0x07)
        self.screen = TextScreen(self.vga, DeviceLock())

    def out(self, port: int, value: int) -> None:
        self.ports.store(port - 0x3B0, 1, value)

    def set(self, port: int, index: int, value: int) -> None:
        self.out(port, index)
        self.out(port + 1, value)

    def put(self, cell: int, character: int, attribute: int) -> None:
        self.window.store(0x18000 + 2 * cell, 2, attribute << 8 | character)


@pytest.fixture
def pc() -> Screen80:
    return Screen80()


def test_mode_3_has_25_rows_of_80(pc: Screen80) -> None:
    shot = pc.screen.snapshot()
    assert (shot.mode, shot.columns, len(shot.rows)) == ("text", 80, 25)


def test_a_cell_is_character_and_attribute(pc: Screen80) -> None:
    pc.put(81, 0x41, 0x1E)
    assert pc.screen.snapshot().cells(1)[1] == (0x41, 0x1E)


def test_cursor_is_where_the_crtc_points(pc: Screen80) -> None:
    pc.set(0x3D4, 0x0E, 0x01)
    pc.set(0x3D4, 0x0F, 0x43)  # 323 = 4 * 80 + 3
    assert pc.screen.snapshot().cursor == (4, 3)


@pytest.mark.parametrize(("start", "end"), [(0x2D, 0x0E), (0x0F, 0x0E)])
def test_hidden_cursor_is_none(pc: Screen80, start: int, end: int) -> None:
    pc.set(0x3D4, 0x0A, start)
    pc.set(0x3D4, 0x0B, end)
    assert pc.screen.snapshot().cursor is None


def test_start_address_flips_pages(pc: Screen80) -> None:
    pc.put(2048, 0x42, 0x07)
    pc.set(0x3D4, 0x0C, 0x08)
    assert pc.screen.snapshot().cells(0)[0] == (0x42, 0x07)


def test_screen_wraps_at_the_end_of_video_memory(pc: Screen80) -> None:
    pc.set(0x3D4, 0x0C, 0xFF)
    pc.set(0x3D4, 0x0D, 0xFF)
    pc.put(0, 0x43, 0x07)
    assert pc.screen.snapshot().cells(0)[1] == (0x43, 0x07)


def test_eight_line_characters_give_50_rows(pc: Screen80) -> None:
    pc.set(0x3D4, 0x09, 0x47)
    assert len(pc.screen.snapshot().rows) == 50


# columns, rows, lines of a character: those of SVGA BIOSes and of svgatextmode, and an odd one
WIDE = [(132, 25, 16), (132, 43, 8), (132, 43, 9), (132, 60, 8), (100, 40, 16), (80, 60, 8), (40, 12, 16), (133, 7, 31)]


@pytest.mark.parametrize(("columns", "rows", "lines"), WIDE)
def test_other_text_modes_are_read_whole(pc: Screen80, columns: int, rows: int, lines: int) -> None:
    last = rows * lines - 1
    values = {
        0x11: 0, 0x00: columns + 20, 0x01: columns - 1, 0x07: 0x10 | last >> 7 & 2 | last >> 3 & 0x40,
        0x09: 0x40 | lines - 1,
        0x12: last & 0xFF, 0x13: (columns + 1) // 2,
    }  # fmt: skip
    for index, value in values.items():
        pc.set(0x3D4, index, value)
    pitch = (columns + 1) // 2 * 2
    for row in range(rows):
        for column in range(columns):
            pc.put(row * pitch + column, 33 + (row + column) % 90, 0x17)
    pc.set(0x3D4, 0x0E, (pitch * (rows - 1) + columns - 1) >> 8)
    pc.set(0x3D4, 0x0F, (pitch * (rows - 1) + columns - 1) & 0xFF)
    shot = pc.screen.snapshot()
    assert (shot.mode, shot.columns, len(shot.rows)) == ("text", columns, rows)
    assert plain(shot.rows).split("\n") == [
        "".join(chr(33 + (row + column) % 90) for column in range(columns)) for row in range(rows)
    ]
    for width, height in ((1, 1), (1, 50), (200, 1), (80, 24), (132, 43), (131, 44), (300, 100)):
        part = Part(shot, width, height, (5, 5))
        assert len(part.rows) + part.cut <= max(height, 2) and all(len(line) == 2 * part.columns for line in part.rows)
        assert part.columns <= width and part.cut == (columns > width or rows > height)
        if shot.cursor is not None:
            assert part.cursor == (shot.cursor[0] - part.at[0], shot.cursor[1] - part.at[1])
            assert 0 <= part.cursor[0] < len(part.rows) and 0 <= part.cursor[1] < part.columns
        assert Differ().update(part)


def test_graphics_mode_is_told_with_its_size(pc: Screen80) -> None:
    pc.set(0x3CE, 6, 0x05)
    shot = pc.screen.snapshot()
    assert (shot.mode, shot.width, shot.height) == ("graphics", 640, 400)


def test_closed_palette_means_blank(pc: Screen80) -> None:
    pc.ports.load(0x3DA - 0x3B0, 1)
    pc.out(0x3C0, 0x00)
    assert pc.screen.snapshot().mode == "blank"


def test_absurd_geometry_is_blank_not_huge(pc: Screen80) -> None:
    pc.set(0x3D4, 0x11, 0x00)
    for index, value in ((0x01, 0xFF), (0x07, 0xFF), (0x12, 0xFF), (0x09, 0x00)):
        pc.set(0x3D4, index, value)
    assert pc.screen.snapshot().mode == "blank"


def test_code_page_437_has_256_single_characters() -> None:
    assert len(TABLE) == 256 and all(len(character) == 1 and character.isprintable() for character in TABLE)


def test_box_drawing_and_control_codes_have_their_pictures() -> None:
    assert text(b"\xc9\xcd\xbb\x01\x10\x7f\xe1") == "╔═╗☺►⌂ß"


def test_plain_text_has_no_trailing_blanks(pc: Screen80) -> None:
    for column, character in enumerate(b"SeaBIOS"):
        pc.put(column, character, 0x07)
    assert plain(pc.screen.snapshot().rows).splitlines()[0] == "SeaBIOS"


def test_render_places_rows_colours_and_cursor() -> None:
    assert render((b"A\x1eB\x1e",), (0, 1)) == "\x1b[?25l\x1b[1;1H\x1b[0;93;44mAB\x1b[0m\x1b[1;2H\x1b[?25h"


def test_bright_background_when_blinking_is_off() -> None:
    assert "\x1b[0;30;107m" in render((b" \xf0",), blink=False)


def test_differ_is_silent_when_nothing_changed(pc: Screen80) -> None:
    differ = Differ()
    differ.update(pc.screen.snapshot())
    assert differ.update(pc.screen.snapshot()) == ""


def test_differ_writes_only_the_changed_cells(pc: Screen80) -> None:
    differ = Differ()
    differ.update(pc.screen.snapshot())
    pc.put(80 + 5, 0x58, 0x07)
    pc.put(80 + 6, 0x59, 0x07)
    written = differ.update(pc.screen.snapshot())
    assert "\x1b[2;6H" in written and "XY" in written and len(written) < 60


def test_differ_tells_of_a_graphics_mode(pc: Screen80) -> None:
    differ = Differ()
    differ.update(pc.screen.snapshot())
    pc.set(0x3CE, 6, 0x05)
    assert "[graphics: 640x400]" in differ.update(pc.screen.snapshot())
