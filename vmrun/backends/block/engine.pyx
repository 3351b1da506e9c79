"""Transfers that the kernel carries out by itself: `aio=native` (Linux's own, io_submit) and `aio=io_uring`.

An engine is one for the process, made when a drive first asks for it; its thread waits for what is over. The kernel is asked
by system calls alone, no library is needed. A transfer that the kernel does not take, does in part or fails is its
owner's to do anew, in the ordinary way, which knows about ends of files, alignment and errors.

Ref: io_submit(2), io_getevents(2); linux/aio_abi.h.
"""

from cpython.ref cimport Py_INCREF
from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.string cimport memset

import os

from vmrun.backends.uring cimport SharedRing, io_uring_sqe

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)
    int usleep(unsigned int)

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_io_setup, SYS_io_submit, SYS_io_getevents

cdef extern from "<linux/aio_abi.h>" nogil:
    struct iocb:
        u64 aio_data
        unsigned short aio_lio_opcode
        u32 aio_fildes
        u64 aio_buf
        u64 aio_nbytes
        i64 aio_offset
    struct io_event:
        u64 data
        i64 res
    int IOCB_CMD_PREADV, IOCB_CMD_PWRITEV

cdef extern from "<linux/io_uring.h>" nogil:
    int IORING_OP_READV, IORING_OP_WRITEV

from accel.threads cimport (
    PTHREAD_CREATE_DETACHED, pthread_attr_destroy, pthread_attr_init, pthread_attr_setdetachstate,
    pthread_attr_setstacksize, pthread_attr_t, pthread_create, pthread_mutex_init, pthread_mutex_lock,
    pthread_mutex_t, pthread_mutex_unlock, pthread_t,
)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    int sigfillset(sigset_t *)
    int pthread_sigmask(int, sigset_t *, sigset_t *)
    int SIG_SETMASK

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, const char *, int, int, int)
    int PR_SET_NAME

cdef extern from *:
    """
    #define vr_more(p) __atomic_add_fetch((p), 1, __ATOMIC_SEQ_CST)
    #define vr_less(p) __atomic_sub_fetch((p), 1, __ATOMIC_SEQ_CST)
    """
    u32 vr_more(u32 *) nogil
    u32 vr_less(u32 *) nogil

cdef enum:
    DEPTH = 256                 # transfers under way; more go to the workers
    AT_ONCE = 64                # results fetched by one call
    VECTORS = 1024              # the kernel's own limit
    STACK = 1 << 20


cdef class Engine:
    """`submit` has the kernel begin; False: it was not taken. `transfer.landed` is called when it is over."""

    cdef bint submit(self, Transfer *transfer) noexcept nogil:
        return False

    cdef void reap(self) noexcept nogil:
        """Wait for results and pass them on."""

    cdef void over(self, u64 transfer, i64 result) noexcept nogil:
        cdef Transfer *mine = <Transfer *><size_t>transfer
        cdef bint whole = result >= 0 and <u64>result == mine.bytes
        vr_less(&self.flying)
        self.transfers += whole
        mine.landed(mine, 0 if whole else EAGAIN)

    def start(self):
        """Its thread. OSError."""
        cdef pthread_attr_t attr
        cdef pthread_t thread
        cdef sigset_t every, before
        cdef int error
        pthread_attr_init(&attr)
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED)
        pthread_attr_setstacksize(&attr, STACK)
        sigfillset(&every)
        pthread_sigmask(SIG_SETMASK, &every, &before)
        error = pthread_create(&thread, &attr, loop, <void *>self)
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        pthread_attr_destroy(&attr)
        if error:
            raise OSError(error, os.strerror(error))
        Py_INCREF(self)                                 # the thread never ends: at the interpreter's end it is still there


cdef void *loop(void *engine) noexcept nogil:
    prctl(PR_SET_NAME, "block-aio", 0, 0, 0)
    while True:
        (<Engine>engine).reap()
    return NULL


cdef class Native(Engine):
    """Linux's own asynchronous transfers: asynchronous only past the page cache."""

    cdef unsigned long context

    def __init__(self):
        self.name = "native"
        if syscall(SYS_io_setup, <unsigned int>DEPTH, &self.context) != 0:
            raise OSError(errno, os.strerror(errno))
        self.start()

    cdef bint submit(self, Transfer *transfer) noexcept nogil:
        cdef iocb *control = <iocb *>transfer.control
        if transfer.count > VECTORS:
            return False
        memset(control, 0, sizeof(iocb))
        control.aio_data = <size_t>transfer
        control.aio_lio_opcode = <unsigned short>(IOCB_CMD_PWRITEV if transfer.kind == TRANSFER_WRITE else IOCB_CMD_PREADV)
        control.aio_fildes = <u32>transfer.fd
        control.aio_buf, control.aio_nbytes = <size_t>transfer.vectors, transfer.count
        control.aio_offset = <i64>transfer.offset
        vr_more(&self.flying)
        if syscall(SYS_io_submit, self.context, <long>1, &control) == 1:
            return True
        vr_less(&self.flying)
        return False

    cdef void reap(self) noexcept nogil:
        cdef io_event events[AT_ONCE]
        cdef long n, found = syscall(SYS_io_getevents, self.context, <long>1, <long>AT_ONCE, events, NULL)
        if found < 0 and errno != EINTR:
            usleep(1000)
        for n in range(found):
            self.over(events[n].data, events[n].res)


cdef class Uring(Engine):
    """A ring that is shared with the kernel."""

    cdef SharedRing ring
    cdef pthread_mutex_t mutex      # of those who submit

    def __init__(self):
        self.name = "io_uring"
        pthread_mutex_init(&self.mutex, NULL)
        self.ring = SharedRing(DEPTH)
        self.start()

    cdef bint submit(self, Transfer *transfer) noexcept nogil:
        cdef io_uring_sqe *entry
        cdef long taken
        if transfer.count > VECTORS or vr_more(&self.flying) > DEPTH:
            if transfer.count <= VECTORS:
                vr_less(&self.flying)
            return False
        pthread_mutex_lock(&self.mutex)
        entry = self.ring.entry(0)
        entry.opcode = <unsigned char>(IORING_OP_WRITEV if transfer.kind == TRANSFER_WRITE else IORING_OP_READV)
        entry.fd, entry.off = transfer.fd, transfer.offset
        entry.addr, entry.len, entry.user_data = <size_t>transfer.vectors, transfer.count, <size_t>transfer
        taken = self.ring.submit(1, 0)
        pthread_mutex_unlock(&self.mutex)
        if taken != 1:
            vr_less(&self.flying)
        return taken == 1

    cdef void reap(self) noexcept nogil:
        cdef u64 transfer
        cdef int result
        if self.ring.result(&transfer, &result):
            self.over(transfer, result)
        elif not self.ring.wait() and errno != EINTR:
            usleep(1000)


KINDS = {"native": Native, "io_uring": Uring}
made = {}


def engine(str name):
    """The process's engine of that kind, of KINDS. OSError: the kernel does not offer it."""
    found = made.get(name)
    if found is None:
        found = made[name] = KINDS[name]()
    return found


os.register_at_fork(after_in_child=made.clear)     # a child has no thread that waits
