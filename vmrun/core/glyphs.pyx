"""Text in a picture: cells whose pixels are exactly a glyph of a known font, in any two colours.

    font = Font("VGA 8x16", 16, {"A": bytes(16), …})        # eight pixels wide; Font(…, 12) is another width
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
    WIDEST = 16                 # pixels of a glyph
    HIGHEST = 32                # its lines
    LONGEST = 2                 # bytes of a line
    MOST_BYTES = 64             # of a glyph
    MOST_GLYPHS = 1 << 16
    MOST_USERS = 64             # consoles of a Linux that have one font
    PAGE = 4096
    PAGES = 256                 # looked at in one step
    ENOUGH = 4                   # letters and digits that must be known for a picture to count as text
    STRANGE = 0xFFFFFFFF
    BLANK = 0x20


cdef u64 MULTIPLIER = 0x100000001B3          # FNV-1a's


cdef struct Entry:
    u32 character               # 0: free
    u8 bits[MOST_BYTES]


cdef u64 _hash(const u8 *bits, u32 size) noexcept nogil:
    cdef u64 value = size
    cdef u32 i
    for i in range(size):
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
    """Glyphs `width` pixels wide and `height` lines high: {character: a byte for each line, or two, its first dot in
    the first one's bit 7}. `cornered`: its cells begin at the picture's first pixel, as those of Linux's consoles do.
    """

    cdef readonly str name
    cdef readonly u32 height, width
    cdef readonly bint cornered
    cdef Entry *entries
    cdef u32 mask
    cdef u32 pitch, size        # bytes of a line, of a glyph
    cdef u8 full[LONGEST]   # a line that is all dots

    def __cinit__(self, str name, u32 height, dict glyphs, u32 width=8, bint cornered=False):
        cdef u32 room = 64, i
        if not 4 <= height <= HIGHEST or not 4 <= width <= WIDEST or len(glyphs) > MOST_GLYPHS:
            raise ValueError(f"{len(glyphs)} glyphs of {width} x {height} pixels are no font")
        while room < 4 * len(glyphs):
            room *= 2
        self.entries = <Entry *>calloc(room, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.mask = room - 1
        self.name, self.height, self.width, self.cornered = name, height, width, cornered
        self.pitch = (width + 7) // 8
        self.size = self.pitch * height
        memset(self.full, 0, sizeof(self.full))
        for i in range(width):
            self.full[i >> 3] |= 0x80 >> (i & 7)
        for character, bits in glyphs.items():
            if len(bits) != self.size:
                raise ValueError(f"{character!r} has {len(bits)} bytes, not {self.size}")
            self._add(ord(character), bits)

    def __dealloc__(self):
        free(self.entries)

    cdef void _add(self, u32 character, const u8 *bits) noexcept:
        """The first character of several that look alike stays."""
        cdef u32 at = <u32>_hash(bits, self.size) & self.mask
        while self.entries[at].character:
            if not memcmp(self.entries[at].bits, bits, self.size):
                return
            at = (at + 1) & self.mask
        self.entries[at].character = character
        memcpy(self.entries[at].bits, bits, self.size)

    cdef u32 _lookup(self, const u8 *bits) noexcept nogil:
        cdef u32 at = <u32>_hash(bits, self.size) & self.mask
        while self.entries[at].character:
            if not memcmp(self.entries[at].bits, bits, self.size):
                return self.entries[at].character
            at = (at + 1) & self.mask
        return STRANGE

    cdef u32 _cell(self, const u32 *pixels, u32 pitch) noexcept nogil:
        """The character whose first pixel this is, BLANK, or STRANGE."""
        cdef u32 first = pixels[0] & 0xFFFFFF, other = first, value, found, i, line
        cdef u8 bits[MOST_BYTES]
        cdef u8 changed[MOST_BYTES]
        cdef u8 *row = bits
        cdef bint covered = False
        cdef u8 left = 0
        memset(bits, 0, self.size)
        for line in range(self.height):
            for i in range(self.width):
                value = pixels[i] & 0xFFFFFF
                if value != first:
                    if other == first:
                        other = value
                    elif value != other:
                        return STRANGE
                    row[i >> 3] |= 0x80 >> (i & 7)
            row += self.pitch
            pixels += pitch
        if other == first:
            return BLANK
        found = self._lookup(bits)
        if found != STRANGE:
            return found
        for i in range(self.size):
            changed[i] = ~bits[i] & self.full[i % self.pitch]
        found = self._lookup(changed)
        if found != STRANGE:
            return found
        memcpy(changed, bits, self.size)
        for line in range(self.height):             # a line-shaped cursor on it
            row = changed + line * self.pitch
            if not memcmp(row, self.full, self.pitch):
                memset(row, 0, self.pitch)
                covered = True
            for i in range(self.pitch):
                left |= row[i]
        if not left:
            return BLANK
        return self._lookup(changed) if covered else STRANGE

    cdef u32 _score(
        self, const u32 *pixels, u32 width, u32 height, u32 x, u32 y, u32 *drawn, u32 *strange, u32 *out
    ) noexcept nogil:
        """Letters and digits found; characters go to `out` unless that is NULL."""
        cdef u32 known = 0, columns = (width - x) // self.width, rows = (height - y) // self.height, row, column, found
        drawn[0] = strange[0] = 0
        for row in range(rows):
            for column in range(columns):
                found = self._cell(pixels + <u64>(y + row * self.height) * width + x + column * self.width, width)
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
        if x + self.width > width or y + self.height > height:
            return reading
        columns, rows = (width - x) // self.width, (height - y) // self.height
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
        if self.cornered:
            return self.read(pixels, width, height)
        if width >= 2 * self.width and height >= 2 * self.height:
            with nogil:
                best = self._score(<const u32 *>&pixels[0], width, height, 0, 0, &drawn, &strange, NULL)
            if best and strange * 16 <= drawn:      # nearly all that is drawn: no other place would have more
                return self.read(pixels, width, height)
            with nogil:
                for y in range(self.height):
                    for x in range(self.width):
                        known = self._score(<const u32 *>&pixels[0], width, height, x, y, &drawn, &strange, NULL)
                        if known > best:
                            best, best_x, best_y = known, x, y
        return self.read(pixels, width, height, best_x, best_y)


cdef bint _touched(RamBlock block, u64 *at, u64 *start, u64 *end) noexcept nogil:
    """The next run of pages from `at` on that the guest has touched: from `start` to `end`; False when there is none."""
    cdef unsigned char resident[PAGES]
    cdef u64 step, i, size = block.size & ~<u64>(PAGE - 1)
    cdef bint run = False
    start[0] = end[0] = at[0]
    while at[0] < size:
        step = min(<u64>PAGES, (size - at[0]) // PAGE)
        if mincore(block.host + at[0], step * PAGE, resident) < 0:
            at[0] = size
            break
        for i in range(step):
            if resident[i] & 1:
                if not run:
                    run = True
                    start[0] = at[0] + i * PAGE
                end[0] = at[0] + (i + 1) * PAGE
            elif run:
                break
        if run and end[0] < at[0] + step * PAGE:
            break
        at[0] += step * PAGE
    if run:
        at[0] = end[0]
    return run


def seek(RamBlock block, const u8[::1] needle, u32 most=8):
    """Offsets of the first `most` places in guest memory where these bytes stand. Pages that the guest has never
    touched are passed over, and stay untouched.
    """
    cdef u64 at = 0, start = 0, end = 0, length = needle.shape[0]
    cdef u8 *found
    cdef bint more = True
    places = []
    if not 0 < length < PAGE:
        raise ValueError(f"{length} bytes to look for")
    while len(places) < <int>most:
        with nogil:
            more = _touched(block, &at, &start, &end)
        while more and len(places) < <int>most:
            with nogil:
                found = <u8 *>memmem(block.host + start, end - start, &needle[0], length)
            if found == NULL:
                break
            places.append(found - block.host)
            start = found - block.host + 1
        if not more:
            break
    return places


cdef bint _letters(const u8 *data, u32 size) noexcept nogil:
    """Whether these are glyphs in ASCII's order: nothing for a space, something for all that is printed."""
    cdef u32 code, i
    cdef u8 dots
    for code in range(0x20, 0x7F):
        dots = 0
        for i in range(size):
            dots |= data[code * size + i]
        if (code != 0x20) != (dots != 0):
            return False
    return True


cdef u64 _linux_font(RamBlock block, u64 at, u64 end, u32 *characters, u32 *size) noexcept nogil:
    """Where the first one's data is whose words stand from `at` on; `end` for none."""
    cdef u32 *words
    cdef u32 half
    while at + 16 <= end:
        words = <u32 *>(block.host + at)
        at += 8
        if words[3] >= MOST_USERS or not words[2] or words[2] & 0xFF or not words[3] and (words[0] or words[1]):
            continue
        if at + 8 + words[2] > block.size:
            continue
        for half in range(1, 3):
            characters[0] = 256 * half
            size[0] = words[2] // characters[0]
            if not words[2] % characters[0] and 6 <= size[0] <= MOST_BYTES and _letters(block.host + at + 8, size[0]):
                return at + 8
    return end


def linux_fonts(RamBlock block, u32 most=64):
    """[(offset, characters, bytes of each, whether it was loaded)] of what may be fonts of Linux's consoles in guest
    memory: four words stand before one's data, of which the third is all its bytes and the last how many consoles use
    it; before one that is built in (since Linux 5.10) all others are 0.
    """
    cdef u64 at = 0, start = 0, end = 0
    cdef u32 characters = 0, size = 0
    cdef bint more = True
    places = []
    while more and len(places) < <int>most:
        with nogil:
            more = _touched(block, &at, &start, &end)
        while more and start < end and len(places) < <int>most:
            with nogil:
                start = _linux_font(block, start, end, &characters, &size)
            if start < end:
                places.append((start, characters, size, (<u32 *>(block.host + start))[-1] != 0))
    return places
