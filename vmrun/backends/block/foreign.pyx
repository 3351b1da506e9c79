"""A disk that is read by a function of Python's: what is fetched, or made up, when somebody asks for it."""

from libc.errno cimport EAGAIN, EIO

from accel.api cimport u8, u32, u64
from vmrun.backends.block.node cimport NODE_NOWAIT, Cursor, Node, cursor_fill, cursor_put


cdef class ForeignNode(Node):
    """read(offset, count) gives count bytes, or raises OSError; end() is called at the end."""

    cdef readonly object source
    cdef readonly str path

    def __init__(self, str driver, str path, u64 size, object source):
        self.driver, self.path, self.size, self.source, self.readonly = driver, path, size, source, True

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        if flags & NODE_NOWAIT:
            return EAGAIN
        with gil:
            return self.fetch(offset, bytes, to)

    cdef int fetch(self, u64 offset, u64 bytes, Cursor *to) noexcept:
        cdef u64 there = self.size - offset if offset < self.size else 0
        cdef const u8[::1] view
        if there > bytes:
            there = bytes
        try:
            data = self.source.read(offset, there) if there else b""
        except OSError as error:
            return error.errno or EIO
        except Exception:
            return EIO
        there = min(<u64>len(data), there)
        if there:
            view = data
            cursor_put(to, &view[0], there)
        if there < bytes:
            cursor_fill(to, bytes - there)
        return 0

    def shut(self):
        self.source.end()
