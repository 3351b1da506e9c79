"""A file or block device of the host, byte for byte.

With `direct` it was opened with O_DIRECT: what is not aligned as the host asks goes through a buffer, and a write of a
part of a block reads the block first. Holes are what SEEK_DATA says; discard punches them.
"""

from libc.errno cimport EAGAIN, EINTR, EINVAL, EIO, ENODEV, ENOSYS, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, errno
from libc.stdlib cimport free
from libc.string cimport memset
from posix.stdlib cimport posix_memalign
from posix.types cimport off_t

import contextlib
import os
import stat as modes

from accel.threads cimport (
    pthread_rwlock_destroy, pthread_rwlock_init, pthread_rwlock_rdlock, pthread_rwlock_tryrdlock,
    pthread_rwlock_unlock, pthread_rwlock_wrlock,
)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv2(int, const iovec *, int, off_t, int)
    ssize_t pwritev2(int, const iovec *, int, off_t, int)
    int RWF_NOWAIT
    int RWF_DSYNC

cdef extern from "<fcntl.h>" nogil:
    int fallocate(int, int, off_t, off_t)
    int FALLOC_FL_PUNCH_HOLE
    int FALLOC_FL_KEEP_SIZE
    int FALLOC_FL_ZERO_RANGE

cdef extern from "<sys/vfs.h>" nogil:
    struct statfs_t "statfs":
        long f_type
    int fstatfs(int, statfs_t *)

cdef extern from "<linux/magic.h>" nogil:
    long EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int)
    int usleep(unsigned int)
    off_t lseek(int, off_t, int)
    int SEEK_DATA
    int SEEK_HOLE

cdef extern from *:
    """
    #include <sys/resource.h>
    static inline long vr_sleeps(void)      /* how often this thread has waited; being preempted is not that */
    {
        struct rusage use;
        return getrusage(RUSAGE_THREAD, &use) == 0 ? use.ru_nvcsw : 0;
    }
    #define vr_more(p) __atomic_add_fetch((p), 1, __ATOMIC_SEQ_CST)
    #define vr_less(p) __atomic_sub_fetch((p), 1, __ATOMIC_SEQ_CST)
    #define vr_look(p) __atomic_load_n((p), __ATOMIC_SEQ_CST)
    static inline void vr_most(unsigned long long *p, unsigned long long v)
    {
        unsigned long long old = __atomic_load_n(p, __ATOMIC_RELAXED);
        while (old < v && !__atomic_compare_exchange_n(p, &old, v, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
            ;
    }
    """
    long vr_sleeps() nogil
    void vr_more(u32 *) nogil
    void vr_less(u32 *) nogil
    u32 vr_look(u32 *) nogil
    void vr_most(u64 *, u64) nogil

from vmrun.backends.block.engine cimport TRANSFER_WRITE
from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_OFFSET, EXTENT_ZERO, NODE_BRIEF, NODE_FUA, NODE_NOWAIT, NODE_UNMAP,
    cursor_advance, cursor_fill, cursor_get, cursor_memory, cursor_put,
)
from vmrun.backends.block.pool cimport pool_now
from vmrun.backends.block.sizes import FIRST
from vmrun.backends.protocols cimport IoVec

cdef enum:
    PARTS = 64
    PAGE = 4096
    WINDOW = 1 << 20            # bytes of a bounce buffer
    SMALL = 65536               # bytes that one copies while others wait
    LONG = 1_000_000            # ns: a write that slept and took longer did not find the page cache ready,
    RESTS = 20                  # and for so many times as long the next ones are others' work: a twentieth is waited for,
cdef u64 REST = 2_000_000_000   # but at most for so many ns


cdef bint is_near(int fd) noexcept nogil:
    """Whether what is written there lands in this host's page cache, with nobody else to be asked."""
    cdef statfs_t found
    return fstatfs(fd, &found) == 0 and found.f_type in (
        EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC,
    )


