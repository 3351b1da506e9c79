"""A raw image that nobody said to be one: its first sector must not become another format's.

Who opens it next would take it for an image of that format, and read whatever file it names as its backing one. A write
that would make it so is refused (EPERM), as by QEMU.
"""

from libc.errno cimport EPERM
from libc.string cimport memcmp, memset

from accel.api cimport u8, u32, u64
from vmrun.backends.block.engine cimport TRANSFER_READ, Transfer
from vmrun.backends.block.node cimport Cursor, Filter, Node, cursor_get

from errno import EOPNOTSUPP as NOT_NOW

cdef enum:
    SECTOR = 512
    MOST = 16
    LONGEST = 24
cdef int UNSUPPORTED = NOT_NOW

cdef struct Magic:
    u32 at, length
    u8 bytes[LONGEST]


cdef class ProbedNode(Filter):
    """`magics`: (place, bytes) of what no first sector may have."""

    cdef Magic magics[MOST]
    cdef u32 count

    def __init__(self, Node file, magics):
        cdef u32 n
        Filter.__init__(self, file)
        for place, text in magics:
            for n in range(<u32>len(text)):
                self.magics[self.count].bytes[n] = text[n]
            self.magics[self.count].at, self.magics[self.count].length = place, len(text)
            self.count += 1

    cdef bint turns(self, u64 offset, u64 bytes, const Cursor *source) noexcept nogil:
        """Whether the first sector would be another format's with these bytes in it."""
        cdef u8 sector[SECTOR]
        cdef Cursor cursor = source[0]
        cdef Magic *magic
        cdef u32 n
        memset(sector, 0, SECTOR)
        if offset or bytes < SECTOR:
            if self.file.pread(sector, min(<u64>SECTOR, self.file.size), 0):
                return True
        cursor_get(&cursor, sector + offset, min(bytes, SECTOR - offset))
        for n in range(self.count):
            magic = &self.magics[n]
            if memcmp(sector + magic.at, magic.bytes, magic.length) == 0:
                return True
        return False

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        if offset < SECTOR and self.turns(offset, bytes, source):
            return EPERM
        return self.file.writev(offset, bytes, source, flags)

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return UNSUPPORTED if offset < SECTOR else self.file.write_now(offset, bytes, source, flags)

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return (transfer.kind == TRANSFER_READ or transfer.offset >= SECTOR) and self.file.begin(transfer)
