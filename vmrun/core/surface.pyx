"""What a display adapter draws on and viewers read from: pixels, and for each viewer the tiles it has not seen.

    adapter --Scanout.update--> Surface --publish--> View, View, … --take--> rectangles to send

What changed is known by tiles, and in each tile by lines: a rectangle begins and ends with lines that changed.

An adapter renders without the GIL into the surface and marks the tiles whose pixels really differ; `publish` hands
the marks to every view. A view takes them at its own pace: a slow client delays nobody and never misses a change.
Nothing here has a timer: whoever looks asks for an update (vmrun.core.console), and nobody looking costs nothing.
"""

from cpython.bytearray cimport PyByteArray_FromStringAndSize
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from accel.api cimport u8
from accel.ram cimport DirtyLog
from vmrun.core.pixels cimport pixels_pack_rgb, pixels_replace, pixels_replace_low

# What a guest can make a surface grow to: 32 Mi pixels, 128 MiB.
MOST_PIXELS = 1 << 25


cdef u32 _lines(u32 tile, u32 first, u32 last) noexcept nogil:
    """Of lines `first` to `last` of the picture, those of a tile's row, a bit each."""
    cdef u32 top = tile * TILE
    cdef u32 low = first - top if first > top else 0, high = min(last - top, <u32>TILE - 1)
    return (<u32>2 << high) - (<u32>1 << low)


