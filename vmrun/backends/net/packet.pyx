"""Back ends that are a descriptor: a tap, datagrams, or a stream of frames, each after its length.

The descriptor is read on the I/O thread with the device lock held, while the card has room: else it is left alone, and what
comes waits in the kernel; of a stream one reading is ahead, so that a card has its frame as soon as it makes room. A card's frame goes out at once where the kernel takes it; a datagram that it does not take is lost
as on a wire, a stream's waits here, and more than STREAM_OUT bytes of them make a card wait that can; of another's frames
STREAM_MOST bytes wait, half of which may have gone already.

Frames of a burst go down a stream together, PORTION bytes at a time; short ones for a tap by one system call (`batch.pyx`).

A stream is the peer's and may be anything: a length above NET_MOST_FRAME ends the connection, since nothing after it would
make sense.
"""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memmove, memset

import os

from posix.time cimport CLOCK_MONOTONIC

from accel.aio cimport IO_ERROR, IO_HANGUP, IO_READ, IO_WRITE
from accel.clock cimport clock_read
from vmrun.backends.net.batch cimport BATCH_SLOT
from vmrun.backends.protocols cimport NET_MOST_FRAME

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int, const iovec *, int)

cdef extern from "<unistd.h>" nogil:
    ssize_t read(int, void *, size_t)

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        void *msg_name
        unsigned int msg_namelen
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int, const msghdr *, int)
    struct sockaddr:
        pass
    ssize_t recvfrom(int, void *, size_t, int, sockaddr *, unsigned int *)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    MOST_PIECES = 64
    FRAMES_AT_ONCE = 64
    VNET = 12
    CHUNK = 1 << 17             # of an incoming buffer: a frame and its length fit in any case
    READS_AT_ONCE = 4
    SOON = 20000                # ns; frames that follow each other so closely are looked for again before the thread
    LOOKS = 6                   # sleeps, so often: that costs no more than to fall asleep and be woken
    PORTION = 1 << 16           # bytes of a burst that go out at one go

cdef extern from "<arpa/inet.h>" nogil:
    u32 htonl(u32)
    u32 ntohl(u32)


cdef class FdHandler(IoHandler):
    def __init__(self, FdNet owner, int fd):
        IoHandler.__init__(self, fd, IO_READ)
        self.owner = <void *>owner

    cdef void ready(self, u32 events) noexcept nogil:
        (<FdNet>self.owner).ready(self.fd, events)


cdef class FdNet(HostNet):
    """Takes over `fd`, which does not block. `on_gone()` is called when the peer has gone."""

    def __cinit__(self, *args, **kwargs):
        self.fd = -1
        self.info = ""

    def __dealloc__(self):
        free(self.incoming)

    def use(self, IoThread thread, int fd):
        os.set_blocking(fd, False)
        self.incoming = self.incoming if self.incoming != NULL else <u8 *>malloc(CHUNK)
        if self.incoming == NULL:
            raise MemoryError
        self.fd, self.thread = fd, thread
        self.handler = FdHandler(self, fd)
        self.connected, self.paused = True, False
        thread.add(self.handler)

    def leave(self):
        """The descriptor is closed; another may be used."""
        handler, self.handler = self.handler, None              # first: another thread may find the peer gone as well
        if handler is not None:
            self.thread.remove(handler)
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)
        self.connected = False

    def describe(self):
        return self.info if self.connected else f"{self.info} (nobody there)"

    def close(self):
        self.closed = True
        try:
            if self.on_close is not None:                       # first: a tap's script finds its interface
                self.on_close()
        finally:
            self.leave()
            HostNet.close(self)

    cdef void wants(self) noexcept nogil:
        """Which events are waited for."""
        if self.handler is not None:
            self.handler.want(0 if self.paused else IO_READ)

    cdef u32 patience(self) noexcept nogil:
        """How often `ready` may look in vain."""
        cdef i64 before = self.came
        self.came = clock_read(CLOCK_MONOTONIC)
        return LOOKS if self.came - before < SOON else 0

    cdef void resume_input(self) noexcept nogil:
        if self.paused:
            self.paused = False
            self.wants()

    cdef void ready(self, int fd, u32 events) noexcept nogil:
        pass


cdef u32 pieces_of(IoVec *pieces, u32 count, iovec *parts) noexcept nogil:
    cdef u32 n
    for n in range(count):
        parts[n].iov_base, parts[n].iov_len = pieces[n].base, pieces[n].length
    return count


