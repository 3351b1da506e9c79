"""VMware's SVGA II, the half that draws: commands that a driver leaves in a ring of memory, done on the frame buffer.

Ref: VMware SVGA Device Developer Kit (svga_reg.h, svga_fifo); VMware, "SVGA Interface and Programming Model" (README of
xf86-video-vmware). Numbers of arguments where those say nothing: as QEMU's adapter takes them.
Not modelled: raster operations, surfaces, glyphs, alpha pointers (taken off the ring and dropped), screens, 3D.

The ring is the guest's to write at any time: what is read of it is read once, and checked. Work is cut: a run ends after
WORK bytes of pixels and arguments, in the middle of a rectangle if need be, and whoever waits for the rest (the register BUSY)
has it go on. A command is behind the reader when all of it is done.
"""

from libc.string cimport memcpy, memmove

from accel.api cimport i64, u8, u32, u64
from accel.ram cimport RamBlock

cdef enum:
    # the ring's own first words: offsets in bytes of its first and behind its last byte, of writer and reader
    MIN = 0
    MAX = 1
    NEXT = 2
    STOP = 3
    HEAD = 16
    LEAST = 10 << 10            # bytes between MIN and MAX

    UPDATE = 1
    RECT_FILL = 2
    RECT_COPY = 3
    RECT_ROP_FILL = 13
    RECT_ROP_COPY = 14
    DEFINE_CURSOR = 19
    DEFINE_ALPHA_CURSOR = 22
    DRAW_GLYPH_CLIPPED = 24
    UPDATE_VERBOSE = 25
    SURFACE_ALPHA_BLEND = 28
    FENCE = 30

    MOST_SIDE = 256             # of a pointer
    MOST_MASK = 4096            # words of each of its masks
    WORK = 1 << 20
    COMMAND = 256               # bytes that a command counts as, at least, and a line of a rectangle

SIDE, MASK = MOST_SIDE, MOST_MASK


cdef struct Strokes:
    bint copy                   # or fill
    u32 colour
    u64 start, source           # bytes in video memory of the first line that is drawn, of its source
    i64 pitch                   # from there to the next one: a copy may go upwards
    u64 line                    # bytes of one
    u32 left                    # lines to go; 0: there is nothing under way