cdef void _mark(u16 *tiles, Surface surface, u32 x, u32 y, u32 width, u32 height) noexcept nogil:
    """The part of the rectangle that is inside."""
    cdef u32 last_x, last_y, line, column
    cdef u16 *row
    cdef u16 mask
    if x >= surface.width or y >= surface.height or not width or not height:
        return
    last_x = min(width - 1, surface.width - 1 - x) + x
    last_y = min(height - 1, surface.height - 1 - y) + y
    for line in range(y // TILE, last_y // TILE + 1):
        row = tiles + <size_t>line * surface.columns
        mask = <u16>_lines(line, y, last_y)
        for column in range(x // TILE, last_x // TILE + 1):
            row[column] |= mask


cdef class Surface:
    """`width` × `height` pixels of four bytes, 0x00RRGGBB in the host's byte order; black to begin with.

    The buffer protocol gives them line by line without a copy; the buffer is gone with the next resize.
    """

    def __cinit__(self, u32 width=640, u32 height=480):
        self.views = []
        self._allocate(width, height)

    def __dealloc__(self):
        free(self.pixels)
        free(self.changed)

    def _allocate(self, u32 width, u32 height):
        if not width or not height or <unsigned long long>width * height > <unsigned long long>MOST_PIXELS:
            raise ValueError(f"no surface has {width} x {height} pixels")
        cdef u32 columns = (width + TILE - 1) // TILE, rows = (height + TILE - 1) // TILE
        cdef u32 *pixels = <u32 *>calloc(<size_t>width * height, 4)
        cdef u16 *changed = <u16 *>calloc(<size_t>columns * rows, sizeof(u16))
        if pixels == NULL or changed == NULL:
            free(pixels)
            free(changed)
            raise MemoryError(f"no memory for a screen of {width} x {height} pixels")
        free(self.pixels)
        free(self.changed)
        self.pixels, self.changed = pixels, changed
        self.width, self.height, self.columns, self.rows = width, height, columns, rows

    def resize(self, u32 width, u32 height):
        """Another size: all black, all changed. ValueError beyond MOST_PIXELS; nothing is done for the same size."""
        cdef View view
        if width == self.width and height == self.height:
            return
        self._allocate(width, height)
        for view in self.views:
            view.fit()

    cdef u32 *row(self, u32 y) noexcept nogil:
        return self.pixels + <size_t>y * self.width

    cdef void mark(self, u32 x, u32 y, u32 width, u32 height) noexcept nogil:
        """The rectangle changed; what lies outside is cut off."""
        _mark(self.changed, self, x, y, width, height)

    cdef void put_row(self, u32 y, const u32 *line, bint high=False) noexcept nogil:
        """A whole line; only tiles with other pixels than before are written and marked. `high`: anything may be in the
        highest bytes of `line`.
        """
        cdef u32 x = 0, count
        cdef u32 *old
        cdef u16 *changed
        cdef u16 bit = <u16>(1 << (y % TILE))
        if y >= self.height:
            return
        old = self.row(y)
        changed = self.changed + <size_t>(y // TILE) * self.columns
        while x < self.width:
            count = min(<u32>TILE, self.width - x)
            if pixels_replace_low(old + x, line + x, count) if high else pixels_replace(old + x, line + x, count):
                changed[x // TILE] |= bit
            x += count

    def publish(self):
        """Hand the marks to every view; True when there were any."""
        cdef View view
        cdef size_t i, tiles = <size_t>self.columns * self.rows
        cdef bint found = False
        for i in range(tiles):
            if self.changed[i]:
                found = True
                break
        if not found:
            return False
        for view in self.views:
            for i in range(tiles):
                view.dirty[i] |= self.changed[i]
        memset(self.changed, 0, tiles * sizeof(u16))
        return True

    def attach(self):
        """A new View, to which everything is new."""
        view = View(self)
        self.views.append(view)
        return view

    def detach(self, View view):
        self.views.remove(view)

    @property
    def watched(self):
        """True while anybody has a view."""
        return bool(self.views)

    # --- reading ----------------------------------------------------------------------------------------------

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        buffer.buf = self.pixels
        buffer.len = <Py_ssize_t>self.width * self.height * 4
        buffer.itemsize = 1
        buffer.format = b"B"
        buffer.ndim = 1
        buffer.obj = self
        buffer.readonly = 1
        buffer.shape = NULL
        buffer.strides = NULL
        buffer.suboffsets = NULL
        buffer.internal = NULL

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    def pixel(self, u32 x, u32 y):
        """0xRRGGBB. IndexError outside."""
        if x >= self.width or y >= self.height:
            raise IndexError(f"{x},{y} of {self.width}x{self.height}")
        return self.row(y)[x]

    def rgb(self, bytearray into=None):
        """All pixels as three bytes each: red, green, blue; lines follow one another. `into`: where they go when that is
        of the right size, for memory that was used before costs no page faults.
        """
        cdef size_t count = <size_t>self.width * self.height
        cdef bytearray out = into
        cdef u8 *to
        if out is None or <size_t>len(out) != count * 3:
            out = PyByteArray_FromStringAndSize(NULL, count * 3)
        to = out
        with nogil:
            pixels_pack_rgb(to, self.pixels, count)
        return out

    def rectangle(self, u32 x, u32 y, u32 width, u32 height):
        """The pixels of a part, four bytes each. IndexError when it is not inside."""
        cdef u32 line
        if x > self.width or width > self.width - x or y > self.height or height > self.height - y:
            raise IndexError(f"{width}x{height} at {x},{y} of {self.width}x{self.height}")
        cdef bytearray out = bytearray(<size_t>width * height * 4)
        cdef u8 *to = out
        with nogil:
            for line in range(y, y + height):
                memcpy(to, self.row(line) + x, <size_t>width * 4)
                to += <size_t>width * 4
        return out

    # --- drawing from Python (tests, adapters without compiled code) ----------------------------------------------

    def fill(self, u32 x, u32 y, u32 width, u32 height, u32 colour):
        """A rectangle of one colour, cut to the surface."""
        cdef u32 line, column
        if x >= self.width or y >= self.height:
            return
        width, height = min(width, self.width - x), min(height, self.height - y)
        with nogil:
            for line in range(y, y + height):
                for column in range(x, x + width):
                    self.row(line)[column] = colour & 0xFFFFFF
            self.mark(x, y, width, height)


    def put(self, u32 y, const u8[::1] lines not None):
        """Whole lines of pixels, from line `y` on; what changes is marked. ValueError for a part of a line."""
        cdef size_t line = <size_t>self.width * 4, i
        if lines.shape[0] % line:
            raise ValueError(f"{lines.shape[0]} bytes are no lines of {self.width} pixels")
        for i in range(lines.shape[0] // line):
            self.put_row(y + <u32>i, <const u32 *>(&lines[0] + i * line))


cdef class View:
    """What one viewer has not seen yet. Made by Surface.attach; `resized` is set when the size changed."""

    def __cinit__(self, Surface surface):
        self.surface = surface
        self.fit()
        self.resized = False

    def __dealloc__(self):
        free(self.dirty)

    def fit(self):
        """The surface has another size: all of it is new."""
        cdef u32 tiles = self.surface.columns * self.surface.rows
        free(self.dirty)
        self.dirty = <u16 *>calloc(tiles, sizeof(u16))
        if self.dirty == NULL:
            raise MemoryError
        self.tiles = tiles
        self.resized = True
        self.all()

    def all(self):
        """Everything counts as unseen."""
        memset(self.dirty, 0xFF, self.tiles * sizeof(u16))

    @property
    def pending(self):
        """True when there is something unseen."""
        cdef u32 i
        for i in range(self.tiles):
            if self.dirty[i]:
                return True
        return False

    def add(self, u32 x, u32 y, u32 width, u32 height):
        """Ask for a part again."""
        _mark(self.dirty, self.surface, x, y, width, height)

    def take(self):
        """The unseen rectangles [(x, y, width, height)], which now count as seen: disjoint, top to bottom."""
        cdef Surface surface = self.surface
        cdef u32 line, column, first, below, i, lines, top, bottom
        cdef u16 *row
        cdef bint same
        found = []
        for line in range(surface.rows):
            row = self.dirty + <size_t>line * surface.columns
            column = 0
            while column < surface.columns:
                if not row[column]:
                    column += 1
                    continue
                first = column
                while column < surface.columns and row[column]:
                    column += 1
                # as far down as the whole run is unseen too
                below, top, bottom = line, line * TILE, 0
                while below < surface.rows:
                    same, lines = True, 0
                    row = self.dirty + <size_t>below * surface.columns
                    for i in range(first, column):
                        if not row[i]:
                            same = False
                            break
                        lines |= row[i]
                    if not same:
                        break
                    memset(row + first, 0, (column - first) * sizeof(u16))
                    if below == line:
                        while not lines >> (top % TILE) & 1:
                            top += 1
                    bottom = (below + 1) * TILE
                    while not lines >> ((bottom - 1) % TILE) & 1:
                        bottom -= 1
                    below += 1
                row = self.dirty + <size_t>line * surface.columns
                found.append((
                    first * TILE, top, min(column * TILE, surface.width) - first * TILE, min(bottom, surface.height) - top,
                ))
        return found


cdef class Scanout:
    """An adapter's side: brings a surface up to date. Compiled adapters override `update`, Python ones too."""

    def update(self, Surface surface, bint full, DirtyLog log=None):
        """Draw what changed since the last call, or everything when `full`; resize first when the mode asks for it.
        `log` is that of `memory`, in step with what processors wrote; None: everything may have changed.

        Called on the main thread without the device lock; takes it for no longer than reading registers.
        """

    @property
    def memory(self):
        """The RamBlock whose dirty log tells this adapter what changed, or None."""
        return None
