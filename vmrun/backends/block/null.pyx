"""null-co, a disk that keeps nothing, and a window on a part of another node."""

from accel.api cimport u32, u64
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_ZERO, Cursor, Extent, Filter, Node, cursor_advance, cursor_fill,
)


cdef class NullNode(Node):
    """Writes are forgotten; reads are zeros, or leave the memory as it is, which is faster and only for measuring."""

    cdef bint zeroes

    def __init__(self, u64 size, bint zeroes=True, str driver="null-co"):
        self.size, self.zeroes, self.driver = size, zeroes, driver

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        if self.zeroes:
            cursor_fill(to, bytes)
        else:
            cursor_advance(to, bytes)
        return 0

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cursor_advance(source, bytes)
        if offset + bytes > self.limit:
            self.reach(offset + bytes)
        return 0

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return self.writev(offset, bytes, source, flags)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        if offset + bytes > self.limit:
            self.reach(offset + bytes)
        return 0

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        found.length, found.host = bytes, 0
        found.flags = EXTENT_ALLOCATED | (EXTENT_ZERO if self.zeroes else EXTENT_DATA)
        return 0


cdef class WindowNode(Filter):
    """`size` bytes of `file` from `start` on."""

    cdef u64 start

    def __init__(self, Node file, u64 start, u64 size):
        Filter.__init__(self, file)
        self.start, self.size = start, size

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u64 there = self.size - offset if offset < self.size else 0
        cdef int error
        if there > bytes:
            there = bytes
        error = self.file.readv(self.start + offset, there, to, flags) if there else 0
        if error == 0 and there < bytes:
            cursor_fill(to, bytes - there)
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        if offset > self.size or bytes > self.size - offset:
            return 5
        return self.file.writev(self.start + offset, bytes, source, flags)

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        if offset > self.size or bytes > self.size - offset:
            return 5
        return self.file.write_now(self.start + offset, bytes, source, flags)

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return False

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        if offset > self.size or bytes > self.size - offset:
            return 5
        return self.file.zero(self.start + offset, bytes, flags)

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        if offset > self.size or bytes > self.size - offset:
            return 5
        return self.file.discard(self.start + offset, bytes)

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef int error = self.file.status(self.start + offset, bytes, found)
        return error

    def wake(self):
        self.asleep = False                                 # a part is as long as ever

    def truncate(self, u64 size, str preallocation="off"):
        raise OSError(95, "a part of a file cannot be resized")
