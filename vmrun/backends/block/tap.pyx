"""What sits between a drive and its node while somebody watches: dirty bitmaps, and jobs that copy a disk in use.

Who changes the disk enters the range that he changes and leaves it afterwards. A job that copies within the disk enters
its range `alone`: it waits for those who are in it, and they for it. Bitmaps are marked when the data are there, so that
what a job reads after it has taken a mark is what was written, or is marked again.

A backup's copy goes first: before a part is overwritten that has not been copied yet, it is copied to the target.
"""

from libc.errno cimport EAGAIN, ENOMEM, EOPNOTSUPP
from libc.stdlib cimport free, malloc

import os

from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_wait, pthread_mutex_destroy,
    pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock,
)

from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_ZERO, NODE_NOWAIT, NODE_UNMAP, cursor_memory, memory_zero,
)
from vmrun.backends.block.engine cimport Transfer
from vmrun.backends.protocols cimport IoVec

cdef enum:
    WINDOW = 1 << 20


cdef void _mark(Bitmap bitmap, u64 offset, u64 bytes) noexcept nogil:
    if bitmap.enabled:
        bitmap.mark(offset, bytes)


ctypedef void (*mark_fn)(void *, u64, u64) noexcept nogil
cdef mark_fn call_mark = <mark_fn>_mark


