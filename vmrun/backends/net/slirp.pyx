"""libslirp: a network stack inside vmrun, which turns a card's frames into the host's sockets and back.

Ref: libslirp.h of libslirp 4.7 (configuration version 1 and up).

The stack has a thread of its own, without the GIL. What the card sends is copied into a buffer under a small mutex (`put`, on
a processor's thread, device lock held); the thread takes the buffer, feeds the stack with the stack's mutex held, and then
delivers what came out with the device lock held. A burst wakes the thread once, at its end. A frame that the stack is quickly
done with (a ping, a key typed into a connection, a datagram) goes in on the card's own thread, at most AT_ONCE of a burst, when
the stack has nothing else to do, and its answer comes back with it. Two buffers each way, bounded: a card that sends more
than the stack has taken is told to wait; what comes for a card that has no room waits as with every back end.

The stack reads the clock when it is polled and never else; what slept is told of the time before it is given anything, or
connections are born too old.

Locks, in this order: device lock, the stack's mutex, the mutex of the buffer.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

import _thread

from accel.api cimport DeviceLock, Notifier, i64, pthread_mutex_t, u8, u32, u64
from accel.dma cimport IoVec
from accel.threads cimport (
    pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_trylock, pthread_mutex_unlock,
)
from vmrun.backends.net.base cimport HostNet
from vmrun.backends.net.offload cimport net_join, net_needs, net_whole
from vmrun.backends.net.tftp cimport TftpMemory
from vmrun.backends.protocols cimport (
    NET_CAN_CSUM, NET_CAN_ECN, NET_CAN_TSO4, NET_CAN_TSO6, NET_DATA_VALID, NET_GSO_TCP4, NET_NEEDS_CSUM, NetHeader,
)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *, unsigned long, int)
    enum:
        POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP

cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct in6_addr:
        uint8_t s6_addr[16]

cdef extern from "<slirp/libslirp.h>" nogil:
    ctypedef struct SlirpStack "Slirp":
        pass
    enum:
        SLIRP_POLL_IN, SLIRP_POLL_OUT, SLIRP_POLL_PRI, SLIRP_POLL_ERR, SLIRP_POLL_HUP
    ctypedef void (*SlirpTimerCb)(void *) noexcept
    struct SlirpCb:
        ssize_t (*send_packet)(const void *, size_t, void *) noexcept
        void (*guest_error)(const char *, void *) noexcept
        i64 (*clock_get_ns)(void *) noexcept
        void *(*timer_new)(SlirpTimerCb, void *, void *) noexcept
        void (*timer_free)(void *, void *) noexcept
        void (*timer_mod)(void *, i64, void *) noexcept
        void (*register_poll_fd)(int, void *) noexcept
        void (*unregister_poll_fd)(int, void *) noexcept
        void (*notify)(void *) noexcept
    struct SlirpConfig:
        uint32_t version
        int restricted
        bint in_enabled
        in_addr vnetwork
        in_addr vnetmask
        in_addr vhost
        bint in6_enabled
        in6_addr vprefix_addr6
        uint8_t vprefix_len
        in6_addr vhost6
        const char *vhostname
        const char *tftp_server_name
        const char *tftp_path
        const char *bootfile
        in_addr vdhcp_start
        in_addr vnameserver
        in6_addr vnameserver6
        const char **vdnssearch
        const char *vdomainname
    SlirpStack *slirp_new(const SlirpConfig *, const SlirpCb *, void *)
    void slirp_cleanup(SlirpStack *)
    void slirp_pollfds_fill(SlirpStack *, uint32_t *, int (*)(int, int, void *) noexcept, void *)
    void slirp_pollfds_poll(SlirpStack *, int, int (*)(int, void *) noexcept, void *)
    void slirp_input(SlirpStack *, const uint8_t *, int)
    int slirp_add_hostfwd(SlirpStack *, int, in_addr, int, in_addr, int)
    int slirp_remove_hostfwd(SlirpStack *, int, in_addr, int)
    int slirp_add_exec(SlirpStack *, const char *, in_addr *, int)
    int slirp_add_unix(SlirpStack *, const char *, in_addr *, int)
    char *slirp_connection_info(SlirpStack *)
    const char *slirp_version_string()

cdef enum:
    BUFFER = 1 << 20            # bytes that wait for the stack; more blocks a card that can wait
    SHORT = 1600                # bytes of a frame that the card's thread gives to the stack itself
    AT_ONCE = 64                # such frames of a burst
    PORTION = 1 << 16           # bytes of a burst that the thread is woken for before its end
    STALE = 100                 # ms after which the stack is told of the time
    TFTP = 69
    WHOLE = 1
    HALF = 2
    SLACK = 1 << 21             # of a buffer, for what is sent although it is full
    OUT_MOST = 1 << 22          # bytes that the stack makes at once; more is lost, and TCP sends it again
    FIRST_OUT = 1 << 18
    MOST_TIMERS = 4
    LONG_WAIT = 0xFFFFFFFF
    HEADERS = 54                # Ethernet's, IPv4's and TCP's without options
    MOST_JOINED = 65000
    ACK = 0x10
    PSH = 0x08

cdef int[5] STACKS = [SLIRP_POLL_IN, SLIRP_POLL_OUT, SLIRP_POLL_PRI, SLIRP_POLL_ERR, SLIRP_POLL_HUP]
cdef int[5] KERNELS = [POLLIN, POLLOUT, POLLPRI, POLLERR, POLLHUP]

ctypedef struct StackTimer:
    SlirpTimerCb callback
    void *opaque
    i64 expire                  # ms of the monotonic clock, -1: not set
    bint used


cdef i64 monotonic() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <i64>now.tv_sec * 1000000000 + now.tv_nsec


cdef ssize_t on_packet(const void *data, size_t length, void *opaque) noexcept nogil:
    (<StackNet>opaque).came_out(<const u8 *>data, length)
    return <ssize_t>length


cdef void on_error(const char *message, void *opaque) noexcept nogil:
    pass


cdef i64 on_clock(void *opaque) noexcept nogil:
    return monotonic()


cdef void *on_timer_new(SlirpTimerCb callback, void *of, void *opaque) noexcept nogil:
    return (<StackNet>opaque).new_timer(callback, of)


cdef void on_timer_free(void *timer, void *opaque) noexcept nogil:
    if timer != NULL:
        (<StackTimer *>timer).used = False


cdef void on_timer_mod(void *timer, i64 expire, void *opaque) noexcept nogil:
    if timer != NULL:
        (<StackTimer *>timer).expire = expire


cdef void on_fd(int fd, void *opaque) noexcept nogil:
    pass


cdef void on_new_fd(int fd, void *opaque) noexcept nogil:
    (<StackNet>opaque).unpolled = True


cdef void on_notify(void *opaque) noexcept nogil:
    call_wake(opaque)


cdef int on_add_poll(int fd, int events, void *opaque) noexcept nogil:
    return (<StackNet>opaque).add_poll(fd, events)


cdef int on_revents(int index, void *opaque) noexcept nogil:
    return (<StackNet>opaque).revents(index)


cdef void call_wake(void *net) noexcept nogil:
    (<StackNet>net).notifier.signal()


cdef SlirpCb callbacks
memset(&callbacks, 0, sizeof(SlirpCb))
callbacks.send_packet = on_packet
callbacks.guest_error = on_error
callbacks.clock_get_ns = on_clock
callbacks.timer_new = on_timer_new
callbacks.timer_free = on_timer_free
callbacks.timer_mod = on_timer_mod
callbacks.register_poll_fd = on_new_fd
callbacks.unregister_poll_fd = on_fd
callbacks.notify = on_notify


def version():
    return (<bytes>slirp_version_string()).decode()


cdef in_addr address4(bytes packed):
    cdef in_addr address
    memcpy(&address, <const char *>packed, 4)
    return address


cdef u32 stream_part(const u8 *frame, u32 length) noexcept nogil:
    """Bytes of data in a plain segment of TCP over IPv4: no options, no flags but ACK and PSH. 0: it is something else."""
    if length <= HEADERS or frame[12] != 8 or frame[13] != 0 or frame[14] != 0x45 or frame[23] != 6:
        return 0
    if frame[20] & 0x3F or frame[21] or frame[46] != 0x50 or (frame[47] & ~<u8>PSH) != ACK:
        return 0
    if (<u32>frame[16] << 8 | frame[17]) + 14 != length:
        return 0
    return length - HEADERS


cdef bint may_be_quick(const u8 *frame, u64 length, u64 total) noexcept nogil:
    """Whether `quick_sort` is worth its copy: of a frame that begins so."""
    return total <= 256 or total <= SHORT and length >= 24 and frame[23] == 17


cdef int quick_sort(const u8 *frame, u32 length) noexcept nogil:
    """WHOLE: an address that is asked for, a datagram; HALF: a ping, or a segment of a few bytes within a TCP connection; 0:
    anything else, which may take the stack a while, acknowledgements too: they let go as much data as the window has room for.
    """
    if length < 42:
        return 0
    if frame[12] == 8 and frame[13] == 6:
        return WHOLE if frame[21] == 1 else HALF                # what it learns may be what something waits for
    if frame[12] != 8 or frame[13] != 0 or frame[14] != 0x45 or frame[20] & 0x3F or frame[21]:
        return 0
    if frame[23] == 1:
        return HALF if frame[34] == 8 else 0
    if frame[23] == 17:
        return 0 if frame[36] == 0 and frame[37] == TFTP else WHOLE     # its files are the host's, and read at once
    if frame[23] == 6 and HEADERS + 12 < length <= 256 and frame[47] == ACK | PSH:
        return HALF
    return 0


cdef bint follows(const u8 *first, const u8 *frame, u32 offset) noexcept nogil:
    """Whether a segment goes on `offset` bytes behind the first one's, all else being the same."""
    cdef u32 sequence = <u32>first[38] << 24 | <u32>first[39] << 16 | <u32>first[40] << 8 | first[41]
    sequence += offset
    if memcmp(first, frame, 14) != 0 or memcmp(first + 26, frame + 26, 12) != 0 or memcmp(first + 42, frame + 42, 4) != 0:
        return False
    if memcmp(first + 48, frame + 48, 2) != 0:
        return False
    return (<u32>frame[38] << 24 | <u32>frame[39] << 16 | <u32>frame[40] << 8 | frame[41]) == sequence


