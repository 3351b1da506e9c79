"""What a qcow2 image's disk has: its data, what shines through of the backing image, compressed clusters, and what is where.

Data moves with `graph` shared and without `mutex`; who may not wait (NODE_NOWAIT) gets EAGAIN.
"""

from libc.errno cimport EAGAIN, ENOMEM
from libc.stdlib cimport free, malloc

from vmrun.backends.block.node cimport (
    EVENT_READ_AIO, EVENT_READ_BACKING_AIO, EVENT_READ_COMPRESSED, EXTENT_ALLOCATED, EXTENT_COMPRESSED, EXTENT_DATA,
    EXTENT_OFFSET, EXTENT_ZERO, NODE_NOWAIT, NODE_STATE, Extent, cursor_advance, cursor_fill, cursor_put,
)
from vmrun.backends.block.qcow2_packed cimport unpack_cluster
from vmrun.backends.block.qcow2_tables cimport COMPRESSED, NORMAL, UNALLOCATED, ZERO_ALLOCATED, ZERO_PLAIN, Mapping

from accel.threads cimport (
    pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock, pthread_rwlock_rdlock, pthread_rwlock_tryrdlock,
    pthread_rwlock_unlock,
)

cdef extern from "<errno.h>" nogil:
    int ENOMEDIUM


cdef class Qcow2Reader(Qcow2Tables):
    """An open image that can be read."""

    cdef int read_backing(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u64 there
        cdef int error
        if self.backing is None or offset >= self.backing.size:
            cursor_fill(to, bytes)
            return 0
        there = self.backing.size - offset
        if there > bytes:
            there = bytes
        self.file.event(EVENT_READ_BACKING_AIO)
        error = self.backing.readv(offset, there, to, flags)
        if error == 0 and there < bytes:
            cursor_fill(to, bytes - there)
        return error

    cdef int inner_read(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        """With `graph` held, either way."""
        cdef Mapping m
        cdef int error = 0
        cdef bint nowait = flags & NODE_NOWAIT
        cdef u64 limit = ~<u64>0 if flags & NODE_STATE else self.size
        while bytes and error == 0:
            if offset >= limit:
                cursor_fill(to, bytes)
                return 0
            if nowait:
                if pthread_mutex_trylock(&self.mutex) != 0:
                    return EAGAIN
            else:
                pthread_mutex_lock(&self.mutex)
            error = self.map(offset, bytes if bytes < limit - offset else limit - offset, &m, nowait)
            pthread_mutex_unlock(&self.mutex)
            if error:
                return error
            if m.type == NORMAL:
                if not nowait:
                    self.file.event(EVENT_READ_AIO)
                error = self.data.readv(m.host, m.length, to, flags & ~<u32>NODE_STATE)
            elif m.type == UNALLOCATED and not flags & NODE_STATE:
                error = self.read_backing(offset, m.length, to, flags)
            elif m.type == COMPRESSED:
                error = self.read_compressed(m.entry, offset & (self.cluster_size - 1), m.length, to, flags)
            else:
                cursor_fill(to, m.length)
            offset += m.length
            bytes -= m.length
        return error

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error
        if flags & NODE_NOWAIT:
            if pthread_rwlock_tryrdlock(&self.graph) != 0:
                return EAGAIN
        else:
            pthread_rwlock_rdlock(&self.graph)
        error = ENOMEDIUM if self.broken else self.inner_read(offset, bytes, to, flags)
        pthread_rwlock_unlock(&self.graph)
        return error

    cdef int read_compressed(self, u64 entry, u64 within, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error = 0
        cdef u64 fuzzy
        if flags & NODE_NOWAIT:
            return EAGAIN
        if bytes == self.cluster_size and to.left and to.at.length - to.skip >= bytes:
            error = self.inflate(entry, <u8 *>to.at.base + to.skip)
            cursor_advance(to, bytes)
            return error
        pthread_mutex_lock(&self.inflate_mutex)
        fuzzy = self.fuzzy
        if self.inflated_entry != entry:
            self.inflated_entry = 0
            error = self.inflate(entry, self.inflated)
            if error == 0 and fuzzy == self.fuzzy:
                self.inflated_entry = entry
        if error == 0:
            cursor_put(to, self.inflated + within, bytes)
        pthread_mutex_unlock(&self.inflate_mutex)
        return error

    cdef int inflate(self, u64 entry, u8 *into) noexcept nogil:
        """A compressed cluster, all of it; EIO when it is not one."""
        cdef u32 shift = 62 - (self.cluster_bits - 8)
        cdef u64 offset = entry & ((<u64>1 << shift) - 1)
        cdef u64 sectors = (entry >> shift & ((<u64>1 << (self.cluster_bits - 8)) - 1)) + 1
        cdef u64 size = sectors * 512 - (offset & 511)
        cdef u8 *packed
        cdef int error
        packed = <u8 *>malloc(size)
        if packed == NULL:
            return ENOMEM
        self.file.event(EVENT_READ_COMPRESSED)
        error = self.file.pread(packed, size, offset)
        if error == 0:
            error = unpack_cluster(self.zstd, packed, size, into, self.cluster_size)
        free(packed)
        return error

    # --- what is where -------------------------------------------------------------------------------------------

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef Mapping m
        cdef int error
        found.host = 0
        if offset >= self.size:
            found.length, found.flags = bytes, EXTENT_ZERO
            return 0
        if bytes > self.size - offset:
            bytes = self.size - offset
        pthread_rwlock_rdlock(&self.graph)
        pthread_mutex_lock(&self.mutex)
        error = self.map(offset, bytes, &m, False)
        pthread_mutex_unlock(&self.mutex)
        pthread_rwlock_unlock(&self.graph)
        if error:
            return error
        found.length = m.length
        if m.type == NORMAL:
            found.flags, found.host = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET, m.host
        elif m.type == COMPRESSED:
            found.flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_COMPRESSED
        elif m.type == ZERO_ALLOCATED:
            found.flags, found.host = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET, m.host
        elif m.type == ZERO_PLAIN:
            found.flags = EXTENT_ZERO | EXTENT_ALLOCATED
        else:
            found.flags = 0
        return 0