cdef class TapNode(Filter):
    """Over `file`, which stays its owner's: closing a tap closes nothing."""

    def __cinit__(self, *args, **kwargs):
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.moved, NULL)
        self.bitmaps = []

    def __init__(self, Node file):
        Filter.__init__(self, file)
        self.driver = file.driver

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)
        pthread_cond_destroy(&self.moved)

    # --- who is where ----------------------------------------------------------------------------------------

    cdef void enter(self, Range *range, u64 offset, u64 bytes, bint alone) noexcept nogil:
        cdef Range *other
        range.offset, range.end, range.alone = offset, offset + bytes, alone
        pthread_mutex_lock(&self.mutex)
        while True:
            other = self.ranges
            while other != NULL:
                if (other.alone or alone) and other.offset < range.end and range.offset < other.end:
                    break
                other = other.next
            if other == NULL:
                break
            pthread_cond_wait(&self.moved, &self.mutex)
        range.next = self.ranges
        self.ranges = range
        pthread_mutex_unlock(&self.mutex)

    cdef void leave(self, Range *range) noexcept nogil:
        cdef Range **at = &self.ranges
        pthread_mutex_lock(&self.mutex)
        while at[0] != range:
            at = &at[0].next
        at[0] = range.next
        pthread_cond_broadcast(&self.moved)
        pthread_mutex_unlock(&self.mutex)

    cdef void note(self, u64 offset, u64 bytes) noexcept nogil:
        cdef u32 n
        pthread_mutex_lock(&self.mutex)
        for n in range(self.mark_count):
            call_mark(self.marks[n], offset, bytes)
        pthread_mutex_unlock(&self.mutex)

    # --- requests ------------------------------------------------------------------------------------------

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef Range range
        cdef Cursor again = source[0]
        cdef int error = self.save(offset, bytes)
        if error:
            return error
        self.enter(&range, offset, bytes, self.twin is not None)
        error = self.file.writev(offset, bytes, source, flags)
        if self.twin is not None and (error or self.twin.writev(offset, bytes, &again, flags)):
            self.twin_dirty.mark(offset, bytes)
        self.note(offset, bytes)
        if offset + bytes > self.file.limit:
            self.file.reach(offset + bytes)
        self.leave(&range)
        return error

    cdef int write_now(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        return EOPNOTSUPP

    cdef bint begin(self, Transfer *transfer) noexcept nogil:
        return False

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef Range range
        cdef int error = self.save(offset, bytes)
        if error:
            return error
        self.enter(&range, offset, bytes, self.twin is not None)
        error = self.file.zero(offset, bytes, flags)
        if self.twin is not None and (error or self.twin.zero(offset, bytes, flags)):
            self.twin_dirty.mark(offset, bytes)
        self.note(offset, bytes)
        if offset + bytes > self.file.limit:
            self.file.reach(offset + bytes)
        self.leave(&range)
        return error

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        cdef Range range
        cdef int error = self.save(offset, bytes)
        if error:
            return error
        self.enter(&range, offset, bytes, self.twin is not None)
        error = self.file.discard(offset, bytes)
        if self.twin is not None:
            self.twin_dirty.mark(offset, bytes)
        self.note(offset, bytes)
        self.leave(&range)
        return error

    # --- bitmaps -------------------------------------------------------------------------------------------

    def add_bitmap(self, Bitmap bitmap not None):
        """Note in it what is written from now on. With nothing under way."""
        pthread_mutex_lock(&self.mutex)
        room = self.mark_count < MOST_MARKS
        if room:
            self.marks[self.mark_count] = <void *>bitmap
            self.mark_count += 1
        pthread_mutex_unlock(&self.mutex)
        if not room:
            raise ValueError("too many bitmaps")
        self.bitmaps.append(bitmap)

    def drop_bitmap(self, Bitmap bitmap not None):
        cdef u32 n, at
        self.bitmaps.remove(bitmap)
        pthread_mutex_lock(&self.mutex)
        at = 0
        for n in range(self.mark_count):
            if self.marks[n] != <void *>bitmap:
                self.marks[at] = self.marks[n]
                at += 1
        self.mark_count = at
        pthread_mutex_unlock(&self.mutex)

    @property
    def idle(self):
        """Whether nobody needs it any more."""
        return not self.bitmaps and self.saved_to is None and self.twin is None and not self.file.watched

    # --- a backup's copies ---------------------------------------------------------------------------------------

    def begin_saving(self, Node target not None, Bitmap wanted not None, bint must=False, bint packed=False):
        """Copy what `wanted` marks to `target` before it is overwritten. With nothing under way."""
        self.saved_to, self.to_save, self.save_error, self.must_save = target, wanted, 0, must
        self.packed_to = target if packed else None

    def end_saving(self):
        """With nothing under way."""
        self.saved_to = self.packed_to = self.to_save = None

    def forgive(self):
        """The job goes on after an error."""
        self.save_error = 0

    def save_next(self, u64 offset, u64 most=WINDOW):
        """Copy the next part that was not: its end, None when all is done. OSError."""
        cdef u64 at = offset, bytes = 0
        cdef int error = 0
        cdef bint some
        found = self.peek(offset, most)
        if found is None:
            return None
        at, bytes = found
        with nogil:
            error = self.save(at, bytes)
        if error == 0:
            error = self.save_error
        if error:
            raise OSError(error, os.strerror(error))
        return at + bytes

    def peek(self, u64 offset, u64 most):
        """(offset, bytes) of the next run that is to be saved."""
        cdef Bitmap wanted = self.to_save
        cdef u64 bit = offset >> wanted.shift, end
        while bit < wanted.bits and not wanted.has(bit):
            bit += 1
        if bit >= wanted.bits:
            return None
        end = bit
        while end < wanted.bits and (end - bit) << wanted.shift < most and wanted.has(end):
            end += 1
        return bit << wanted.shift, min((end - bit) << wanted.shift, self.file.size - (bit << wanted.shift))

    cdef int save(self, u64 offset, u64 bytes) noexcept nogil:
        """Copy what of it has not been copied."""
        cdef Range range
        cdef u64 at, end, mask, run
        cdef u8 *memory = NULL
        cdef int error = 0
        if self.saved_to is None or bytes == 0 or self.save_error:
            return 0
        mask = (<u64>1 << self.to_save.shift) - 1
        at, end = offset & ~mask, (offset + bytes + mask) & ~mask
        if end > self.to_save.size:
            end = self.to_save.size
        while at < end and error == 0:
            if not self.to_save.has(at >> self.to_save.shift):
                at = (at & ~mask) + mask + 1
                continue
            run = mask + 1
            while at + run < end and run < WINDOW and self.to_save.has((at + run) >> self.to_save.shift):
                run += mask + 1
            if run > end - at:
                run = end - at
            if memory == NULL:
                memory = <u8 *>malloc(WINDOW if mask + 1 < WINDOW else mask + 1)
                if memory == NULL:
                    error = ENOMEM
                    break
            self.enter(&range, at, run, True)
            error = self.save_run(at, run, mask + 1, memory)
            self.leave(&range)
            at += run
        free(memory)
        if error and not self.must_save:
            self.save_error = error
        return error if self.must_save else 0

    cdef int save_run(self, u64 at, u64 bytes, u64 grain, u8 *memory) noexcept nogil:
        """With its range alone: what another has copied meanwhile is left out."""
        cdef u64 end = at + bytes, run
        cdef int error = 0
        while at < end and error == 0:
            if not self.to_save.has(at >> self.to_save.shift):
                at += grain
                continue
            run = grain
            while at + run < end and self.to_save.has((at + run) >> self.to_save.shift):
                run += grain
            if run > end - at:
                run = end - at
            if self.packed_to is None:
                error = self.copy_to(self.saved_to, at, run, memory)
            else:
                error = self.pack(at, run, memory)
            if error == 0:
                pthread_mutex_lock(&self.to_save.mutex)
                self.to_save.change(at >> self.to_save.shift, (at + run + grain - 1) >> self.to_save.shift, False)
                pthread_mutex_unlock(&self.to_save.mutex)
            at += run
        return error

    cdef int pack(self, u64 offset, u64 bytes, u8 *memory) noexcept nogil:
        """Whole clusters of the target, compressed."""
        cdef Extent extent
        cdef u64 run, cluster = self.packed_to.cluster_size
        cdef int error = 0
        while bytes and error == 0:
            run = cluster if cluster < bytes else bytes
            extent.flags = 0
            if self.file.status(offset, bytes, &extent) == 0 and extent.flags & EXTENT_ZERO and extent.length >= run:
                run = bytes if extent.length >= bytes else extent.length & ~(cluster - 1)
                error = self.packed_to.zero(offset, run, NODE_UNMAP)
            else:
                error = self.file.pread(memory, run, offset)
                if error:
                    self.target_failed = False
                    return error
                if memory_zero(memory, run):
                    error = self.packed_to.zero(offset, run, NODE_UNMAP)
                else:
                    error = self.packed_to.deflate_cluster(offset, memory, run)
            if error:
                self.target_failed = True
            offset += run
            bytes -= run
        return error

    cdef int copy_to(self, Node target, u64 offset, u64 bytes, u8 *memory) noexcept nogil:
        """What the disk has there; zeros without writing them where that can be told."""
        cdef Extent extent
        cdef u64 run
        cdef int error = 0
        while bytes and error == 0:
            run = bytes
            extent.flags = 0
            if self.file.status(offset, bytes, &extent) == 0:
                run = extent.length if extent.length < bytes else bytes
            if extent.flags & EXTENT_ZERO and not extent.flags & EXTENT_DATA:
                error = target.zero(offset, run, NODE_UNMAP)
            else:
                error = self.file.pread(memory, run, offset)
                if error:
                    self.target_failed = False
                    return error
                if memory_zero(memory, run):
                    error = target.zero(offset, run, NODE_UNMAP)
                else:
                    error = target.pwrite(memory, run, offset)
            if error:
                self.target_failed = True
            offset += run
            bytes -= run
        return error

    # --- a mirror's copies ---------------------------------------------------------------------------------------

    def begin_twin(self, Node target not None, Bitmap dirty not None):
        """Each write goes to `target` as well, at once. With nothing under way."""
        self.twin, self.twin_dirty = target, dirty

    def end_twin(self):
        self.twin = self.twin_dirty = None

    def copy_marked(self, Node target not None, Bitmap dirty not None, u64 offset, u64 most=WINDOW):
        """Copy the next run that `dirty` marks, which is clear then: (its end, bytes); None when there is none from
        `offset` on. OSError: it is marked again.
        """
        cdef u64 at = offset, bytes = 0
        cdef int error
        cdef Range range
        cdef u8 *memory
        cdef bint locked = self.twin is not None
        with nogil:
            if not dirty.take(&at, &bytes, most):
                bytes = 0
        if bytes == 0:
            return None
        memory = <u8 *>malloc(bytes)
        if memory == NULL:
            raise MemoryError
        with nogil:
            if locked:
                self.enter(&range, at, bytes, True)
            error = self.copy_to(target, at, bytes, memory)
            if locked:
                self.leave(&range)
            if error:
                dirty.mark(at, bytes)
        free(memory)
        if error:
            raise OSError(error, os.strerror(error))
        return at + bytes, bytes

    # --- a stream's copies ---------------------------------------------------------------------------------------

    def pull_up(self, u64 offset, u64 bytes):
        """Give the node what only its backing image has. OSError."""
        cdef int error
        with nogil:
            error = self.pull(offset, bytes)
        if error:
            raise OSError(error, os.strerror(error))

    cdef int pull(self, u64 offset, u64 bytes) noexcept nogil:
        cdef Range range
        cdef Extent extent
        cdef u64 run
        cdef u8 *memory = NULL
        cdef int error = 0
        self.enter(&range, offset, bytes, True)
        while bytes and error == 0:
            error = self.file.status(offset, bytes, &extent)
            if error:
                break
            run = extent.length if extent.length < bytes else bytes
            if not extent.flags & (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED):
                if run > WINDOW:
                    run = WINDOW
                if memory == NULL:
                    memory = <u8 *>malloc(WINDOW)
                    if memory == NULL:
                        error = ENOMEM
                        break
                error = self.file.pread(memory, run, offset)
                if error == 0 and memory_zero(memory, run):
                    error = self.file.zero(offset, run, 0)
                elif error == 0:
                    error = self.file.pwrite(memory, run, offset)
            offset += run
            bytes -= run
        self.leave(&range)
        free(memory)
        return error

    def close(self):
        pass


cdef class CopyOnReadNode(TapNode):
    """The driver copy-on-read: what is read comes to lie in the node itself. It owns `file`."""

    def __init__(self, Node file):
        TapNode.__init__(self, file)
        self.driver = "copy-on-read"
        self.grain = getattr(file, "cluster_size", 65536)

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u64 first = offset & ~(self.grain - 1), end = (offset + bytes + self.grain - 1) & ~(self.grain - 1), at
        cdef Extent extent
        cdef int error
        if end > self.file.size:
            end = self.file.size
        at = first
        while at < end:
            error = self.file.status(at, end - at, &extent)
            if error:
                return error
            if not extent.flags & (EXTENT_DATA | EXTENT_ZERO | EXTENT_ALLOCATED):
                if flags & NODE_NOWAIT:
                    return EAGAIN
                error = self.pull(at, extent.length if extent.length < end - at else end - at)
                if error:
                    break                                   # what cannot be kept can still be read
            at += extent.length
        return self.file.readv(offset, bytes, to, flags)

    def close(self):
        Filter.close(self)
