"""An Ethernet segment of this host: every card is linked with every other, and each learns who has which address.

There is no process in the middle: a port listens at a socket in the segment's directory and connects to those that are there
(`vmrun.backends.net.segments`). A link carries whole frames (SOCK_SEQPACKET), each behind virtio's header of what is left to
do, so that machines pass large frames uncut. A frame goes to the port that its address was seen at, one for a group or for
nobody known to all. What a peer does not take is lost, as on a wire: one that stands still holds up nobody.
"""

from libc.errno cimport EAGAIN, EINTR, ENOBUFS, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

import os

from accel.aio cimport IO_READ, IoHandler, IoThread
from accel.api cimport u8, u16, u32, u64
from accel.dma cimport IoVec
from vmrun.backends.net.base cimport HostNet, gather
from vmrun.backends.protocols cimport (
    NET_CAN_CSUM, NET_CAN_ECN, NET_CAN_TSO4, NET_CAN_TSO6, NET_CAN_UFO, NET_MOST_FRAME, NetHeader,
)

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef extern from "<sys/socket.h>" nogil:
    struct msghdr:
        iovec *msg_iov
        size_t msg_iovlen
    ssize_t sendmsg(int, const msghdr *, int)
    ssize_t recv(int, void *, size_t, int)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL

cdef enum:
    MOST_PEERS = 64
    MOST_PIECES = 64
    PLACES = 1024               # of the table of addresses
    HEAD = 12
    FRAMES_AT_ONCE = 64

ctypedef struct Known:
    u8 mac[6]
    u16 peer                    # 1 and up; 0: empty


cdef class Link(IoHandler):
    cdef void *owner
    cdef u32 place

    def __init__(self, SegmentNet owner, int fd, u32 place):
        IoHandler.__init__(self, fd, IO_READ)
        self.owner, self.place = <void *>owner, place

    cdef void ready(self, u32 events) noexcept nogil:
        (<SegmentNet>self.owner).ready(self.place, self.fd)


cdef class SegmentNet(HostNet):
    """`join(fd)` for each link. `on_lost(fd)`: the peer has gone; with the device lock held, any thread."""

    cdef IoThread thread
    cdef int fds[MOST_PEERS]
    cdef list links
    cdef Known known[PLACES]
    cdef u8 *incoming
    cdef bint paused
    cdef public object on_lost, leave
    cdef readonly u64 flooded, unicast

    def __init__(self, IoThread thread):
        cdef u32 n
        self.thread = thread
        self.links = [None] * MOST_PEERS
        self.can = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_CAN_ECN | NET_CAN_UFO
        for n in range(MOST_PEERS):
            self.fds[n] = -1
        self.incoming = <u8 *>malloc(HEAD + NET_MOST_FRAME + 1)
        if self.incoming == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.incoming)

    @property
    def peers(self):
        return sum(link is not None for link in self.links)

    def join(self, int fd):
        """A link with another port. False: there are too many. The device lock is held."""
        cdef u32 n
        os.set_blocking(fd, False)
        for n in range(MOST_PEERS):
            if self.fds[n] < 0:
                link = Link(self, fd, n)
                self.links[n] = link
                self.fds[n] = fd
                self.thread.add(link)
                return True
        return False

    def drop(self, u32 place):
        """The peer has gone: what was known of it is forgotten."""
        cdef u32 n
        link, self.links[place] = self.links[place], None       # first: another thread may find it gone as well
        if link is None:
            return
        self.thread.remove(link)
        fd, self.fds[place] = self.fds[place], -1
        os.close(fd)
        for n in range(PLACES):
            if self.known[n].peer == place + 1:
                self.known[n].peer = 0

    cdef u32 place_of(self, const u8 *mac) noexcept nogil:
        return (mac[5] ^ mac[4] << 3 ^ mac[3] << 5 ^ mac[2] << 7) % PLACES

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        cdef iovec parts[MOST_PIECES + 1]
        cdef u8 head[HEAD]
        cdef u8 to[6]
        cdef msghdr message
        cdef u32 n, place
        cdef bint all = True
        if count > MOST_PIECES or gather(pieces, count, to, 6) < 6:
            self.dropped += 1
            return
        memset(head, 0, HEAD)
        if header != NULL:
            memcpy(head, header, sizeof(NetHeader))
        parts[0].iov_base, parts[0].iov_len = head, HEAD
        for n in range(count):
            parts[n + 1].iov_base, parts[n + 1].iov_len = pieces[n].base, pieces[n].length
        memset(&message, 0, sizeof(message))
        message.msg_iov, message.msg_iovlen = parts, count + 1
        if not to[0] & 1:
            place = self.place_of(to)
            if self.known[place].peer and memcmp(self.known[place].mac, to, 6) == 0:
                n = self.known[place].peer - 1
                if self.fds[n] >= 0:
                    self.unicast += 1
                    if sendmsg(self.fds[n], &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
                        self.dropped += 1
                    return
        self.flooded += 1
        for n in range(MOST_PEERS):
            if self.fds[n] >= 0 and sendmsg(self.fds[n], &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0:
                self.dropped += 1

    cdef void ready(self, u32 peer, int fd) noexcept nogil:
        cdef ssize_t got
        cdef u32 left = FRAMES_AT_ONCE, place
        cdef u8 *frame = self.incoming + HEAD
        while left:
            left -= 1
            if not self.accepts():
                self.paused = True
                self.wants()
                return
            got = recv(fd, self.incoming, HEAD + NET_MOST_FRAME + 1, MSG_DONTWAIT)
            if got < 0 and errno == EINTR:
                continue
            if got < 0 and errno == EAGAIN:
                return
            if got <= 0:
                with gil:
                    self.drop(peer)
                    if self.on_lost is not None:
                        self.on_lost()
                return
            if got < HEAD + 14:
                continue
            if not frame[6] & 1:
                place = self.place_of(frame + 6)
                memcpy(self.known[place].mac, frame + 6, 6)
                self.known[place].peer = <u16>(peer + 1)
            self.deliver(frame, <u32>(got - HEAD), <NetHeader *>self.incoming)

    cdef void wants(self) noexcept nogil:
        cdef u32 events = 0 if self.paused else IO_READ
        with gil:
            for link in self.links:
                if link is not None:
                    (<Link>link).want(events)

    cdef void resume_input(self) noexcept nogil:
        if self.paused:
            self.paused = False
            self.wants()

    def statistics(self):
        return {**HostNet.statistics(self)}

    def describe(self):
        return f"{self.peers} others"

    def close(self):
        cdef u32 n
        if self.leave is not None:
            self.leave()
        for n in range(MOST_PEERS):
            self.drop(n)
        HostNet.close(self)
