from accel.api cimport u8, u32, u64
from vmrun.backends.block.node cimport Cursor, Extent, Node


cdef class OverlayNode(Node):
    cdef readonly Node base, file
    cdef u8 *written                # a bit for each sector that `file` has
    cdef bint has(self, u64 sector) noexcept nogil
    cdef u64 run_length(self, u64 offset, u64 bytes, bint *there) noexcept nogil
    cdef void note(self, u64 offset, u64 bytes) noexcept nogil
