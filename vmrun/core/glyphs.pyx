"""Text in a picture: cells whose pixels are exactly a glyph of a known font, in any two colours.

    font = Font("VGA 8x16", 16, {"A": bytes(16), …})
    text = font.read(pixels, width, height, 0, 0)           # rows of cells from pixel 0,0
    text = font.find(pixels, width, height)                 # ... from wherever most of them are known

Nothing is guessed: a cell that is no glyph reads as UNKNOWN. Console drivers draw glyphs without smoothing, so what
they draw is found bit by bit. A cursor that hides part of a glyph is looked through.
"""

from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from accel.api cimport u8, u32, u64
from accel.ram cimport RamBlock

cdef extern from "<string.h>" nogil:
    void *memmem(const void *, size_t, const void *, size_t)

cdef extern from "<sys/mman.h>" nogil:
    int mincore(void *, size_t, unsigned char *)

UNKNOWN = "\ufffd"

cdef enum:
    WIDTH = 8
    HIGHEST = 32                # lines of a glyph
    MOST_GLYPHS = 1 << 16
    PAGE = 4096
    PAGES = 256                 # looked at in one step
    ENOUGH = 4                   # letters and digits that must be known for a picture to count as text
    STRANGE = 0xFFFFFFFF
    BLANK = 0x20


cdef u64 MULTIPLIER = 0x100000001B3          # FNV-1a's


cdef struct Entry:
    u32 character               # 0: free
    u8 bits[HIGHEST]


cdef u64 _hash(const u8 *bits, u32 height) noexcept nogil:
    cdef u64 value = height
    cdef u32 i
    for i in range(height):
        value = (value ^ bits[i]) * MULTIPLIER
    return value >> 32


cdef class Reading:
    """`rows` are strings of one length; `known` counts the letters and digits among them, `drawn` cells that are not
    of one colour; `x` and `y` are where the first cell begins.
    """

    cdef readonly list rows
    cdef readonly u32 known, drawn, strange, x, y

    @property
    def good(self):
        """Whether this is text rather than a picture."""
        return self.known >= ENOUGH


