"""A VGA's screen as pixels: what a screenshot shows.

Ref: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": SR01, SR03, GR05, GR06, CR01, CR07, CR09-CR13,
AR00-AR10, AR14. VBE modes are linear frame buffers.
Not modelled: panning, line compare, blinking (what blinks is shown), the CGA's two bits per pixel.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from accel.api import DeviceLock

    from vmrun.devices.display.vga import Vga

MOST_PIXELS = 1 << 25
FONTS = (0x0000, 0x4000, 0x8000, 0xC000, 0x2000, 0x6000, 0xA000, 0xE000)  # of SR03, in plane 2


class Picture:
    """width × height pixels of three bytes: red, green, blue."""

    __slots__ = ("height", "pixels", "width")

    def __init__(self, width: int, height: int, pixels: bytes) -> None:
        self.width, self.height, self.pixels = width, height, pixels


def take(vga: Vga, lock: DeviceLock) -> Picture:
    """The screen now. The device lock is held while memory is read, not while the picture is made."""
    with lock:
        shot = _Shot(vga)
    return shot.draw()


class _Shot:
    """Registers and memory of one moment."""

    def __init__(self, vga: Vga) -> None:
        registers = vga.registers()
        self.sr, self.gr, self.ar, self.cr = (registers[name] for name in ("sr", "gr", "ar", "cr"))
        wide = vga.palette_8bit
        self.palette: list[bytes] = [bytes(part if wide else _wide(part, 6) for part in row) for row in _entries(vga)]
        self.mode = vga.vbe_mode if vga.vbe_enabled else None
        self.blank = self.mode is None and vga.blank
        self.memory = vga.vram.read(0, vga.vram.size)

    def draw(self) -> Picture:
        if self.mode is not None and self.mode[2] > 4:
            return self._linear(*self.mode)
        cr = self.cr
        lines = (cr[0x12] | (cr[0x07] & 0x02) << 7 | (cr[0x07] & 0x40) << 3) + 1
        columns = cr[0x01] + 1
        if self.blank:
            return Picture(columns * 8, lines, bytes(columns * 8 * lines * 3))
        if not self.gr[6] & 1:
            return self._text(columns, lines)
        return self._256(columns, lines) if self.gr[5] & 0x40 else self._16(columns, lines)

    # --- legacy modes -------------------------------------------------------------------------------------------

    def _colour(self, index: int) -> bytes:
        """Of one of the 16 attributes."""
        ar = self.ar
        found = ar[index] & 0x3F | (ar[0x14] & 0x0C) << 4
        if ar[0x10] & 0x80:
            found = found & 0xCF | (ar[0x14] & 3) << 4
        colour: bytes = self.palette[found]
        return colour

    def _rows(self, lines: int) -> tuple[list[int], int]:
        """For each scan line the first address; and how many lines there are, each once when all come twice."""
        cr = self.cr
        start, pitch = cr[0x0C] << 8 | cr[0x0D], cr[0x13] * 2
        repeat = ((cr[0x09] & 0x1F) + 1) * (2 if cr[0x09] & 0x80 else 1)
        count = lines // repeat
        return [start + pitch * row for row in range(count)], count

    def _text(self, columns: int, lines: int) -> Picture:
        cr, sr, ar, memory = self.cr, self.sr, self.ar, self.memory
        height, dots = (cr[0x09] & 0x1F) + 1, 8 if sr[1] & 1 else 9
        count = lines // height
        width = columns * dots
        if width * count * height > MOST_PIXELS:
            return Picture(width, 1, bytes(width * 3))
        fonts = [FONTS[sr[3] & 3 | sr[3] >> 2 & 4], FONTS[sr[3] >> 2 & 3 | sr[3] >> 3 & 4]]
        colours = [self._colour(index) for index in range(16)]
        back_mask = 7 if ar[0x10] & 8 else 15
        start, pitch = cr[0x0C] << 8 | cr[0x0D], cr[0x13] * 2
        cursor = cr[0x0E] << 8 | cr[0x0F] if not cr[0x0A] & 0x20 else -1
        first, last = cr[0x0A] & 0x1F, cr[0x0B] & 0x1F
        runs: dict[tuple[int, int, bool], bytes] = {}
        out: list[bytes] = []
        for row in range(count):
            cells = []
            for column in range(columns):
                at = (start + pitch * row + column) & 0xFFFF
                cells.append((memory[4 * at], memory[4 * at + 1], at == cursor))
            for line in range(height):
                for char, attribute, under in cells:
                    font = fonts[attribute >> 3 & 1] if fonts[0] != fonts[1] else fonts[0]
                    bits = memory[4 * (font + 32 * char + line) + 2]
                    if under and first <= line <= last:
                        bits = 0xFF
                    joined = dots == 9 and 0xC0 <= char <= 0xDF and bool(ar[0x10] & 4)
                    key = bits, attribute, joined
                    run = runs.get(key)
                    if run is None:
                        front, back = colours[attribute & 15], colours[attribute >> 4 & back_mask]
                        run = b"".join(front if bits >> 7 - n & 1 else back for n in range(8))
                        if dots == 9:
                            run += front if joined and bits & 1 else back
                        runs[key] = run
                    out.append(run)
        return Picture(width, count * height, b"".join(out))

    def _16(self, columns: int, lines: int) -> Picture:
        rows, count = self._rows(lines)
        colours = [self._colour(index & self.ar[0x12] & 15) for index in range(16)]
        memory, out = self.memory, []
        runs: dict[bytes, bytes] = {}
        for first in rows:
            for at in range(first, first + columns):
                planes = memory[4 * (at & 0xFFFF) : 4 * (at & 0xFFFF) + 4]
                run = runs.get(planes)
                if run is None:
                    a, b, c, d = planes
                    run = runs[planes] = b"".join(
                        colours[(a >> n & 1) | (b >> n & 1) << 1 | (c >> n & 1) << 2 | (d >> n & 1) << 3]
                        for n in range(7, -1, -1)
                    )
                out.append(run)
        return Picture(columns * 8, count, b"".join(out))

    def _256(self, columns: int, lines: int) -> Picture:
        rows, count = self._rows(lines)
        return self._indexed([4 * first for first in rows], columns * 4, count)

    def _indexed(self, starts: Sequence[int], width: int, count: int) -> Picture:
        palette, out = self.palette, []
        for first in starts:
            line = self.memory[first : first + width].ljust(width, b"\0")
            out.append(b"".join([palette[index] for index in line]))
        return Picture(width, count, b"".join(out))

    # --- VBE ----------------------------------------------------------------------------------------------------

    def _linear(self, width: int, height: int, bits: int, pitch: int, first: int) -> Picture:
        if width * height > MOST_PIXELS:
            height = MOST_PIXELS // width
        starts = range(first, first + pitch * height, pitch) if pitch else [first] * height
        if bits <= 8:
            return self._indexed(starts, width, height)
        size = (bits + 7) // 8
        out: list[bytes] = []
        for start in starts:
            line = self.memory[start : start + width * size].ljust(width * size, b"\0")
            row = bytearray(3 * width)
            if size >= 3:
                row[0::3], row[1::3], row[2::3] = line[2::size], line[1::size], line[0::size]
            else:
                self._packed(line, row, 6 if bits == 16 else 5)
            out.append(bytes(row))
        return Picture(width, height, b"".join(out))

    def _packed(self, line: bytes, row: bytearray, green: int) -> None:
        """Two bytes for a pixel: five bits of red and blue, five or six of green."""
        values = [low | high << 8 for low, high in zip(line[0::2], line[1::2], strict=True)]
        row[0::3] = bytes([_wide(value >> 5 + green & 31, 5) for value in values])
        row[1::3] = bytes([_wide(value >> 5 & (1 << green) - 1, green) for value in values])
        row[2::3] = bytes([_wide(value & 31, 5) for value in values])


def _entries(vga: Vga) -> list[tuple[int, int, int]]:
    data = vga.palette
    return [(data[n], data[n + 1], data[n + 2]) for n in range(0, 768, 3)]


def _wide(value: int, bits: int) -> int:
    """A part of a colour in eight bits."""
    return (value << 8 - bits | value >> 2 * bits - 8) & 0xFF