cdef class PacketNet(FdNet):
    """A descriptor of whole frames: a tap, or a datagram socket (`peer`: where it sends to, `own`: what it ignores)."""

    def __cinit__(self, *args, **kwargs):
        self.more = []
        self.queue_fds = 1

    @property
    def queues(self):
        return self.queue_fds

    def send_to(self, bytes peer, bytes own=b""):
        """Socket addresses as the kernel has them; datagrams of `own` are not received."""
        if len(peer) > ADDRESS or len(own) > ADDRESS:
            raise ValueError("a socket address is not so long")
        self.is_socket = True
        memcpy(self.peer, <const u8 *>peer, len(peer))
        self.peer_size = len(peer)
        memcpy(self.own, <const u8 *>own, len(own))
        self.own_size = len(own)

    def vnet(self, u32 can):
        """A tap whose frames have virtio's header."""
        self.header_size = VNET
        self.can = can

    def write_together(self):
        """Short frames of a burst go out by one system call, where the kernel can."""
        try:
            self.batch = WriteBatch()
        except OSError:
            self.batch = None

    def add_queue(self, int fd):
        os.set_blocking(fd, False)
        handler = FdHandler(self, fd)
        self.more.append(handler)
        self.queue_fds += 1
        self.thread.add(handler)

    def leave(self):
        more, self.more = self.more, []                         # first, as there
        for handler in more:
            self.thread.remove(handler)
            os.close(handler.fd)
        FdNet.leave(self)

    cdef void wants(self) noexcept nogil:
        cdef u32 events = 0 if self.paused else IO_READ
        if self.handler is not None:
            self.handler.want(events)
        if self.queue_fds > 1:
            with gil:
                for handler in self.more:
                    (<FdHandler>handler).want(events)

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        cdef iovec parts[MOST_PIECES + 1]
        cdef msghdr message
        cdef u8 head[VNET]
        cdef ssize_t done
        if count > MOST_PIECES or self.fd < 0:
            self.dropped += 1
            return
        memset(head, 0, VNET)
        if header != NULL:
            memcpy(head, header, sizeof(NetHeader))
        if self.collecting and total <= BATCH_SLOT - VNET:
            if self.batch.add(self.fd, head, self.header_size, pieces, count):
                self.write_out()
            return
        if self.collecting:
            self.write_out()
        if self.header_size:
            parts[0].iov_base, parts[0].iov_len = head, self.header_size
            done = writev(self.fd, parts, pieces_of(pieces, count, parts + 1) + 1)
        elif self.is_socket:
            memset(&message, 0, sizeof(message))
            message.msg_iov, message.msg_iovlen = parts, pieces_of(pieces, count, parts)
            if self.peer_size:
                message.msg_name, message.msg_namelen = self.peer, self.peer_size
            done = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
        else:
            done = writev(self.fd, parts, pieces_of(pieces, count, parts))
        if done < 0:
            self.dropped += 1

    cdef void burst(self, bint begins) noexcept nogil:
        if self.batch is not None:
            self.collecting = begins
            self.write_out()

    cdef void write_out(self) noexcept nogil:
        if self.batch.count:
            self.dropped += self.batch.flush()

    cdef void ready(self, int fd, u32 events) noexcept nogil:
        cdef u8 source[ADDRESS]
        cdef unsigned int source_size
        cdef ssize_t got
        cdef u32 left = FRAMES_AT_ONCE, looks = self.patience()
        while left:
            if not self.accepts():
                self.paused = True
                self.wants()
                return
            if self.is_socket:
                source_size = ADDRESS
                got = recvfrom(fd, self.incoming, CHUNK, MSG_DONTWAIT, <sockaddr *>source, &source_size)
            else:
                got = read(fd, self.incoming, CHUNK)
            if got < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN and looks:
                    looks -= 1
                    continue
                if errno != EAGAIN and not self.is_socket:
                    self.paused = True                          # a tap that was taken away
                    self.wants()
                return
            if self.is_socket and self.own_size and source_size == self.own_size:
                if memcmp(source, self.own, self.own_size) == 0:
                    continue
            left -= 1
            if self.header_size:
                if got > <ssize_t>self.header_size:
                    self.deliver(
                        self.incoming + self.header_size, <u32>(got - self.header_size), <NetHeader *>self.incoming
                    )
            elif got:
                self.deliver(self.incoming, <u32>got, NULL)


