"""A network block device as a node, in transmission; nbd_client.py is how it came there.

Ref: the NBD protocol (github.com/NetworkBlockDevice/nbd, doc/proto.md). One request at a time on a connection; where the
server allows several connections to one export, up to four. Where the server has structured replies it is asked for them,
and for the context "base:allocation": what is a hole there is one here. `x-dirty-bitmap` names another context, whose first
bit then says what is no data, as with QEMU.

A server that goes away is dialled again by a thread of the node's, until it is there or the node is closed. Requests wait
for it no longer than `delay` after it went, those that were under way too, which are then sent again; without a delay they
fail at once. Who waits for all requests of the node (hurry) waits for no server. One that says what makes no sense is left
for good.
"""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EINVAL, EIO, ENOSPC, EPERM, EROFS, ESHUTDOWN, errno
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, timespec

import threading

from accel.api cimport u8, u16, u32, u64
from accel.threads cimport (
    pthread_cond_broadcast, pthread_cond_destroy, pthread_cond_init, pthread_cond_signal, pthread_cond_t,
    pthread_cond_timedwait, pthread_cond_wait, pthread_condattr_init, pthread_condattr_setclock, pthread_condattr_t,
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock,
)
from vmrun.backends.block.node cimport (
    EXTENT_ALLOCATED, EXTENT_DATA, EXTENT_HOLE, EXTENT_OFFSET, EXTENT_ZERO, NODE_FUA, NODE_NOWAIT, NODE_UNMAP, Cursor,
    Extent, Node, cursor_fill, cursor_get, cursor_put,
)
from vmrun.backends.block.pool cimport pool_now

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int, const void *, size_t, int)
    ssize_t recv(int, void *, size_t, int)
    int MSG_NOSIGNAL
    int MSG_WAITALL
    int shutdown(int, int)
    int SHUT_RDWR

cdef extern from "<endian.h>" nogil:
    u64 htobe64(u64)
    u32 htobe32(u32)
    u16 htobe16(u16)
    u64 be64toh(u64)
    u32 be32toh(u32)
    u16 be16toh(u16)

cdef enum:
    MOST_CONNECTIONS = 4
    MOST_TRIES = 100             # of one request, at a server that goes whenever it is asked that
    WINDOW = 1 << 20
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    ZEROES = 6
    STATUS = 7
    # of requests
    FUA = 1
    NO_HOLE = 2
    REQ_ONE = 8
    # replies: a simple one, or chunks up to one with DONE
    SIMPLE = 0x67446698
    CHUNK = 0x668E33EF
    DONE = 1
    CHUNK_NONE = 0
    CHUNK_DATA = 1
    CHUNK_HOLE = 2
    CHUNK_STATUS = 5
    CHUNK_ERROR = 0x8000         # and above
    MOST_TOLD = 1 << 16          # bytes of a chunk that is not data
    MOST_ASKED = 1 << 30         # bytes whose status is asked for at once
    # of what the status tells
    HOLE = 1
    ZERO = 2
    # transmission flags
    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_ZEROES = 64
    MULTI_CONN = 256


cdef int send_all(int fd, const u8 *data, u64 count) noexcept nogil:
    cdef ssize_t sent
    while count:
        sent = send(fd, data, count, MSG_NOSIGNAL)
        if sent < 0:
            if errno == EINTR:
                continue
            return errno
        data += sent
        count -= <u64>sent
    return 0


cdef int receive_all(int fd, u8 *data, u64 count) noexcept nogil:
    cdef ssize_t got
    while count:
        got = recv(fd, data, count, MSG_WAITALL)
        if got == 0:
            return ECONNRESET
        if got < 0:
            if errno == EINTR:
                continue
            return errno
        data += got
        count -= <u64>got
    return 0


cdef int skip_all(int fd, u32 count) noexcept nogil:
    cdef u8 nowhere[256]
    cdef u32 part
    cdef int error = 0
    while count and error == 0:
        part = min(count, <u32>256)
        error = receive_all(fd, nowhere, part)
        count -= part
    return error


cdef u64 wide(const u8 *data) noexcept nogil:
    cdef u64 value
    memcpy(&value, data, 8)
    return be64toh(value)


cdef u32 word(const u8 *data) noexcept nogil:
    cdef u32 value
    memcpy(&value, data, 4)
    return be32toh(value)


cdef u16 half(const u8 *data) noexcept nogil:
    cdef u16 value
    memcpy(&value, data, 2)
    return be16toh(value)


