"""What a monitor says of itself (EDID 1.4), for the monitor that QEMU makes up.

Ref: VESA Enhanced EDID standard release A revision 2; CTA-861-G for the second block; VESA DisplayID 1.3 for the third,
which describes what the first has no room for. The monitor's name, sizes and list of modes are QEMU's, as its guests
know them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

X, Y = 1280, 800  # preferred, unless told otherwise
REFRESH = 75_000  # mHz
DPI = 100
ESTABLISHED = ((640, 480, 35, 0x20), (800, 600, 35, 0x01), (1024, 768, 36, 0x08))  # byte and bit of the block
STANDARD = (
    (2048, 1152), (1920, 1080), (1920, 1200), (1600, 1200), (1680, 1050), (1440, 900), (1280, 1024), (1280, 960),
)  # fmt: skip
MOST_STANDARD = 8
ASPECTS = {(16, 10): 0x00, (4, 3): 0x40, (5, 4): 0x80, (16, 9): 0xC0}
# Byte and bit of the descriptor, and whether a standard timing can say it. QEMU's order and rule: while there is room
# among the standard timings, a mode goes there or nowhere.
TIMINGS_3 = (
    (1280, 768, 7, 0x40, False), (1920, 1440, 11, 0x20, True), (1856, 1392, 10, 0x08, True),
    (1792, 1344, 10, 0x20, True), (1400, 1050, 8, 0x02, False), (1360, 768, 8, 0x80, False),
)  # fmt: skip
VIDEO_CODES = (
    (5120, 2160, 125), (4096, 2160, 101), (3840, 2160, 96), (2560, 1080, 89), (1920, 1080, 31), (3840, 2160, 97),
)  # fmt: skip
RANGE = bytes((0, 0, 0, 0xFD, 0, 50, 125, 30, 160, 0xFF, 1, 0x0A)) + b" " * 6
NAME = b"\0\0\0\xfc\0QEMU Monitor\n"
DUMMY = b"\0\0\0\x10".ljust(18, b"\0")
COLOURS = bytes.fromhex("ee91a3544c99260f5054")


def edid(xres: int = 0, yres: int = 0, xmax: int = 0, ymax: int = 0, refresh: int = 0) -> bytes:
    """Two blocks of 128 bytes, or three. 0: QEMU's default; `xmax` and `ymax` leave out modes that are larger."""
    x, y, refresh = xres or X, yres or Y, refresh or REFRESH
    timing = Timing(x, y, refresh)
    large = x >= 4096 or y >= 4096 or timing.clock > 0xFFFF

    def fits(width: int, height: int) -> bool:
        return not (xmax and width > xmax or ymax and height > ymax)

    block = bytearray(128)
    block[0:8] = b"\0" + b"\xff" * 6 + b"\0"
    block[8:12] = bytes.fromhex("49143412")  # RHT, product 0x1234
    block[16:20] = bytes((42, 2014 - 1990, 1, 4))
    block[20:25] = bytes((0xA5, millimetres(x) // 10 & 0xFF, millimetres(y) // 10 & 0xFF, 120, 0x06))
    block[25:35] = COLOURS
    for width, height, at, bit in ESTABLISHED:
        if fits(width, height):
            block[at] |= bit
    standard = [bytes((w // 8 - 31, aspect(w, h))) for w, h in STANDARD if fits(w, h)]
    more = bytearray(bytes.fromhex("000000f7000a").ljust(18, b"\0"))
    for width, height, at, bit, plain in TIMINGS_3:
        if not fits(width, height):
            continue
        if len(standard) == MOST_STANDARD:
            more[at] |= bit
        elif plain:
            standard.append(bytes((width // 8 - 31, aspect(width, height))))
    block[38:54] = b"".join(standard).ljust(16, b"\1")
    rows = [bytes(more), RANGE, NAME] if large else [timing.detailed(), bytes(more), RANGE, NAME]
    block[54:126] = b"".join([*rows, DUMMY][:4])
    block[126] = 2 if large else 1
    blocks = [block, _video_codes(fits)]
    if large:
        blocks.append(timing.display_id())
    for each in blocks:
        each[127] = -sum(each[:127]) & 0xFF
    return b"".join(blocks)


def millimetres(pixels: int) -> int:
    return pixels * 254 // 10 // DPI


def aspect(width: int, height: int) -> int:
    return next(bits for (a, b), bits in ASPECTS.items() if width * b == height * a)


class Timing:
    """A mode as a signal: what is around its pixels, and the pixel clock in units of 10 kHz."""

    def __init__(self, x: int, y: int, refresh: int) -> None:
        self.x, self.y = x, y
        self.x_front, self.x_sync, self.x_blank = x * 25 // 100, x * 3 // 100, x * 35 // 100
        self.y_front = self.y_sync = y * 5 // 1000
        self.y_blank = y * 35 // 1000
        self.clock = refresh * (x + self.x_blank) * (y + self.y_blank) // 10_000_000

    def detailed(self) -> bytes:
        """A descriptor of 18 bytes."""
        wide, high = millimetres(self.x), millimetres(self.y)
        upper = self.x_front >> 8 << 6 | self.x_sync >> 8 << 4 | self.y_front >> 4 << 2 | self.y_sync >> 4
        numbers = (
            self.clock, self.clock >> 8, self.x, self.x_blank, self.x >> 8 << 4 | self.x_blank >> 8, self.y,
            self.y_blank, self.y >> 8 << 4 | self.y_blank >> 8, self.x_front, self.x_sync,
            (self.y_front & 15) << 4 | self.y_sync & 15, upper, wide, high, wide >> 8 << 4 | high >> 8, 0, 0, 0x18,
        )  # fmt: skip
        return bytes(number & 0xFF for number in numbers)

    def display_id(self) -> bytearray:
        """A block with one timing of type I."""
        block = bytearray(128)
        block[0:8] = bytes((0x70, 0x13, 23, 3, 0, 3, 0, 20))
        block[8:11] = min(self.clock, 0xFFFFFF).to_bytes(3, "little")
        block[11] = 0x88
        parts = (
            self.x, self.x_blank, self.x_front, self.x_sync, self.y, self.y_blank, self.y_front, self.y_sync,
        )  # fmt: skip
        block[12:28] = b"".join((max(part - 1, 0) & 0xFFFF).to_bytes(2, "little") for part in parts)
        block[28] = -sum(block[1:28]) & 0xFF
        return block


def _video_codes(fits: Callable[[int, int], bool]) -> bytearray:
    codes = bytes(code for width, height, code in VIDEO_CODES if fits(width, height))
    block = bytearray(128)
    block[0:4] = bytes((2, 3, 5 + len(codes), 0))
    block[4] = 0x40 | len(codes)
    block[5 : 5 + len(codes)] = codes
    at = 5 + len(codes)
    while at + 18 <= 127:
        block[at : at + 18] = DUMMY
        at += 18
    return block
