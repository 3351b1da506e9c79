"""A ring of requests that is shared with the kernel (io_uring), by system calls alone: no library is needed.

Ref: io_uring_setup(2), io_uring_enter(2); linux/io_uring.h.
"""

from libc.errno cimport errno
from libc.string cimport memset
from posix.unistd cimport close

import os

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_POPULATE
    void *MAP_FAILED

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_io_uring_setup, SYS_io_uring_enter

cdef extern from "<linux/io_uring.h>" nogil:
    struct io_sqring_offsets:
        u32 head, tail, ring_mask, array
    struct io_cqring_offsets:
        u32 head, tail, ring_mask, cqes
    struct io_uring_params:
        u32 sq_entries, cq_entries, features
        io_sqring_offsets sq_off
        io_cqring_offsets cq_off
    u64 IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES
    u32 IORING_ENTER_GETEVENTS

cdef extern from *:
    """
    #define vr_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define vr_publish(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    u32 vr_acquire(u32 *) nogil
    void vr_publish(u32 *, u32) nogil


cdef class SharedRing:
    """Room for `depth` requests. One thread at a time submits, and one fetches results. OSError: the kernel has none."""

    def __cinit__(self, u32 depth):
        cdef io_uring_params given
        cdef unsigned char *ring
        cdef unsigned char *done
        memset(&given, 0, sizeof(given))
        self.fd = <int>syscall(SYS_io_uring_setup, depth, &given)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        os.set_inheritable(self.fd, False)
        self.features = given.features
        ring = <unsigned char *>self.map(0, given.sq_off.array + given.sq_entries * sizeof(u32), IORING_OFF_SQ_RING)
        done = <unsigned char *>self.map(1, given.cq_off.cqes + given.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING)
        self.entries = <io_uring_sqe *>self.map(2, given.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES)
        self.tail, self.array = <u32 *>(ring + given.sq_off.tail), <u32 *>(ring + given.sq_off.array)
        self.mask = (<u32 *>(ring + given.sq_off.ring_mask))[0]
        self.done_head, self.done_tail = <u32 *>(done + given.cq_off.head), <u32 *>(done + given.cq_off.tail)
        self.done_mask = (<u32 *>(done + given.cq_off.ring_mask))[0]
        self.results = <io_uring_cqe *>(done + given.cq_off.cqes)

    def __dealloc__(self):
        for n in range(3):
            if self.maps[n] != NULL:
                munmap(self.maps[n], self.sizes[n])
        if self.fd >= 0:
            close(self.fd)                          # without the interpreter, which may be at its end

    cdef void *map(self, u32 n, u64 bytes, u64 what) except NULL:
        cdef void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, self.fd, <long>what)
        if found == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.maps[n], self.sizes[n] = found, bytes
        return found

    cdef io_uring_sqe *entry(self, u32 n) noexcept nogil:
        """The n-th of those to be submitted next, empty."""
        cdef u32 at = (self.tail[0] + n) & self.mask
        self.array[at] = at
        memset(&self.entries[at], 0, sizeof(io_uring_sqe))
        return &self.entries[at]

    cdef long submit(self, u32 count, u32 wait) noexcept nogil:
        """The first `count` entries; returns when `wait` results are there, or a signal came. How many were taken, -1: see
        errno. The rest is as if it had never been there.
        """
        cdef u32 tail = self.tail[0]
        cdef long taken
        vr_publish(self.tail, tail + count)
        taken = syscall(
            SYS_io_uring_enter, self.fd, count, wait, IORING_ENTER_GETEVENTS if wait else <u32>0, NULL, <long>0
        )
        if taken < <long>count:
            vr_publish(self.tail, tail + <u32>max(taken, 0))    # nobody has looked at it
        return taken

    cdef bint wait(self) noexcept nogil:
        """Until there is a result. False: see errno."""
        return syscall(SYS_io_uring_enter, self.fd, <u32>0, <u32>1, IORING_ENTER_GETEVENTS, NULL, <long>0) >= 0

    cdef bint result(self, u64 *user_data, int *res) noexcept nogil:
        """The next result; False: there is none yet."""
        cdef u32 head = self.done_head[0]
        if head == vr_acquire(self.done_tail):
            return False
        user_data[0], res[0] = self.results[head & self.done_mask].user_data, self.results[head & self.done_mask].res
        vr_publish(self.done_head, head + 1)
        return True
