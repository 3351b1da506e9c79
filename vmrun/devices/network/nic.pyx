"""What every network chip is to the host's side: frames go out by `transmit`, come in by `receive`.

Everything here runs with the device lock held. A frame is one piece of memory: addresses, type, data; no FCS.
"""

from accel.clock import Timer


cdef class NicPort(NetFrontend):
    """The chip's end of the cable."""

    def __init__(self, NicChip chip):
        self.chip = <void *>chip

    cdef bint can_receive(self) noexcept nogil:
        return (<NicChip>self.chip).ready()

    cdef int receive(self, const u8 *frame, u32 length, const NetHeader *header) noexcept nogil:
        return (<NicChip>self.chip).receive(frame, length)

    cdef void link_changed(self, bint up) noexcept nogil:
        (<NicChip>self.chip).cable(up)


cdef class NicChip(IoRegion):
    """Chips override `receive`, `ready`, `link_changed` and `timed`, and call `transmit` and `room`. A guest makes a list of
    descriptors as long as it likes: a chip sets `spent` to 0 when it begins with one, and leaves off at TURN.
    """

    def __cinit__(self, *args, **kwargs):
        self.link_up = self.plugged = self.wired = True
        self.port = NicPort(self)

    cdef void work(self, u32 size) noexcept nogil:
        """What a frame of so many bytes takes of the turn."""
        self.spent += FRAME + (size >> FRAME_BYTES_LOG)

    cdef void transmit(self, u8 *frame, u32 size) noexcept nogil:
        """Send a frame. Nobody there, the link down, no room: it is gone, as on a wire."""
        self.work(size)
        if self.link_up and size:
            net_send_frame(self.backend, frame, size)

    cdef void burst(self, bint begins) noexcept nogil:
        """Around several frames: they may go out together."""
        net_burst(self.backend, begins)

    cdef void room(self) noexcept nogil:
        """There may be buffers again: what the other side holds back may come."""
        net_room(self.backend)

    cdef bint ready(self) noexcept nogil:
        """Whether a frame would be taken now, or dropped; False: it shall wait."""
        return True

    cdef int receive(self, const u8 *frame, u32 size) noexcept nogil:
        """1: taken or dropped; 0: no room, it comes again after `room`."""
        return 1

    cdef void link_changed(self) noexcept nogil:
        """`link_up` has another value."""

    cdef void timed(self, u32 which) noexcept nogil:
        """A NicTimer's time has come."""

    # --- from Python --------------------------------------------------------------------------------------

    def attach(self, backend):
        """The other end of the cable, a NetBackend."""
        self.net = backend
        self.backend = <void *>backend
        backend.plug(self.port)
        self.wired = backend.link

    def detach(self):
        if self.net is not None:
            self.backend = NULL
            self.net.plug(None)
            self.net = None

    def stop(self):
        """No timer runs any more."""

    def set_link(self, bint up):
        """The card's own end of the cable."""
        self.plugged = up
        self.settle_link()

    cdef void cable(self, bint up) noexcept nogil:
        """The other end was plugged in or pulled."""
        self.wired = up
        self.settle_link()

    cdef void settle_link(self) noexcept nogil:
        if (self.plugged and self.wired) != self.link_up:
            self.link_up = self.plugged and self.wired
            self.link_changed()

    def deliver(self, bytes frame):
        """A frame from the wire: True when it was taken or dropped, False when it waits."""
        return bool(self.ready() and self.receive(<const u8 *>frame, <u32>len(frame)))


cdef class NicTimer(Timer):
    """Calls the chip's `timed(which)`."""

    def __init__(self, TimerQueue queue, NicChip chip, u32 which):
        self.chip = <void *>chip
        self.which = which

    cdef void expire(self) noexcept nogil:
        (<NicChip>self.chip).timed(self.which)