cdef class StreamNet(FdNet):
    """A connected stream socket: each frame after its length, four bytes, big-endian."""

    def __cinit__(self, *args, **kwargs):
        self.in_start = self.in_end = 0

    def __dealloc__(self):
        free(self.out)

    def use(self, IoThread thread, int fd):
        if self.out == NULL:
            self.out = <u8 *>malloc(STREAM_MOST + NET_MOST_FRAME * 2)
            if self.out == NULL:
                raise MemoryError
        self.out_filled = self.out_sent = 0
        self.in_start = self.in_end = 0
        self.draining = self.collecting = False
        FdNet.use(self, thread, fd)

    def leave(self):
        FdNet.leave(self)
        self.unblock()

    cdef void wants(self) noexcept nogil:
        cdef u32 events = 0 if self.paused else IO_READ
        if self.out_filled > self.out_sent:
            events |= IO_WRITE
        if self.handler is not None:
            self.handler.want(events)

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        cdef iovec parts[MOST_PIECES + 1]
        cdef msghdr message
        cdef u32 length = htonl(<u32>total), n
        cdef ssize_t done = 0
        cdef u64 skip
        cdef u8 *at
        if not self.connected or self.fd < 0 or count > MOST_PIECES:
            self.dropped += 1
            return
        parts[0].iov_base, parts[0].iov_len = &length, 4
        pieces_of(pieces, count, parts + 1)
        if self.out_filled == self.out_sent and not self.collecting:
            memset(&message, 0, sizeof(message))
            message.msg_iov, message.msg_iovlen = parts, count + 1
            done = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done < 0:
                if errno != EAGAIN and errno != EINTR and errno != ENOBUFS:
                    self.dropped += 1
                    return                                      # reading tells that the peer is gone
                done = 0
        if done == <ssize_t>(total + 4):
            return
        if self.out_sent >= STREAM_MOST // 2 and self.out_filled + total + 4 > STREAM_MOST:
            memmove(self.out, self.out + self.out_sent, self.out_filled - self.out_sent)
            self.out_filled -= self.out_sent
            self.out_sent = 0
        if self.out_filled + total + 4 > STREAM_MOST + NET_MOST_FRAME * 2:
            if not done:
                self.dropped += 1
                return
        skip = <u64>done
        at = self.out + self.out_filled
        for n in range(count + 1):
            if skip >= parts[n].iov_len:
                skip -= parts[n].iov_len
                continue
            memcpy(at, <u8 *>parts[n].iov_base + skip, parts[n].iov_len - skip)
            at += parts[n].iov_len - skip
            skip = 0
        self.out_filled = <u64>(at - self.out)
        if self.collecting and not self.blocked and self.out_filled - self.out_sent >= PORTION:
            self.flush()                                        # blocked: the card would be told to go on, within itself
        self.blocked = self.out_filled - self.out_sent > STREAM_OUT
        if not self.collecting:
            self.wants()

    cdef void burst(self, bint begins) noexcept nogil:
        self.collecting = begins
        if begins or self.out_filled == self.out_sent:
            return
        if self.blocked:
            self.wants()
        else:
            self.flush()

    cdef void flush(self) noexcept nogil:
        cdef iovec part
        cdef msghdr message
        cdef ssize_t done
        while self.out_sent < self.out_filled:
            part.iov_base, part.iov_len = self.out + self.out_sent, self.out_filled - self.out_sent
            memset(&message, 0, sizeof(message))
            message.msg_iov, message.msg_iovlen = &part, 1
            done = sendmsg(self.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
            if done <= 0:
                if done < 0 and errno != EAGAIN and errno != EINTR:
                    self.out_sent = self.out_filled
                break
            self.out_sent += done
        if self.out_sent == self.out_filled:
            self.out_sent = self.out_filled = 0
        if self.blocked and self.out_filled - self.out_sent < STREAM_OUT // 2:
            self.unblock()
        self.wants()

    cdef void resume_input(self) noexcept nogil:
        if self.paused and self.connected and self.drain() == 1:
            self.paused = False
            self.wants()

    cdef void ready(self, int fd, u32 events) noexcept nogil:
        cdef ssize_t got
        cdef u32 left = READS_AT_ONCE, room, looks = self.patience()
        if events & IO_WRITE:
            self.flush()
        if not events & (IO_READ | IO_HANGUP | IO_ERROR):
            return
        while left and self.connected:
            left -= 1
            if self.in_end > self.in_start and not self.accepts():
                self.paused = True
                self.wants()
                return
            if self.in_start:                                   # what is left is less than a frame
                memmove(self.incoming, self.incoming + self.in_start, self.in_end - self.in_start)
                self.in_end -= self.in_start
                self.in_start = 0
            room = CHUNK - self.in_end
            got = recvfrom(fd, self.incoming + self.in_end, room, MSG_DONTWAIT, NULL, NULL)
            if got < 0 and errno == EINTR:
                continue
            if got < 0 and errno == EAGAIN:
                if not looks:
                    return
                looks -= 1
                left += 1
                continue
            if got <= 0:
                self.gone()
                return
            self.in_end += <u32>got
            if self.drain() != 1:
                return
            if <u32>got < room and not looks:
                return                                          # that was all

    cdef int drain(self) noexcept nogil:
        """Deliver the frames that are whole. 1: all of them; 0: the card has no room, or somebody is at it; -1: the peer
        says a length that no frame has.
        """
        cdef u32 length
        if self.draining:
            return 0
        self.draining = True
        while self.in_end - self.in_start >= 4:
            memcpy(&length, self.incoming + self.in_start, 4)
            length = ntohl(length)
            if length > NET_MOST_FRAME:
                self.draining = False
                self.gone()
                return -1
            if self.in_end - self.in_start - 4 < length:
                break
            if not self.accepts():
                self.draining = False
                self.paused = True
                self.wants()
                return 0
            self.in_start += 4 + length
            if length:
                self.deliver(self.incoming + self.in_start - length, length, NULL)
        if self.in_start == self.in_end:
            self.in_start = self.in_end = 0
        self.draining = False
        return 1

    cdef void gone(self) noexcept nogil:
        """The peer has gone, or speaks something else."""
        self.connected, self.paused = False, True
        self.out_filled = self.out_sent = 0
        self.in_start = self.in_end = 0
        self.wants()
        self.unblock()
        with gil:
            if self.on_gone is not None:
                self.on_gone()
