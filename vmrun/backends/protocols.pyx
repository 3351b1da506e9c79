"""All that a device may see of the host: block, character and network back ends.

All are abstract; vmrun.backends.block, .chardev and .net implement them, unit tests have their own. A device calls them
without the GIL, and they never block.

A disk's transfer is a BlockRequest, which the back end owns:

    r = block_request(backend, <void *>self, on_done)   # NULL: no memory
    r.op, r.offset = BLOCK_READ, lba * 512
    block_take(r, scatter)                              # guest memory, pinned and marked by the request from now on; or
                                                        # block_buffer(r, length): its own, for devices that copy
    if block_submit(backend, r):                        # 1: it is over already (a cached read), done is NOT called
        on_done(r)
    # on_done(r): r.error is 0 or an errno; r.owner, r.tag are the device's; ends with block_release(backend, r)

`done` is called once, from any thread, with the request's lock (the device lock unless `r.lock` says another).
block_release() of a request in flight gives it up: done will not come, nothing waits; what was under way goes on to its
end, so its memory must stay mapped, and later requests of that back end start after it. block_settling() tells that
there are such requests: a device that was reset in mid-transfer shows BSY meanwhile.

A network card has a NetFrontend and is plugged into a NetBackend, everything with the device lock held:

    backend.plug(frontend)                              # None: unplugged
    net_send(backend, pieces, count, header)            # 1: it is gone; 0: no room. The frame is kept until `sent`, or dropped
    frontend.receive(frame, length, header)             # 1: taken or dropped; 0: no room, it comes again after net_room()
    net_room(backend)                                   # there may be room again: what was held back comes

A frame has addresses, type and data, no FCS; it is the caller's memory and is not looked at after the call. `header` is NULL
for a finished frame. What a card sends with a header is finished in software where the back end cannot do it; what it
receives has one only when it `takes` that. Nothing is received while the machine is stopped.
"""

from libc.stdlib cimport calloc, free, realloc
from posix.stdlib cimport posix_memalign

from accel.dma cimport dma_unmap
from accel.threads cimport pthread_mutex_destroy, pthread_mutex_init, pthread_mutex_lock, pthread_mutex_unlock

cdef enum:
    MOST_SPARES = 256
    MOST_VECTORS = 1 << 16
    KEPT = 1 << 17              # bytes of own memory that a spare request keeps


cdef class BlockBackend:
    """`size` in bytes, 0 without a medium; `readonly`. Subclasses override submit and abandon."""

    def __cinit__(self, *args, **kwargs):
        self.request_size = sizeof(BlockRequest)
        pthread_mutex_init(&self.spare_mutex, NULL)

    def __dealloc__(self):
        cdef BlockRequest *request = self.spare
        while request != NULL:
            self.spare = request.next
            free(request.vectors)
            free(request.blocks)
            free(request.own)
            free(request)
            request = self.spare
        pthread_mutex_destroy(&self.spare_mutex)

    cdef BlockRequest *request(self, void *owner, block_done done) noexcept nogil:
        """A request for one transfer, or for several one after the other; NULL when there is no memory."""
        cdef BlockRequest *request
        pthread_mutex_lock(&self.spare_mutex)
        request = self.spare
        if request != NULL:
            self.spare = request.next
            self.spares -= 1
        pthread_mutex_unlock(&self.spare_mutex)
        if request == NULL:
            request = <BlockRequest *>calloc(1, self.request_size)
            if request == NULL:
                return NULL
        request.op = request.error = 0
        request.flags = request.count = 0
        request.offset = request.length = request.tag = 0
        request.owner, request.done, request.lock = owner, done, NULL
        request.in_flight = request.abandoned = False
        request.next = NULL
        return request

    cdef void release(self, BlockRequest *request) noexcept nogil:
        """The device is done with it, or gives it up while it is in flight."""
        if request.in_flight:
            self.abandon(request)
        else:
            self.recycle(request)

    cdef void recycle(self, BlockRequest *request) noexcept nogil:
        cdef bint keep
        if request.count:
            # What a read that failed has written nobody knows.
            dma_unmap(request.vectors, request.blocks, request.count, request.to_memory, request.length)
        if request.own_size > KEPT:
            free(request.own)
            request.own, request.own_size = NULL, 0
        pthread_mutex_lock(&self.spare_mutex)
        keep = self.spares < MOST_SPARES
        if keep:
            request.next = self.spare
            self.spare = request
            self.spares += 1
        pthread_mutex_unlock(&self.spare_mutex)
        if not keep:
            free(request.vectors)
            free(request.blocks)
            free(request.own)
            free(request)

    cdef int submit(self, BlockRequest *request) noexcept nogil:
        """Start `request`. 1: it is over already (error is set, done is not called); 0: done will be called."""
        request.error = BLOCK_NO_MEDIUM
        return 1

    cdef void abandon(self, BlockRequest *request) noexcept nogil:
        """The device forgets a request in flight: recycle it when it is over."""

    def set_size(self, u64 size):
        """For back ends written in Python."""
        self.size = size

    def set_errors(self, str on_read, str on_write):
        """QEMU's rerror and werror, `auto` for what the drive itself says."""

    def retry(self):
        """Start again what an error has stopped. True when there was something."""
        return False

    def drain(self):
        """Wait for everything in flight. Called without the device lock."""

    def close(self):
        """Flush and release the image."""


