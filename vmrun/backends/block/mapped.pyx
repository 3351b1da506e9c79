"""Images of other programs' formats: a layout, in Python (formats/), says where a disk's blocks lie; data is moved here.

The formats have little in common but this: a table gives blocks of one size their places in a file, and a block without
a place reads as zeros. What a layout is asked, for one block at a time, is cheap beside the block's transfer.
"""

from libc.errno cimport EAGAIN, EINVAL, EIO, ENOMEM, EPERM, EROFS
from libc.stdlib cimport free, malloc

import threading

from accel.api cimport u8, u32, u64
from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_COMPRESSED, EXTENT_DATA, EXTENT_OFFSET, EXTENT_ZERO, NODE_FUA, NODE_NOWAIT, Cursor, Extent,
    Node, cursor_fill, cursor_get, cursor_put,
)
from vmrun.backends.block.errors import ImageError


cdef class MappedNode(Node):
    """`layout`: a formats.Layout over `file`. Its methods are called by one thread at a time."""

    cdef readonly Node file
    cdef readonly object layout
    cdef readonly u64 cluster_size      # bytes of a block; 0 when the format has none
    cdef readonly bint packs            # blocks are written compressed, whole, and once
    cdef bint changed                   # it is another image than the one that was opened
    cdef object lock

    def __init__(self, Node file, object layout, bint readonly):
        self.file, self.layout, self.readonly = file, layout, readonly
        self.driver, self.size = layout.driver, layout.size
        self.cluster_size, self.packs = layout.block, layout.packs
        self.asleep = file.asleep
        self.lock = threading.Lock()

    def children(self):
        return [("file", self.file), *((f"extents.{n}", one) for n, one in enumerate(self.layout.extents))]

    # --- transfers ----------------------------------------------------------------------------------------------

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        if flags & NODE_NOWAIT:
            return EAGAIN
        with gil:
            return self.fetch(offset, bytes, to)

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        if self.asleep or self.readonly:
            return EPERM if self.asleep else EROFS
        with gil:
            return self.store(offset, bytes, source, flags)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        if self.asleep or self.readonly:
            return EPERM if self.asleep else EROFS
        with gil:
            return self.blank(offset, bytes, flags)

    cdef int flush(self) noexcept nogil:
        with gil:
            return self.flushed()

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        with gil:
            return self.asked(offset, bytes, found)

    cdef int fetch(self, u64 offset, u64 bytes, Cursor *to) noexcept:
        cdef u64 place, step
        cdef int error = 0
        cdef const u8[::1] view
        cdef Node node
        try:
            while bytes and error == 0:
                if offset >= self.size:
                    cursor_fill(to, bytes)
                    return 0
                step = self.size - offset if bytes > self.size - offset else bytes
                with self.lock:
                    found, place, step = self.layout.find(offset, step)
                if found is None:
                    cursor_fill(to, step)
                elif isinstance(found, Node):
                    node = found
                    with nogil:
                        error = node.readv(place, step, to, 0)
                else:
                    view = self.layout.unpacked(found, place)
                    if <u64>view.shape[0] < step:
                        return EIO
                    cursor_put(to, &view[0], step)
                offset += step
                bytes -= step
        except Exception as failed:
            return _number(failed)
        return error

    cdef int store(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept:
        cdef u64 place, step
        cdef int error = 0
        cdef Node node
        if bytes > self.size or offset > self.size - bytes:
            return EINVAL
        try:
            self.change()
            if self.packs:
                return self.pack(offset, bytes, source)
            while bytes and error == 0:
                node = self.target(offset, bytes, True, &place, &step)
                with nogil:
                    error = node.writev(place, step, source, 0)
                offset += step
                bytes -= step
        except Exception as failed:
            return _number(failed)
        return self.flushed() if error == 0 and flags & NODE_FUA else error

    cdef Node target(self, u64 offset, u64 bytes, bint make, u64 *place, u64 *step):
        """The node that has what is at `offset`, where, and how much of it; None without a place, unless one is to be made.
        OSError for what is compressed, and where a wrong image gives data a place among its tables: they would not
        survive the write.
        """
        with self.lock:
            found, place[0], step[0] = self.layout.find(offset, bytes)
            if found is None and make:
                self.layout.place(offset)
                found, place[0], step[0] = self.layout.find(offset, bytes)
        if found is None and not make:
            return None
        if not isinstance(found, Node):
            raise OSError(EIO, "no place that can be written")
        for held, start, end in self.layout.held:
            if held is found and place[0] < end and place[0] + step[0] > start:
                raise OSError(EIO, "data lies among the image's tables")
        return found

    cdef int change(self) except -1:
        if not self.changed:
            with self.lock:
                if not self.changed:
                    self.layout.changed()
                    self.changed = True
        return 0

    cdef int pack(self, u64 offset, u64 bytes, Cursor *source) except -1:
        """Whole blocks, the disk's last one aside."""
        cdef u64 step
        cdef u8 *memory
        if offset % self.cluster_size or bytes % self.cluster_size and offset + bytes < self.size:
            return EIO
        memory = <u8 *>malloc(self.cluster_size)
        if memory == NULL:
            return ENOMEM
        try:
            while bytes:
                step = self.cluster_size if self.cluster_size < bytes else bytes
                cursor_get(source, memory, step)
                with self.lock:
                    self.layout.pack(offset, memory[:step])
                offset += step
                bytes -= step
        finally:
            free(memory)
        return 0

    cdef int blank(self, u64 offset, u64 bytes, u32 flags) noexcept:
        """Blocks without a place are zeros already."""
        cdef u64 place, step
        cdef int error = 0
        cdef Node node
        if bytes > self.size or offset > self.size - bytes:
            return EINVAL
        try:
            while bytes and error == 0:
                node = self.target(offset, bytes, False, &place, &step)
                if node is not None:
                    self.change()
                    with nogil:
                        error = node.zero(place, step, flags & ~<u32>NODE_FUA)
                offset += step
                bytes -= step
        except Exception as failed:
            return _number(failed)
        return self.flushed() if error == 0 and flags & NODE_FUA else error

    cdef int flushed(self) noexcept:
        cdef Node node
        cdef int error
        for _, child in self.children():
            node = child
            with nogil:
                error = node.flush()
            if error:
                return error
        return 0

    cdef int asked(self, u64 offset, u64 bytes, Extent *found) noexcept:
        cdef u64 place
        cdef int error
        cdef Node node
        found.length, found.flags, found.host = bytes, EXTENT_ZERO, 0
        if offset >= self.size:
            return 0
        if bytes > self.size - offset:
            bytes = self.size - offset
        try:
            with self.lock:
                where, place, found.length = self.layout.find(offset, bytes)
        except Exception as failed:
            return _number(failed)
        if where is None:
            found.flags = EXTENT_ZERO | (EXTENT_ALLOCATED if self.layout.answers else 0)
        elif isinstance(where, Node):
            if self.layout.holes:
                node = where
                bytes = found.length
                with nogil:
                    error = node.status(place, bytes, found)
                if error:
                    return error
            else:
                found.flags = 0
            found.flags = found.flags & EXTENT_ZERO | EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET
            found.host = place
        else:
            found.flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_COMPRESSED
        return 0

    # --- from Python --------------------------------------------------------------------------------------------

    def truncate(self, u64 size, str preallocation="off"):
        """OSError where the format's images keep their size."""
        with self.lock:
            self.layout.resize(size, preallocation)
            self.size = self.layout.size

    def turn(self, bint readonly):
        if not readonly:
            self.layout.writable()
        self.readonly = readonly

    def wake(self):
        """The other program may have given blocks their places."""
        with self.lock:
            self.layout.reload()
            self.size = self.layout.size
            if not self.readonly:
                self.layout.writable()
        self.asleep = False


cdef int _number(object failed) noexcept:
    """What a guest, or who else asked, is told."""
    if isinstance(failed, MemoryError):
        return ENOMEM
    number = getattr(failed, "errno", None)
    return number if isinstance(number, int) and number > 0 and not isinstance(failed, ImageError) else EIO


def crc32c(const u8[::1] data):
    """Castagnoli's sum, as iSCSI has it: RFC 3720, B.4."""
    cdef u32[256] table
    cdef u32 value
    cdef Py_ssize_t n
    cdef int bit
    for n in range(256):
        value = <u32>n
        for bit in range(8):
            value = value >> 1 ^ (<u32>0x82F63B78 if value & 1 else 0)
        table[n] = value
    value = ~<u32>0
    for n in range(data.shape[0]):
        value = table[(value ^ data[n]) & 0xFF] ^ value >> 8
    return ~value
