"""All that a device may see of the host: block and character back ends.

Both are abstract; vmrun.backends.block and .chardev implement them, unit tests have their own. A device calls them
with the device lock held, without the GIL, and they never block.
"""


cdef class BlockRequest:
    """One transfer. The device fills op, offset (bytes) and vectors (host memory that stays valid), then submits.

    `done` is called once, with the device lock held, from any thread; `error` is 0 or an errno. In-flight requests
    are kept alive by the back end. Devices subclass it and override `done`.
    """

    cdef void done(self) noexcept nogil:
        pass


cdef class BlockBackend:
    """`size` in bytes, `readonly`. Subclasses override submit."""

    cdef int submit(self, BlockRequest request) noexcept nogil:
        """Start `request`. 1: it is complete already (error is set, done() is NOT called); 0: done() will be called."""
        request.error = 5
        return 1

    cdef void cancel(self, BlockRequest request) noexcept nogil:
        """Wait until `request` is no longer in flight; done() is not called for it any more."""
        pass

    def set_size(self, u64 size):
        """For back ends written in Python."""
        self.size = size

    def drain(self):
        """Wait for everything in flight. Called without the device lock."""

    def close(self):
        """Flush and release the image."""


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
