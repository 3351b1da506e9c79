from accel.api cimport u8, u16, u32, u64
from accel.api cimport DeviceLock
from accel.ram cimport DirtyLog
from vmrun.core.surface cimport Scanout, Surface
from vmrun.devices.display.vga cimport Vga


# What the CRT controller would be doing, read off the registers of one moment.
cdef struct Mode:
    int kind                    # KIND_…
    u32 width, height           # of the picture
    u32 pitch, start            # bytes of video memory: line to line, and the first one
    u32 line_compare            # the line after which the picture starts again from byte 0
    u32 repeat                  # how many more times each line is shown
    u32 double                  # each pixel twice
    u32 bits                    # of a pixel in linear modes
    u32 cga                     # CR17 bits 0 and 1, inverted: address bits 13 and 14 come from the row counter
    u32 cga_shift
    u32 columns, rows, cell_width, cell_height          # of text
    u32 cursor, cursor_first, cursor_last               # cursor cell, or NO_CURSOR
    u32 fonts[2]
    u8 back_mask, line_graphics, plane_mask, big_endian


cdef class VgaScanout(Scanout):
    cdef readonly Vga vga
    cdef DeviceLock lock
    cdef Mode mode
    cdef u32 palette[256]
    cdef u32 colours[16]
    cdef u32 *line              # one line of pixels
    cdef u32 line_room
    cdef u32 *cells             # text: what is on the surface, a cell a dword
    cdef u32 cell_room
    cdef u8 glyphs[2][8192]
    cdef u8 *again              # pages written before the last look: looked at once more
    cdef bint drawn
    cdef u8 *_written(self, DirtyLog log, u64 pages) noexcept nogil
    cdef void _read_text(self, Mode *mode, u8 *sr, u8 *ar, u8 *cr, u32 scan) noexcept nogil
    cdef bint _touched(self, const u8 *pages, u64 first, u64 last) noexcept nogil
    cdef u64 _span(self) noexcept nogil
    cdef void _read(self, Mode *mode, u32 *palette, u32 *colours) noexcept nogil
    cdef void _extended(self, Mode *mode) noexcept nogil
    cdef bint _covered(self, u32 y) noexcept nogil
    cdef bint _overlay(self, u32 y) noexcept nogil
    cdef void _text(self, Surface surface, bint full) noexcept nogil
    cdef void _glyph(self, Surface surface, u32 column, u32 row, u32 cell, bint cursor) noexcept nogil
    cdef void _graphics(self, Surface surface, bint full, const u8 *pages) noexcept nogil
    cdef void _draw_line(self, u64 at) noexcept nogil
