"""Fonts that guests draw text with in graphics modes, found where they are: in the guest's memory, in the host's files.

A video BIOS holds the VGA's fonts of 8, 14 and 16 lines one character after the other, in code page 437; Linux's
console has its own of 8 and 16 lines, in its image. Both begin alike, which is how they are found. Linux tells the
size of a console's font before its data, of one that setfont loaded too: of those ASCII is known, what else is in
them is in tables that only that kernel knows. GRUB draws with Unifont, from its package's unicode.pf2.

Ref: Linux's include/linux/font.h (the words before a font); GRUB's manual "The Graphical Menu Software Design", PFF2
font format.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from vmrun.core.cp437 import TABLE
from vmrun.core.glyphs import Font, linux_fonts, seek

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from accel.ram import RamBlock

    from vmrun.core.glyphs import Buffer, Reading

# Character 1, a face, by the lines of a font: what is no blank of it. Before it stands character 0, all blank.
FACES = {
    16: bytes.fromhex("7e81a58181bd9981817e"),
    14: bytes.fromhex("7e81a58181bd99817e"),
    8: bytes.fromhex("7e81a581bd99817e"),
}
FACE_AT = {16: 2, 14: 2, 8: 0}
GRUB_FONTS = ("/usr/share/grub/unicode.pf2", "/boot/grub/fonts/unicode.pf2", "/boot/grub/unicode.pf2")
# of Unifont what consoles show: Latin, Greek, Cyrillic; punctuation, arrows, mathematics, boxes, blocks, shapes
UNICODE = (range(0x20, 0x530), range(0x2000, 0x2700))
MOST_FILE = 16 << 20
LOW, LOW_SIZE = 0xC0000, 0x20000  # where video BIOSes are


def ascii_first() -> list[int]:
    """The codes of a VGA font, ASCII before what may look the same."""
    return [*range(0x20, 0x7F), *range(0x01, 0x20), *range(0x7F, 0xFF)]


def vga_font(name: str, height: int, data: bytes) -> Font:
    """`data`: 256 characters of `height` bytes."""
    glyphs = {}
    for code in ascii_first():
        bits = data[code * height : (code + 1) * height]
        if any(bits) and TABLE[code] not in glyphs:
            glyphs[TABLE[code]] = bits
    return Font(name, height, glyphs)


def console_font(data: bytes, characters: int, loaded: bool) -> Font | None:
    """One of Linux's consoles, of glyphs up to eight pixels wide or, two bytes a line, sixteen; None: it is none."""
    size = len(data) // characters
    codes = range(0x21, 0x7F) if loaded else ascii_first()
    for pitch in (1, 2):
        high, odd = divmod(size, pitch)
        used = 0
        for at in range(0, len(data), pitch):
            used |= int.from_bytes(data[at : at + pitch], "big")
        width = 8 * pitch - ((used & -used).bit_length() - 1) if used else 0
        if odd or not 6 <= high <= 32 or width <= 8 * (pitch - 1) or not high / 3 <= width <= high + 1:
            continue
        glyphs: dict[str, bytes] = {}
        for code in codes:
            bits = data[code * size : (code + 1) * size]
            if any(bits):
                glyphs.setdefault(chr(code) if loaded else TABLE[code], bits)
        if len({data[code * size : (code + 1) * size] for code in range(0x21, 0x7F)}) == 0x5E:
            return Font(f"console {width}x{high}", high, glyphs, width, cornered=True)
    return None


def vga_fonts(name: str, data: bytes) -> Iterator[Font]:
    """Those that stand in `data`, each height once, the highest first."""
    for height in FACES:
        bits = font_bits(data, height)
        if bits:
            yield vga_font(f"{name} 8x{height}", height, bits)


def font_bits(data: bytes, height: int) -> bytes:
    """The font of that height in `data`, `height` bytes a character; b"" for none."""
    at = -1
    while (at := data.find(FACES[height], at + 1)) >= 0:
        start = at - FACE_AT[height] - height
        if start >= 0 and plausible(data[start : start + 256 * height], height):
            return data[start : start + 256 * height]
    return b""


def plausible(data: bytes, height: int) -> bool:
    """Whether these are 256 characters: blanks where blanks belong, and letters that differ."""
    if len(data) != 256 * height or any(data[:height]) or any(data[32 * height : 33 * height]):
        return False
    return len({data[code * height : (code + 1) * height] for code in range(0x21, 0x7F)}) == 0x5E


def pf2_font(data: bytes) -> Font:
    """A font of GRUB's as its terminal draws it: a cell as high as the highest character. ValueError for none."""
    sections: dict[bytes, bytes] = {}
    at = 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        if name == b"DATA":
            break
        sections[name] = data[at + 8 : at + 8 + size]
        at += 8 + size
    if sections.get(b"FILE") != b"PFF2" or not {b"CHIX", b"ASCE", b"DESC", b"MAXH"} <= set(sections):
        raise ValueError("no PFF2 font")
    ascent, height = (int.from_bytes(sections[name], "big") for name in (b"ASCE", b"MAXH"))
    glyphs, index = {}, sections[b"CHIX"]
    for entry in range(0, len(index) - 8, 9):
        code = int.from_bytes(index[entry : entry + 4], "big")
        offset = int.from_bytes(index[entry + 5 : entry + 9], "big")
        if any(code in part for part in UNICODE):
            bits = _pf2_glyph(data[offset : offset + 10 + 8 * height], ascent, height)
            if bits is not None and any(bits):
                glyphs[chr(code)] = bits
    return Font(sections.get(b"NAME", b"GRUB").rstrip(b"\0").decode("latin-1"), height, glyphs)