ctypedef struct Request:
    int kind
    u64 offset
    u32 length
    u8 *data                    # what is written, or room for what is read
    Extent *found               # of STATUS
    u64 handle
    u32 error                   # the server's
    u64 came                    # bytes that were read
    u64 given_up                # when, should the server be away; 0: it was there so far
    u32 tries


cdef enum State:
    THERE
    AWAY                        # it went, and is dialled
    LEFT                        # for good


cdef class NbdNode(Node):
    """`sockets`: connected and in transmission, all to one export; they are the node's from now on. `structured`: replies come
    in chunks; `context`: the number of the one that STATUS tells of, None: there is none. Requests are whole blocks of
    `block` bytes (a power of two), and transfers at most `most`: what is no whole block is read, changed and written.
    `dial`: gives such sockets to the same export again, or raises OSError; None: a server that goes is gone. `delay`:
    seconds that requests wait for one that is away.
    """

    cdef int fds[MOST_CONNECTIONS]
    cdef bint busy[MOST_CONNECTIONS]
    cdef u32 count, working      # of connections; of those that are busy
    cdef u32 flags
    cdef State state
    cdef u32 hurried             # those who wait for all requests
    cdef bint structured, asks
    cdef u32 context
    cdef readonly u64 block
    cdef u64 window              # bytes of a transfer
    cdef u64 delay, gone         # ns; when the server went
    cdef pthread_mutex_t whole   # where blocks are larger than a byte: one writes
    cdef u64 handle
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t idle     # a connection is, or the state is another
    cdef readonly str path
    cdef list sockets
    cdef object dial
    cdef object over             # an Event: the node is closed

    def __cinit__(self, *args, **kwargs):
        cdef pthread_condattr_t attr
        pthread_mutex_init(&self.mutex, NULL)
        pthread_mutex_init(&self.whole, NULL)
        pthread_condattr_init(&attr)
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC)
        pthread_cond_init(&self.idle, &attr)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)
        pthread_mutex_destroy(&self.whole)
        pthread_cond_destroy(&self.idle)

    def __init__(
        self, list sockets, u64 size, u32 flags, bint readonly, str name, bint structured=False, context=None, u64 block=1,
        u64 most=WINDOW, dial=None, double delay=0,
    ):
        self.driver, self.path = "nbd", name
        self.size, self.flags = size & ~(block - 1), flags
        self.block = block
        self.window = max(min(most, <u64>WINDOW) & ~(block - 1), block)
        self.readonly = readonly or flags & READ_ONLY != 0
        self.structured, self.asks = structured, structured and context is not None
        self.context = context or 0
        self.dial, self.delay = dial, <u64>(delay * 1e9)
        self.over = threading.Event()
        self._take(sockets)

    cdef void _take(self, list sockets):
        self.sockets = sockets
        self.count = min(len(sockets), MOST_CONNECTIONS)
        for n in range(self.count):
            self.fds[n] = sockets[n].fileno()

    def shut(self):
        cdef u8 header[28]
        cdef Request request
        cdef bint there
        memset(&request, 0, sizeof(request))
        request.kind = DISCONNECT
        put_header(header, &request, 0)
        self.over.set()
        pthread_mutex_lock(&self.mutex)
        there, self.state = self.state == THERE, LEFT
        sockets, self.sockets = self.sockets, []
        pthread_cond_broadcast(&self.idle)
        pthread_mutex_unlock(&self.mutex)
        for n, socket in enumerate(sockets):
            if there:
                send_all(self.fds[n], header, 28)
            socket.close()

    def hurry(self, bint begin):
        pthread_mutex_lock(&self.mutex)
        self.hurried += 1 if begin else -1
        pthread_cond_broadcast(&self.idle)
        pthread_mutex_unlock(&self.mutex)

    # --- a server that is away --------------------------------------------------------------------------------

    cdef bint lose(self, bint nonsense) noexcept nogil:
        """A connection has failed; with the mutex. True: the caller starts who dials again."""
        cdef u32 n
        if self.state != THERE:
            return False
        self.state = LEFT if nonsense or self.dial is None else AWAY
        self.gone = pool_now()
        for n in range(self.count):
            shutdown(self.fds[n], SHUT_RDWR)                # what is under way on the others fails, too
        pthread_cond_broadcast(&self.idle)
        return self.state == AWAY

    cdef bint await_it(self, Request *request) noexcept nogil:
        """With the mutex, when the server is away: until there is news. False: it took too long."""
        cdef timespec when
        if self.hurried or pool_now() >= request.given_up:
            return False
        when.tv_sec, when.tv_nsec = request.given_up // 1_000_000_000, request.given_up % 1_000_000_000
        pthread_cond_timedwait(&self.idle, &self.mutex, &when)
        return True

    cdef void start_dialling(self) noexcept with gil:
        try:
            threading.Thread(target=self._dial, daemon=True, name="nbd").start()
        except BaseException:                               # the interpreter is going
            pthread_mutex_lock(&self.mutex)
            self.state = LEFT
            pthread_cond_broadcast(&self.idle)
            pthread_mutex_unlock(&self.mutex)

    def _dial(self):
        """Until the server is there again, or nobody wants it. A thread's."""
        cdef double rest = 0.05
        while not self.over.is_set():
            try:
                sockets = self.dial()
            except OSError:
                self.over.wait(rest)
                rest = min(2 * rest, 1.0)
                continue
            with nogil:
                pthread_mutex_lock(&self.mutex)
                while self.working:                         # nobody begins anew, but descriptors are still in use
                    pthread_cond_wait(&self.idle, &self.mutex)
                pthread_mutex_unlock(&self.mutex)           # before the GIL is wanted: see hurry
            stale = sockets
            pthread_mutex_lock(&self.mutex)
            if self.state == AWAY:
                stale = self.sockets
                self._take(sockets)
                self.state = THERE
            pthread_cond_broadcast(&self.idle)
            pthread_mutex_unlock(&self.mutex)
            for socket in stale:
                socket.close()
            return

    # --- requests ---------------------------------------------------------------------------------------------

    cdef int exchange(self, int kind, u32 flags, u64 offset, u32 length, u8 *data, Extent *found) noexcept nogil:
        """One request and its reply, with `length` bytes in `data` for reads and writes."""
        cdef Request request
        cdef u32 n
        memset(&request, 0, sizeof(request))
        request.kind, request.offset, request.length, request.data, request.found = kind, offset, length, data, found
        while request.tries < MOST_TRIES:
            pthread_mutex_lock(&self.mutex)
            n = self.free_one(&request)
            if n == MOST_CONNECTIONS:
                pthread_mutex_unlock(&self.mutex)
                return EIO
            self.busy[n] = True
            self.working += 1
            self.handle += 1
            request.handle, request.came, request.error = self.handle, 0, 0
            pthread_mutex_unlock(&self.mutex)
            request.tries += 1
            if not self.attempt(n, flags, &request):
                continue
            if request.error == 0:
                return 0
            return <int>request.error if request.error in (EPERM, EIO, EINVAL, ENOSPC, ESHUTDOWN, EROFS) else EIO
        return EIO

    cdef u32 free_one(self, Request *request) noexcept nogil:
        """A connection that is idle, awaited with the mutex. MOST_CONNECTIONS: there is none, and will not be in time."""
        cdef u32 n
        while self.state != LEFT:
            if self.state == AWAY:
                if request.given_up == 0:
                    request.given_up = self.gone + self.delay
                if not self.await_it(request):
                    break
                continue
            request.given_up = 0
            for n in range(self.count):
                if not self.busy[n]:
                    return n
            pthread_cond_wait(&self.idle, &self.mutex)
        return MOST_CONNECTIONS

    cdef bint attempt(self, u32 n, u32 flags, Request *request) noexcept nogil:
        """On an idle connection. False: the server has gone, or is left."""
        cdef u8 header[28]
        cdef int error
        cdef bint dials = False
        put_header(header, request, flags)
        error = send_all(self.fds[n], header, 28)
        if error == 0 and request.kind == WRITE:
            error = send_all(self.fds[n], request.data, request.length)
        if error == 0:
            error = self.answer(self.fds[n], request)
        pthread_mutex_lock(&self.mutex)
        self.busy[n] = False
        self.working -= 1
        if error:
            dials = self.lose(error == EIO)
        if error or self.state != THERE:
            pthread_cond_broadcast(&self.idle)
        else:
            pthread_cond_signal(&self.idle)
        pthread_mutex_unlock(&self.mutex)
        if dials:
            self.start_dialling()
        return error == 0

    cdef int answer(self, int fd, Request *request) noexcept nogil:
        """Read the whole reply. EIO: the server says what makes no sense; another error: it has gone."""
        cdef u8 head[20]
        cdef int error = 0
        cdef u32 flags
        while error == 0:
            error = receive_all(fd, head, 16)
            if error:
                break
            if wide(head + 8) != request.handle:
                return EIO
            if word(head) == SIMPLE:
                request.error = word(head + 4)
                if request.error or request.kind not in (READ, STATUS):
                    return 0
                return receive_all(fd, request.data, request.length) if request.kind == READ and not self.structured else EIO
            if word(head) != CHUNK or not self.structured:
                return EIO
            error = receive_all(fd, head + 16, 4)
            flags = half(head + 4)
            if error == 0:
                error = self.chunk(fd, request, half(head + 6), word(head + 16))
            if flags & DONE:
                break
        if error or request.error:
            return error
        if request.kind == READ and request.came != request.length or request.kind == STATUS and not request.came:
            return EIO
        return 0

    cdef int chunk(self, int fd, Request *request, u32 kind, u32 size) noexcept nogil:
        """A chunk of `size` bytes. They may come in any order, and are the server's: nothing goes beyond what was asked for."""
        cdef u8 head[12]
        cdef u64 at
        cdef u32 part
        cdef int error
        if kind == CHUNK_NONE:
            return EIO if size else 0
        if kind == CHUNK_DATA or kind == CHUNK_HOLE:
            if request.kind != READ or (size <= 8 if kind == CHUNK_DATA else size != 12):
                return EIO
            error = receive_all(fd, head, 8 if kind == CHUNK_DATA else 12)
            if error:
                return error
            part = size - 8 if kind == CHUNK_DATA else word(head + 8)
            at = wide(head) - request.offset                # beyond `length`, too, where it is before `offset`
            if at > request.length or part > request.length - at or request.came + part > request.length:
                return EIO
            request.came += part
            if kind == CHUNK_DATA:
                return receive_all(fd, request.data + at, part)
            memset(request.data + at, 0, part)
            return 0
        if size > MOST_TOLD:
            return EIO
        if kind == CHUNK_STATUS:
            if request.kind != STATUS or size < 12 or (size - 4) & 7:
                return EIO
            error = receive_all(fd, head, 12)
            if error:
                return error
            part = word(head + 4)
            if word(head) == self.context:
                if part == 0:
                    return EIO
                request.came = min(part, request.length)
                request.found.length = request.came
                request.found.flags = told(word(head + 8))
            return skip_all(fd, size - 12)
        if kind < CHUNK_ERROR or size < 6:
            return EIO
        error = receive_all(fd, head, 6)
        if error:
            return error
        request.error = word(head) or EIO
        return skip_all(fd, size - 6)

    cdef u8 *room(self, u64 bytes) noexcept nogil:
        """Memory for a transfer, zeroed: of what is read the server may leave something out."""
        return <u8 *>calloc(1, self.window if bytes + 2 * self.block > self.window else bytes + 2 * self.block)

    cdef u64 until(self, u64 offset, u64 bytes) noexcept nogil:
        """The end of the blocks of the next transfer."""
        return min((offset & -self.block) + self.window, (offset + bytes + self.block - 1) & -self.block)

    cdef int readv(self, u64 offset, u64 bytes, Cursor *to, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step, first, end
        cdef int error = 0
        if flags & NODE_NOWAIT:
            return EAGAIN
        memory = self.room(bytes)
        if memory == NULL:
            return EIO
        while bytes and error == 0:
            if offset >= self.size:
                cursor_fill(to, bytes)
                break
            first, end = offset & -self.block, self.until(offset, min(bytes, self.size - offset))
            step = min(end - offset, bytes)
            error = self.exchange(READ, 0, first, <u32>(end - first), memory, NULL)
            if error == 0:
                cursor_put(to, memory + (offset - first), step)
            offset += step
            bytes -= step
        free(memory)
        return error

    cdef int writev(self, u64 offset, u64 bytes, Cursor *source, u32 flags) noexcept nogil:
        cdef u8 *memory
        cdef u64 step, first, end
        cdef int error = 0
        cdef u32 how = FUA if flags & NODE_FUA and self.flags & SEND_FUA else 0
        if self.asleep:
            return EPERM
        if self.readonly or offset > self.size or bytes > self.size - offset:
            return EIO
        memory = self.room(bytes)
        if memory == NULL:
            return EIO
        if self.block > 1:
            pthread_mutex_lock(&self.whole)
        while bytes and error == 0:
            first, end = offset & -self.block, self.until(offset, bytes)
            step = min(end - offset, bytes)
            if offset > first:
                error = self.exchange(READ, 0, first, <u32>self.block, memory, NULL)
            if error == 0 and offset + step < end and (offset == first or end - first > self.block):
                error = self.exchange(READ, 0, end - self.block, <u32>self.block, memory + (end - self.block - first), NULL)
            cursor_get(source, memory + (offset - first), step)
            if error == 0:
                error = self.exchange(WRITE, how, first, <u32>(end - first), memory, NULL)
            offset += step
            bytes -= step
        if self.block > 1:
            pthread_mutex_unlock(&self.whole)
        free(memory)
        if error == 0 and flags & NODE_FUA and not how:
            error = self.flush()
        return error

    cdef int flush(self) noexcept nogil:
        if self.readonly or not self.flags & SEND_FLUSH:
            return 0
        return self.exchange(FLUSH, 0, 0, 0, NULL, NULL)

    cdef int whole_blocks(self, int kind, u32 flags, u64 offset, u64 end) noexcept nogil:
        """TRIM or ZEROES of whole blocks."""
        cdef u64 step
        cdef int error = 0
        while offset < end and error == 0:
            step = min(end - offset, <u64>1 << 30)
            error = self.exchange(kind, flags, offset, <u32>step, NULL, NULL)
            offset += step
        return error

    cdef int discard(self, u64 offset, u64 bytes) noexcept nogil:
        if self.readonly or self.asleep or not self.flags & SEND_TRIM:
            return 0
        return self.whole_blocks(TRIM, 0, (offset + self.block - 1) & -self.block, (offset + bytes) & -self.block)

    cdef int zero(self, u64 offset, u64 bytes, u32 flags) noexcept nogil:
        cdef u64 first = (offset + self.block - 1) & -self.block, end = (offset + bytes) & -self.block
        cdef int error = 0
        if self.readonly or self.asleep:
            return EPERM if self.asleep else EIO
        if not self.flags & SEND_ZEROES or first >= end:
            return Node.zero(self, offset, bytes, flags)
        if first > offset:
            error = Node.zero(self, offset, first - offset, 0)
        if error == 0 and end < offset + bytes:
            error = Node.zero(self, end, offset + bytes - end, 0)
        if error == 0:
            error = self.whole_blocks(ZEROES, 0 if flags & NODE_UNMAP else NO_HOLE, first, end)
        if error == 0 and flags & NODE_FUA:
            error = self.flush()
        return error

    cdef int status(self, u64 offset, u64 bytes, Extent *found) noexcept nogil:
        cdef u64 first = offset & -self.block, most
        cdef int error
        found.length, found.flags = bytes, EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET
        if offset >= self.size:
            found.host, found.flags = offset, EXTENT_ZERO | EXTENT_ALLOCATED
            return 0
        found.host, found.length = offset, min(bytes, self.size - offset)
        if not self.asks:
            return 0
        most = found.length
        bytes = min((offset + most + self.block - 1 & -self.block) - first, <u64>MOST_ASKED)
        error = self.exchange(STATUS, REQ_ONE, first, <u32>bytes, NULL, found)
        if error == 0 and found.length <= offset - first:
            return EIO                                      # less than a block
        found.length = min(found.length - (offset - first), most)
        return error


cdef void put_header(u8 *data, const Request *request, u32 flags) noexcept nogil:
    cdef u32 magic = htobe32(0x25609513), length = htobe32(request.length)
    cdef u16 how = htobe16(<u16>flags), kind = htobe16(<u16>request.kind)
    cdef u64 handle = htobe64(request.handle), offset = htobe64(request.offset)
    memcpy(data, &magic, 4)
    memcpy(data + 4, &how, 2)
    memcpy(data + 6, &kind, 2)
    memcpy(data + 8, &handle, 8)
    memcpy(data + 16, &offset, 8)
    memcpy(data + 24, &length, 4)


cdef u32 told(u32 flags) noexcept nogil:
    """EXTENT_… of what the status tells. What is a hole and not said to be zeros is read like data."""
    if flags & HOLE:
        return EXTENT_ALLOCATED | (EXTENT_ZERO | EXTENT_OFFSET if flags & ZERO else EXTENT_DATA | EXTENT_HOLE)
    return EXTENT_ALLOCATED | EXTENT_OFFSET | EXTENT_DATA | (EXTENT_ZERO if flags & ZERO else 0)