cdef class Font:
    """Glyphs eight pixels wide and `height` lines high: {character: a byte for each line, its first dot in bit 7}."""

    cdef readonly str name
    cdef readonly u32 height
    cdef Entry *entries
    cdef u32 mask

    def __cinit__(self, str name, u32 height, dict glyphs):
        cdef u32 room = 64
        if not 4 <= height <= HIGHEST or len(glyphs) > MOST_GLYPHS:
            raise ValueError(f"{len(glyphs)} glyphs of {height} lines are no font")
        while room < 4 * len(glyphs):
            room *= 2
        self.entries = <Entry *>calloc(room, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.mask = room - 1
        self.name, self.height = name, height
        for character, bits in glyphs.items():
            if len(bits) != height:
                raise ValueError(f"{character!r} has {len(bits)} lines, not {height}")
            self._add(ord(character), bits)

    def __dealloc__(self):
        free(self.entries)

    cdef void _add(self, u32 character, const u8 *bits) noexcept:
        """The first character of several that look alike stays."""
        cdef u32 at = <u32>_hash(bits, self.height) & self.mask
        while self.entries[at].character:
            if not memcmp(self.entries[at].bits, bits, self.height):
                return
            at = (at + 1) & self.mask
        self.entries[at].character = character
        memcpy(self.entries[at].bits, bits, self.height)

    cdef u32 _lookup(self, const u8 *bits) noexcept nogil:
        cdef u32 at = <u32>_hash(bits, self.height) & self.mask
        while self.entries[at].character:
            if not memcmp(self.entries[at].bits, bits, self.height):
                return self.entries[at].character
            at = (at + 1) & self.mask
        return STRANGE

    cdef u32 _cell(self, const u32 *pixels, u32 pitch) noexcept nogil:
        """The character whose first pixel this is, BLANK, or STRANGE."""
        cdef u32 first = pixels[0] & 0xFFFFFF, other = first, value, found, i, line
        cdef u8 bits[HIGHEST]
        cdef u8 changed[HIGHEST]
        cdef bint covered = False
        cdef u8 left = 0
        for line in range(self.height):
            bits[line] = 0
            for i in range(WIDTH):
                value = pixels[i] & 0xFFFFFF
                if value != first:
                    if other == first:
                        other = value
                    elif value != other:
                        return STRANGE
                    bits[line] |= 0x80 >> i
            pixels += pitch
        if other == first:
            return BLANK
        found = self._lookup(bits)
        if found != STRANGE:
            return found
        for line in range(self.height):
            changed[line] = ~bits[line]
        found = self._lookup(changed)
        if found != STRANGE:
            return found
        for line in range(self.height):             # a line-shaped cursor on it
            changed[line] = 0 if bits[line] == 0xFF else bits[line]
            covered = covered or bits[line] == 0xFF
            left |= changed[line]
        if not left:
            return BLANK
        return self._lookup(changed) if covered else STRANGE

    cdef u32 _score(
        self, const u32 *pixels, u32 width, u32 height, u32 x, u32 y, u32 *drawn, u32 *strange, u32 *out
    ) noexcept nogil:
        """Letters and digits found; characters go to `out` unless that is NULL."""
        cdef u32 known = 0, columns = (width - x) // WIDTH, rows = (height - y) // self.height, row, column, found
        drawn[0] = strange[0] = 0
        for row in range(rows):
            for column in range(columns):
                found = self._cell(pixels + <u64>(y + row * self.height) * width + x + column * WIDTH, width)
                if found != BLANK:
                    drawn[0] += 1
                if found == STRANGE:
                    strange[0] += 1
                elif 0x30 <= found <= 0x39 or 0x41 <= found <= 0x5A or 0x61 <= found <= 0x7A:
                    known += 1
                if out != NULL:
                    out[row * columns + column] = found
        return known

    def read(self, const u8[::1] pixels, u32 width, u32 height, u32 x=0, u32 y=0):
        """`pixels`: four bytes each, 0x00RRGGBB. A Reading. ValueError when they are not width × height."""
        cdef Reading reading = Reading()
        cdef u32 columns, rows, row, column, character
        cdef u32 *found
        if <u64>width * height * 4 != <u64>pixels.shape[0]:
            raise ValueError(f"{pixels.shape[0]} bytes are not {width} x {height} pixels")
        reading.rows, reading.x, reading.y = [], x, y
        if x + WIDTH > width or y + self.height > height:
            return reading
        columns, rows = (width - x) // WIDTH, (height - y) // self.height
        found = <u32 *>calloc(<size_t>columns * rows, 4)
        if found == NULL:
            raise MemoryError
        try:
            with nogil:
                reading.known = self._score(
                    <const u32 *>&pixels[0], width, height, x, y, &reading.drawn, &reading.strange, found
                )
            for row in range(rows):
                reading.rows.append("".join([
                    UNKNOWN if found[row * columns + column] == STRANGE else chr(found[row * columns + column])
                    for column in range(columns)
                ]))
        finally:
            free(found)
        return reading

    def find(self, const u8[::1] pixels, u32 width, u32 height):
        """The Reading with the most letters and digits, of all places where the first cell can begin."""
        cdef u32 x, y, best = 0, best_x = 0, best_y = 0, known, drawn, strange
        if <u64>width * height * 4 != <u64>pixels.shape[0]:
            raise ValueError(f"{pixels.shape[0]} bytes are not {width} x {height} pixels")
        if width >= 2 * WIDTH and height >= 2 * self.height:
            with nogil:
                for y in range(self.height):
                    for x in range(WIDTH):
                        known = self._score(<const u32 *>&pixels[0], width, height, x, y, &drawn, &strange, NULL)
                        if known > best:
                            best, best_x, best_y = known, x, y
        return self.read(pixels, width, height, best_x, best_y)


def seek(RamBlock block, const u8[::1] needle, u32 most=8):
    """Offsets of the first `most` places in guest memory where these bytes stand. Pages that the guest has never
    touched are passed over, and stay untouched.
    """
    cdef unsigned char resident[PAGES]
    cdef u64 at = 0, start = 0, end, step, i, size = block.size & ~<u64>(PAGE - 1), length = needle.shape[0]
    cdef bint run = False
    cdef u8 *found
    places = []
    if not 0 < length < PAGE:
        raise ValueError(f"{length} bytes to look for")
    while at <= size and len(places) < <int>most:
        # the next run of pages that are there: from `start` to `end`
        with nogil:
            run = False
            start = end = at
            while at < size:
                step = min(<u64>PAGES, (size - at) // PAGE)
                if mincore(block.host + at, step * PAGE, resident) < 0:
                    at = size
                    break
                for i in range(step):
                    if resident[i] & 1:
                        if not run:
                            run = True
                            start = at + i * PAGE
                        end = at + (i + 1) * PAGE
                    elif run:
                        break
                if run and end < at + step * PAGE:
                    break
                at += step * PAGE
        at = end if run else size + 1
        while run and len(places) < <int>most:
            with nogil:
                found = <u8 *>memmem(block.host + start, end - start, &needle[0], length)
            if found == NULL:
                break
            places.append(found - block.host)
            start = found - block.host + 1
    return places