cdef class StackNet(HostNet):
    """`settings`: what vmrun.backends.net.user has worked out, addresses as packed bytes."""

    cdef SlirpStack *stack
    cdef pthread_mutex_t mutex, buffer_mutex
    cdef DeviceLock lock
    cdef Notifier notifier
    cdef u8 *buffers[2]         # from the card: [u32 length][frame]…
    cdef u64 filled             # bytes in buffers[0]
    cdef u8 *out                # from the stack: likewise
    cdef u64 out_filled, out_room
    cdef u8 joined[65536]       # a large frame for the card
    cdef readonly u64 lost      # frames that the stack made and nobody could keep
    cdef pollfd *polls
    cdef u32 poll_count, poll_room
    cdef StackTimer timers[MOST_TIMERS]
    cdef TftpMemory tftp
    cdef bint feeding           # what the card sent before is on its way to the stack
    cdef bint collecting        # a burst: the thread is woken at its end
    cdef bint asleep            # … and is owed that
    cdef u32 quick              # frames that the burst at hand may still give to the stack itself
    cdef i64 fresh              # ms when the stack saw the time
    cdef bint unpolled          # it has a descriptor that the thread does not wait for
    cdef bint stopping
    cdef object over            # held while the thread runs
    cdef list kept              # memory that the stack points to
    cdef public dict settings
    cdef public list forwards   # (protocol, host address, host port, guest address, guest port)

    def __cinit__(self, *args, **kwargs):
        pthread_mutex_init(&self.mutex, NULL)
        pthread_mutex_init(&self.buffer_mutex, NULL)
        self.forwards = []
        self.kept = []

    def __init__(self, DeviceLock lock, dict settings):
        cdef SlirpConfig config
        cdef const char **names
        cdef u32 n
        self.lock, self.settings = lock, settings
        self.notifier = Notifier()
        self.tftp = TftpMemory()
        self.can = NET_CAN_CSUM | NET_CAN_TSO4 | NET_CAN_TSO6 | NET_CAN_ECN
        self.buffers[0] = <u8 *>calloc(1, BUFFER + SLACK)
        self.buffers[1] = <u8 *>calloc(1, BUFFER + SLACK)
        if self.buffers[0] == NULL or self.buffers[1] == NULL:
            raise MemoryError
        memset(&config, 0, sizeof(SlirpConfig))
        config.version = 1
        config.restricted = settings["restrict"]
        config.in_enabled = settings["ipv4"]
        config.vnetwork, config.vnetmask = address4(settings["net"]), address4(settings["mask"])
        config.vhost, config.vdhcp_start = address4(settings["host"]), address4(settings["dhcpstart"])
        config.vnameserver = address4(settings["dns"])
        config.in6_enabled = settings["ipv6"]
        config.vprefix_len = settings["prefix-length"]
        memcpy(&config.vprefix_addr6, <const char *>(<bytes>settings["prefix"]), 16)
        memcpy(&config.vhost6, <const char *>(<bytes>settings["host6"]), 16)
        memcpy(&config.vnameserver6, <const char *>(<bytes>settings["dns6"]), 16)
        config.vhostname = self._text("hostname")
        config.tftp_server_name = self._text("tftp-server-name")
        config.tftp_path = self._text("tftp")
        config.bootfile = self._text("bootfile")
        config.vdomainname = self._text("domainname")
        search = [name.encode() for name in settings["dnssearch"]]
        if search:
            room = bytearray(8 * (len(search) + 1))
            names = <const char **><char *>room
            for n, name in enumerate(search):
                names[n] = <const char *><bytes>name
            self.kept += [room, search]
            config.vdnssearch = names
        self.stack = slirp_new(&config, &callbacks, <void *>self)
        if self.stack == NULL:
            raise ValueError("libslirp takes no such addresses")

    cdef const char *_text(self, name) except? NULL:
        value = self.settings.get(name)
        if value is None:
            return NULL
        data = value.encode()
        self.kept.append(data)
        return <const char *>(<bytes>data)

    def __dealloc__(self):
        if self.stack != NULL:
            slirp_cleanup(self.stack)
        free(self.buffers[0])
        free(self.buffers[1])
        free(self.out)
        free(self.polls)
        pthread_mutex_destroy(&self.mutex)
        pthread_mutex_destroy(&self.buffer_mutex)

    # --- the card's side, with the device lock --------------------------------------------------------------

    cdef bint at_once(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        """Give the stack a short frame that is quickly answered, without its thread: False when that has something to do."""
        cdef u8 frame[SHORT]
        cdef u64 done = 0
        cdef u32 n
        cdef int sort
        if pthread_mutex_trylock(&self.mutex) != 0:
            return False
        pthread_mutex_lock(&self.buffer_mutex)
        n = self.filled != 0 or self.feeding or self.out_filled != 0
        pthread_mutex_unlock(&self.buffer_mutex)
        if n or self.stopping:
            pthread_mutex_unlock(&self.mutex)
            return False
        for n in range(count):
            memcpy(frame + done, pieces[n].base, pieces[n].length)
            done += pieces[n].length
        sort = quick_sort(frame, <u32>total)
        if not sort:
            pthread_mutex_unlock(&self.mutex)
            return False
        if net_needs(header):
            net_whole(frame, <u32>total)
        if self.quick == AT_ONCE or not self.collecting:        # a burst takes less than a moment
            self.tell_time()
        self.unpolled = False
        slirp_input(self.stack, frame, <int>total)
        if self.out_filled and frame[23] == 1 and self.out[17] == 0:    # IP came, not a question for the guest's address
            sort = WHOLE                                        # a ping of its own address
        n = self.unpolled
        if self.out_filled:
            self.pass_out()
        pthread_mutex_unlock(&self.mutex)
        if sort == HALF or n:                                   # there may be other descriptors and times to wait for
            self.wake()
        return True

    cdef void wake(self) noexcept nogil:
        """The thread shall look again; after a burst."""
        if self.collecting:
            self.asleep = True
        else:
            self.notifier.signal()

    cdef void burst(self, bint begins) noexcept nogil:
        self.collecting = begins
        self.quick = AT_ONCE
        if not begins and self.asleep:
            self.asleep = False
            self.notifier.signal()

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        cdef u8 *at
        cdef u32 n
        cdef u64 before
        if may_be_quick(<u8 *>pieces[0].base, pieces[0].length, total) and (self.quick or not self.collecting):
            if self.at_once(pieces, count, total, header):
                if self.collecting:
                    self.quick -= 1
                return
        pthread_mutex_lock(&self.buffer_mutex)
        if self.filled + total + 4 > BUFFER + SLACK:
            self.dropped += 1
            pthread_mutex_unlock(&self.buffer_mutex)
            return
        before = self.filled
        at = self.buffers[0] + self.filled
        (<u32 *>at)[0] = <u32>total
        at += 4
        for n in range(count):
            memcpy(at, pieces[n].base, pieces[n].length)
            at += pieces[n].length
        if net_needs(header):
            net_whole(at - total, <u32>total)
        self.filled += (total + 4 + 3) & ~<u64>3
        self.blocked = self.filled > BUFFER
        pthread_mutex_unlock(&self.buffer_mutex)
        if before == 0:
            self.wake()
        elif self.asleep and before >= PORTION:
            self.asleep = False
            self.notifier.signal()

    # --- the stack's side, with its mutex ---------------------------------------------------------------------

    cdef void tell_time(self) noexcept nogil:
        """Polled with nothing that is ready, the stack does no more than look at the clock and at its timeouts."""
        cdef i64 now = monotonic() // 1000000
        if now - self.fresh >= STALE:
            self.fresh = now
            slirp_pollfds_poll(self.stack, 1, on_revents, <void *>self)

    cdef void came_out(self, const u8 *data, u64 length) noexcept nogil:
        cdef u64 room = self.out_room if self.out_room else <u64>FIRST_OUT
        cdef u64 wanted = self.out_filled + ((length + 4 + 3) & ~<u64>3)
        cdef u8 *grown
        self.tftp.sent(data, <u32>length)
        if wanted > OUT_MOST:
            self.lost += 1
            return
        while room < wanted:
            room *= 2
        if room != self.out_room:
            grown = <u8 *>realloc(self.out, room)
            if grown == NULL:
                self.lost += 1
                return
            self.out, self.out_room = grown, room
        (<u32 *>(self.out + self.out_filled))[0] = <u32>length
        memcpy(self.out + self.out_filled + 4, data, length)
        self.out_filled = wanted

    cdef void *new_timer(self, SlirpTimerCb callback, void *opaque) noexcept nogil:
        cdef u32 n
        for n in range(MOST_TIMERS):
            if not self.timers[n].used:
                self.timers[n].used, self.timers[n].expire = True, -1
                self.timers[n].callback, self.timers[n].opaque = callback, opaque
                return &self.timers[n]
        return NULL

    cdef int add_poll(self, int fd, int events) noexcept nogil:
        cdef pollfd *grown
        cdef short wanted = 0
        cdef u32 n
        if self.poll_count == self.poll_room:
            grown = <pollfd *>realloc(self.polls, (self.poll_room * 2 + 16) * sizeof(pollfd))
            if grown == NULL:
                return -1
            self.polls, self.poll_room = grown, self.poll_room * 2 + 16
        for n in range(5):
            if events & STACKS[n]:
                wanted |= KERNELS[n]
        self.polls[self.poll_count].fd = fd
        self.polls[self.poll_count].events, self.polls[self.poll_count].revents = wanted, 0
        self.poll_count += 1
        return <int>self.poll_count - 1

    cdef int revents(self, int index) noexcept nogil:
        cdef int found = 0, had
        cdef u32 n
        if index < 0 or index >= <int>self.poll_count:
            return 0
        had = self.polls[index].revents
        for n in range(5):
            if had & KERNELS[n]:
                found |= STACKS[n]
        return found

    cdef void run_timers(self, u32 *timeout) noexcept nogil:
        cdef i64 now = monotonic() // 1000000, left
        cdef u32 n
        for n in range(MOST_TIMERS):
            if self.timers[n].used and self.timers[n].expire >= 0:
                if self.timers[n].expire <= now:
                    self.timers[n].expire = -1
                    self.timers[n].callback(self.timers[n].opaque)
                if self.timers[n].expire >= 0:
                    left = max(self.timers[n].expire - now, <i64>0)
                    if left < timeout[0]:
                        timeout[0] = <u32>left

    cdef void feed(self) noexcept nogil:
        """Give the stack what the card sent."""
        cdef u8 *at
        cdef u8 *end
        cdef const u8 *again
        cdef u32 size
        cdef bint was_blocked
        pthread_mutex_lock(&self.buffer_mutex)
        at, self.buffers[0], self.buffers[1] = self.buffers[0], self.buffers[1], self.buffers[0]
        end = at + self.filled
        was_blocked = self.blocked
        self.filled = 0
        self.feeding = at != end
        pthread_mutex_unlock(&self.buffer_mutex)
        if at == end:
            return
        pthread_mutex_lock(&self.mutex)
        self.tell_time()
        while at < end:
            if not self.tftp.repeats(at + 4, (<u32 *>at)[0], monotonic() // 1000000, &again, &size):
                slirp_input(self.stack, at + 4, <int>(<u32 *>at)[0])
            elif again != NULL:
                self.came_out(again, size)
            at += ((<u32 *>at)[0] + 4 + 3) & ~<u32>3
        self.feeding = False
        pthread_mutex_unlock(&self.mutex)
        if was_blocked:
            self.lock.acquire()
            self.unblock()
            self.lock.release()

    cdef void hand_out(self) noexcept nogil:
        """Give the card what the stack made."""
        if not self.out_filled:
            return
        self.lock.acquire()
        pthread_mutex_lock(&self.mutex)
        self.pass_out()
        pthread_mutex_unlock(&self.mutex)
        self.lock.release()

    cdef void pass_out(self) noexcept nogil:
        """The same with both locks held."""
        cdef u8 *at = self.out
        cdef u8 *end = at + self.out_filled
        while at < end:
            at = self.hand_on(at, end)
        self.out_filled = 0

    cdef u8 *hand_on(self, u8 *at, u8 *end) noexcept nogil:
        """Deliver a frame, as one with those behind it that continue its stream where the card takes that. The next one."""
        cdef NetHeader header
        cdef u32 takes = self.frontend.takes if self.frontend is not None else 0
        cdef u32 length = (<u32 *>at)[0], size, part, filled, count = 1
        cdef u8 *frame = at + 4
        cdef u8 *next = at + ((length + 4 + 3) & ~<u32>3)
        cdef u8 *other
        memset(&header, 0, sizeof(header))
        if takes & NET_CAN_CSUM:
            header.flags = NET_DATA_VALID                       # the stack has made it
        size = stream_part(frame, length) if takes & NET_CAN_TSO4 and next < end else 0
        if not size or frame[47] & PSH:
            self.deliver(frame, length, &header if takes & NET_CAN_CSUM else NULL)
            return next
        filled = HEADERS + size
        memcpy(self.joined, frame, filled)
        while next < end:
            other = next + 4
            part = stream_part(other, (<u32 *>next)[0])
            if not part or part > size or filled + part > MOST_JOINED or not follows(self.joined, other, filled - HEADERS):
                break
            memcpy(self.joined + filled, other + HEADERS, part)
            filled += part
            count += 1
            self.joined[47] |= other[47] & PSH
            next += ((<u32 *>next)[0] + 4 + 3) & ~<u32>3
            if part < size or other[47] & PSH:
                break
        if count > 1:
            net_join(self.joined, filled)
            header.flags, header.gso = NET_NEEDS_CSUM, NET_GSO_TCP4
            header.header_length, header.segment_size = HEADERS, size
            header.csum_start, header.csum_offset = 34, 16
        self.deliver(self.joined, filled, &header)
        return next

    cdef void main(self) noexcept nogil:
        cdef u32 timeout
        cdef int result
        while not self.stopping:
            timeout = LONG_WAIT
            pthread_mutex_lock(&self.mutex)
            self.poll_count = 0
            self.add_poll(self.notifier.fd, SLIRP_POLL_IN)
            slirp_pollfds_fill(self.stack, &timeout, on_add_poll, <void *>self)
            self.run_timers(&timeout)
            pthread_mutex_unlock(&self.mutex)
            self.hand_out()
            result = poll(self.polls, self.poll_count, -1 if timeout == LONG_WAIT else <int>timeout)
            if self.stopping:
                break
            if self.polls[0].revents:
                self.notifier.clear()
            self.feed()
            pthread_mutex_lock(&self.mutex)
            slirp_pollfds_poll(self.stack, result < 0, on_revents, <void *>self)
            pthread_mutex_unlock(&self.mutex)
            self.hand_out()

    # --- life, and what monitors ask: without the device lock ------------------------------------------------

    def start(self):
        self.over = _thread.allocate_lock()
        self.over.acquire()
        _thread.start_new_thread(self._run, ())

    def _run(self):
        try:
            with nogil:
                self.main()
        finally:
            self.over.release()

    def close(self):
        if self.over is not None:
            self.stopping = True
            with nogil:
                self.notifier.signal()
            self.over.acquire()
            self.over = None
        if self.stack != NULL:
            slirp_cleanup(self.stack)
            self.stack = NULL
        HostNet.close(self)

    def connections(self):
        """The stack's table of connections, as text."""
        cdef char *text
        with nogil:                                             # who has the mutex may wait for the GIL
            pthread_mutex_lock(&self.mutex)
            text = slirp_connection_info(self.stack)
            pthread_mutex_unlock(&self.mutex)
        found = (<bytes>text).decode("utf-8", "replace")
        free(text)                                              # glib's allocator is the C library's
        return found

    def forward(self, bint udp, bytes host, int host_port, bytes guest, int guest_port):
        """Listen on the host for the guest. False: the host refuses."""
        cdef in_addr at = address4(host), to = address4(guest)
        cdef int result
        with nogil:
            pthread_mutex_lock(&self.mutex)
            result = slirp_add_hostfwd(self.stack, udp, at, host_port, to, guest_port)
            pthread_mutex_unlock(&self.mutex)
            self.notifier.signal()
        return result == 0

    def unforward(self, bint udp, bytes host, int host_port):
        cdef in_addr at = address4(host)
        cdef int result
        with nogil:
            pthread_mutex_lock(&self.mutex)
            result = slirp_remove_hostfwd(self.stack, udp, at, host_port)
            pthread_mutex_unlock(&self.mutex)
            self.notifier.signal()
        return result == 0

    def serve(self, bytes guest, int port, bytes command=None, bytes unix=None):
        """What guests find at an address of the network: a command of the host's for each connection, or a socket."""
        cdef in_addr at = address4(guest)
        cdef const char *program = NULL
        cdef const char *path = NULL
        cdef int result
        if command is not None:
            program = command
        else:
            path = unix
        with nogil:                                             # who has the mutex may wait for the GIL
            pthread_mutex_lock(&self.mutex)
            if program != NULL:
                result = slirp_add_exec(self.stack, program, &at, port)
            else:
                result = slirp_add_unix(self.stack, path, &at, port)
            pthread_mutex_unlock(&self.mutex)
        return result == 0

    def describe(self):
        net = self.settings["net"]
        return "net=%s,restrict=%s" % (
            ".".join(str(byte) for byte in net),
            "on" if self.settings["restrict"] else "off",
        )
