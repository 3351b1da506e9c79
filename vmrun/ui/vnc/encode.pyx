"""The compiled half of the VNC server: pixels in the client's format, and the encodings that look at them.

Ref: RFC 6143 (The Remote Framebuffer Protocol) 7.4, 7.7; the community's RFB specification for tight.
Everything reads the surface directly; results are bytearrays, ready to be deflated or sent. A rectangle is at most
MOST_SIDE pixels wide and high, which the caller sees to.
"""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy, memset

from accel.api cimport i32, u8, u16, u32
from vmrun.core.pixels cimport pixels_pack_rgb, pixels_run
from vmrun.core.surface cimport Surface

cdef enum:
    MOST_COLOURS = 256
    SLOTS = 1024                # of the hash table of colours
    MOST_SIDE = 2048
    HEXTILE = 16
    ZRLE_TILE = 64

    HEXTILE_RAW = 1
    HEXTILE_BACKGROUND = 2
    HEXTILE_FOREGROUND = 4
    HEXTILE_SUBRECTS = 8
    HEXTILE_COLOURED = 16

    ZRLE_RAW = 0
    ZRLE_SOLID = 1
    ZRLE_RLE = 128


cdef class PixelFormat:
    """How a client wants its pixels. ValueError for a format that cannot be served.

    bits 8, 16 or 32; big: the byte order; most: greatest red, green, blue; shift: where each lies in the pixel.
    """

    cdef readonly u32 bits, depth
    cdef readonly bint big, true_colour
    cdef u32 red[256]
    cdef u32 green[256]
    cdef u32 blue[256]
    cdef u32 size                       # bytes of a pixel
    cdef u32 compact                    # bytes of a CPIXEL
    cdef u32 skip                       # of a pixel's four bytes, what a CPIXEL leaves out in front
    cdef readonly bint three            # a TPIXEL has three bytes: red, green, blue
    cdef bint plain                     # a PIXEL is what the surface has

    def __init__(self, u32 bits, u32 depth, bint big, bint true_colour, most, shift):
        cdef u32 n, used = 0
        if bits not in (8, 16, 32):
            raise ValueError(f"{bits} bits per pixel")
        if not true_colour:             # a map of 256 colours that the server chooses: three, three and two bits
            bits, depth, big, most, shift = 8, 8, False, (7, 7, 3), (0, 3, 6)
        for m, s in zip(most, shift):
            if not 0 < m < 65536 or m & (m + 1) or s > 31 or (m << s) >> bits:
                raise ValueError(f"colours of 0 to {m} at bit {s} of {bits}")
            used |= <u32>((m << s) & 0xFFFFFFFF)
        self.bits, self.depth, self.big, self.true_colour, self.size = bits, depth, big, true_colour, bits // 8
        for n in range(256):
            self.red[n] = (n * (<u32>most[0] + 1) >> 8) << <u32>shift[0]
            self.green[n] = (n * (<u32>most[1] + 1) >> 8) << <u32>shift[1]
            self.blue[n] = (n * (<u32>most[2] + 1) >> 8) << <u32>shift[2]
        self.compact, self.skip = self.size, 0
        if bits == 32 and depth <= 24 and (not used >> 24 or not used & 0xFF):
            self.compact = 3
            # the byte that nobody uses: the first on the wire, or the last
            self.skip = 1 if (used >> 24 == 0) == big else 0
        self.three = bits == 32 and depth == 24 and tuple(most) == (255, 255, 255)
        self.plain = self.three and not big and tuple(shift) == (16, 8, 0)

    cdef u32 value(self, u32 pixel) noexcept nogil:
        return self.red[pixel >> 16 & 0xFF] | self.green[pixel >> 8 & 0xFF] | self.blue[pixel & 0xFF]

    cdef u8 *put(self, u8 *to, u32 pixel) noexcept nogil:
        """A PIXEL; where the next one goes."""
        cdef u32 value = self.value(pixel)
        if self.size == 4:
            if self.big:
                to[0], to[1], to[2], to[3] = <u8>(value >> 24), <u8>(value >> 16), <u8>(value >> 8), <u8>value
            else:
                memcpy(to, &value, 4)
            return to + 4
        if self.size == 2:
            if self.big:
                to[0], to[1] = <u8>(value >> 8), <u8>value
            else:
                to[0], to[1] = <u8>value, <u8>(value >> 8)
            return to + 2
        to[0] = <u8>value
        return to + 1

    cdef u8 *put_row(self, u8 *to, const u32 *row, u32 count) noexcept nogil:
        """So many PIXELs."""
        cdef u32 n
        if self.plain:
            memcpy(to, row, count * 4)
            return to + count * 4
        for n in range(count):
            to = self.put(to, row[n])
        return to

    cdef u8 *put_compact(self, u8 *to, u32 pixel) noexcept nogil:
        """A CPIXEL."""
        cdef u8 whole[4]
        if self.compact != 3:
            return self.put(to, pixel)
        self.put(whole, pixel)
        memcpy(to, whole + self.skip, 3)
        return to + 3

    cdef u8 *put_tight(self, u8 *to, u32 pixel) noexcept nogil:
        """A TPIXEL."""
        if not self.three:
            return self.put(to, pixel)
        to[0], to[1], to[2] = <u8>(pixel >> 16), <u8>(pixel >> 8), <u8>pixel
        return to + 3

    def palette(self):
        """The 256 colours of a client with a colour map, as SetColourMapEntries sends them: 16 bits a part."""
        cdef bytearray out = bytearray()
        for n in range(256):
            for part, most in ((n & 7, 7), (n >> 3 & 7, 7), (n >> 6, 3)):
                out += int(part * 65535 // most).to_bytes(2, "big")
        return bytes(out)


cdef class _Colours:
    """The distinct colours of a rectangle, up to MOST_COLOURS, in the order they were met."""

    cdef u32 colour[MOST_COLOURS]
    cdef u32 uses[MOST_COLOURS]
    cdef u16 slots[SLOTS]
    cdef u32 count
    cdef u32 runs, single, lengths      # after a survey: runs, those of one pixel, bytes that all their lengths take

    cdef void clear(self) noexcept nogil:
        memset(self.slots, 0xFF, sizeof(self.slots))
        self.count = 0

    cdef int find(self, u32 colour, u32 most) noexcept nogil:
        """Its number, added when it is new; -1 when there would be more than `most`."""
        cdef u32 slot = (colour * <u32>2654435761) >> 22
        while self.slots[slot] != 0xFFFF:
            if self.colour[self.slots[slot]] == colour:
                return self.slots[slot]
            slot = (slot + 1) & (SLOTS - 1)
        if self.count >= most:
            return -1
        self.slots[slot] = <u16>self.count
        self.colour[self.count] = colour
        self.uses[self.count] = 0
        self.count += 1
        return <int>self.count - 1

    cdef int collect(self, Surface surface, u32 x, u32 y, u32 width, u32 height, u32 most) noexcept nogil:
        """How many there are; -1 when more than `most`."""
        cdef u32 line, column, run
        cdef u32 *row
        cdef int n
        self.clear()
        for line in range(y, y + height):
            row = surface.row(line) + x
            column = 0
            while column < width:
                n = self.find(row[column], most)
                if n < 0:
                    return -1
                run = <u32>pixels_run(row + column, width - column)
                self.uses[n] += run
                column += run
        return <int>self.count

    cdef int survey(self, Surface surface, u32 x, u32 y, u32 width, u32 height, u32 most) noexcept nogil:
        """As collect, with the runs, which go on from line to line; they are counted among more colours too."""
        cdef u32 line, column, run, length = 0, last = 0
        cdef u32 *row
        cdef bint many = False
        self.clear()
        self.runs = self.single = self.lengths = 0
        for line in range(y, y + height):
            row = surface.row(line) + x
            column = 0
            while column < width:
                run = <u32>pixels_run(row + column, width - column)
                if length and row[column] == last:
                    length += run
                else:
                    self._ran(length)
                    length, last = run, row[column]
                    many = many or self.find(last, most) < 0
                column += run
        self._ran(length)
        return -1 if many else <int>self.count

    cdef void _ran(self, u32 length) noexcept nogil:
        """A run is over."""
        if length:
            self.runs += 1
            self.single += length == 1
            self.lengths += (length - 1) // 255 + 1


cdef int _inside(Surface surface, u32 x, u32 y, u32 width, u32 height) except -1:
    if not width or not height or width > MOST_SIDE or height > MOST_SIDE or x + width > surface.width or (
        y + height > surface.height
    ):
        raise ValueError(f"{width}x{height} at {x},{y} of {surface.width}x{surface.height}")
    return 0


cdef bytearray _room(size_t size):
    """So many bytes that are still to be written: a screenful of zeroes costs more than what is put there."""
    return PyByteArray_FromStringAndSize(NULL, size)


def head(u32 x, u32 y, u32 width, u32 height, i32 encoding):
    """What stands before a rectangle's data: 12 bytes."""
    cdef u8[12] out
    cdef u32 n
    cdef u32[4] values
    values[0], values[1], values[2], values[3] = x, y, width, height
    for n in range(4):
        out[2 * n], out[2 * n + 1] = <u8>(values[n] >> 8), <u8>values[n]
        out[8 + n] = <u8>(<u32>encoding >> (24 - 8 * n))
    return PyBytes_FromStringAndSize(<char *>out, sizeof(out))


def raw(Surface surface, PixelFormat form, u32 x, u32 y, u32 width, u32 height):
    """RFC 6143 7.7.1."""
    _inside(surface, x, y, width, height)
    cdef bytearray out = _room(width * height * form.size)
    cdef u8 *to = out
    cdef u32 line
    with nogil:
        for line in range(y, y + height):
            to = form.put_row(to, surface.row(line) + x, width)
    return out


cdef u8 *_hextile_rects(_Colours colours, PixelFormat form, u32 *tile, u32 width, u32 height, u32 back, bint coloured,
                        u8 *to, u8 *end) noexcept nogil:
    """Subrectangles of all that is not background; NULL when they take as much room as raw pixels."""
    cdef u8 done[HEXTILE * HEXTILE]
    cdef u32 x, y, w, h, i, colour
    cdef u8 *count = to
    cdef bint same
    memset(done, 0, sizeof(done))
    to[0] = 0
    to += 1
    for y in range(height):
        for x in range(width):
            colour = tile[y * HEXTILE + x]
            if colour == back or done[y * HEXTILE + x]:
                continue
            w = 1
            while x + w < width and tile[y * HEXTILE + x + w] == colour and not done[y * HEXTILE + x + w]:
                w += 1
            h = 1
            while y + h < height:
                same = True
                for i in range(w):
                    if tile[(y + h) * HEXTILE + x + i] != colour or done[(y + h) * HEXTILE + x + i]:
                        same = False
                        break
                if not same:
                    break
                h += 1
            for i in range(h):
                memset(done + (y + i) * HEXTILE + x, 1, w)
            if to + 6 > end or count[0] == 255:
                return NULL
            if coloured:
                to = form.put(to, colour)
            to[0], to[1] = <u8>(x << 4 | y), <u8>((w - 1) << 4 | (h - 1))
            to += 2
            count[0] += 1
    return to


def hextile(Surface surface, PixelFormat form, u32 x, u32 y, u32 width, u32 height):
    """RFC 6143 7.7.4."""
    _inside(surface, x, y, width, height)
    cdef u32 across = (width + 15) // 16, down = (height + 15) // 16, size = form.size
    cdef bytearray out = _room(across * down * (1 + HEXTILE * HEXTILE * 4 + 16))
    cdef u8 *start = out
    cdef u8 *to = start
    cdef u8 *begin
    cdef u8 *end
    cdef u32 tile[HEXTILE * HEXTILE]
    cdef u32 left, top, w, h, line, i, back, front
    cdef int found
    cdef _Colours colours = _Colours()
    with nogil:
        for top in range(y, y + height, 16):
            h = min(<u32>16, y + height - top)
            for left in range(x, x + width, 16):
                w = min(<u32>16, x + width - left)
                for line in range(h):
                    memcpy(tile + line * HEXTILE, surface.row(top + line) + left, w * 4)
                found = colours.collect(surface, left, top, w, h, MOST_COLOURS)
                back = 0
                for i in range(1, colours.count):
                    if colours.uses[i] > colours.uses[back]:
                        back = i
                back = colours.colour[back]
                begin = to
                end = begin + 1 + w * h * size          # where raw pixels would end
                to[0] = HEXTILE_BACKGROUND
                to = form.put(to + 1, back)
                if found == 1:
                    continue
                if found == 2:
                    front = colours.colour[0] if colours.colour[0] != back else colours.colour[1]
                    begin[0] |= HEXTILE_FOREGROUND | HEXTILE_SUBRECTS
                    to = form.put(to, front)
                    to = _hextile_rects(colours, form, tile, w, h, back, False, to, end)
                elif found > 0:
                    begin[0] |= HEXTILE_SUBRECTS | HEXTILE_COLOURED
                    to = _hextile_rects(colours, form, tile, w, h, back, True, to, end)
                if found < 0 or to == NULL:
                    begin[0] = HEXTILE_RAW
                    to = begin + 1
                    for line in range(h):
                        to = form.put_row(to, tile + line * HEXTILE, w)
    del out[to - start:]
    return out


cdef u32 _bits(u32 count) noexcept nogil:
    """Bits of an index into a palette of `count` colours in ZRLE's packed tiles."""
    return 1 if count <= 2 else 2 if count <= 4 else 4


cdef u8 *_packed_row(_Colours colours, const u32 *row, u32 width, u32 bits, u8 *to) noexcept nogil:
    """A row as indices of so many bits, the first in a byte's highest; where the next row goes."""
    cdef u32 at = 0, run, index, fill, free = 8, byte = 0
    while at < width:
        index = <u32>colours.find(row[at], MOST_COLOURS)
        run = <u32>pixels_run(row + at, width - at)
        at += run
        while run:
            if free == 8 and run * bits >= 8:
                fill = run * bits // 8
                memset(to, index * (0xFF // ((1 << bits) - 1)), fill)
                to += fill
                run -= fill * 8 // bits
                continue
            free -= bits
            byte |= index << free
            run -= 1
            if not free:
                to[0] = <u8>byte
                to += 1
                free, byte = 8, 0
    if free < 8:
        to[0] = <u8>byte
        to += 1
    return to


cdef u8 *_run(_Colours colours, PixelFormat form, u32 colour, u32 length, bint numbered, u8 *to) noexcept nogil:
    """A run: its colour, or its number, and as many bytes of length as it needs."""
    if numbered:
        to[0] = <u8>(colours.find(colour, 127) | (128 if length > 1 else 0))
        to += 1
        if length == 1:
            return to
    else:
        to = form.put_compact(to, colour)
    length -= 1
    while length >= 255:
        to[0] = 255
        to += 1
        length -= 255
    to[0] = <u8>length
    return to + 1


cdef u8 *_runs(_Colours colours, PixelFormat form, Surface surface, u32 x, u32 y, u32 width, u32 height,
               bint numbered, u8 *to) noexcept nogil:
    """A tile as runs, which go on from line to line."""
    cdef u32 line, column, n, length = 0, colour = 0
    cdef u32 *row
    for line in range(y, y + height):
        row = surface.row(line) + x
        column = 0
        while column < width:
            n = <u32>pixels_run(row + column, width - column)
            if length and row[column] == colour:
                length += n
            else:
                if length:
                    to = _run(colours, form, colour, length, numbered, to)
                length, colour = n, row[column]
            column += n
    return _run(colours, form, colour, length, numbered, to)


def zrle(Surface surface, PixelFormat form, u32 x, u32 y, u32 width, u32 height):
    """RFC 6143 7.7.6, before it is deflated: each tile in that of its forms which is the shortest."""
    _inside(surface, x, y, width, height)
    cdef u32 across = (width + ZRLE_TILE - 1) // ZRLE_TILE, down = (height + ZRLE_TILE - 1) // ZRLE_TILE
    cdef bytearray out = _room(across * down + width * height * 4)
    cdef u8 *start = out
    cdef u8 *to = start
    cdef u32 left, top, w, h, line, i, bits, size, least, palette
    cdef u8 kind
    cdef u32 *row
    cdef int found
    cdef _Colours colours = _Colours()
    with nogil:
        for top in range(y, y + height, 64):
            h = min(<u32>ZRLE_TILE, y + height - top)
            for left in range(x, x + width, 64):
                w = min(<u32>ZRLE_TILE, x + width - left)
                found = colours.survey(surface, left, top, w, h, 127)
                palette = <u32>found * form.compact if found > 0 else 0
                bits = 0
                kind, least = ZRLE_RAW, w * h * form.compact
                if found == 1:
                    kind, least = ZRLE_SOLID, 0
                elif 1 < found <= 16:
                    bits = _bits(<u32>found)
                    size = palette + (w * bits + 7) // 8 * h
                    if size < least:
                        kind, least = <u8>found, size
                size = palette + colours.runs + colours.lengths - colours.single
                if found > 1 and size < least:
                    kind, least = <u8>(ZRLE_RLE | found), size
                if colours.runs * form.compact + colours.lengths < least:
                    kind = ZRLE_RLE
                to[0] = kind
                to += 1
                if kind not in (ZRLE_RAW, ZRLE_RLE):
                    for i in range(<u32>found):
                        to = form.put_compact(to, colours.colour[i])
                if kind >= ZRLE_RLE:
                    to = _runs(colours, form, surface, left, top, w, h, kind != ZRLE_RLE, to)
                elif kind == ZRLE_RAW:
                    for line in range(h):
                        row = surface.row(top + line) + left
                        for i in range(w):
                            to = form.put_compact(to, row[i])
                elif kind != ZRLE_SOLID:
                    for line in range(h):
                        to = _packed_row(colours, surface.row(top + line) + left, w, bits, to)
    del out[to - start:]
    return out


def tight(Surface surface, PixelFormat form, u32 x, u32 y, u32 width, u32 height):
    """(palette, data) for tight's basic compression: palette is None for full colour, else bytes of TPIXELs and
    data has an index a pixel (a bit a pixel for two colours). One colour: (its TPIXEL, b'').
    """
    _inside(surface, x, y, width, height)
    cdef _Colours colours = _Colours()
    cdef u32 line, column, most = 256 if width * height > 1024 else 32
    cdef int found
    cdef u32 *row
    cdef u8 *to
    cdef bytearray palette = bytearray(MOST_COLOURS * 4), out
    with nogil:
        found = colours.collect(surface, x, y, width, height, most)
    to = palette
    for column in range(<u32>found if found > 0 else 0):
        to = form.put_tight(to, colours.colour[column])
    del palette[to - <u8 *>palette:]
    if found == 1:
        return palette, b""
    if found == 2:
        out = _room((width + 7) // 8 * height)
        to = out
        with nogil:
            for line in range(y, y + height):
                to = _packed_row(colours, surface.row(line) + x, width, 1, to)
        return palette, out
    if found > 0:
        out = _room(width * height)
        to = out
        with nogil:
            for line in range(y, y + height):
                to = _packed_row(colours, surface.row(line) + x, width, 8, to)
        return palette, out
    out = _room(width * height * (3 if form.three else form.size))
    to = out
    with nogil:
        for line in range(y, y + height):
            row = surface.row(line) + x
            if form.three:
                pixels_pack_rgb(to, row, width)
                to += 3 * width
            else:
                to = form.put_row(to, row, width)
    return None, out
