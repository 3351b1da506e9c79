"""Copies and comparisons between nodes, without the GIL: what the image tool does for hours.

A Lane is what one thread of such a work has: memory for a window of the disk. Several lanes read at the same time; where
an Order is given they write in the order of their turns, so that an image whose clusters get their places as they are
written comes out the same every time.
"""

from libc.errno cimport ENOMEM, EOPNOTSUPP
from libc.stdlib cimport free
from libc.string cimport memcmp
from posix.stdlib cimport posix_memalign

import os

from accel.api cimport u8, u64
from accel.threads cimport (
    pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from vmrun.backends.block.node cimport NODE_UNMAP, Node, memory_zero
from vmrun.backends.block.qcow2 cimport Qcow2Node

cdef enum:
    ROOM = 1 << 20              # bytes of a lane's window: it stays in the processor's cache
    SEATS = 64                  # more than there are lanes

WINDOW = <int>ROOM              # what a turn covers at most


cdef class Order:
    """Turns 0, 1, 2, …: each is waited for and passed on exactly once. Turns that are waited for at the same time are fewer
    than SEATS apart, so that each has a seat of its own and nobody is woken for another's.
    """

    cdef pthread_mutex_t mutex
    cdef pthread_cond_t seats[SEATS]
    cdef u64 turn

    def __cinit__(self):
        cdef int n
        pthread_mutex_init(&self.mutex, NULL)
        for n in range(SEATS):
            pthread_cond_init(&self.seats[n], NULL)

    def __dealloc__(self):
        cdef int n
        for n in range(SEATS):
            pthread_cond_destroy(&self.seats[n])
        pthread_mutex_destroy(&self.mutex)

    cdef void wait(self, u64 turn) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        while self.turn != turn:
            pthread_cond_wait(&self.seats[turn % SEATS], &self.mutex)
        pthread_mutex_unlock(&self.mutex)

    cdef void pass_on(self) noexcept nogil:
        pthread_mutex_lock(&self.mutex)
        self.turn += 1
        pthread_cond_signal(&self.seats[self.turn % SEATS])
        pthread_mutex_unlock(&self.mutex)

    def skip(self, u64 turn):
        """Wait for a turn and pass it on."""
        with nogil:
            self.wait(turn)
            self.pass_on()


cdef class Lane:
    """Not for several threads at once. MemoryError."""

    cdef u8 *memory
    cdef u8 *other
    cdef readonly bint wrote    # the last failure of copy() was one of the target

    def __cinit__(self):
        cdef void *memory = NULL
        if posix_memalign(&memory, 4096, 2 * ROOM) != 0:
            raise MemoryError
        self.memory = <u8 *>memory
        self.other = self.memory + ROOM

    def __dealloc__(self):
        free(self.memory)

    cdef int put(self, Node target, u64 at, u64 count, u64 grain, bint blank) noexcept nogil:
        """The window's first bytes to `at`; runs of pieces that are all zeros are not written."""
        cdef u64 done = 0, run, piece
        cdef bint zero = False, same
        cdef int error = 0
        while done < count and error == 0:
            run = 0
            while done + run < count:
                piece = count - done - run
                if grain:
                    if piece > grain - ((at + done + run) & (grain - 1)):
                        piece = grain - ((at + done + run) & (grain - 1))
                    same = memory_zero(self.memory + done + run, piece)
                else:
                    same = False
                if run == 0:
                    zero = same
                elif same != zero:
                    break
                run += piece
            if not zero:
                error = target.pwrite(self.memory + done, run, at + done)
            elif not blank:
                error = target.zero(at + done, run, NODE_UNMAP)
            done += run
        return error

    cdef int move(self, Node source, Node target, u64 offset, u64 at, u64 count, u64 grain, bint blank) noexcept nogil:
        cdef u64 step
        cdef int error = 0
        while count and error == 0:
            step = ROOM - (at & (ROOM - 1))
            if step > count:
                step = count
            error = source.pread(self.memory, step, offset)
            if error == 0:
                error = self.put(target, at, step, grain, blank)
                self.wrote = error != 0
            offset += step
            at += step
            count -= step
        return error

    def copy(self, Node source, Node target, u64 offset, u64 at, u64 count, u64 grain=4096, bint blank=False,
             Order order or None=None, u64 turn=0):
        """`count` bytes of `source` from `offset` on to `at` in `target`. Pieces of `grain` bytes (a power of two, 0:
        none) that are all zero are not written when the target is `blank`, else made zeros. With an order at most
        WINDOW bytes, written when `turn` has come; it is passed on in any case. OSError.
        """
        cdef int error
        self.wrote = False
        with nogil:
            if order is None:
                error = self.move(source, target, offset, at, count, grain, blank)
            else:
                error = source.pread(self.memory, count, offset) if count <= ROOM else ENOMEM
                order.wait(turn)
                if error == 0:
                    error = self.put(target, at, count, grain, blank)
                    self.wrote = error != 0
                order.pass_on()
        if error:
            raise OSError(error, os.strerror(error))

    def pack(self, Node source, Qcow2Node target, u64 offset, u64 at, u64 count, bint sparse=True, bint blank=False):
        """`count` bytes of `source` from `offset` on to `at` in `target`, cluster by cluster, compressed where that makes them
        smaller. With `sparse` clusters that are all zeros are not written when the target is `blank`, else made zeros.
        OSError.
        """
        cdef u64 cluster = target.cluster_size, step
        cdef int error = 0
        if at % cluster or cluster > 2 * ROOM:
            raise ValueError("whole clusters of an image that can have them compressed")
        if target.external or target.readonly:
            raise OSError(EOPNOTSUPP, os.strerror(EOPNOTSUPP))
        with nogil:
            while count and error == 0:
                step = cluster if cluster < count else count
                error = source.pread(self.memory, step, offset)
                if error == 0 and not (sparse and memory_zero(self.memory, step)):
                    error = target.deflate_cluster(at, self.memory, step)
                    target.note(at, step)
                elif error == 0 and not blank:
                    error = target.zero(at, step, NODE_UNMAP)
                offset += step
                at += step
                count -= step
        if error:
            raise OSError(error, os.strerror(error))

    def fill(self, Node source, u64 offset, u64 count):
        """At most 2 * WINDOW bytes of `source`: the lane's memory, as a buffer that is good until its next work."""
        cdef int error
        if count == 0 or count > 2 * ROOM:
            raise ValueError("more than a lane holds")
        with nogil:
            error = source.pread(self.memory, count, offset)
        if error:
            raise OSError(error, os.strerror(error))
        return <u8[:count]>self.memory

    def empty(self, u64 count):
        """Whether the first bytes of what fill() has read are all zeros."""
        return memory_zero(self.memory, count)

    def difference(self, Node one, Node other, u64 offset, u64 count):
        """Where they differ first, None when they do not. OSError."""
        cdef u64 step, n, found = <u64>-1
        cdef int error = 0
        with nogil:
            while count and error == 0 and found == <u64>-1:
                step = ROOM if ROOM < count else count
                error = one.pread(self.memory, step, offset)
                if error == 0:
                    error = other.pread(self.other, step, offset)
                if error == 0 and memcmp(self.memory, self.other, step) != 0:
                    for n in range(step):
                        if self.memory[n] != self.other[n]:
                            found = offset + n
                            break
                offset += step
                count -= step
        if error:
            raise OSError(error, os.strerror(error))
        return None if found == <u64>-1 else found


    def keep(self, Node old, Node new, Node target, u64 offset, u64 count, u64 cluster):
        """Where `old` and `new` differ in what `target` is to have of them, it gets what `old` has: whole clusters of it, a
        power of two. OSError.
        """
        cdef u64 step, at, piece, run
        cdef int error = 0
        with nogil:
            while count and error == 0:
                step = ROOM - (offset & (ROOM - 1))
                if step > count:
                    step = count
                error = old.pread(self.memory, step, offset)
                if error == 0:
                    error = new.pread(self.other, step, offset)
                at = run = 0
                while at < step and error == 0:
                    piece = cluster - ((offset + at) & (cluster - 1))
                    if piece > step - at:
                        piece = step - at
                    if memcmp(self.memory + at, self.other + at, piece) != 0:
                        run += piece
                    elif run:
                        error = target.pwrite(self.memory + at - run, run, offset + at - run)
                        run = 0
                    at += piece
                if run and error == 0:
                    error = target.pwrite(self.memory + at - run, run, offset + at - run)
                offset += step
                count -= step
        if error:
            raise OSError(error, os.strerror(error))


def copy_range(Node source, Node target, u64 offset, u64 at, u64 count, u64 grain=4096, bint blank=False):
    """A copy by a lane of its own."""
    Lane().copy(source, target, offset, at, count, grain, blank)


def first_difference(Node one, Node other, u64 offset, u64 count):
    """A comparison by a lane of its own."""
    return Lane().difference(one, other, offset, count)
