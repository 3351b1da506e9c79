"""Raw disk images: a file or block device, byte for byte.

Reads that the page cache can answer are done on the caller's own thread (preadv2 with RWF_NOWAIT); everything else
goes to worker threads, which never hold the GIL. A flush waits for the writes before it.

With an overlay (`divert`) the image stays as it is: whole sectors go to a second, sparse file, and are read from there.

Locks, in this order: device lock, then the queue's mutex. A worker holds neither while it does I/O.
"""

from libc.errno cimport EAGAIN, EINTR, EIO, EOPNOTSUPP, errno
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree
from libc.string cimport memset
from posix.types cimport off_t

import _thread
import os

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_cond_init(pthread_cond_t *, void *)
    int pthread_cond_wait(pthread_cond_t *, pthread_mutex_t *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv2(int, const iovec *, int, off_t, int)
    ssize_t pwritev2(int, const iovec *, int, off_t, int)
    int RWF_NOWAIT

cdef extern from "<unistd.h>" nogil:
    int fdatasync(int)

cdef extern from *:
    """
    #define vr_set_bits(p, bits) __atomic_fetch_or((p), (bits), __ATOMIC_RELEASE)
    #define vr_get_bits(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    """
    void vr_set_bits(u8 *, u8) nogil
    u8 vr_get_bits(u8 *) nogil

cdef enum:
    SECTOR = 512
    LONGEST = 4096              # sectors that are looked at for one transfer

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, const char *, int, int, int)

from vmrun.backends.protocols cimport BLOCK_DISCARD, BLOCK_FLUSH, BLOCK_READ, BLOCK_WRITE, IoVec



cdef int _transfer(RawImage image, BlockRequest request, int flags) noexcept nogil:
    return image.transfer(request, flags)


cdef void _done(BlockRequest request) noexcept nogil:
    request.done()


cdef u32 _generation(BlockRequest request) noexcept nogil:
    return request.generation


cdef int _op(BlockRequest request) noexcept nogil:
    return request.op


cdef void _finish(BlockRequest request, int error) noexcept nogil:
    request.error = error
    request.in_flight = False


# The queue holds borrowed `void *`: a call through these pointers takes no reference and no GIL.
ctypedef int (*transfer_fn)(void *, void *, int) noexcept nogil
ctypedef void (*done_fn)(void *) noexcept nogil
ctypedef u32 (*generation_fn)(void *) noexcept nogil
ctypedef int (*op_fn)(void *) noexcept nogil
ctypedef void (*finish_fn)(void *, int) noexcept nogil
cdef transfer_fn call_transfer = <transfer_fn>_transfer
cdef done_fn call_done = <done_fn>_done
cdef generation_fn get_generation = <generation_fn>_generation
cdef op_fn get_op = <op_fn>_op
cdef finish_fn call_finish = <finish_fn>_finish


cdef u32 shorten(iovec *part, u32 count, u64 room) noexcept nogil:
    """Cut to `room` bytes; how many parts are left."""
    cdef u32 n
    for n in range(count):
        if part[n].iov_len >= room:
            part[n].iov_len = room
            return n + 1
        room -= part[n].iov_len
    return count


