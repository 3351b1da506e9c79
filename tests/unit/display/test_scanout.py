"""A VGA's screen as pixels: what is drawn, what counts as changed, and files of it."""

from __future__ import annotations

import struct
import zlib

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.ram import DirtyLog, RamBlock
from vmrun.devices.display.vga import Vga
from vmrun.devices.display.vga_scanout import VgaScanout

from vmrun.core.surface import Surface
from vmrun.monitor.image import encode

RED, BLUE = 4, 1  # attributes


def put(vga: Vga, values: dict[int, dict[int, int]]) -> None:
    """Index port → register → value, through the ports."""
    for port, registers in values.items():
        for index, value in registers.items():
            if port == 0x3C0:
                vga.inb(0x3DA)
                vga.outb(0x3C0, index)
                vga.outb(0x3C0, value)
            else:
                vga.outb(port, index)
                vga.outb(port + 1, value)
    vga.inb(0x3DA)
    vga.outb(0x3C0, 0x20)


class Chip:
    """The chip with ports as methods: 640 dots, 16 attributes that are the first 16 colours of the palette."""

    def __init__(self) -> None:
        from vmrun.devices.display.vga_regions import VgaPorts

        self.vga = Vga(RamBlock("v", 1 << 20), SteppedClock())
        self.ports = VgaPorts(self.vga)
        self.scanout, self.surface = VgaScanout(self.vga, DeviceLock()), Surface()
        self.log: DirtyLog | None = None
        self.outb(0x3C2, 0x67)
        put(self, {0x3C0: {**{n: n for n in range(16)}, 0x10: 0x0C, 0x12: 0x0F}, 0x3D4: {0x17: 0xE3, 0x18: 0xFF}})
        self.outb(0x3C8, 0)
        for n in range(256):
            for part in (n % 64, 0, 63 - n % 64):
                self.outb(0x3C9, part)

    def outb(self, port: int, value: int) -> None:
        self.ports.store(port - 0x3B0, 1, value)

    def inb(self, port: int) -> int:
        return int(self.ports.load(port - 0x3B0, 1))

    def take(self, full: bool = True) -> Surface:
        self.scanout.update(self.surface, full, self.log)
        return self.surface

    def vbe(self, **registers: int) -> None:
        """Into a VBE mode that leaves memory as it is."""
        from vmrun.devices.display.vga_regions import VbePorts

        ports = VbePorts(self.vga)
        names = {"xres": 1, "yres": 2, "bpp": 3, "enable": 4}
        put(self, {})
        for name, value in {**registers, "enable": 0xC1}.items():
            ports.store(0, 2, names[name])
            ports.store(1, 2, value)

    def changed(self) -> list[tuple[int, int, int, int]]:
        """The rectangles that an update found changed."""
        view = self.surface.attach()
        view.take()
        self.surface.publish()
        view.take()
        self.take(full=False)
        self.surface.publish()
        found: list[tuple[int, int, int, int]] = view.take()
        self.surface.detach(view)
        return found


@pytest.fixture
def chip() -> Chip:
    return Chip()


def colour(n: int) -> bytes:
    red, blue = n % 64, 63 - n % 64
    return bytes((red << 2 | (red & 1) * 3, 0, blue << 2 | (blue & 1) * 3))


def pixel(picture: Surface, x: int, y: int) -> bytes:
    return int(picture.pixel(x, y)).to_bytes(3, "big")


@pytest.mark.parametrize(("clocking", "width"), [(0, 9), (1, 8)])
def test_text_is_drawn_with_the_guests_font(chip: Chip, clocking: int, width: int) -> None:
    put(chip, {0x3C4: {1: clocking, 3: 0}, 0x3CE: {6: 0x0E}})
    put(chip, {0x3D4: {1: 1, 7: 0, 9: 15, 0x12: 31, 0x13: 1, 0x0A: 0x20}})
    chip.vga.vram.write(0, bytes((0x41, RED << 4 | BLUE)))  # one cell of two columns, two rows
    chip.vga.vram.write(4 * (32 * 0x41 + 3) + 2, b"\x80")
    picture = chip.take()
    assert (picture.width, picture.height) == (2 * width, 32)
    assert pixel(picture, 0, 3) == colour(BLUE)
    assert pixel(picture, 1, 3) == pixel(picture, width - 1, 3) == pixel(picture, 0, 2) == colour(RED)