def _pf2_glyph(data: bytes, ascent: int, height: int) -> bytes | None:
    """One character in a cell eight pixels wide; None for a wider one."""
    if len(data) < 10:
        return None
    wide, high, left, up, step = (
        int.from_bytes(data[n : n + 2], "big", signed=n in (4, 6)) for n in range(0, 10, 2)
    )
    top = ascent - up - high
    if step != 8 or left < 0 or left + wide > 8 or top < 0 or top + high > height:
        return None
    bits = int.from_bytes(data[10 : 10 + (wide * high + 7) // 8].ljust((wide * high + 7) // 8, b"\0"), "big")
    bits >>= -(wide * high) % 8
    out = bytearray(height)
    for line in range(high):
        row = bits >> (wide * (high - 1 - line)) & ((1 << wide) - 1)
        out[top + line] = row << (8 - wide) >> left
    return bytes(out)


def grub_font() -> Font | None:
    """From the host's GRUB, where it has one."""
    for path in GRUB_FONTS:
        try:
            with open(path, "rb") as file:
                return pf2_font(file.read(MOST_FILE))
        except (OSError, ValueError):
            continue
    return None


class PictureReader:
    """Reads the text of one machine's graphics screens. May be used from any thread, by one at a time.

    `low` gives the guest's memory from LOW on, LOW_SIZE bytes; `blocks` its RAM.
    """

    AGAIN = 5.0  # seconds until fonts are looked for again

    def __init__(self, low: Callable[[], bytes], blocks: Callable[[], Iterable[RamBlock]]) -> None:
        self.low, self.blocks = low, blocks
        self.fonts: list[Font] = []
        self.font: Font | None = None  # that of the last text
        self.last: Reading | None = None
        self._looked = -self.AGAIN
        self._grub = False
        self._consoles: set[bytes] = set()
        self._lock = allocate_lock()

    def read(self, pixels: Buffer, width: int, height: int) -> tuple[Reading | None, str]:
        """The text of a picture (four bytes a pixel) and its font's name; None and '' when there is none."""
        with self._lock:
            if self.font is not None and self.last is not None:
                reading = self.font.read(pixels, width, height, self.last.x, self.last.y)
                if clear(reading) or reading.good and monotonic() < self._looked + self.AGAIN:
                    self.last = reading
                    return reading, self.font.name
            best = self._best(pixels, width, height, self.fonts)
            if (best is None or not clear(best[0])) and monotonic() >= self._looked + self.AGAIN:
                best = self._best(pixels, width, height, self._discover(), best)
                self._looked = monotonic()
            self.last, self.font = best if best is not None else (None, None)
            return self.last, self.font.name if self.font is not None else ""

    def _best(
        self,
        pixels: Buffer,
        width: int,
        height: int,
        fonts: Iterable[Font],
        best: tuple[Reading, Font] | None = None,
    ) -> tuple[Reading, Font] | None:
        """The font that knows most of the picture."""
        for font in fonts:
            reading = font.find(pixels, width, height)
            if reading.good and (best is None or reading.known > best[0].known):
                best = reading, font
                if clear(reading):
                    break
        return best

    def _discover(self) -> Iterator[Font]:
        """Fonts not known before, one after the other."""
        yield from self._linux()  # the cheapest to try: their cells have one place
        for font in vga_fonts("VGA", self.low()):
            if font.name not in [known.name for known in self.fonts]:
                self.fonts.append(font)
                yield font
        for height, face in FACES.items():
            if height == 14 or f"console 8x{height}" in [known.name for known in self.fonts]:
                continue
            for data in self._in_memory(height, face):
                font = vga_font(f"console 8x{height}", height, data)
                self.fonts.append(font)
                yield font
        if not self._grub:
            self._grub = True
            unifont = grub_font()
            if unifont is not None:
                self.fonts.append(unifont)
                yield unifont

    def _linux(self) -> Iterator[Font]:
        """Fonts of Linux's consoles by what stands before them, each once."""
        for block in self.blocks():
            for at, characters, size, loaded in linux_fonts(block):
                data = block.read(at, characters * size)
                if data in self._consoles:
                    continue
                self._consoles.add(data)
                font = console_font(data, characters, loaded)
                if font is not None:
                    self.fonts.append(font)
                    yield font

    def _in_memory(self, height: int, face: bytes) -> Iterator[bytes]:
        """Linux's console fonts in the guest's RAM."""
        for block in self.blocks():
            for at in seek(block, bytes(FACE_AT[height]) + face):
                start = at - height
                if start < 0x100000 or start + 256 * height > block.size:
                    continue  # the shadow of the video BIOS
                data = block.read(start, 256 * height)
                if plausible(data, height):
                    yield data


def clear(reading: Reading) -> bool:
    """Whether all that is drawn is known, but for a cursor or a mouse pointer."""
    return reading.good and reading.strange <= 4
