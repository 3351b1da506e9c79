"""What a PS/2 keyboard and a PS/2 mouse have in common: bytes out, commands in.

Ref: IBM PS/2 Hardware Interface Technical Reference, 'Keyboard and auxiliary device controller'.
Not modelled: the clock and data lines, so no parity or time-out errors.
"""

from accel.api cimport u8, u32

from vmrun.core.state import Bytes, Table, Signed

cdef enum:
    ROOM = 64                   # of which events use 16 at most; the rest is for answers


cdef class Ps2Host:
    """The controller's end of the cable."""

    cdef void ps2_ready(self) noexcept nogil:
        """The device has bytes."""
        pass


cdef class Ps2Device:
    """Subclasses override `command` and `sent_all`. Everything is done with the device lock held."""

    def __cinit__(self, *args):
        self.host = Ps2Host()
        self.last = -1
        self.argument = -1

    cdef void put(self, u8 byte) noexcept nogil:
        if self.count < ROOM:
            self.data[(self.head + self.count) % ROOM] = byte
            self.count += 1

    cdef void flush(self) noexcept nogil:
        self.count = 0

    cdef int take(self) noexcept nogil:
        """The next byte, or -1."""
        if self.count == 0:
            return -1
        self.last = self.data[self.head]
        self.head = (self.head + 1) % ROOM
        self.count -= 1
        if self.count == 0:
            self.sent_all()
        return self.last

    cdef void sent_all(self) noexcept nogil:
        """The queue has just become empty."""
        pass

    cdef void command(self, u8 value) noexcept nogil:
        """A byte from the controller."""
        pass

    # --- from Python (tests) ----------------------------------------------------------------------------------

    def send(self, u8 value):
        with nogil:
            self.command(value)

    def receive(self):
        """All bytes that wait."""
        out = bytearray()
        while True:
            byte = self.take()
            if byte < 0 or len(out) > 4096:
                return bytes(out)
            out.append(byte)

    @property
    def waiting(self):
        """Bytes that the controller has not read yet."""
        return self.count

    @property
    def queue(self):
        """The bytes that wait."""
        cdef u32 i
        return bytes([self.data[(self.head + i) % ROOM] for i in range(self.count)])

    @queue.setter
    def queue(self, bytes waiting):
        self.head, self.count = 0, <u32>len(waiting)
        for i, byte in enumerate(waiting):
            self.data[i] = byte


# What both have; their tables extend it.
QUEUE = Table("ps2", 1, Bytes("queue", most=ROOM), Signed("last", -1, 255, -1), Signed("argument", -1, 255, -1))
