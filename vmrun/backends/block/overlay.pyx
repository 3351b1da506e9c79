"""Writes that leave an image as it is: whole sectors go to a second, sparse file and are read from there.

What is written is gone with the node: nothing on disk says which sectors those are.
"""

from libc.errno cimport EINVAL
from libc.stdlib cimport calloc, free

from vmrun.backends.block.node cimport EXTENT_ALLOCATED, EXTENT_DATA, NODE_FUA

cdef extern from *:
    """
    #define vr_set_bits(p, bits) __atomic_fetch_or((p), (bits), __ATOMIC_RELEASE)
    #define vr_get_bits(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    """
    void vr_set_bits(u8 *, u8) nogil
    u8 vr_get_bits(u8 *) nogil

cdef enum:
    SECTOR = 512
    LONGEST = 8192              # sectors that are looked at for one piece of a transfer


cdef class OverlayNode(Node):
    """`file` is empty and takes the writes, `base` is only read."""

    def __init__(self, Node base, Node file):
        self.base, self.file = base, file
        self.driver, self.size = "overlay", base.size
        self.written = <u8 *>calloc(1, self.size // SECTOR // 8 + 1)
        if self.written == NULL:
            raise MemoryError(f"no memory to note what is written of {self.size} bytes")

    def __dealloc__(self):
        free(self.written)

    def children(self):
        return [("file", self.file), ("backing", self.base)]

    cdef bint has(self, u64 sector) noexcept nogil:
        return vr_get_bits(&self.written[sector >> 3]) >> (sector & 7) & 1

    cdef u64 run_length(self, u64 offset, u64 bytes, bint *there) noexcept nogil:
        """Bytes from offset on that are all in `file`, or all in `base`."""
        cdef u64 sector = offset // SECTOR, first = sector, end = (offset + bytes + SECTOR - 1) // SECTOR
        if end > (self.size + SECTOR - 1) // SECTOR:
            end = (self.size + SECTOR - 1) // SECTOR
        there[0] = sector < end and self.has(sector)
        if sector >= end:
            return bytes
        if end > first + LONGEST:
            end = first + LONGEST
        while sector < end and self.has(sector) == there[0]:
            sector += 1
        bytes = sector * SECTOR - offset if sector * SECTOR - offset < bytes else bytes
        return bytes

    cdef void note(self, u64 offset, u64 bytes) noexcept nogil:
        cdef u64 sector = offset // SECTOR, end = (offset + bytes + SECTOR - 1) // SECTOR
        while sector < end:
            if not sector & 7 and end - sector >= 8:
                vr_set_bits(&self.written[sector >> 3], 0xFF)
                sector += 8
            else:
                vr_set_bits(&self.written[sector >> 3], <u8>(1 << (sector & 7)))
                sector += 1

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef bint there = False
        cdef u64 step
        cdef int error = 0
        while bytes and error == 0:
            step = self.run_length(offset, bytes, &there)
            if there:
                error = self.file.readv(offset, step, to, flags)
            else:
                error = self.base.readv(offset, step, to, flags)
            offset += step
            bytes -= step
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef int error
        if (offset | bytes) & (SECTOR - 1) or offset + bytes > (self.size + SECTOR - 1 & ~<u64>(SECTOR - 1)):
            return EINVAL
        error = self.file.writev(offset, bytes, source, 0)
        if error == 0:
            self.note(offset, bytes)
        return error

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef int error
        if (offset | bytes) & (SECTOR - 1) or offset + bytes > (self.size + SECTOR - 1 & ~<u64>(SECTOR - 1)):
            return EINVAL
        error = self.file.write_now(offset, bytes, source, flags)
        if error == 0:
            self.note(offset, bytes)
        return error

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef int error
        if (offset | bytes) & (SECTOR - 1):
            return EINVAL
        error = self.file.zero(offset, bytes, flags & ~NODE_FUA)
        if error == 0:
            self.note(offset, bytes)
        return error

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef bint there = False
        found.length = self.run_length(offset, bytes, &there)
        found.flags, found.host = (EXTENT_DATA | EXTENT_ALLOCATED if there else 0), 0
        return 0
