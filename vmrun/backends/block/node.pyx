"""The block graph: a node answers reads and writes of a disk, by itself or through its children.

A node is called from any thread, several at a time, without the GIL and without the device lock, and may wait for the
host. Everything is in bytes; what lies past its end reads as zeros. Answers are 0 or an errno. Vectors are walked with
a Cursor, which a call moves by what it has done; after an error it may be anywhere.

What a drive calls is in drive.pyx: it queues requests and runs them on the root of a graph.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINVAL, EIO, EOPNOTSUPP
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

import os


# --- cursors ----------------------------------------------------------------------------------------------

cdef void cursor_memory(Cursor *cursor, IoVec *vector, void *base, u64 length) noexcept nogil:
    """Over one piece of memory; `vector` must live as long."""
    vector.base, vector.length = base, length
    cursor.at, cursor.left, cursor.skip = vector, 1, 0


cdef void cursor_advance(Cursor *cursor, u64 bytes) noexcept nogil:
    cdef u64 room
    while bytes and cursor.left:
        room = cursor.at.length - cursor.skip
        if bytes < room:
            cursor.skip += bytes
            return
        bytes -= room
        cursor.at += 1
        cursor.left -= 1
        cursor.skip = 0


cdef void cursor_fill(Cursor *cursor, u64 bytes) noexcept nogil:
    """Zeros into the next `bytes`."""
    cdef u64 room
    while bytes and cursor.left:
        room = cursor.at.length - cursor.skip
        if room > bytes:
            room = bytes
        memset(<u8 *>cursor.at.base + cursor.skip, 0, room)
        bytes -= room
        cursor_advance(cursor, room)


cdef void cursor_put(Cursor *cursor, const u8 *data, u64 bytes) noexcept nogil:
    """Copy `data` into the vectors."""
    cdef u64 room
    while bytes and cursor.left:
        room = cursor.at.length - cursor.skip
        if room > bytes:
            room = bytes
        memcpy(<u8 *>cursor.at.base + cursor.skip, data, room)
        data += room
        bytes -= room
        cursor_advance(cursor, room)


cdef void cursor_get(Cursor *cursor, u8 *data, u64 bytes) noexcept nogil:
    """Copy out of the vectors."""
    cdef u64 room
    while bytes and cursor.left:
        room = cursor.at.length - cursor.skip
        if room > bytes:
            room = bytes
        memcpy(data, <u8 *>cursor.at.base + cursor.skip, room)
        data += room
        bytes -= room
        cursor_advance(cursor, room)


cdef extern from "<string.h>" nogil:
    int memcmp(const void *, const void *, size_t)


cdef bint memory_zero(const u8 *data, u64 bytes) noexcept nogil:
    """Whether all are zero: the first sixteen, then each equal to the one sixteen before."""
    cdef u64 n
    for n in range(bytes if bytes < 16 else 16):
        if data[n]:
            return False
    return bytes <= 16 or memcmp(data, data + 16, bytes - 16) == 0


cdef bint cursor_zero(const Cursor *cursor, u64 bytes) noexcept nogil:
    """Whether the next `bytes` are all zero."""
    cdef Cursor at = cursor[0]
    cdef u64 room
    while bytes and at.left:
        room = at.at.length - at.skip
        if room > bytes:
            room = bytes
        if not memory_zero(<u8 *>at.at.base + at.skip, room):
            return False
        bytes -= room
        cursor_advance(&at, room)
    return True


cdef extern from "<unistd.h>" nogil:
    ssize_t write(int, const void *, size_t)

cdef extern from *:
    """
    #define vr_exchange(p, value) __atomic_exchange_n((p), (value), __ATOMIC_SEQ_CST)
    """
    u64 vr_exchange(u64 *, u64) nogil

cdef u64 NO_LIMIT = ~<u64>0


# --- nodes ------------------------------------------------------------------------------------------------

cdef class Node:
    """`size` in bytes, `readonly`, `driver` as QEMU names it. Subclasses override what they can."""

    def __cinit__(self, *args, **kwargs):
        self.name = ""
        self.driver = ""
        self.limit = NO_LIMIT

    # --- who waits for writes so far up ---------------------------------------------------------------------

    cdef void reach(self, u64 end) noexcept nogil:
        """There was a write up to `end`, which is more than `limit`: told once."""
        cdef u64 one = 1
        if vr_exchange(&self.limit, NO_LIMIT) != NO_LIMIT:
            self.passed = end
            write(self.bell, &one, 8)

    def watch(self, u64 limit, int bell):
        """Add to the eventfd `bell` when something is written beyond `limit`, once; 0 is nowhere. With nothing under way."""
        self.limit, self.bell, self.passed = limit or NO_LIMIT, bell, 0

    @property
    def watched(self):
        """What watch() was given and nothing has passed yet; else 0."""
        return 0 if self.limit == NO_LIMIT else self.limit

    def take_passed(self):
        """The end of the write that rang the bell, once; else 0."""
        found, self.passed = self.passed, 0
        return found

    # --- what a drive and other nodes call ------------------------------------------------------------------

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        return EIO

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return EIO

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        """A writev that waits for nothing. EAGAIN: it might wait; EOPNOTSUPP: it does, NODE_BRIEF in `flags` or not. Some of
        it may be written then.
        """
        return EOPNOTSUPP

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        """Have the kernel do a readv or writev by itself; transfer.then is called when it is over. False: not this way."""
        return False

    cdef int flush(self) noexcept nogil:
        """What was written before is on stable storage."""
        return 0

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        """The contents are of no use any more. Advice: doing nothing is right, too."""
        return 0

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        """Zeros from `offset` on, by writing them where there is no better way."""
        cdef u64 piece = bytes if bytes < (1 << 20) else (1 << 20), step
        cdef u8 *memory
        cdef int error = 0
        cdef IoVec vector
        cdef Cursor cursor
        if bytes == 0:
            return 0
        memory = <u8 *>calloc(1, piece)
        if memory == NULL:
            return EIO
        while bytes and error == 0:
            step = piece if piece < bytes else bytes
            cursor_memory(&cursor, &vector, memory, step)
            error = self.writev(offset, step, &cursor, flags & NODE_FUA)
            offset += step
            bytes -= step
        free(memory)
        return error

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        """What is at `offset`, and how far (at most `bytes`, at least 1) it is the same."""
        found.length, found.flags, found.host = bytes, EXTENT_DATA | EXTENT_ALLOCATED, 0
        return 0

    cdef void event(self, int what) noexcept nogil:
        """EVENT_…: the parent is about to do this."""

    cdef int pread(self, void *data, u64 bytes, u64 offset) noexcept nogil:
        """readv into plain memory."""
        cdef IoVec vector
        cdef Cursor cursor
        cursor_memory(&cursor, &vector, data, bytes)
        return self.readv(offset, bytes, &cursor, 0)

    cdef int pwrite(self, const void *data, u64 bytes, u64 offset) noexcept nogil:
        cdef IoVec vector
        cdef Cursor cursor
        cursor_memory(&cursor, &vector, <void *>data, bytes)
        return self.writev(offset, bytes, &cursor, 0)

    # --- from Python, for tools and views: OSError says why not ------------------------------------------

    def children(self):
        """[(role, node)]: `file`, `backing`, `data-file`."""
        return []

    def read(self, u64 offset, u64 count):
        """`count` bytes from `offset` on."""
        cdef bytearray memory = bytearray(count)
        cdef u8 *data = memory
        cdef int error
        with nogil:
            error = self.pread(data, count, offset)
        _check(error)
        return bytes(memory)

    def read_into(self, u64 offset, memory):
        """Fill a writable buffer."""
        cdef Py_buffer view
        cdef int error
        PyObject_GetBuffer(memory, &view, PyBUF_WRITABLE)
        with nogil:
            error = self.pread(view.buf, <u64>view.len, offset) if view.len else 0
        PyBuffer_Release(&view)
        _check(error)

    def write(self, u64 offset, memory):
        """Write a buffer."""
        cdef Py_buffer view
        cdef int error
        PyObject_GetBuffer(memory, &view, PyBUF_SIMPLE)
        with nogil:
            error = self.pwrite(view.buf, <u64>view.len, offset) if view.len else 0
        PyBuffer_Release(&view)
        _check(error)

    def write_zeroes(self, u64 offset, u64 count, bint unmap=False):
        cdef int error
        with nogil:
            error = self.zero(offset, count, NODE_UNMAP if unmap else 0)
        _check(error)

    def trim(self, u64 offset, u64 count):
        cdef int error
        with nogil:
            error = self.discard(offset, count)
        _check(error)

    def sync(self):
        """flush()."""
        cdef int error
        with nogil:
            error = self.flush()
        _check(error)

    def sync_now(self):
        """The same for who waits for no server that is away: hurry."""
        self.hurry(True)
        try:
            self.sync()
        finally:
            self.hurry(False)

    def extent(self, u64 offset, u64 count):
        """(length, EXTENT_… flags, host offset)."""
        cdef Extent found
        cdef int error
        with nogil:
            error = self.status(offset, count, &found)
        _check(error)
        return found.length, found.flags, found.host

    def truncate(self, u64 size, str preallocation="off"):
        """Make it `size` bytes long."""
        raise OSError(EOPNOTSUPP, f"{self.driver} cannot be resized")

    def hurry(self, bint begin):
        """Until it is told otherwise: somebody waits for all that is under way, and not for limits on transfers, nor for a
        server that is away.
        """
        for _, child in self.children():
            child.hurry(begin)

    def hold(self):
        """One more holder: close() is to be called once more. The node itself."""
        self.held += 1
        return self

    def turn(self, bint readonly):
        """reopening.reopen's: its children can be written, or need not be any more."""
        self.readonly = readonly

    def close(self):
        """The last holder's: write what is kept back, release the host's resources, then let go of the children. Safe
        to call twice when nobody else holds it.
        """
        if self.held:
            self.held -= 1
        elif not self.closed:
            self.closed = True
            self.hurry(True)
            try:
                self.shut()
            finally:
                self.hurry(False)
                for _, child in self.children():
                    child.close()

    def shut(self):
        """What close() does for this node alone."""

    def rest(self):
        """Another program is going to have the image: nothing may be kept back any more. OSError."""
        self.asleep = True

    def wake(self):
        """It is this program's again, and may be another than it was. OSError."""
        self.asleep = False


cdef _check(int error):
    if error:
        raise OSError(error, os.strerror(error))


cdef class Filter(Node):
    """A node that passes everything on to `file`; subclasses change what they are about."""

    cdef void event(self, int what) noexcept nogil:
        self.file.event(what)

    def __init__(self, Node file):
        self.file = file
        self.size, self.readonly, self.driver = file.size, file.readonly, "raw"
        self.asleep = file.asleep

    def children(self):
        return [("file", self.file)]

    def wake(self):
        self.size = self.file.size
        self.asleep = False

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        return self.file.readv(offset, bytes, to, flags)

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return self.file.writev(offset, bytes, source, flags)

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return self.file.write_now(offset, bytes, source, flags)

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return self.file.begin(transfer)

    cdef int flush(self) noexcept nogil:
        return self.file.flush()

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        return self.file.discard(offset, bytes)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        return self.file.zero(offset, bytes, flags)

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        return self.file.status(offset, bytes, found)

    def truncate(self, u64 size, str preallocation="off"):
        self.file.truncate(size, preallocation)
        self.size = self.file.size
