"""What all network back ends share, compiled: both directions, frames that wait, work left to do, captures, statistics.

A kind of back end overrides `put` (a frame from the card) and `resume_input` (the card has room again), and calls `deliver`.
`put` takes every frame, to send, queue or drop it; when its queue is long it sets `blocked`, and a card that can is told to
wait until `unblock` (rings of virtio); of others more is queued, until that is too much. Frames for a card that has no room, or whose machine is stopped, wait here, at most MOST_HELD of them; a
back end that has its own queue (a socket's buffer in the kernel) asks `accepts` first and stops reading. Filters see a
frame before the card's room counts. Captures and filters see runts as they came; a card gets at least a frame's header.
A large frame that the back end, or the card, cannot take whole is cut into segments, TURN of them at one go: the guest, or
its neighbour, chooses their size. One for a card is cut as the card has room; until then it waits as it came.

Locks: the device lock is held everywhere here.
"""

from libc.errno cimport errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec
from posix.unistd cimport close

import os

from accel.api import _report

from accel.turns cimport turn_of
from vmrun.backends.net.offload cimport Cut, cut_begin, cut_next, net_checksum, net_needs
from vmrun.backends.protocols cimport NET_MOST_FRAME, NET_NEEDS_CSUM

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t writev(int, const iovec *, int)

cdef enum:
    SHORTEST = 14               # addresses and type
    MOST_PIECES = 64
    ETHERNET_LINK = 1

ctypedef struct Record:         # a frame's header in a capture
    u32 seconds
    u32 microseconds
    u32 kept
    u32 length


cdef u64 gather(IoVec *pieces, u32 count, u8 *out, u64 most) noexcept nogil:
    cdef u64 done = 0, part
    cdef u32 n
    for n in range(count):
        part = min(pieces[n].length, most - done)
        memcpy(out + done, pieces[n].base, part)
        done += part
    return done


cdef void _go_on(void *net) noexcept nogil:
    """What a large frame has left, either way."""
    (<HostNet>net).go_on(TURN)
    if (<HostNet>net).first != NULL:
        (<HostNet>net).room()


