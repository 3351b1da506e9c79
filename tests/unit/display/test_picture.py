"""A VGA's screen as pixels, and as files."""

from __future__ import annotations

import struct
import zlib

import pytest
from accel.api import DeviceLock
from accel.clock import SteppedClock
from accel.ram import RamBlock
from vmrun.devices.display.vga import Vga

from vmrun.devices.display.picture import Picture, take
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
        from vmrun.devices.display.vga_pci import VgaPorts

        self.vga = Vga(RamBlock("v", 1 << 20), SteppedClock())
        self.ports = VgaPorts(self.vga)
        self.outb(0x3C2, 0x67)
        put(self, {0x3C0: {**{n: n for n in range(16)}, 0x10: 0x0C, 0x12: 0x0F}})
        self.outb(0x3C8, 0)
        for n in range(256):
            for part in (n % 64, 0, 63 - n % 64):
                self.outb(0x3C9, part)

    def outb(self, port: int, value: int) -> None:
        self.ports.store(port - 0x3B0, 1, value)

    def inb(self, port: int) -> int:
        return int(self.ports.load(port - 0x3B0, 1))

    def take(self) -> Picture:
        return take(self.vga, DeviceLock())


@pytest.fixture
def chip() -> Chip:
    return Chip()


def colour(n: int) -> bytes:
    red, blue = n % 64, 63 - n % 64
    return bytes((red << 2 | red >> 4, 0, blue << 2 | blue >> 4))


def pixel(picture: Picture, x: int, y: int) -> bytes:
    at = 3 * (y * picture.width + x)
    return picture.pixels[at : at + 3]


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


def test_lines_that_come_twice_are_one(chip: Chip) -> None:
    put(chip, {0x3CE: {5: 0x40, 6: 5}, 0x3D4: {1: 3, 9: 1, 0x12: 3, 0x13: 2}})
    chip.vga.vram.write(16, bytes((7, 8)))
    picture = chip.take()
    assert (picture.width, picture.height) == (16, 2)
    assert (pixel(picture, 0, 1), pixel(picture, 1, 1)) == (colour(7), colour(8))


@pytest.mark.parametrize(
    ("bits", "data", "expected"),
    [
        (8, b"\x09", colour(9)),
        (15, b"\x00\x7c", b"\xff\0\0"),
        (16, b"\xe0\x07", b"\0\xff\0"),
        (24, b"\x03\x02\x01", b"\x01\x02\x03"),
        (32, b"\x03\x02\x01\xff", b"\x01\x02\x03"),
    ],
)
def test_vbe_modes_are_linear(chip: Chip, bits: int, data: bytes, expected: bytes) -> None:
    class Fixed:
        """The chip, in a VBE mode."""

        vbe_enabled, blank, palette_8bit = True, False, False
        vbe_mode = (8, 2, bits, 8 * ((bits + 7) // 8), 0)
        vram, palette, registers = chip.vga.vram, chip.vga.palette, chip.vga.registers

    chip.vga.vram.write(8 * len(data), data)
    picture = take(Fixed(), DeviceLock())  # type: ignore[arg-type]
    assert (picture.width, picture.height) == (8, 2)
    assert pixel(picture, 0, 1) == expected


def test_an_impossible_mode_is_no_large_picture(chip: Chip) -> None:
    put(chip, {0x3CE: {6: 0x0E}, 0x3D4: {1: 255, 7: 0xFF, 9: 0, 0x12: 255, 0x13: 255}})
    assert len(chip.take().pixels) <= 3 << 25


def test_png_and_ppm_hold_the_pixels() -> None:
    picture = Picture(2, 1, bytes(range(6)))
    assert encode(picture, "ppm") == b"P6\n2 1\n255\n" + picture.pixels
    png = encode(picture, "png")
    assert struct.unpack(">II", png[16:24]) == (2, 1)
    length, at = struct.unpack(">I", png[33:37])[0], 41
    assert zlib.decompress(png[at : at + length]) == b"\0" + picture.pixels
