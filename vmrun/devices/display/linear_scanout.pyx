"""A frame buffer that is nothing but pixels, line after line: what simple adapters show.

    LinearScanout(block, lock, describe)        # describe() -> (width, height, bytes a pixel, pitch, offset, big) or None

Two bytes are 5, 6 and 5 bits, four are x, red, green, blue; `big`: the first byte in memory is the highest.
"""

from libc.stdlib cimport calloc, free


from accel.api cimport DeviceLock, u8, u16, u32, u64
from accel.ram cimport DirtyLog, RamBlock
from vmrun.core.surface cimport Scanout, Surface

from vmrun.core.surface import MOST_PIXELS


cdef class LinearScanout(Scanout):
    """`describe` is called with the device lock held; what it gives is checked against the memory's size."""

    cdef RamBlock block
    cdef DeviceLock lock
    cdef object describe, shown
    cdef u8 *again              # pages written before the last look: looked at once more

    def __cinit__(self, RamBlock block, DeviceLock lock, describe, *args):
        self.block, self.lock, self.describe = block, lock, describe
        self.again = <u8 *>calloc((block.size >> 12) + 1, 1)
        if self.again == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.again)

    @property
    def memory(self):
        return self.block

    def update(self, Surface surface, bint full, DirtyLog log=None):
        """See Scanout.update. A mode that does not fit the memory shows black."""
        cdef u64 page, pages = self.block.size >> 12, at, pitch, first, last, width, height, size
        cdef u8 *now = NULL
        cdef u32 y
        cdef bint big, written
        cdef u32 *line
        with self.lock:
            mode = self.describe()
        if mode is not None:
            width, height, size, pitch, at, big = mode
            if not width or not height or width * height > <u64>MOST_PIXELS or at > self.block.size or (
                pitch * (height - 1) + width * size > self.block.size - at
            ):
                mode = None
        if mode is None:
            if self.shown is not None or full:
                surface.fill(0, 0, surface.width, surface.height, 0)
            self.shown = None
            return
        if mode != self.shown:
            full = True
            surface.resize(<u32>width, <u32>height)
        self.shown = mode
        line = <u32 *>calloc(width, 4)
        if line == NULL:
            raise MemoryError
        if log is not None:
            now = <u8 *>calloc(pages + 1, 1)
        with nogil:
            if now != NULL:
                for page in range(pages):
                    now[page] = self.again[page] | log.pages[page]
                    self.again[page] = log.pages[page]
                    log.pages[page] = 0
            for y in range(<u32>height):
                written = full or now == NULL
                if not written:
                    first, last = at >> 12, (at + width * size - 1) >> 12
                    for page in range(first, last + 1):
                        written = written or now[page]
                if written:
                    if size == 4 and not big:
                        surface.put_row(y, <u32 *>(self.block.host + at), True)
                    else:
                        convert(self.block.host + at, line, <u32>width, <u32>size, big)
                        surface.put_row(y, line)
                at += pitch
            free(now)
            free(line)


cdef void convert(const u8 *data, u32 *to, u32 width, u32 size, bint big) noexcept nogil:
    cdef u32 x, value
    for x in range(width):
        if size == 2:
            value = <u32>data[0] << 8 | data[1] if big else <u32>data[1] << 8 | data[0]
            to[x] = ((value >> 8 & 0xF8) | value >> 13) << 16 | ((value >> 3 & 0xFC) | (value >> 9 & 3)) << 8 | (
                (value << 3 & 0xF8) | (value >> 2 & 7))
        else:
            to[x] = <u32>data[1] << 16 | <u32>data[2] << 8 | data[3]
        data += size