cdef bint call_settling(void *backend) noexcept nogil:
    return (<BlockBackend>backend).settling != 0


cdef BlockRequest *block_request(void *backend, void *owner, block_done done) noexcept nogil:
    """A request of `backend`'s; NULL when there is no memory."""
    return (<BlockBackend>backend).request(owner, done) if backend != NULL else NULL


cdef int _append(BlockRequest *request, void *base, u64 length, void *block) noexcept nogil:
    cdef IoVec *vectors
    cdef void **blocks
    cdef u32 room
    if request.count == request.room:
        room = request.room * 2 if request.room else 16
        if room > MOST_VECTORS:
            return -1
        vectors = <IoVec *>realloc(request.vectors, room * sizeof(IoVec))
        if vectors == NULL:
            return -1
        request.vectors = vectors
        blocks = <void **>realloc(request.blocks, room * sizeof(void *))
        if blocks == NULL:
            return -1
        request.blocks, request.room = blocks, room
    request.vectors[request.count].base = base
    request.vectors[request.count].length = length
    request.blocks[request.count] = block
    request.count += 1
    request.length += length
    return 0


cdef int block_take(BlockRequest *request, Scatter scatter) noexcept nogil:
    """Guest memory: all that `scatter` has gathered, which is empty afterwards. 0, or -1: no memory or too many pieces.

    The request keeps it pinned until it is over, given up or not; what was read is marked then.
    """
    cdef u32 n, before = request.count
    for n in range(scatter.count):
        if _append(request, scatter.pieces[n].base, scatter.pieces[n].length, scatter.blocks[n]) != 0:
            request.count = before                          # the others are still the scatter's
            scatter.finish(0)
            return -1
    request.to_memory = scatter.to_memory
    scatter.hand_over()
    return 0


cdef int block_add(BlockRequest *request, void *base, u64 length) noexcept nogil:
    """One more piece of memory that the device keeps. 0, or -1: no memory or too many pieces."""
    cdef IoVec *last
    if request.count:
        last = &request.vectors[request.count - 1]
        if <u8 *>last.base + last.length == base and request.blocks[request.count - 1] == NULL:
            last.length += length
            request.length += length
            return 0
    return _append(request, base, length, NULL)


cdef u8 *block_buffer(BlockRequest *request, u64 length) noexcept nogil:
    """Memory of the request's own as its only vector; valid until it is released. NULL: no memory."""
    cdef void *memory = NULL
    if request.own_size < length:
        free(request.own)
        request.own, request.own_size = NULL, 0
        if posix_memalign(&memory, 4096, length) != 0:
            return NULL
        request.own, request.own_size = <u8 *>memory, length
    request.count, request.length = 0, 0
    if block_add(request, request.own, length) != 0:
        return NULL
    return request.own


cdef int block_submit(void *backend, BlockRequest *request) noexcept nogil:
    """BlockBackend.submit of a borrowed back end."""
    return (<BlockBackend>backend).submit(request)


cdef void block_release(void *backend, BlockRequest *request) noexcept nogil:
    """The request is the back end's again. In flight, it is given up: done will not be called."""
    if request != NULL:
        (<BlockBackend>backend).release(request)


cdef bint block_settling(void *backend) noexcept nogil:
    """Whether a request that was given up is still under way."""
    return backend != NULL and call_settling(backend)


cdef class CharFrontend:
    """The device's side of a character back end: bytes from the host arrive here, with the device lock held."""

    cdef u32 can_receive(self) noexcept nogil:
        """How many bytes the device has room for now. When that grows, call backend.input_room() if it was 0."""
        return 0

    cdef void receive(self, const u8 *data, u32 count) noexcept nogil:
        pass

    cdef void event(self, int what) noexcept nogil:
        """One of CHAR_EVENT_…"""
        pass