cdef class HostNet(NetBackend):
    def __cinit__(self, *args, **kwargs):
        self.capture_fd = -1
        self.taps = []

    def __dealloc__(self):
        self.forget()
        free(self.scratch)
        free(self.large)
        free(self.segment)
        if self.capture_fd >= 0:
            close(self.capture_fd)

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        """A frame from the card; `header` has only what this back end `can`. The pieces are the caller's."""

    cdef void resume_input(self) noexcept nogil:
        """`accepts` says yes again."""

    cdef bint memory(self) noexcept nogil:
        if self.scratch == NULL:
            self.scratch = <u8 *>malloc(2 * NET_MOST_FRAME)
        return self.scratch != NULL

    cdef bint segment_memory(self) noexcept nogil:
        if self.segment == NULL:
            self.segment = <u8 *>malloc(NET_MOST_FRAME)
        return self.segment != NULL

    # --- from the card ------------------------------------------------------------------------------------

    cdef int send(self, IoVec *pieces, u32 count, const NetHeader *header) noexcept nogil:
        cdef u64 total = 0
        cdef u32 n
        cdef IoVec whole
        if (self.blocked or self.cutting) and self.frontend is not None and self.frontend.waits:
            self.refused = True
            return 0
        if self.cutting:
            self.go_on(NET_MOST_FRAME)
        for n in range(count):
            total += pieces[n].length
        if not self.link or not SHORTEST <= total <= NET_MOST_FRAME:
            self.dropped += 1
            return 1
        if count > MOST_PIECES:                                 # of a frame in crumbs
            if not self.memory():
                self.dropped += 1
                return 1
            whole.base, whole.length = self.scratch, gather(pieces, count, self.scratch, NET_MOST_FRAME)
            pieces, count = &whole, 1
        if header != NULL and net_needs(header) & ~self.can:
            self.finish_and_put(pieces, count, total, header)
        else:
            self.pass_on(pieces, count, total, header)
        return 1

    cdef void pass_on(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        self.frames_sent += 1
        self.bytes_sent += total
        if self.capture_fd >= 0:
            self.record(pieces, count, total)
        if not self.filtered or self.filter(True, pieces, count, total):
            self.put(pieces, count, total, header)

    cdef void put_piece(self, u8 *frame, u32 length) noexcept nogil:
        cdef IoVec piece
        piece.base, piece.length = frame, length
        self.pass_on(&piece, 1, length, NULL)

    cdef void finish_and_put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        if not self.memory():
            self.dropped += 1
            return
        if pieces[0].base != <void *>self.scratch:
            total = gather(pieces, count, self.scratch, NET_MOST_FRAME)
        if not header.gso:
            if header.flags & NET_NEEDS_CSUM and net_checksum(self.scratch, <u32>total, header) != 0:
                self.dropped += 1
                return
            self.put_piece(self.scratch, <u32>total)
            return
        if cut_begin(&self.cut, self.scratch, <u32>total, header) != 0:
            self.dropped += 1
            return
        self.cutting = True
        self.go_on(TURN)

    cdef void go_on(self, u32 most) noexcept nogil:
        """At most so many segments more; the I/O thread has the rest, while other frames may need `scratch`."""
        cdef u32 length, n
        for n in range(most if self.cutting and self.memory() else 0):
            length = cut_next(&self.cut, self.scratch + NET_MOST_FRAME)
            if not length:
                self.cutting = False
                if not self.blocked:
                    self.unblock()
                return
            self.put_piece(self.scratch + NET_MOST_FRAME, length)
        if self.cutting and self.cut.frame == self.scratch:
            if not self.can_rest():
                self.go_on(NET_MOST_FRAME)
                return
            free(self.large)
            self.large, self.scratch = self.scratch, NULL
        if self.cutting:
            self.rest.notifier.signal()

    cdef bint can_rest(self) noexcept with gil:
        """Whether there is a thread that goes on."""
        if self.rest is None and self.thread is not None:
            try:
                rest = turn_of(self, _go_on)
                self.thread.add(rest)
                self.rest = rest
            except OSError as exc:
                _report("network back end", exc)
        return self.rest is not None

    cdef void unblock(self) noexcept nogil:
        """What is queued is short again."""
        self.blocked = False
        if self.refused and not self.cutting:
            self.refused = False
            if self.frontend is not None:
                self.frontend.sent()

    # --- to the card --------------------------------------------------------------------------------------

    cdef bint accepts(self) noexcept nogil:
        """Whether the next frame would not have to wait."""
        if self.frontend is None or not self.link:
            return True                                         # it is dropped
        if self.filtered:
            return self.first == NULL                           # a filter may want it though the card does not
        return self.running and self.first == NULL and self.frontend.can_receive()

    cdef int deliver(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        """A frame for the card. 1: taken, or waits, or dropped; 0: so many wait that this one is lost."""
        cdef IoVec piece
        if self.frontend is None or not self.link or not 1 <= length <= NET_MOST_FRAME:
            self.dropped += 1
            return 1
        if self.capture_fd >= 0 or self.filtered:
            piece.base, piece.length = <void *>frame, length
            if self.capture_fd >= 0:
                self.record(&piece, 1, length)
            if self.filtered and not self.filter(False, &piece, 1, length):
                return 1
        return self.hand(frame, length, header)

    cdef int hand(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        cdef u8 padded[SHORTEST]
        if length < SHORTEST:
            memset(padded, 0, SHORTEST)
            memcpy(padded, frame, length)
            frame, length = padded, SHORTEST
        if header != NULL and net_needs(header) & ~self.frontend.takes:
            if header.gso:
                if not self.hold(frame, length, header):
                    return 0
                self.room()
                return 1
            if not self.segment_memory():
                return 0
            memcpy(self.segment, frame, length)
            if net_checksum(self.segment, length, header) != 0:
                self.dropped += 1
                return 1
            return self.offer(self.segment, length, NULL)
        return self.offer(frame, length, header if self.frontend.takes else NULL)

    cdef int offer(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        if self.running and self.first == NULL and self.frontend.can_receive():
            if self.frontend.receive(frame, length, header):
                self.frames_received += 1
                self.bytes_received += length
                return 1
        return self.hold(frame, length, header)

    cdef int hold(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        cdef Held *one = NULL
        if self.held_count < MOST_HELD and self.held_bytes + length <= MOST_HELD_BYTES:
            one = <Held *>malloc(sizeof(Held) + length)
        if one == NULL:
            self.dropped += 1
            return 0
        one.next, one.length, one.has_header = NULL, length, header != NULL
        if header != NULL:
            one.header = header[0]
        memcpy(<u8 *>(one + 1), frame, length)
        if self.first == NULL:
            self.first = one
        else:
            self.last.next = one
        self.last = one
        self.held_count += 1
        self.held_bytes += length
        return 1

    cdef void room(self) noexcept nogil:
        cdef Held *one
        cdef u32 left = TURN
        if self.flushing or not self.running or self.frontend is None:
            return
        self.flushing = True
        while self.first != NULL and self.running and self.frontend.can_receive():
            one = self.first
            if one.has_header and net_needs(&one.header) & ~self.frontend.takes:
                if not left and (self.rest is not None or self.can_rest()):
                    self.rest.notifier.signal()
                    break
                left -= left != 0
                if not self.uncut():
                    break
                continue
            if not self.frontend.receive(<u8 *>(one + 1), one.length, &one.header if one.has_header else NULL):
                break
            self.frames_received += 1
            self.bytes_received += one.length
            self.drop_first()
        self.flushing = False
        if self.first == NULL:
            self.resume_input()

    cdef bint uncut(self) noexcept nogil:
        """The next segment of the first that waits, for a card that does not take it whole. False: the card has no room."""
        cdef Held *one = self.first
        cdef u8 *frame = <u8 *>(one + 1)
        cdef u32 length
        if not one.header.gso:                                  # it came while another card was there
            one.has_header = False
            if net_checksum(frame, one.length, &one.header) != 0:
                self.dropped += 1
                self.drop_first()
            return True
        if not self.uncutting:
            if not self.segment_memory() or cut_begin(&self.incoming_cut, frame, one.length, &one.header) != 0:
                self.dropped += 1
                self.drop_first()
                return True
            self.uncutting = True
        length = cut_next(&self.incoming_cut, self.segment)
        if not length:
            self.drop_first()
        elif self.frontend.receive(self.segment, length, NULL):
            self.frames_received += 1
            self.bytes_received += length
        else:
            self.wait_first(self.segment, length)
            return False
        return True

    cdef void drop_first(self) noexcept nogil:
        """It is over; another behind a segment that waits in front of it is not."""
        cdef Held *one = self.first
        if one.has_header:
            self.uncutting = False
        self.first = one.next
        self.held_count -= 1
        self.held_bytes -= one.length
        free(one)

    cdef void wait_first(self, const u8 *frame, u32 length) noexcept nogil:
        """A segment that the card did not take comes again before what its frame has left."""
        cdef Held *one = <Held *>malloc(sizeof(Held) + length)
        if one == NULL:
            self.dropped += 1
            return
        one.next, one.length, one.has_header = self.first, length, False
        memcpy(<u8 *>(one + 1), frame, length)
        self.first = one
        self.held_count += 1
        self.held_bytes += length

    cdef void forget(self) noexcept nogil:
        """What waits for the card is lost."""
        cdef Held *one = self.first
        while one != NULL:
            self.first = one.next
            free(one)
            one = self.first
        self.last = NULL
        self.held_count, self.held_bytes, self.uncutting = 0, 0, False

    def card_changed(self):
        if self.frontend is None:
            self.forget()
        if self.blocked or self.cutting:
            self.refused = True
        self.room()

    # --- captures and filters -----------------------------------------------------------------------------

    cdef void record(self, IoVec *pieces, u32 count, u64 total) noexcept nogil:
        """One frame into the capture, at most `capture_most` bytes of it. A full disk ends the capture."""
        cdef iovec parts[MOST_PIECES + 1]
        cdef Record head
        cdef timespec now
        cdef u64 kept = 0, part
        cdef u32 n
        clock_gettime(CLOCK_REALTIME, &now)
        for n in range(min(count, <u32>MOST_PIECES)):
            part = min(pieces[n].length, self.capture_most - kept)
            parts[n + 1].iov_base, parts[n + 1].iov_len = pieces[n].base, part
            kept += part
        head.seconds, head.microseconds = <u32>now.tv_sec, <u32>(now.tv_nsec // 1000)
        head.kept, head.length = <u32>kept, <u32>total
        parts[0].iov_base, parts[0].iov_len = &head, sizeof(Record)
        if writev(self.capture_fd, parts, min(count, <u32>MOST_PIECES) + 1) != <ssize_t>(sizeof(Record) + kept):
            self.capture_error = errno
            close(self.capture_fd)
            self.capture_fd = -1

    def capture(self, path, u32 most=65536):
        """Record every frame, both ways, into a pcap file of that path. OSError."""
        import struct

        cdef int fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, most, ETHERNET_LINK))
        except OSError:
            os.close(fd)
            raise
        self.capture_most = most
        if self.capture_fd >= 0:
            os.close(self.capture_fd)
        self.capture_fd = fd

    def end_capture(self):
        if self.capture_fd >= 0:
            os.close(self.capture_fd)
            self.capture_fd = -1

    cdef bint filter(self, bint outgoing, IoVec *pieces, u32 count, u64 total) noexcept nogil:
        """Whether the frame goes on; the filters in their order, the other way round for what comes in."""
        cdef bint on = True
        with gil:
            try:
                frame = b"".join([(<char *>pieces[n].base)[:pieces[n].length] for n in range(count)])
                for tap in self.taps if outgoing else reversed(self.taps):
                    if not tap.passes(outgoing, frame):
                        on = False
                        break
            except Exception as exc:
                _report("network filter", exc)
        return on

    @property
    def filters(self):
        """In the order in which they see what the card sends."""
        return tuple(self.taps)

    def add_filter(self, tap, place=None):
        """`tap.passes(outgoing, frame)`: whether the frame goes on. At that place of `filters`; behind all of them."""
        self.taps.insert(len(self.taps) if place is None else place, tap)
        self.filtered = True
        if self.accepts():
            self.resume_input()

    def remove_filter(self, tap):
        self.taps.remove(tap)
        self.filtered = bool(self.taps)

    def inject(self, bint outgoing, bytes frame, after=None):
        """A frame as it leaves the filter `after`: to the other end, or to the card. The device lock is held."""
        order = self.taps if outgoing else self.taps[::-1]
        for tap in order[order.index(after) + 1:] if after in order else order:
            if not tap.passes(outgoing, frame):
                return
        cdef IoVec piece
        cdef const u8 *start = frame
        if outgoing:
            piece.base, piece.length = <void *>start, len(frame)
            self.put(&piece, 1, piece.length, NULL)
        elif self.frontend is not None and self.link and 1 <= len(frame) <= NET_MOST_FRAME:
            self.hand(start, <u32>len(frame), NULL)

    # --- from Python --------------------------------------------------------------------------------------

    def transmit(self, bytes frame):
        """A finished frame as the card sends it (announcements). The device lock is held."""
        cdef IoVec piece
        piece.base, piece.length = <void *><const u8 *>frame, len(frame)
        return bool(self.send(&piece, 1, NULL))

    def transmit_all(self, list frames):
        """Several in one burst, for tests. How many were taken."""
        self.burst(True)
        try:
            return sum([self.transmit(frame) for frame in frames])
        finally:
            self.burst(False)

    def transmit_with(self, bytes frame, header):
        """A frame with something left to do, as the card sends it; for tests. The device lock is held."""
        cdef IoVec piece
        cdef NetHeader told
        piece.base, piece.length = <void *><const u8 *>frame, len(frame)
        told.flags, told.gso, told.header_length, told.segment_size, told.csum_start, told.csum_offset = header
        return bool(self.send(&piece, 1, &told))

    def incoming(self, bytes frame):
        """A frame as it comes from the wire; whether it was not lost. The device lock is held."""
        return bool(self.deliver(<const u8 *>frame, <u32>len(frame), NULL))

    def room_again(self):
        """net_room() for cards in Python."""
        self.room()

    def describe(self):
        """One line for `info network`."""
        return ""

    def statistics(self):
        return {
            "frames-sent": self.frames_sent, "bytes-sent": self.bytes_sent,
            "frames-received": self.frames_received, "bytes-received": self.bytes_received,
            "dropped": self.dropped, "waiting": self.held_count,
        }

    def rest_on(self, thread):
        """The I/O thread for what is longer than a turn; without one all is done at once."""
        self.thread = thread

    def close(self):
        self.forget()
        self.end_capture()
        self.cutting = False
        if self.rest is not None:
            self.thread.remove(self.rest)
            self.rest = None
        self.thread = None


cdef class Wire(HostNet):
    """One end of a cable between two cards of one machine: what goes in here comes out at `other`."""

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        if self.other is None:
            return
        if count == 1:
            self.other.deliver(<u8 *>pieces[0].base, <u32>total, header)
        elif self.other.memory():
            gather(pieces, count, self.other.scratch + NET_MOST_FRAME, NET_MOST_FRAME)
            self.other.deliver(self.other.scratch + NET_MOST_FRAME, <u32>total, header)


def wire_pair():
    """Both ends of a cable, for tests and for two cards of one machine."""
    cdef Wire a = Wire(), b = Wire()
    a.kind = b.kind = "wire"
    a.other, b.other = b, a
    return a, b


cdef class PyNet(HostNet):
    """A back end in Python: `on_frame(bytes, header)` for what the card sends, `incoming(bytes)` for the other way.

    header: None, or (flags, gso, header length, segment size, csum start, csum offset), when it is made with can=….
    """

    def __init__(self, on_frame=None, u32 can=0):
        self.on_frame = on_frame
        self.kind = "python"
        self.can = can
        self.running = True

    cdef void put(self, IoVec *pieces, u32 count, u64 total, const NetHeader *header) noexcept nogil:
        self.call(pieces, count, header)

    cdef void call(self, IoVec *pieces, u32 count, const NetHeader *header) noexcept with gil:
        if self.on_frame is None:
            return
        try:
            told = None
            if header != NULL:
                told = (header.flags, header.gso, header.header_length, header.segment_size,
                        header.csum_start, header.csum_offset)
            self.on_frame(b"".join([(<char *>pieces[n].base)[:pieces[n].length] for n in range(count)]), told)
        except Exception as exc:
            _report("network back end", exc)

    def block(self):
        """Frames are refused until `release`."""
        self.blocked = True

    def release(self):
        self.unblock()

    def incoming_with(self, bytes frame, header):
        """A frame with something left to do."""
        cdef NetHeader told
        told.flags, told.gso, told.header_length, told.segment_size, told.csum_start, told.csum_offset = header
        return bool(self.deliver(<const u8 *>frame, <u32>len(frame), &told))


cdef class PyCard(NetFrontend):
    """A card in Python, for tests and hubs: receive(frame, header) → taken, room() → bool, link(up), sent();
    `waits`: for that.
    """

    def __init__(self, receive=None, room=None, link=None, sent=None, takes=0, waits=True):
        self.on_receive, self.on_room, self.on_link, self.on_sent = receive, room, link, sent
        self.takes, self.waits = takes, waits

    cdef bint can_receive(self) noexcept nogil:
        return self.call_room()

    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        return self.call_receive(frame, length, header)

    cdef void link_changed(self, bint up) noexcept nogil:
        self.call_link(up)

    cdef void sent(self) noexcept nogil:
        self.call_sent()

    cdef bint call_room(self) noexcept with gil:
        try:
            return self.on_room is None or bool(self.on_room())
        except Exception as exc:
            _report("network card", exc)
            return False

    cdef int call_receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept with gil:
        try:
            told = None
            if header != NULL:
                told = (header.flags, header.gso, header.header_length, header.segment_size,
                        header.csum_start, header.csum_offset)
            taken = True if self.on_receive is None else self.on_receive((<char *>frame)[:length], told)
            return taken is None or bool(taken)
        except Exception as exc:
            _report("network card", exc)
            return 1

    cdef void call_link(self, bint up) noexcept with gil:
        try:
            if self.on_link is not None:
                self.on_link(up)
        except Exception as exc:
            _report("network card", exc)

    cdef void call_sent(self) noexcept with gil:
        try:
            if self.on_sent is not None:
                self.on_sent()
        except Exception as exc:
            _report("network card", exc)