cdef void landed(Transfer *transfer, int error) noexcept nogil:
    """On the engine's thread."""
    if transfer.kind == TRANSFER_WRITE:
        if error == 0:
            (<FileNode>transfer.node).grow(transfer.offset + transfer.bytes)
        leave_flight(transfer.node)
    transfer.then(transfer, error)


cdef void leave_flight(void *node) noexcept nogil:
    vr_less(&(<FileNode>node).flying)


cdef class FileNode(Node):
    """`fd` is the node's from now on. OSError when it is neither a file nor a device."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        pthread_rwlock_init(&self.edges, NULL)

    def __init__(self, int fd, str path, bint readonly=False, bint direct=False):
        mode = os.fstat(fd).st_mode
        self.device = modes.S_ISBLK(mode) or modes.S_ISCHR(mode)
        if not (modes.S_ISREG(mode) or self.device):
            raise OSError(EINVAL, "neither a file nor a device")
        self.path, self.readonly, self.driver = path, readonly, "host_device" if self.device else "file"
        self.size = os.lseek(fd, 0, os.SEEK_END)
        self.align = self.probe(fd) if direct else 1
        self.nowait = self.sparse = self.drops = self.zeroes = self.hurries = True
        self.near = not self.device and is_near(fd)
        self.fd = fd

    def __dealloc__(self):
        if self.fd >= 0:
            os.close(self.fd)
        pthread_rwlock_destroy(&self.edges)

    def probe(self, int fd):
        """The least alignment that a read works with. What is too short to tell gets 4096."""
        cdef void *memory = NULL
        cdef iovec part
        cdef u64 align = 512
        if posix_memalign(&memory, 4096, 8192) != 0:
            raise MemoryError
        try:
            while align < 4096:
                part.iov_base, part.iov_len = <u8 *>memory + align, align
                if preadv2(fd, &part, 1, <off_t>align, 0) >= 0:
                    return align
                align *= 2
        finally:
            free(memory)
        return 4096

    def adopt(self, int fd, bint readonly):
        """The same file, opened otherwise: `fd` takes the place of the node's descriptor, whose locks are gone then."""
        os.dup2(fd, self.fd, False)
        os.close(fd)
        self.readonly = readonly

    def measure(self):
        """Somebody else has made the file longer or shorter."""
        self.size = os.lseek(self.fd, 0, os.SEEK_END)

    def rest(self):
        if not self.readonly:
            self.sync()
        self.asleep = True

    def wake(self):
        self.measure()
        self.asleep = False

    def shut(self):
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    # --- transfers ------------------------------------------------------------------------------------------

    cdef void grow(self, u64 end) noexcept nogil:
        if end > self.size:
            vr_most(&self.size, end)
        if end > self.limit:
            self.reach(end)

    cdef int transfer(self, u64 offset, u64 bytes, Cursor *cursor, bint write, int flags) noexcept nogil:
        """The vectors as they are."""
        cdef iovec part[PARTS]
        cdef u32 count
        cdef u64 skip, room, length
        cdef ssize_t moved
        if offset + bytes < offset or offset + bytes > <u64>1 << 63:
            return EINVAL
        while bytes:
            count, room, skip = 0, bytes, cursor.skip
            while count < PARTS and count < cursor.left and room:
                length = cursor.at[count].length - skip
                if length > room:
                    length = room
                part[count].iov_base = <u8 *>cursor.at[count].base + skip
                part[count].iov_len = length
                room -= length
                skip = 0
                count += 1
            if count == 0:
                return EIO                          # fewer vectors than bytes
            if write:
                moved = pwritev2(self.fd, part, <int>count, <off_t>offset, flags)
            else:
                moved = preadv2(self.fd, part, <int>count, <off_t>offset, flags)
            if moved < 0:
                if errno == EINTR:
                    continue
                return errno
            if moved == 0:
                if write or offset < self.size and self.device:
                    return EIO
                cursor_fill(cursor, bytes)          # past the end
                return 0
            offset += <u64>moved
            bytes -= <u64>moved
            cursor_advance(cursor, <u64>moved)
            if write:
                self.grow(offset)
        return 0

    cdef bint aligned(self, u64 offset, u64 bytes, const Cursor *cursor) noexcept nogil:
        cdef u64 mask = self.align - 1, skip = cursor.skip, length
        cdef u32 n = 0
        if (offset | bytes) & mask:
            return False
        while bytes and n < cursor.left:
            length = cursor.at[n].length - skip
            if length > bytes:
                length = bytes
            if (<u64>cursor.at[n].base + skip | length) & mask:
                return False
            bytes -= length
            skip = 0
            n += 1
        return True

    cdef int bounce(self, u64 offset, u64 bytes, Cursor *cursor, bint write, int flags) noexcept nogil:
        """Through an aligned buffer, a window at a time."""
        cdef void *memory = NULL
        cdef u64 mask = self.align - 1, first, length, skip, room
        cdef int error = 0
        cdef IoVec vector
        cdef Cursor inner
        if posix_memalign(&memory, 4096, WINDOW + 4096) != 0:
            return EIO
        while bytes and error == 0:
            first = offset & ~mask
            skip = offset - first
            room = WINDOW - skip if WINDOW - skip < bytes else bytes
            length = (skip + room + mask) & ~mask
            if not write or (skip | room) & mask:
                # A write's first and last block keep what is not written; a file's end may lie within the last one.
                cursor_memory(&inner, &vector, memory, length)
                error = self.transfer(first, length, &inner, False, 0)
            if error == 0 and write:
                cursor_get(cursor, <u8 *>memory + skip, room)
                cursor_memory(&inner, &vector, memory, length)
                error = self.transfer(first, length, &inner, True, flags)
            elif error == 0:
                cursor_put(cursor, <u8 *>memory + skip, room)
            offset += room
            bytes -= room
        free(memory)
        return error

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef int error
        if flags & NODE_NOWAIT:
            if not self.nowait or self.align > 1:
                return EAGAIN
            error = self.transfer(offset, bytes, to, False, RWF_NOWAIT)
            if error == EOPNOTSUPP:
                self.nowait = False
                return EAGAIN
            return error
        if self.align > 1 and not self.aligned(offset, bytes, to):
            return self.bounce(offset, bytes, to, False, 0)
        return self.transfer(offset, bytes, to, False, 0)

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef int error, how = RWF_DSYNC if flags & NODE_FUA and not self.unsafe else 0
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if self.align == 1:
            return self.transfer(offset, bytes, source, True, how)
        if self.aligned(offset, bytes, source):
            pthread_rwlock_rdlock(&self.edges)
            error = self.transfer(offset, bytes, source, True, how)
        elif (offset | bytes) & (self.align - 1):
            pthread_rwlock_wrlock(&self.edges)
            while vr_look(&self.flying):
                usleep(50)
            error = self.bounce(offset, bytes, source, True, how)
        else:
            pthread_rwlock_rdlock(&self.edges)
            error = self.bounce(offset, bytes, source, True, how)
        pthread_rwlock_unlock(&self.edges)
        return error

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        """Into the page cache. Where the kernel does not say whether that waits (ext4), a write says it of the next ones: the
        host makes writers wait when too much is to be written to its disk, and goes on with that for a while.
        """
        cdef int error
        cdef u64 began, spent
        cdef long slept
        if self.readonly or self.asleep or self.align > 1 or bytes > SMALL:
            return EOPNOTSUPP
        if self.hurries:
            error = self.transfer(offset, bytes, source, True, RWF_NOWAIT)
            if error != EOPNOTSUPP:
                return error
            self.hurries = False
        began = pool_now()
        if not self.near or began < self.rests_until or (offset | bytes) & (PAGE - 1):
            return EOPNOTSUPP                       # of a part of a page the rest may have to be read
        if not flags & NODE_BRIEF:
            return EAGAIN
        slept = vr_sleeps()
        error = self.transfer(offset, bytes, source, True, 0)
        spent = pool_now() - began
        if spent > LONG and vr_sleeps() != slept:
            self.rests_until = began + spent + min(RESTS * spent, REST)
        return error

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        cdef Cursor cursor
        if self.engine is None or transfer.bytes == 0 or transfer.kind == TRANSFER_WRITE and (self.readonly or self.asleep):
            return False
        cursor.at, cursor.left, cursor.skip = transfer.vectors, transfer.count, 0
        if self.align > 1 and not self.aligned(transfer.offset, transfer.bytes, &cursor):
            return False
        if transfer.kind == TRANSFER_WRITE:
            if pthread_rwlock_tryrdlock(&self.edges) != 0:
                return False
            vr_more(&self.flying)                   # who changes a part of a block waits for these
            pthread_rwlock_unlock(&self.edges)
        transfer.fd, transfer.node, transfer.landed = self.fd, <void *>self, landed
        if self.engine.submit(transfer):
            return True
        if transfer.kind == TRANSFER_WRITE:
            vr_less(&self.flying)
        return False

    cdef int flush(self) noexcept nogil:
        if self.readonly or self.unsafe or fdatasync(self.fd) == 0:
            return 0
        return errno

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        if self.drops and not self.readonly and not self.asleep and bytes:
            if fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <off_t>offset, <off_t>bytes) != 0:
                self.drops = False
        return 0

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef int error
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if bytes == 0:
            return 0
        if flags & NODE_UNMAP and self.drops and offset + bytes <= self.size:
            if fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <off_t>offset, <off_t>bytes) == 0:
                return self.flush() if flags & NODE_FUA else 0
        if self.zeroes:
            if fallocate(self.fd, FALLOC_FL_ZERO_RANGE, <off_t>offset, <off_t>bytes) == 0:
                self.grow(offset + bytes)
                return self.flush() if flags & NODE_FUA else 0
            if errno in (EOPNOTSUPP, ENOSYS, ENOTTY, ENODEV, EINVAL):
                self.zeroes = False
            else:
                return errno
        return Node.zero(self, offset, bytes, flags)

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef off_t data, hole
        found.host, found.length = offset, bytes
        found.flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET
        if offset >= self.size:
            found.flags = EXTENT_ZERO | EXTENT_ALLOCATED
            return 0
        if bytes > self.size - offset:
            found.length = bytes = self.size - offset
        if not self.sparse or self.device:
            return 0
        data = lseek(self.fd, <off_t>offset, SEEK_DATA)
        if data < 0:
            if errno == ENXIO:                      # a hole up to the end
                found.flags = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET
            else:
                self.sparse = False
            return 0
        if <u64>data > offset:
            found.flags = EXTENT_ZERO | EXTENT_ALLOCATED | EXTENT_OFFSET
            if <u64>data - offset < bytes:
                found.length = <u64>data - offset
            return 0
        hole = lseek(self.fd, <off_t>offset, SEEK_HOLE)
        if hole > <off_t>offset and <u64>hole - offset < bytes:
            found.length = <u64>hole - offset
        return 0

    def truncate(self, u64 size, str preallocation="off"):
        """`off` leaves a hole, `falloc` has the host reserve the space, `full` writes zeros."""
        if self.device:
            if size > self.size:
                raise OSError(EINVAL, "Cannot resize device files")
            return
        if self.asleep:
            raise OSError(EPERM, os.strerror(EPERM))
        before = self.size
        os.ftruncate(self.fd, size)
        self.size = size
        if size > before and preallocation == "falloc":
            os.posix_fallocate(self.fd, before, size - before)
        elif size > before and preallocation == "full":
            at = before
            zeros = bytes(1 << 20)
            while at < size:
                self.write(at, zeros[: min(1 << 20, size - at)])
                at += 1 << 20
            os.fsync(self.fd)
        elif size and not before:
            # what it is aligned to can be tried, as of a new file
            with contextlib.suppress(OSError):
                self.write(0, bytes(min(FIRST, size)))
