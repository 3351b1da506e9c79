# A picture that changes, and what each of its viewers has not seen yet. The documentation is in surface.pyx.
from accel.api cimport u16, u32

cpdef enum:
    TILE = 16                   # pixels, across and down: the grain of what counts as changed, whose lines count each


cdef class Surface:
    cdef readonly u32 width, height
    cdef readonly u32 columns, rows     # of tiles
    cdef u32 *pixels                    # width * height, 0x00RRGGBB
    cdef u16 *changed                   # a bit for each line of a tile: changed since the last publish()
    cdef list views
    cdef u32 *row(self, u32 y) noexcept nogil
    cdef void mark(self, u32 x, u32 y, u32 width, u32 height) noexcept nogil
    cdef void put_row(self, u32 y, const u32 *line, bint high=*) noexcept nogil


cdef class View:
    cdef readonly Surface surface
    cdef public bint resized
    cdef u16 *dirty                     # the same of what is unseen
    cdef u32 tiles


cdef class Scanout:
    pass