cdef class CharBackend:
    """A character back end. `output` is a bounded ring that the main loop drains; `put` pushes one byte into it."""

    def __cinit__(self, *args, **kwargs):
        self.frontend = CharFrontend()
        self.name = ""
        self.output = ByteRing(65536)

    cdef int put(self, u8 byte) noexcept nogil:
        """1 when taken, 0 when the ring is full (the device keeps its byte: back-pressure)."""
        return self.output.push(byte)

    cdef void input_room(self) noexcept nogil:
        """The front end has room again; cheap, called with the device lock held."""
        pass

    def accept_input(self):
        self.input_room()

    def write(self, bytes data):
        """Output as a device makes it, for users in Python; the number of bytes taken. The device lock is held."""
        cdef u32 count = 0
        for byte in data:
            if not self.put(byte):
                break
            count += 1
        return count

    def send(self, bytes data, lock):
        """Output of the main loop's own users, such as monitors: the number of bytes taken. CHAR_EVENT_DRAINED comes when
        there is room for what was not. `lock`: the device lock, not held.
        """
        with lock:
            return self.write(data)

    def deliver(self, bytes data):
        """Bytes from the host for the device; the number taken. The device lock is held."""
        cdef u32 room, count = <u32>len(data)
        cdef const u8 *start = data
        with nogil:
            room = self.frontend.can_receive()
            if count > room:
                count = room
            if count:
                self.frontend.receive(start, count)
        return count

    def close(self):
        """Release the host's side."""


cdef class NetFrontend:
    """A card's side of the wire."""

    cdef bint can_receive(self) noexcept nogil:
        """Whether `receive` would take or drop a frame now."""
        return True

    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        """1: taken or dropped (a filter, a bad frame); 0: no room, it comes again after net_room()."""
        return 1

    cdef void link_changed(self, bint up) noexcept nogil:
        """The cable's other end was pulled or put in (set_link of the netdev)."""

    cdef void sent(self) noexcept nogil:
        """There is room again for what net_send() refused."""


cdef class NetBackend:
    """A wire to the host. `link`: whether the cable is in, `running`: whether frames go to the card."""

    def __cinit__(self, *args, **kwargs):
        self.name = self.kind = ""
        self.link = True

    cdef int send(self, IoVec *pieces, u32 count, const NetHeader *header) noexcept nogil:
        return 1

    cdef void room(self) noexcept nogil:
        """The card may have room again; cheap, called often."""

    cdef void burst(self, bint begins) noexcept nogil:
        """The card sends several frames, up to the call that says that it ends: they may go out together."""

    def plug(self, NetFrontend frontend or None):
        """The card at this end, None: nobody. The device lock is held."""
        self.frontend = frontend
        self.card_changed()

    def card_changed(self):
        """Another card is there, or it takes other headers now."""

    def set_link(self, bint up):
        """The cable is pulled or put in. The device lock is held."""
        if up != self.link:
            self.link = up
            if self.frontend is not None:
                self.frontend.link_changed(up)

    def set_running(self, bint running):
        """The machine goes on or stops. The device lock is held."""
        self.running = running
        if running:
            self.room()

    def close(self):
        """Release the host's side."""


cdef int net_send(void *backend, IoVec *pieces, u32 count, const NetHeader *header) noexcept nogil:
    """NetBackend.send of a borrowed back end. 1: the frame is gone, sent or lost; 0: no room, frontend.sent() follows."""
    return 1 if backend == NULL else (<NetBackend>backend).send(pieces, count, header)


cdef int net_send_frame(void *backend, const u8 *frame, u32 length) noexcept nogil:
    """A finished frame in one piece."""
    cdef IoVec piece
    piece.base, piece.length = <void *>frame, <u64>length
    return net_send(backend, &piece, 1, NULL)


cdef void net_room(void *backend) noexcept nogil:
    """NetBackend.room of a borrowed back end."""
    if backend != NULL:
        (<NetBackend>backend).room()


cdef void net_burst(void *backend, bint begins) noexcept nogil:
    """NetBackend.burst of a borrowed back end."""
    if backend != NULL:
        (<NetBackend>backend).burst(begins)


cdef u64 net_sent(void *backend) noexcept nogil:
    """How many frames have gone out, each segment of a large one counted: the measure of a turn's work."""
    return 0 if backend == NULL else (<NetBackend>backend).frames_sent


cdef bint net_cutting(void *backend) noexcept nogil:
    """Whether the last frame's segments are still being cut: a card without `waits` holds the next one back."""
    return backend != NULL and (<NetBackend>backend).cutting