def test_the_cursor_is_where_the_guest_has_it(chip: Chip) -> None:
    put(chip, {0x3C4: {1: 1}, 0x3CE: {6: 0x0E}})
    put(chip, {0x3D4: {1: 1, 9: 15, 0x12: 15, 0x13: 1, 0x0A: 14, 0x0B: 15, 0x0E: 0, 0x0F: 1}})
    chip.vga.vram.write(4, bytes((0x20, BLUE)))
    picture = chip.take()
    assert pixel(picture, 8, 14) == colour(BLUE)
    assert pixel(picture, 8, 13) == pixel(picture, 0, 14) == colour(0)


def test_sixteen_colours_come_from_four_planes(chip: Chip) -> None:
    put(chip, {0x3CE: {5: 0, 6: 5}, 0x3D4: {1: 1, 9: 0, 0x12: 1, 0x13: 1}})
    chip.vga.vram.write(4 * 2, bytes((0x80, 0, 0x80, 0)))  # second line, first pixel: planes 0 and 2
    picture = chip.take()
    assert (picture.width, picture.height) == (16, 2)
    assert pixel(picture, 0, 1) == colour(5)
    assert pixel(picture, 1, 1) == pixel(picture, 0, 0) == colour(0)


def test_lines_and_dots_that_a_mode_doubles_are_there_twice(chip: Chip) -> None:
    put(chip, {0x3CE: {5: 0x40, 6: 5}, 0x3D4: {1: 3, 9: 1, 0x12: 3, 0x13: 2}})
    chip.vga.vram.write(16, bytes((7, 8)))
    picture = chip.take()
    assert (picture.width, picture.height) == (32, 4)
    assert [pixel(picture, x, y) for y in (2, 3) for x in range(4)] == [colour(7), colour(7), colour(8), colour(8)] * 2


def test_the_picture_starts_again_behind_the_line_compare(chip: Chip) -> None:
    put(chip, {0x3CE: {5: 0, 6: 5}, 0x3D4: {1: 1, 7: 0, 9: 0, 0x0C: 0, 0x0D: 8, 0x12: 3, 0x13: 1, 0x18: 1}})
    chip.vga.vram.write(0, bytes((0x80, 0, 0, 0)))
    picture = chip.take()
    assert [pixel(picture, 0, y) == colour(1) for y in range(4)] == [False, False, True, False]


@pytest.mark.parametrize(
    ("bits", "data", "expected"),
    [
        (8, b"\x09", colour(9)),
        (15, b"\x00\x7c", b"\xf8\0\0"),
        (16, b"\xe0\x07", b"\0\xff\0"),
        (24, b"\x03\x02\x01", b"\x01\x02\x03"),
        (32, b"\x03\x02\x01\xff", b"\x01\x02\x03"),
    ],
)
def test_vbe_modes_are_linear(chip: Chip, bits: int, data: bytes, expected: bytes) -> None:
    chip.vbe(xres=8, yres=2, bpp=bits)
    chip.vga.vram.write(8 * len(data), data)
    picture = chip.take()
    assert (picture.width, picture.height) == (8, 2)
    assert pixel(picture, 0, 1) == expected


def test_only_changed_cells_are_drawn_again(chip: Chip) -> None:
    put(chip, {0x3C4: {1: 1}, 0x3CE: {6: 0x0E}})
    put(chip, {0x3D4: {1: 79, 7: 2, 9: 15, 0x12: 0x8F, 0x13: 40, 0x0A: 0x20}})
    chip.vga.vram.write(4 * 8192, bytes(0x41 for _ in range(64)))
    chip.take()
    chip.vga.vram.write(4 * (80 * 2 + 4), b"\x41\x07")
    assert chip.changed() == [(32, 32, 16, 16)]