cdef class SvgaFifo:
    """`vram`: the frame buffer; `ring`: the memory with the commands, both as the guest sees them. `width` and `height`
    of the picture, four bytes a pixel; `pitch`: bytes from line to line, at least `width` pixels.
    """

    cdef readonly RamBlock vram, ring
    cdef public u32 width, height, pitch
    cdef public bint defined            # the pointer has another picture than when this was last set to False
    cdef u32 pointer_width, pointer_height, hot_x, hot_y, bits
    cdef u32 covered[MOST_MASK]         # a word for each 32 pixels, each line anew: 1 keeps what is below
    cdef u32 image[MOST_MASK]
    # while a run lasts
    cdef u32 first, behind, at, left    # the ring, where it is read, and words that are there
    # from run to run
    cdef Strokes strokes                # of the rectangle that is under way
    cdef u32 next                       # where the command behind it is

    def __init__(self, RamBlock vram, RamBlock ring):
        self.vram, self.ring = vram, ring

    def run(self):
        """Do what is in the ring, so much at a time. True when all of it is done that was there whole."""
        cdef bint done
        with nogil:
            done = self.work(WORK)
        return done

    def finish(self):
        """What has been begun."""
        with nogil:
            self.go_on(<i64>1 << 62)

    def forget(self):
        """What has been begun."""
        self.strokes.left = 0

    cdef u32 word(self, u32 index) noexcept nogil:
        return (<volatile u32 *>self.ring.host)[index]

    cdef bint begin(self) noexcept nogil:
        """Read the ring's ends; False when they are none or nothing is there."""
        cdef u32 size = <u32>self.ring.size, next = self.word(NEXT)
        self.first, self.behind, self.at = self.word(MIN), self.word(MAX), self.word(STOP)
        if (self.first | self.behind | next | self.at) & 3 or self.first < HEAD or self.behind > size:
            return False
        if next >= size or self.at >= size or self.first >= size or self.behind < self.first + LEAST:
            return False
        # as QEMU counts: a reader or writer outside comes in when it has reached the end
        self.left = (next - self.at if next >= self.at else next + (self.behind - self.first) - self.at) >> 2
        return self.left != 0 and self.left <= size >> 2

    cdef u32 take(self) noexcept nogil:
        """The next word. Only for who has seen that it is there."""
        cdef u32 value = self.word(self.at >> 2)
        self.at += 4
        if self.at >= self.behind:
            self.at = self.first
        self.left -= 1
        return value

    cdef bint work(self, i64 budget) noexcept nogil:
        cdef u32 before
        while True:
            if self.strokes.left:
                budget = self.go_on(budget)
                if self.strokes.left:
                    return False
            if budget <= 0:
                return False
            if not self.begin():
                return True
            before = self.left
            if not self.one(self.take()):                   # its end has not been written yet
                return True
            self.next = self.at
            budget -= COMMAND + 4 * (before - self.left)
            if not self.strokes.left:
                self.taken()

    cdef void taken(self) noexcept nogil:
        """The reader is behind the last command."""
        (<volatile u32 *>self.ring.host)[STOP] = self.next
        self.ring.mark_dirty(STOP * 4, 4)

    cdef bint drop(self, u64 count) noexcept nogil:
        """Arguments of a command that does nothing; False when they are not all there."""
        if count > self.left:
            return False
        while count:
            self.take()
            count -= 1
        return True

    cdef bint one(self, u32 command) noexcept nogil:
        """A command, but for the pixels of its rectangle; False when it is not all there."""
        cdef u32 a[7]
        cdef u32 n, wanted = 0
        if command == UPDATE or command == FENCE or command == UPDATE_VERBOSE:
            # what is shown is followed by what is written; a fence is passed when BUSY says so
            return self.drop(4 if command == UPDATE else 5 if command == UPDATE_VERBOSE else 1)
        if command == RECT_FILL or command == RECT_COPY or command == DEFINE_CURSOR:
            wanted = 5 if command == RECT_FILL else 6 if command == RECT_COPY else 7
        elif command == DEFINE_ALPHA_CURSOR or command == DRAW_GLYPH_CLIPPED:
            wanted = 5 if command == DEFINE_ALPHA_CURSOR else 3
        if wanted > self.left:
            return False
        for n in range(wanted):
            a[n] = self.take()
        if command == RECT_FILL:
            self.fill(a[0], a[1], a[2], a[3], a[4])
        elif command == RECT_COPY:
            self.copy(a[0], a[1], a[2], a[3], a[4], a[5])
        elif command == DEFINE_CURSOR:
            return self.define(a[1], a[2], a[3], a[4], a[5], a[6])
        elif command == DEFINE_ALPHA_CURSOR:
            return self.drop(min(<u64>a[3] * a[4], self.ring.size))
        elif command == DRAW_GLYPH_CLIPPED:
            return self.drop(7 + (a[2] >> 2))
        elif command == RECT_ROP_FILL or command == RECT_ROP_COPY:
            return self.drop(6 if command == RECT_ROP_FILL else 7)
        elif command == SURFACE_ALPHA_BLEND:
            return self.drop(12)
        return True

    # --- pixels -------------------------------------------------------------------------------------------------

    cdef bint inside(self, u32 x, u32 y, u32 width, u32 height) noexcept nogil:
        if <u64>x + width > self.width or <u64>y + height > self.height:
            return False
        return <u64>self.pitch * (<u64>y + height) <= self.vram.size

    cdef void fill(self, u32 colour, u32 x, u32 y, u32 width, u32 height) noexcept nogil:
        if width and height and self.inside(x, y, width, height):
            self.strokes = Strokes(
                False, colour, <u64>y * self.pitch + <u64>x * 4, 0, self.pitch, <u64>width * 4, height
            )

    cdef void copy(self, u32 from_x, u32 from_y, u32 x, u32 y, u32 width, u32 height) noexcept nogil:
        """As if all of the source was read first."""
        cdef u64 start = <u64>y * self.pitch + <u64>x * 4, source = <u64>from_y * self.pitch + <u64>from_x * 4
        cdef u64 last
        cdef i64 pitch = self.pitch
        if not width or not height:
            return
        if not self.inside(x, y, width, height) or not self.inside(from_x, from_y, width, height):
            return
        if y > from_y:
            last = <u64>(height - 1) * self.pitch
            start, source, pitch = start + last, source + last, -pitch
        self.strokes = Strokes(True, 0, start, source, pitch, <u64>width * 4, height)

    cdef i64 go_on(self, i64 budget) noexcept nogil:
        """With the rectangle that is under way; what is left of the budget."""
        cdef Strokes *it = &self.strokes
        cdef u32 *to
        cdef u32 column
        while it.left and budget > 0:
            if it.copy:
                memmove(self.vram.host + it.start, self.vram.host + it.source, it.line)
            else:
                to = <u32 *>(self.vram.host + it.start)
                for column in range(<u32>(it.line >> 2)):
                    to[column] = it.colour
            self.vram.mark_dirty(it.start, it.line)
            budget -= max(it.line, <u64>COMMAND)
            it.left -= 1
            it.start += it.pitch
            it.source += it.pitch
            if not it.left:
                self.taken()
        return budget

    # --- the pointer ----------------------------------------------------------------------------------------------

    cdef bint define(self, u32 hot_x, u32 hot_y, u32 width, u32 height, u32 cover_bits, u32 bits) noexcept nogil:
        """A pointer with its two masks. One that cannot be is dropped; False when its words are not all there."""
        cdef u64 mask, image
        cdef u32 n
        if width > 0xFFFF or height > 0xFFFF or bits > 32:
            return True
        mask, image = <u64>(width + 31) // 32 * height, (<u64>width * bits + 31) // 32 * height
        if width > MOST_SIDE or height > MOST_SIDE or mask > MOST_MASK or image > MOST_MASK or not width or not height:
            return self.drop(min(mask + image, self.ring.size))
        if mask + image > self.left:
            return False
        for n in range(<u32>mask):
            self.covered[n] = self.take()
        for n in range(<u32>image):
            self.image[n] = self.take()
        self.pointer_width, self.pointer_height, self.bits = width, height, bits
        self.hot_x, self.hot_y = min(hot_x, width - 1), min(hot_y, height - 1)
        self.defined = True
        return True

    def pointer(self):
        """(width, height, hot x, hot y, 0xAARRGGBB pixels as bytes) of the pointer last defined; None for none, or one
        of a depth that is not drawn. A mask of one bit: white or black, and what would be inverted is black.
        """
        cdef u32 width = self.pointer_width, height = self.pointer_height, x, y, line, value
        cdef bint cover, bit
        cdef bytearray out
        if not width or self.bits not in (1, 32):
            return None
        line = (width + 31) // 32 * 4
        out = bytearray(width * height * 4)
        for y in range(height):
            for x in range(width):
                cover = (<u8 *>self.covered)[y * line + x // 8] >> (7 - x % 8) & 1
                if self.bits == 32:
                    value = 0 if cover else self.image[y * width + x] & 0xFFFFFF | 0xFF000000
                else:
                    bit = (<u8 *>self.image)[y * line + x // 8] >> (7 - x % 8) & 1
                    value = 0xFF000000 if cover and bit else 0 if cover else 0xFFFFFFFF if bit else 0xFF000000
                memcpy(<u8 *>out + 4 * (y * width + x), &value, 4)
        return width, height, self.hot_x, self.hot_y, bytes(out)

    # --- state ----------------------------------------------------------------------------------------------------

    @property
    def shape(self):
        """The pointer's masks and what is said of them, as bytes; empty for none."""
        if not self.pointer_width:
            return b""
        numbers = (self.pointer_width, self.pointer_height, self.hot_x, self.hot_y, self.bits)
        return b"".join(n.to_bytes(4, "little") for n in numbers) + (<u8 *>self.covered)[:MOST_MASK * 4] + (
            (<u8 *>self.image)[:MOST_MASK * 4])

    @shape.setter
    def shape(self, bytes data):
        cdef const u8 *start = data
        self.pointer_width = 0
        self.defined = True
        if len(data) != SHAPE_SIZE:
            return
        width, height, hot_x, hot_y, bits = (int.from_bytes(data[n : n + 4], "little") for n in range(0, 20, 4))
        self.pointer_width, self.pointer_height, self.bits = width, height, bits
        self.hot_x, self.hot_y = hot_x, hot_y
        memcpy(self.covered, start + 20, MOST_MASK * 4)
        memcpy(self.image, start + 20 + MOST_MASK * 4, MOST_MASK * 4)

    def check_shape(self, bytes data):
        """Whether bytes are what `shape` may have given."""
        if not data:
            return True
        if len(data) != SHAPE_SIZE:
            return False
        width, height, hot_x, hot_y, bits = (int.from_bytes(data[n : n + 4], "little") for n in range(0, 20, 4))
        if not (0 < width <= SIDE and 0 < height <= SIDE and hot_x < width and hot_y < height and bits <= 32):
            return False
        return (width + 31) // 32 * height <= MASK and (width * bits + 31) // 32 * height <= MASK


SHAPE_SIZE = 20 + 2 * 4 * MASK
