"""What a VGA sends to its monitor, as pixels on a surface.

Ref: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": SR01, SR03, GR05, GR06, CR01, CR07, CR09-CR18,
AR00-AR10, AR12, AR14. VBE modes are linear frame buffers. The picture has the size that QEMU gives it: lines that a
mode shows twice are there twice, and so are the dots of a mode with half the dot clock.
Not modelled: horizontal panning (AR13, CR08), blinking (what blinks is shown).
Departures: six bits of a DAC colour become eight as QEMU makes them (the lowest bit fills up), and the five of a 15-bit
mode get zeroes behind them; a monitor would spread both evenly.

Registers are read under the device lock; video memory is read without it, as the beam would: a guest that draws at the
same time is seen half-way, and the next look sees the rest.
"""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from vmrun.core.pixels cimport pixels_clear_high
from vmrun.devices.display.vga cimport *

from vmrun.core.surface import MOST_PIXELS as _MOST_PIXELS

cdef enum:
    KIND_BLANK = 0
    KIND_TEXT = 1
    KIND_PLANAR = 2             # four planes: 16 colours
    KIND_CGA = 3                # two bits a pixel, planes in pairs
    KIND_LINEAR = 4             # `bits` a pixel, byte after byte

    NO_CURSOR = 0x7FFFFFFF
    NOTHING = 0xFFFFFFFF        # no cell has this value
    MOST_CELLS = 65536          # the address counter has 16 bits


cdef u64 MOST_PIXELS = _MOST_PIXELS
# The font that two bits of SR03 and its high bit choose, as an address in plane 2
cdef u32[8] FONTS = [0x0000, 0x4000, 0x8000, 0xC000, 0x2000, 0x6000, 0xA000, 0xE000]
cdef u32[16] PLANES                             # four plane bits as four bytes, for AR12
cdef int _n
for _n in range(16):
    PLANES[_n] = ((_n & 1) * 0xFF) | ((_n >> 1 & 1) * 0xFF00) | ((_n >> 2 & 1) * 0xFF0000) | (_n >> 3) * <u32>0xFF000000


cdef bint _alike(const Mode *one, const Mode *other) noexcept nogil:
    """Whether what is on the surface can stay. Scrolling text and its cursor are found cell by cell."""
    cdef Mode a, b
    memcpy(&a, one, sizeof(Mode))
    memcpy(&b, other, sizeof(Mode))
    if a.kind == KIND_TEXT:
        a.start = a.pitch = a.line_compare = a.cursor = a.cursor_first = a.cursor_last = 0
        b.start = b.pitch = b.line_compare = b.cursor = b.cursor_first = b.cursor_last = 0
    return memcmp(&a, &b, sizeof(Mode)) == 0


cdef u32 _six(u8 value) noexcept nogil:
    value &= 0x3F
    return (value << 2) | ((value & 1) << 1) | (value & 1)


cdef u32 _five(u32 value) noexcept nogil:
    value &= 31
    return value << 3 | value >> 2


cdef u32 _fifteen(u32 value) noexcept nogil:
    return (value << 9 & 0xF80000) | (value << 6 & 0xF800) | (value << 3 & 0xF8)