cdef class RawImage(BlockBackend):
    """An open image. `open_drive` (vmrun.backends.block) makes and checks it."""

    def __init__(self, str name, str path, int fd, u64 size, bint readonly, DeviceLock lock,
                 bint ignore_flush=False, u32 workers=2):
        self.name, self.path, self.fd, self.size, self.readonly = name, path, fd, size, readonly
        self.lock = lock
        self.ignore_flush = ignore_flush
        self.nowait = True
        self.overlay = -1
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.work, NULL)
        pthread_cond_init(&self.settled, NULL)
        self.workers = min(max(workers, 1), 8)
        self.alive = self.workers
        for slot in range(self.workers):
            _thread.start_new_thread(self._thread, (slot,))

    def _thread(self, u32 slot):
        cdef bytes title = f"aio-{slot}".encode()
        cdef const char *text = title
        with nogil:
            prctl(15, text, 0, 0, 0)
            self.worker(slot)

    def __cinit__(self):
        self.written = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.written)

    def divert(self, int fd):
        """Writes go to this file from now on, which is the image's own to close. Before the first request."""
        self.written = <u8 *>PyMem_RawCalloc(self.size // SECTOR // 8 + 1, 1)
        if self.written == NULL:
            raise MemoryError
        os.ftruncate(fd, self.size)
        self.overlay = fd
        self.ignore_flush = True

    # --- the caller's side --------------------------------------------------------------------------------

    cdef int submit(self, BlockRequest request) noexcept nogil:
        cdef int result
        request.error = 0
        if request.op == BLOCK_WRITE and self.readonly:
            request.error = EIO
            return 1
        if request.op == BLOCK_FLUSH and self.ignore_flush:
            return 1
        if request.op == BLOCK_READ and self.nowait:
            result = self.transfer(request, RWF_NOWAIT)
            if result == 0:
                return 1
            if result == EOPNOTSUPP:
                self.nowait = False
        pthread_mutex_lock(&self.mutex)
        if self.tail - self.head >= QUEUE or self.closing:
            pthread_mutex_unlock(&self.mutex)
            request.error = EIO
            return 1
        request.in_flight = True
        self.queue[self.tail % QUEUE].request = <void *>request
        self.queue[self.tail % QUEUE].generation = request.generation
        self.tail += 1
        pthread_cond_signal(&self.work)
        pthread_mutex_unlock(&self.mutex)
        return 0

    cdef void cancel(self, BlockRequest request) noexcept nogil:
        """The request is the caller's again, its memory no longer used; done() will not come."""
        cdef u32 i
        cdef bint busy
        if not request.in_flight:
            return
        pthread_mutex_lock(&self.mutex)
        for i in range(self.head, self.tail):
            if self.queue[i % QUEUE].request == <void *>request:
                self.queue[i % QUEUE].request = NULL
        while True:
            busy = False
            for i in range(self.workers):
                if self.running[i] == <void *>request:
                    busy = True
            if not busy:
                break
            pthread_cond_wait(&self.settled, &self.mutex)
        request.generation += 1
        request.in_flight = False
        pthread_mutex_unlock(&self.mutex)

    # --- the workers' side --------------------------------------------------------------------------------

    cdef int transfer(self, BlockRequest request, int flags) noexcept nogil:
        """All of the request's bytes; 0 or an errno. What lies past the end of the image reads as zeros."""
        cdef iovec part[64]
        cdef u32 at = 0, count
        cdef u64 skip = 0, offset = request.offset, room = ~<u64>0
        cdef ssize_t moved
        cdef bint there = False
        cdef int fd = self.fd
        if self.overlay >= 0 and request.op != BLOCK_READ:
            fd = self.overlay
        while at < request.vector_count:
            if self.overlay >= 0 and request.op == BLOCK_READ:
                room = self.run_length(offset, &there)
                fd = self.overlay if there else self.fd
            count = 0
            while count < 64 and at + count < request.vector_count:
                part[count].iov_base = request.vectors[at + count].base
                part[count].iov_len = request.vectors[at + count].length
                count += 1
            part[0].iov_base = <u8 *>part[0].iov_base + skip
            part[0].iov_len -= skip
            if room != ~<u64>0:
                count = shorten(part, count, room)
            if request.op == BLOCK_READ:
                moved = preadv2(fd, part, count, <off_t>offset, flags)
            else:
                moved = pwritev2(fd, part, count, <off_t>offset, 0)
            if moved < 0:
                if errno == EINTR:
                    continue
                return errno
            if moved == 0:
                if request.op != BLOCK_READ:
                    return EIO
                memset(part[0].iov_base, 0, part[0].iov_len)
                moved = <ssize_t>part[0].iov_len
            if self.overlay >= 0 and request.op != BLOCK_READ:
                self.note_written(offset, <u64>moved)
            offset += <u64>moved
            while moved > 0 and at < request.vector_count:
                if <u64>moved >= request.vectors[at].length - skip:
                    moved -= <ssize_t>(request.vectors[at].length - skip)
                    at += 1
                    skip = 0
                else:
                    skip += <u64>moved
                    moved = 0
        return 0

    cdef bint is_written(self, u64 sector) noexcept nogil:
        return vr_get_bits(&self.written[sector >> 3]) >> (sector & 7) & 1

    cdef u64 run_length(self, u64 offset, bint *there) noexcept nogil:
        """Bytes from offset on that are all in the overlay, or all in the image."""
        cdef u64 sector = offset // SECTOR, first = sector, end = self.size // SECTOR
        there[0] = False
        if sector < end:
            there[0] = self.is_written(sector)
        if end > first + LONGEST:
            end = first + LONGEST
        while sector < end and self.is_written(sector) == there[0]:
            sector += 1
        return (sector if sector > first else first + 1) * SECTOR - offset

    cdef void note_written(self, u64 offset, u64 count) noexcept nogil:
        cdef u64 sector = offset // SECTOR, end = (offset + count) // SECTOR
        while sector < end:
            vr_set_bits(&self.written[sector >> 3], <u8>(1 << (sector & 7)))
            sector += 1

    cdef void worker(self, u32 slot) noexcept nogil:
        cdef void *request
        cdef u32 generation
        cdef int error, op
        pthread_mutex_lock(&self.mutex)
        while True:
            while self.head == self.tail and not self.closing:
                pthread_cond_wait(&self.work, &self.mutex)
            if self.head == self.tail:
                break
            request = self.queue[self.head % QUEUE].request
            generation = self.queue[self.head % QUEUE].generation
            self.head += 1
            if request == NULL:
                pthread_cond_broadcast(&self.settled)
                continue
            self.running[slot] = request
            op = get_op(request)
            if op == BLOCK_WRITE:
                self.writing += 1
            elif op == BLOCK_FLUSH:
                while self.writing:
                    pthread_cond_wait(&self.settled, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
            error = 0
            if op == BLOCK_FLUSH:
                if fdatasync(self.fd) != 0:
                    error = errno
            elif op == BLOCK_READ or op == BLOCK_WRITE:
                error = call_transfer(<void *>self, request, 0)
            pthread_mutex_lock(&self.mutex)
            if op == BLOCK_WRITE:
                self.writing -= 1
            self.running[slot] = NULL
            self.completing += 1
            pthread_cond_broadcast(&self.settled)
            pthread_mutex_unlock(&self.mutex)
            self.lock.acquire()
            # Between the transfer and this lock the device may have cancelled and reused its request.
            if get_generation(request) == generation:
                call_finish(request, error)
                call_done(request)
            self.lock.release()
            pthread_mutex_lock(&self.mutex)
            self.completing -= 1
            pthread_cond_broadcast(&self.settled)
        self.alive -= 1
        pthread_cond_broadcast(&self.settled)
        pthread_mutex_unlock(&self.mutex)

    def drain(self):
        """Wait until nothing is queued or running and every done() has returned. Without the device lock."""
        cdef u32 i
        cdef bint busy = True
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while busy:
                busy = self.head != self.tail or self.completing != 0
                for i in range(self.workers):
                    if self.running[i] != NULL:
                        busy = True
                if busy:
                    pthread_cond_wait(&self.settled, &self.mutex)
            pthread_mutex_unlock(&self.mutex)

    def close(self):
        """Finish what is queued, end the workers, flush, release the image. Safe to call twice."""
        if self.fd < 0:
            return
        with nogil:
            pthread_mutex_lock(&self.mutex)
            self.closing = True
            pthread_cond_broadcast(&self.work)
            while self.alive:
                pthread_cond_wait(&self.settled, &self.mutex)
            pthread_mutex_unlock(&self.mutex)
        fd, self.fd = self.fd, -1
        overlay, self.overlay = self.overlay, -1
        try:
            if not self.readonly and overlay < 0:
                os.fdatasync(fd)
        finally:
            os.close(fd)
            if overlay >= 0:
                os.close(overlay)

    def read_bytes(self, u64 offset, u64 count):
        """Read now, for geometry and views; short at the end of the image."""
        cdef bint there = False
        cdef u64 room
        if self.overlay < 0:
            return os.pread(self.fd, count, offset)
        found = b""
        while count:
            room = min(self.run_length(offset, &there), count)
            piece = os.pread(self.overlay if there else self.fd, room, offset)
            found += piece
            if len(piece) < room:
                break
            offset += room
            count -= room
        return found