def test_a_moved_cursor_leaves_its_old_cell(chip: Chip) -> None:
    put(chip, {0x3C4: {1: 1}, 0x3CE: {6: 0x0E}})
    put(chip, {0x3D4: {1: 79, 7: 2, 9: 15, 0x12: 0x8F, 0x13: 40, 0x0A: 14, 0x0B: 15, 0x0E: 0, 0x0F: 0}})
    for cell in range(4):
        chip.vga.vram.write(4 * cell, b"\0\x04")
    chip.take()
    put(chip, {0x3D4: {0x0F: 2}})
    chip.take(full=False)
    assert pixel(chip.surface, 0, 15) == colour(0)
    assert pixel(chip.surface, 16, 15) == colour(4)
    put(chip, {0x3D4: {0x0A: 0}})
    chip.take(full=False)
    assert pixel(chip.surface, 16, 0) == colour(4)


def test_a_written_page_is_looked_at_and_an_unwritten_one_is_not(chip: Chip) -> None:
    chip.vbe(xres=1024, yres=64, bpp=32)
    chip.log = DirtyLog(chip.vga.vram)
    chip.take()
    chip.take(full=False)
    chip.vga.vram.write(4096 * 5 + 64, b"\xff\xff\xff\0")
    assert chip.changed() == [(16, 5, 16, 1)]
    assert pixel(chip.surface, 16, 5) == b"\xff\xff\xff"
    assert chip.changed() == []


def test_a_write_that_comes_while_its_page_is_looked_at_is_seen_the_next_time(chip: Chip) -> None:
    chip.vbe(xres=1024, yres=64, bpp=32)
    chip.log = DirtyLog(chip.vga.vram)
    chip.take()
    chip.take(full=False)
    chip.vga.vram.write(0, b"\1\0\0\0")
    chip.take(full=False)
    chip.vga.vram.write(4, b"\2\0\0\0")
    chip.log.take(0, 4096)  # the log has lost it
    chip.take(full=False)
    assert pixel(chip.surface, 1, 0) == b"\0\0\2"


def test_a_closed_palette_shows_black_in_the_same_size(chip: Chip) -> None:
    chip.vbe(xres=320, yres=200, bpp=32)
    chip.vga.vram.write(0, b"\xff" * 64)
    chip.take()
    chip.inb(0x3DA)
    chip.outb(0x3C0, 0)
    picture = chip.take(full=False)
    assert (picture.width, picture.height) == (320, 200)
    assert not any(picture.rgb())


def test_an_impossible_mode_is_no_large_picture(chip: Chip) -> None:
    put(chip, {0x3CE: {6: 0x0E}, 0x3D4: {1: 255, 7: 0xFF, 9: 0, 0x12: 255, 0x13: 255}})
    surface = chip.take()
    assert surface.width * surface.height <= 1 << 25


def test_png_and_ppm_hold_the_pixels() -> None:
    surface = Surface(2, 1)
    surface.fill(0, 0, 1, 1, 0x000102)
    surface.fill(1, 0, 1, 1, 0x030405)
    assert b"".join(encode(2, 1, surface.rgb(), "ppm")) == b"P6\n2 1\n255\n" + bytes(range(6))
    png = b"".join(encode(2, 1, surface.rgb(), "png"))
    assert struct.unpack(">II", png[16:24]) == (2, 1)
    length, at = struct.unpack(">I", png[33:37])[0], 41
    assert zlib.decompress(png[at : at + length]) == b"\0" + bytes(range(6))


def test_jpeg_is_jpeg() -> None:
    surface = Surface(16, 16)
    surface.fill(0, 0, 16, 16, 0xFF0000)
    data = b"".join(encode(16, 16, surface.rgb(), "jpeg"))
    assert data.startswith(b"\xff\xd8\xff")
