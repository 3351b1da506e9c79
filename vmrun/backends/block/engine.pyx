"""Transfers that the kernel carries out by itself: `aio=native` (Linux's own, io_submit) and `aio=io_uring`.

An engine is one for the process, made when a drive first asks for it; its thread waits for what is over. The kernel is asked
by system calls alone, no library is needed. A transfer that the kernel does not take, does in part or fails is its
owner's to do anew, in the ordinary way, which knows about ends of files, alignment and errors.

Ref: io_submit(2), io_getevents(2), io_uring_setup(2), io_uring_enter(2); linux/aio_abi.h, linux/io_uring.h.
"""

from libc.errno cimport EAGAIN, EINTR, EIO, errno
from libc.string cimport memset

import os

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)
    int usleep(unsigned int)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_POPULATE
    void *MAP_FAILED

cdef extern from "<sys/syscall.h>" nogil:
    long SYS_io_setup, SYS_io_submit, SYS_io_getevents, SYS_io_uring_setup, SYS_io_uring_enter

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
    struct io_sqring_offsets:
        u32 head, tail, ring_mask, array
    struct io_cqring_offsets:
        u32 head, tail, ring_mask, cqes
    struct io_uring_params:
        u32 sq_entries, cq_entries
        io_sqring_offsets sq_off
        io_cqring_offsets cq_off
    struct io_uring_sqe:
        unsigned char opcode
        int fd
        u64 off
        u64 addr
        u32 len
        u64 user_data
    struct io_uring_cqe:
        u64 user_data
        int res
    u64 IORING_OFF_SQ_RING, IORING_OFF_CQ_RING, IORING_OFF_SQES
    int IORING_OP_READV, IORING_OP_WRITEV
    u32 IORING_ENTER_GETEVENTS

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
    #define vr_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define vr_publish(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    u32 vr_more(u32 *) nogil
    u32 vr_less(u32 *) nogil
    u32 vr_acquire(u32 *) nogil
    void vr_publish(u32 *, u32) nogil

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

    cdef int fd
    cdef pthread_mutex_t mutex      # of those who submit
    cdef u32 *tail
    cdef u32 *array
    cdef u32 mask
    cdef io_uring_sqe *entries
    cdef u32 *done_head
    cdef u32 *done_tail
    cdef u32 done_mask
    cdef io_uring_cqe *results

    def __init__(self):
        cdef io_uring_params given
        cdef unsigned char *ring
        cdef unsigned char *done
        self.name = "io_uring"
        pthread_mutex_init(&self.mutex, NULL)
        memset(&given, 0, sizeof(given))
        self.fd = <int>syscall(SYS_io_uring_setup, <u32>DEPTH, &given)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno))
        os.set_inheritable(self.fd, False)
        ring = <unsigned char *>self.map(given.sq_off.array + given.sq_entries * sizeof(u32), IORING_OFF_SQ_RING)
        done = <unsigned char *>self.map(given.cq_off.cqes + given.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING)
        self.entries = <io_uring_sqe *>self.map(given.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES)
        self.tail, self.array = <u32 *>(ring + given.sq_off.tail), <u32 *>(ring + given.sq_off.array)
        self.mask = (<u32 *>(ring + given.sq_off.ring_mask))[0]
        self.done_head, self.done_tail = <u32 *>(done + given.cq_off.head), <u32 *>(done + given.cq_off.tail)
        self.done_mask = (<u32 *>(done + given.cq_off.ring_mask))[0]
        self.results = <io_uring_cqe *>(done + given.cq_off.cqes)
        self.start()

    cdef void *map(self, u64 bytes, u64 what) except NULL:
        cdef void *found = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, self.fd, <long>what)
        if found == MAP_FAILED:
            error = errno
            os.close(self.fd)
            raise OSError(error, os.strerror(error))
        return found

    cdef bint submit(self, Transfer *transfer) noexcept nogil:
        cdef io_uring_sqe *entry
        cdef u32 tail, at
        cdef long taken
        if transfer.count > VECTORS or vr_more(&self.flying) > DEPTH:
            if transfer.count <= VECTORS:
                vr_less(&self.flying)
            return False
        pthread_mutex_lock(&self.mutex)
        tail = self.tail[0]
        at = tail & self.mask
        entry = &self.entries[at]
        memset(entry, 0, sizeof(io_uring_sqe))
        entry.opcode = <unsigned char>(IORING_OP_WRITEV if transfer.kind == TRANSFER_WRITE else IORING_OP_READV)
        entry.fd, entry.off = transfer.fd, transfer.offset
        entry.addr, entry.len, entry.user_data = <size_t>transfer.vectors, transfer.count, <size_t>transfer
        self.array[at] = at
        vr_publish(self.tail, tail + 1)
        taken = syscall(SYS_io_uring_enter, self.fd, <u32>1, <u32>0, <u32>0, NULL, <long>0)
        if taken != 1:
            vr_publish(self.tail, tail)             # nobody has looked at it
            vr_less(&self.flying)
        pthread_mutex_unlock(&self.mutex)
        return taken == 1

    cdef void reap(self) noexcept nogil:
        cdef u32 head = self.done_head[0]
        cdef u64 transfer
        cdef i64 result
        if head == vr_acquire(self.done_tail):
            if syscall(SYS_io_uring_enter, self.fd, <u32>0, <u32>1, IORING_ENTER_GETEVENTS, NULL, <long>0) < 0 and errno != EINTR:
                usleep(1000)
            return
        transfer, result = self.results[head & self.done_mask].user_data, self.results[head & self.done_mask].res
        vr_publish(self.done_head, head + 1)
        self.over(transfer, result)


KINDS = {"native": Native, "io_uring": Uring}
made = {}


def engine(str name):
    """The process's engine of that kind, of KINDS. OSError: the kernel does not offer it."""
    found = made.get(name)
    if found is None:
        found = made[name] = KINDS[name]()
    return found


os.register_at_fork(after_in_child=made.clear)     # a child has no thread that waits
