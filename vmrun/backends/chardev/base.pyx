"""What all character back ends share, compiled: the device's half, which runs on a vCPU's thread without the GIL.

The device pushes bytes into `output` (a ring whose notifier wakes the main loop) and is told CHAR_EVENT_DRAINED when
the ring has room again. Nobody at the other end means that bytes vanish: a guest must not hang because its console
is not being watched.
"""

from accel.api cimport ByteRing, Notifier, u8, u32
from vmrun.backends.protocols cimport (CHAR_EVENT_BREAK, CHAR_EVENT_CLOSED, CHAR_EVENT_DRAINED, CHAR_EVENT_OPENED,
                                       CharBackend, CharFrontend)


cdef class HostChar(CharBackend):
    """`connected`: somebody takes the output. `stalled`: host input waits for room. Both belong to the device lock."""

    def __cinit__(self, *args, **kwargs):
        self.output = ByteRing(kwargs.get("capacity", 65536), Notifier())
        self.connected = True

    def log_to(self, write):
        """write(bytes) gets a copy of all output, whether anybody takes it or not; from the first byte on."""
        self.log = write

    cdef int put(self, u8 byte) noexcept nogil:
        if not self.connected and self.log is None:
            self.dropped += 1
            return 1
        return self.output.push(byte)

    cdef void input_room(self) noexcept nogil:
        if self.stalled:
            self.output.notifier.signal()

    # --- the main loop's half; all with the device lock held --------------------------------------------------

    def drain(self, u32 limit=65536):
        """Take what the device wrote, and tell it that there is room."""
        cdef bytes data = self.output.take(limit)
        if data:
            self.note(data)
            self.drained()
        return data

    def note(self, bytes data):
        """Output that goes past the ring, for the copy."""
        if self.log is not None:
            self.log(data)

    def drained(self):
        """There is room for output again."""
        with nogil:
            self.frontend.event(CHAR_EVENT_DRAINED)

    def room(self):
        """How many bytes of input the device takes now; 0 also notes that input waits."""
        cdef u32 count
        with nogil:
            count = self.frontend.can_receive()
        self.stalled = count == 0
        return count

    def set_connected(self, bint connected):
        """The other side came or went. What it has not read yet is forgotten when it went."""
        if connected == self.connected:
            return
        self.connected = connected
        if not connected:
            if self.log is not None and len(self.output):
                self.log(self.output.take(len(self.output)))
            self.output.clear()
            self.drained()
        with nogil:
            self.frontend.event(CHAR_EVENT_OPENED if connected else CHAR_EVENT_CLOSED)

    def send_break(self):
        with nogil:
            self.frontend.event(CHAR_EVENT_BREAK)


cdef class NullChar(CharBackend):
    """Output vanishes, no input comes."""

    cdef int put(self, u8 byte) noexcept nogil:
        return 1


cdef class RingChar(CharBackend):
    """The last `capacity` bytes of output, in memory; input by `deliver`. One with a log file is a ring.LoggedRing."""

    def __cinit__(self, *args, **kwargs):
        self.output = ByteRing(kwargs.get("capacity", 65536))

    cdef int put(self, u8 byte) noexcept nogil:
        if not self.output.push(byte):
            self.output.pop()
            self.output.push(byte)
        return 1

    def take(self, u32 count):
        """The oldest bytes, taken out. With the device lock held."""
        return self.output.take(count)

    def text(self):
        """All that is kept, left in place. With the device lock held."""
        return self.output.peek(len(self.output))


cdef class PyFrontend(CharFrontend):
    """A device's side in Python: `receive(bytes)`, `room() -> int`, `event(what)`; for monitors and tests."""

    cdef object on_receive, on_room, on_event

    def __init__(self, receive=None, room=None, event=None):
        self.on_receive = receive
        self.on_room = room
        self.on_event = event

    cdef u32 can_receive(self) noexcept nogil:
        return self.call_room()

    cdef void receive(self, const u8 *data, u32 count) noexcept nogil:
        self.call_receive(data, count)

    cdef void event(self, int what) noexcept nogil:
        self.call_event(what)

    cdef u32 call_room(self) noexcept with gil:
        try:
            return 4096 if self.on_room is None else self.on_room()
        except Exception:
            return 0

    cdef void call_receive(self, const u8 *data, u32 count) noexcept with gil:
        if self.on_receive is not None:
            try:
                self.on_receive(data[:count])
            except Exception as exc:
                _report("character front end", exc)

    cdef void call_event(self, int what) noexcept with gil:
        if self.on_event is not None:
            try:
                self.on_event(what)
            except Exception as exc:
                _report("character front end", exc)


from accel.api import _report