cdef class VgaScanout(Scanout):
    """`vga` is drawn; `lock` is the machine's device lock."""

    def __cinit__(self, Vga vga, DeviceLock lock, *args):
        self.vga = vga
        self.lock = lock
        self.mode.kind = -1
        self.again = <u8 *>calloc((vga.vram.size >> 12) + 1, 1)
        if self.again == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.line)
        free(self.cells)
        free(self.again)

    @property
    def memory(self):
        return self.vga.vram

    @property
    def text(self):
        """True when the last look found a text mode."""
        return self.mode.kind == KIND_TEXT

    def update(self, Surface surface, bint full, DirtyLog log=None):
        """See Scanout.update. Without a dirty log of the memory every line is looked at."""
        cdef Mode mode
        cdef u32 palette[256]
        cdef u32 colours[16]
        cdef u8 *pages = NULL
        memset(&mode, 0, sizeof(Mode))
        with nogil:
            self.lock.acquire()
            self._read(&mode, palette, colours)
            self.lock.release()
        if mode.kind == KIND_BLANK:             # a monitor without a picture keeps its size
            mode.width, mode.height = surface.width, surface.height
        if (
            not self.drawn or surface.width != mode.width or surface.height != mode.height
            or memcmp(palette, self.palette, sizeof(palette)) or memcmp(colours, self.colours, sizeof(colours))
            or not _alike(&mode, &self.mode)
        ):
            full = True
            self._room(mode.width, mode.columns * mode.rows)
            surface.resize(mode.width, mode.height)
        elif mode.kind == KIND_TEXT and (
            mode.cursor_first != self.mode.cursor_first or mode.cursor_last != self.mode.cursor_last
        ):
            self._forget_cursor()
        memcpy(&self.mode, &mode, sizeof(Mode))
        memcpy(self.palette, palette, sizeof(palette))
        memcpy(self.colours, colours, sizeof(colours))
        self.drawn = True
        if log is not None:
            pages = self._written(log, self.vga.vram.size >> 12)
        with nogil:
            if mode.kind == KIND_TEXT:
                self._text(surface, full)
            elif mode.kind != KIND_BLANK:
                self._graphics(surface, full, pages)
            elif full:
                memset(surface.pixels, 0, <size_t>surface.width * surface.height * 4)
                surface.mark(0, 0, surface.width, surface.height)
            free(pages)

    def _room(self, u32 width, u32 cells):
        """Room for a line of pixels and for the cells of the screen."""
        cdef void *grown
        if width + 32 > self.line_room:         # a line is made of whole bytes of up to 16 pixels
            grown = realloc(self.line, (<size_t>width + 32) * 4)
            if grown == NULL:
                raise MemoryError
            self.line = <u32 *>grown
            self.line_room = width + 32
        if cells > self.cell_room:
            grown = realloc(self.cells, <size_t>cells * 4)
            if grown == NULL:
                raise MemoryError
            self.cells = <u32 *>grown
            self.cell_room = cells

    cdef u8 *_written(self, DirtyLog log, u64 pages) noexcept nogil:
        """A byte for each page: written since the look before the last. NULL without a log. A write may reach memory a
        moment after its page was taken off the log, so each page counts twice.
        """
        cdef u64 page
        cdef u8 *now = <u8 *>calloc(pages + 1, 1)
        if now == NULL:
            return NULL
        for page in range(pages):
            now[page] = self.again[page] | log.pages[page]
            self.again[page] = log.pages[page]
            log.pages[page] = 0
        return now

    # --- registers ------------------------------------------------------------------------------------------

    cdef void _read(self, Mode *mode, u32 *palette, u32 *colours) noexcept nogil:
        """What the registers say; the device lock is held."""
        cdef u8 *cr = self.vga.crtc
        cdef u8 *sr = self.vga.seq
        cdef u8 *ar = self.vga.attr
        cdef u8 *gr = self.vga.gfx
        cdef u8 *dac = self.vga.dac
        cdef u32 i, found, shift
        cdef u32 scan = (cr[CR_MAX_SCAN] & 0x1F) + 1
        for i in range(256):
            if self.vga.dac_8bit:
                palette[i] = <u32>dac[3 * i] << 16 | <u32>dac[3 * i + 1] << 8 | dac[3 * i + 2]
            else:
                palette[i] = _six(dac[3 * i]) << 16 | _six(dac[3 * i + 1]) << 8 | _six(dac[3 * i + 2])
        for i in range(16):
            found = (ar[i] & 0x3F) | (ar[AR_COLOUR_SELECT] & 0x0C) << 4
            if ar[AR_MODE] & 0x80:
                found = (found & 0xCF) | (ar[AR_COLOUR_SELECT] & 3) << 4
            colours[i] = palette[found & self.vga.pel_mask]
        mode.big_endian = self.vga.big_endian
        mode.plane_mask = ar[AR_PLANE_ENABLE] & 15
        mode.width = (cr[CR_H_END] + 1) * 8
        mode.height = (cr[CR_V_END] | (cr[CR_OVERFLOW] & 0x02) << 7 | (cr[CR_OVERFLOW] & 0x40) << 3) + 1
        mode.pitch = <u32>cr[CR_OFFSET] << 3
        mode.start = (<u32>cr[CR_START_HIGH] << 8 | cr[CR_START_LOW]) * 4
        mode.line_compare = cr[CR_LINE_COMPARE] | (cr[CR_OVERFLOW] & 0x10) << 4 | (cr[CR_MAX_SCAN] & 0x40) << 3
        if not self.vga.attr_index & 0x20:           # the palette is open for the processor: nothing is shown
            mode.kind = KIND_BLANK
            mode.width = mode.height = 0
            return
        self._extended(mode)
        if not gr[GR_MISC] & 1:
            self._read_text(mode, sr, ar, cr, scan)
            return
        shift = gr[GR_MODE] >> 5 & 3
        mode.repeat = (scan << (cr[CR_MAX_SCAN] >> 7)) - 1
        if shift == 0:
            mode.kind = KIND_PLANAR
            mode.double = sr[SR_CLOCKING] >> 3 & 1
        elif shift == 1:
            mode.kind = KIND_CGA
            mode.double = sr[SR_CLOCKING] >> 3 & 1
        else:
            mode.kind = KIND_LINEAR
            if not mode.bits:
                mode.bits = 8
                mode.double = 1
        if mode.double and mode.kind != KIND_LINEAR:
            mode.width *= 2
        mode.cga = ~cr[CR_MODE] & 3
        if mode.cga:                            # the row counter goes into the address instead
            mode.repeat = cr[CR_MAX_SCAN] >> 7
        mode.cga_shift = 14 + (cr[CR_MODE] >> 6 & 1)
        if <u64>mode.width * mode.height > MOST_PIXELS:
            mode.height = <u32>(MOST_PIXELS // mode.width)

    cdef void _extended(self, Mode *mode) noexcept nogil:
        """What registers beyond the VGA's say: here those of VBE."""
        cdef u16 *vbe = self.vga.vbe
        if vbe[VBE_ENABLE] & VBE_ENABLED and self.vga.gfx[GR_MISC] & 1:
            mode.width, mode.height = vbe[VBE_XRES], vbe[VBE_YRES]
            mode.pitch, mode.start = self.vga.vbe_line_bytes, self.vga.vbe_start * 4
            mode.line_compare = 0xFFFF
            mode.bits = vbe[VBE_BPP]

    cdef bint _covered(self, u32 y) noexcept nogil:
        """Whether a line may differ for something else than video memory: a pointer that the chip draws."""
        return False

    cdef bint _overlay(self, u32 y) noexcept nogil:
        """Draw such things over self.line; True when there were any."""
        return False

    cdef void _read_text(self, Mode *mode, u8 *sr, u8 *ar, u8 *cr, u32 scan) noexcept nogil:
        mode.kind = KIND_TEXT
        mode.cell_height = scan
        mode.cell_width = 8 if sr[SR_CLOCKING] & 1 else 9
        if sr[SR_CLOCKING] & 8:
            mode.cell_width = 16                # 40 columns: each dot twice
        mode.columns = cr[CR_H_END] + 1
        mode.rows = mode.height // scan
        if cr[CR_V_TOTAL] == 100:                        # CGA's 160 x 100 with characters of two lines
            mode.rows = 100
        if mode.rows == 0 or mode.columns * mode.rows > MOST_CELLS or (
            <u64>mode.columns * mode.cell_width * mode.rows * scan > MOST_PIXELS
        ):
            mode.kind = KIND_BLANK
            mode.width = mode.height = mode.columns = mode.rows = 0
            return
        mode.width, mode.height = mode.columns * mode.cell_width, mode.rows * scan
        mode.cursor = NO_CURSOR if cr[CR_CURSOR_START] & 0x20 else <u32>cr[CR_CURSOR_HIGH] << 8 | cr[CR_CURSOR_LOW]
        mode.cursor_first = cr[CR_CURSOR_START] & 0x1F
        mode.cursor_last = min(<u32>(cr[CR_CURSOR_END] & 0x1F), scan - 1)
        mode.fonts[0] = FONTS[(sr[SR_CHARACTER_MAP] & 3) | (sr[SR_CHARACTER_MAP] >> 2 & 4)]
        mode.fonts[1] = FONTS[(sr[SR_CHARACTER_MAP] >> 2 & 3) | (sr[SR_CHARACTER_MAP] >> 3 & 4)]
        mode.back_mask = 7 if ar[AR_MODE] & 8 else 15
        mode.line_graphics = ar[AR_MODE] >> 2 & 1

    # --- text -----------------------------------------------------------------------------------------------

    def _forget_cursor(self):
        """The old cursor's cell is drawn anew, wherever the new one is."""
        cdef u32 i
        for i in range(self.mode.columns * self.mode.rows):
            if self.cells[i] >> 16 & 1:
                self.cells[i] = NOTHING

    cdef void _text(self, Surface surface, bint full) noexcept nogil:
        """Cells that differ from what is on the surface; a cell: character, attribute, bit 16 under the cursor."""
        cdef u32 row, column, address, cell, i, n
        cdef u8 *memory = self.vga.vram.host
        cdef u8 glyphs[2][8192]
        cdef u32 *seen = self.cells
        for n in range(2):
            for i in range(8192):
                glyphs[n][i] = memory[4 * ((self.mode.fonts[n] + i) & 0xFFFF) + 2]
        if memcmp(glyphs, self.glyphs, sizeof(glyphs)):
            memcpy(self.glyphs, glyphs, sizeof(glyphs))
            full = True
        for row in range(self.mode.rows):
            for column in range(self.mode.columns):
                address = (self.mode.start // 4 + self.mode.pitch // 4 * row + column) & 0xFFFF
                cell = memory[4 * address] | <u32>memory[4 * address + 1] << 8
                if address == self.mode.cursor:
                    cell |= 0x10000
                if full or cell != seen[0]:
                    seen[0] = cell
                    self._glyph(surface, column, row, cell, cell >> 16)
                seen += 1

    cdef void _glyph(self, Surface surface, u32 column, u32 row, u32 cell, bint cursor) noexcept nogil:
        cdef u32 width = self.mode.cell_width, height = self.mode.cell_height
        cdef u32 x = column * width, y = row * height, line, dot
        cdef u8 attribute = <u8>(cell >> 8), character = <u8>cell, bits
        cdef u32 front = self.colours[attribute & 15], back = self.colours[attribute >> 4 & self.mode.back_mask]
        cdef u8 *glyph = &self.glyphs[attribute >> 3 & 1][32 * character]
        cdef bint joined = self.mode.line_graphics and 0xC0 <= character <= 0xDF
        cdef u32 *to
        for line in range(height):
            bits = glyph[line]
            if cursor and self.mode.cursor_first <= line <= self.mode.cursor_last:
                bits = 0xFF
            to = surface.row(y + line) + x
            if width == 16:
                for dot in range(16):
                    to[dot] = front if bits >> (7 - dot // 2) & 1 else back
            else:
                for dot in range(8):
                    to[dot] = front if bits >> (7 - dot) & 1 else back
                if width == 9:
                    to[8] = front if (joined or bits == 0xFF and cursor) and bits & 1 else back
        surface.mark(x, y, width, height)

    # --- graphics -------------------------------------------------------------------------------------------

    cdef void _graphics(self, Surface surface, bint full, const u8 *pages) noexcept nogil:
        """Line by line, with the CRT controller's counters."""
        cdef u32 y, row = 0, left = self.mode.repeat, mask = self.mode.cga
        cdef u64 line = self.mode.start, at, span, last, previous = <u64>-1, size = self.vga.vram.size
        cdef bint again, covered, whole = self.mode.kind == KIND_LINEAR and self.mode.bits == 32 and not self.mode.big_endian
        span = self._span()
        for y in range(self.mode.height):
            at = line
            if mask & 1:
                at = (at & ~(<u64>1 << self.mode.cga_shift)) | <u64>(row & 1) << self.mode.cga_shift
            if mask & 2:
                at = (at & ~<u64>0x8000) | <u64>(row & 2) << 14
            at &= size - 1
            covered = self._covered(y)
            again = covered or full or pages == NULL
            if not again:
                last = at + span - 1
                again = self._touched(pages, at, min(last, size - 1))
                if last >= size and not again:
                    again = self._touched(pages, 0, last & (size - 1))
            if again and whole and not covered and at + <u64>self.mode.width * 4 <= size:
                surface.put_row(y, <u32 *>(self.vga.vram.host + at), True)
            elif again:
                if at != previous:
                    self._draw_line(at)
                    previous = at
                if self._overlay(y):
                    previous = <u64>-1
                surface.put_row(y, self.line)
            if left == 0:
                if row & mask == mask:
                    line += self.mode.pitch
                row += 1
                left = self.mode.repeat
            else:
                left -= 1
            if y == self.mode.line_compare:
                line = 0

    cdef bint _touched(self, const u8 *pages, u64 first, u64 last) noexcept nogil:
        cdef u64 page
        for page in range(first >> 12, (last >> 12) + 1):
            if pages[page]:
                return True
        return False

    cdef u64 _span(self) noexcept nogil:
        """Bytes of video memory behind one line."""
        cdef u64 width = self.mode.width
        if self.mode.kind != KIND_LINEAR:
            width //= 2 if self.mode.double else 1
            return (width + 7) // 8 * 4
        if self.mode.double:
            return (width + 1) // 2
        return width * ((self.mode.bits + 7) // 8)

    cdef void _draw_line(self, u64 at) noexcept nogil:
        """The pixels from byte `at` of video memory into self.line; the memory wraps."""
        cdef u8 *memory = self.vga.vram.host
        cdef u64 mask = self.vga.vram.size - 1
        cdef u32 *to = self.line
        cdef u32 *colours = self.colours
        cdef u32 *palette = self.palette
        cdef u32 width = self.mode.width, x = 0, planes, bit, value, keep = PLANES[self.mode.plane_mask], colour
        cdef u32 double = self.mode.double, big = self.mode.big_endian, bits = self.mode.bits
        cdef u8 *p
        if self.mode.kind == KIND_LINEAR and bits >= 8:
            if bits == 8:
                while x < width:
                    to[x] = palette[memory[at & mask]]
                    if double:
                        to[x + 1] = to[x]
                        x += 1
                    x += 1
                    at += 1
            elif bits == 32 and not big and at + <u64>width * 4 <= mask + 1:
                pixels_clear_high(to, <u32 *>(memory + at), width)
            elif bits == 15 or bits == 16:
                for x in range(width):
                    p = memory + (at & mask)    # memory is a power of two and the start is even
                    value = <u32>p[0] << 8 | p[1] if big else <u32>p[1] << 8 | p[0]
                    if bits == 15:
                        to[x] = _fifteen(value)
                    else:
                        to[x] = _five(value >> 11) << 16 | ((value >> 3 & 0xFC) | (value >> 9 & 3)) << 8 | _five(value)
                    at += 2
            else:
                for x in range(width):
                    if bits == 24:
                        value = <u32>memory[at & mask] | <u32>memory[at + 1 & mask] << 8 | <u32>memory[at + 2 & mask] << 16
                        if big:
                            value = (value & 0xFF) << 16 | (value & 0xFF00) | value >> 16
                        at += 3
                    else:
                        value = <u32>memory[at & mask] | <u32>memory[at + 1 & mask] << 8 | (
                            <u32>memory[at + 2 & mask] << 16) | <u32>memory[at + 3 & mask] << 24
                        if big:
                            value = (value >> 8 & 0xFF) << 16 | (value >> 16 & 0xFF) << 8 | value >> 24
                        at += 4
                    to[x] = value & 0xFFFFFF
            return
        while x < width:
            planes = (<u32 *>(memory + (at & mask & ~<u64>3)))[0] & keep
            at += 4
            for bit in range(8):
                if self.mode.kind == KIND_CGA:
                    # pixels 0-3 are pairs of bits of plane 0 (low) and 2 (high), pixels 4-7 of planes 1 and 3
                    value = planes >> (0 if bit < 4 else 8)
                    value = (value >> (6 - 2 * (bit & 3)) & 3) | (value >> (16 + 6 - 2 * (bit & 3)) & 3) << 2
                else:
                    value = planes >> (7 - bit)
                    value = (value & 1) | (value >> 7 & 2) | (value >> 14 & 4) | (value >> 21 & 8)
                colour = colours[value]
                to[x] = colour
                x += 1
                if double:
                    to[x] = colour
                    x += 1
