"""Short frames for a descriptor, written by one system call: what a tap's frame costs is mostly entering the kernel.

The kernel writes each at once and in order, as a tap's driver knows how not to wait; kernels whose ring is older than that
(before 6.0) are not asked, so that no frame overtakes another. A frame that the descriptor has no room for is lost.
"""

from libc.errno cimport EINTR, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from vmrun.backends.net.base cimport gather
from vmrun.backends.uring cimport io_uring_sqe

cdef extern from "<linux/io_uring.h>" nogil:
    int IORING_OP_WRITE

cdef extern from "<unistd.h>" nogil:
    ssize_t write(int, const void *, size_t)

cdef enum:
    SLOTS = 32
    LINKED_FILE = 1 << 12       # IORING_FEAT_LINKED_FILE, of 6.0


cdef class WriteBatch:
    """OSError: the kernel has no such ring, or must not be asked for one."""

    def __cinit__(self):
        self.ring = SharedRing(SLOTS)
        if not self.ring.features & LINKED_FILE:
            raise OSError("the kernel's ring may write out of order")
        self.slots = <u8 *>malloc(SLOTS * BATCH_SLOT)
        if self.slots == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.slots)

    cdef bint add(self, int fd, const void *head, u32 head_size, IoVec *pieces, u32 count) noexcept nogil:
        """One frame of no more than BATCH_SLOT bytes. True: it was the last that there is room for."""
        cdef u8 *at = self.slots + self.count * BATCH_SLOT
        cdef io_uring_sqe *entry = self.ring.entry(self.count)
        memcpy(at, head, head_size)
        entry.opcode, entry.fd = <unsigned char>IORING_OP_WRITE, fd
        entry.addr, entry.len = <size_t>at, head_size + <u32>gather(pieces, count, at + head_size, BATCH_SLOT - head_size)
        self.count += 1
        return self.count == SLOTS

    cdef u32 flush(self) noexcept nogil:
        """Write them. How many were lost."""
        cdef io_uring_sqe *first = &self.ring.entries[self.ring.tail[0] & self.ring.mask]
        cdef u64 which
        cdef int result
        cdef long taken
        cdef u32 left = self.count, lost = 0
        self.count = 0
        if left == 1:
            return write(first.fd, <void *>first.addr, first.len) < 0
        taken = self.ring.submit(left, left)
        if taken < 0:
            return left
        lost, left = left - <u32>taken, <u32>taken
        while left:
            if self.ring.result(&which, &result):
                lost += result < 0
                left -= 1
            elif not self.ring.wait() and errno != EINTR:
                return lost + left
        return lost
