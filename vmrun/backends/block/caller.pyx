"""Requests to a drive from Python, many at a time: what a device is to a drive, for tools and tests."""

from libc.string cimport memcpy

from accel.api cimport u8, u32, u64
from accel.threads cimport (
    pthread_cond_init, pthread_cond_signal, pthread_cond_t, pthread_cond_wait, pthread_mutex_init,
    pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from vmrun.backends.block.drive cimport Drive
from vmrun.backends.protocols cimport BLOCK_READ, BLOCK_WRITE, BlockRequest, block_buffer

cdef enum:
    DEPTH = 1024


cdef void ended(BlockRequest *request) noexcept nogil:
    call_ended(<Caller>request.owner, request)


cdef void call_ended(Caller caller, BlockRequest *request) noexcept nogil:
    pthread_mutex_lock(&caller.mutex)
    caller.over[caller.tail % DEPTH] = request
    caller.tail += 1
    pthread_cond_signal(&caller.some)
    pthread_mutex_unlock(&caller.mutex)


cdef class Caller:
    """submit() as often as you like (at most 1024 in flight), then wait() for one after the other."""

    cdef readonly Drive drive
    cdef readonly u32 in_flight
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t some
    cdef BlockRequest *over[DEPTH]
    cdef u32 head, tail
    cdef u64 number
    cdef dict known
    cdef readonly bint at_once      # whether the last one submitted was over at once

    def __init__(self, Drive drive):
        self.drive, self.known = drive, {}
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.some, NULL)

    def submit(self, int op, u64 offset=0, u64 count=0, const u8[::1] data=None, u32 flags=0):
        """Its number. `data` is what is written; a read's comes with wait()."""
        cdef BlockRequest *request
        cdef u8 *memory
        if self.in_flight >= DEPTH:
            raise ValueError("too many requests in flight")
        request = self.drive.request(<void *>self, ended)
        if request == NULL:
            raise MemoryError
        self.number += 1
        request.op, request.offset, request.flags, request.tag = op, offset, flags, self.number
        if op == BLOCK_READ or op == BLOCK_WRITE:
            memory = block_buffer(request, count if data is None else <u64>data.shape[0])
            if memory == NULL:
                raise MemoryError
            if data is not None:
                memcpy(memory, &data[0], request.length)
        else:
            request.length = count
        self.in_flight += 1
        self.known[self.number] = <size_t>request
        with self.drive.lock:
            self.at_once = self.drive.submit(request)
        if self.at_once:
            ended(request)
        return self.number

    def give_up(self, u64 number):
        """As a device that is reset. It never comes out of wait()."""
        cdef BlockRequest *request = <BlockRequest *><size_t>self.known.pop(number)
        with self.drive.lock:
            self.drive.release(request)
        self.in_flight -= 1

    def wait(self, bint contents=True):
        """(number, errno, bytes read) of the next that is over."""
        cdef BlockRequest *request
        with nogil:
            pthread_mutex_lock(&self.mutex)
            while self.head == self.tail:
                pthread_cond_wait(&self.some, &self.mutex)
            request = self.over[self.head % DEPTH]
            self.head += 1
            pthread_mutex_unlock(&self.mutex)
        data = b""
        if contents and request.op == BLOCK_READ and not request.error:
            data = (<char *>request.own)[:request.length]
        answer = (request.tag, request.error, data)
        self.known.pop(request.tag)
        self.drive.release(request)
        self.in_flight -= 1
        return answer

    @property
    def waiting(self):
        """How many are over and not fetched."""
        return self.tail - self.head
