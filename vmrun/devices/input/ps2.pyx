"""What a PS/2 keyboard and a PS/2 mouse have in common: bytes out, commands in.

Ref: IBM PS/2 Hardware Interface Technical Reference, 'Keyboard and auxiliary device controller'.
Not modelled: the clock and data lines, so no parity or time-out errors.
"""

from accel.api cimport u8, u32

from vmrun.errors import StateError

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

    def queue_state(self):
        cdef u32 i
        waiting = bytes([self.data[(self.head + i) % ROOM] for i in range(self.count)])
        return {"queue": waiting, "last": self.last, "argument": self.argument}

    def load_queue(self, state):
        self.head = 0
        self.count = <u32>len(state["queue"])
        for i, byte in enumerate(state["queue"]):
            self.data[i] = byte
        self.last, self.argument = state["last"], state["argument"]


def check(str what, state, limits):
    """StateError unless `state` has the queue's fields and those of `limits` ({name: (low, high)}), in range."""
    limits = {"last": (-1, 255), "argument": (-1, 255), **limits}
    if not isinstance(state, dict) or set(state) != set(limits) | {"queue"}:
        raise StateError(f"{what}: fields are missing or unknown")
    if not isinstance(state["queue"], bytes) or len(state["queue"]) > ROOM:
        raise StateError(f"{what}: queue cannot be {state['queue']!r}")
    for name, bounds in limits.items():
        value = state[name]
        if isinstance(bounds, int):
            if not isinstance(value, bytes) or len(value) != bounds:
                raise StateError(f"{what}: {name} is not {bounds} bytes")
        elif not isinstance(value, int) or not bounds[0] <= value <= bounds[1]:
            raise StateError(f"{what}: {name} cannot be {value!r}")
