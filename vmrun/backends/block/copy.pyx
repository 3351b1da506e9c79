"""Copies and comparisons between nodes, without the GIL: what the image tool does for hours."""

from libc.errno cimport ENOMEM
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp

import os

from accel.api cimport u8, u64
from vmrun.backends.block.node cimport NODE_UNMAP, Node, memory_zero

cdef enum:
    WINDOW = 2 << 20


cdef int copy(Node source, Node target, u64 offset, u64 at, u64 count, u64 grain, bint blank) noexcept nogil:
    cdef u8 *memory = <u8 *>malloc(WINDOW)
    cdef u64 step, done, run, piece
    cdef int error = 0
    cdef bint zero, same
    if memory == NULL:
        return ENOMEM
    while count and error == 0:
        step = WINDOW - (at & (WINDOW - 1))
        if step > count:
            step = count
        error = source.pread(memory, step, offset)
        done = 0
        while done < step and error == 0:
            if grain == 0:
                run, zero = step, False
            else:
                # a run of pieces that are all zero, or none of them
                run = 0
                zero = False
                while done + run < step:
                    piece = grain - ((at + done + run) & (grain - 1))
                    if piece > step - done - run:
                        piece = step - done - run
                    same = memory_zero(memory + done + run, piece)
                    if run == 0:
                        zero = same
                    elif same != zero:
                        break
                    run += piece
            if not zero:
                error = target.pwrite(memory + done, run, at + done)
            elif not blank:
                error = target.zero(at + done, run, NODE_UNMAP)
            done += run
        offset += step
        at += step
        count -= step
    free(memory)
    return error


def copy_range(Node source, Node target, u64 offset, u64 at, u64 count, u64 grain=4096, bint blank=False):
    """`count` bytes of `source` from `offset` on to `at` in `target`. Pieces of `grain` bytes (a power of two, 0: none)
    that are all zero are not written when the target is `blank`, else made zeros. OSError.
    """
    cdef int error
    with nogil:
        error = copy(source, target, offset, at, count, grain, blank)
    if error:
        raise OSError(error, os.strerror(error))


cdef u64 compare(Node one, Node other, u64 offset, u64 count, int *error) noexcept nogil:
    cdef u8 *memory = <u8 *>malloc(WINDOW * 2)
    cdef u64 step, n, found = <u64>-1
    if memory == NULL:
        error[0] = ENOMEM
        return found
    error[0] = 0
    while count and error[0] == 0 and found == <u64>-1:
        step = WINDOW if WINDOW < count else count
        error[0] = one.pread(memory, step, offset)
        if error[0] == 0:
            error[0] = other.pread(memory + WINDOW, step, offset)
        if error[0] == 0 and memcmp(memory, memory + WINDOW, step) != 0:
            for n in range(step):
                if memory[n] != memory[WINDOW + n]:
                    found = offset + n
                    break
        offset += step
        count -= step
    free(memory)
    return found


def first_difference(Node one, Node other, u64 offset, u64 count):
    """Where they differ, None when they do not."""
    cdef int error = 0
    cdef u64 found
    with nogil:
        found = compare(one, other, offset, count, &error)
    if error:
        raise OSError(error, os.strerror(error))
    return None if found == <u64>-1 else found
