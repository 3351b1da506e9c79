"""A chardev over file descriptors: what the device wrote goes out, what comes in waits until the device has
room.

Output: the ring's notifier wakes the loop, the bytes are taken from the ring and written; what the
descriptor does not take now is kept, and nothing more is taken from the ring until it is gone. So at most
two rings' worth waits, and then the device sees a full ring. Input: read only as much as the device takes;
when that is nothing, the descriptor is left alone until the device says that it has room.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from vmrun.backends.chardev.base import HostChar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from accel.api import DeviceLock

    from vmrun.core.loop import Delay, Loop

    class Listener(Protocol):
        def room(self) -> int: ...

        def hear(self, data: bytes) -> None: ...

        def finish(self) -> None:
            """The other side will say no more, and may still listen."""

CHUNK = 65536
# A guest prints byte by byte. What follows a byte this soon waits that long and goes out in one piece,
# instead of waking the main thread for each: the ring speaks up only when it was empty.
GATHER = 0.001
BACKLOG = 65536


class StreamChar(HostChar):
    """`read_fd` and `write_fd` may be the same, or -1. Subclasses override on_end, and read and write where
    needed."""

    address = ""
    hangs_up = False  # hang_up() ends the conversation and lets another begin

    def __init__(self, name: str, loop: Loop, lock: DeviceLock) -> None:
        self.name = name
        self.loop, self.lock = loop, lock
        self.read_fd = self.write_fd = -1
        self.pending = b""  # taken from the ring, not yet written
        self.backlog = b""  # left by a peer that went while the device had no room
        self.reading = False  # what the loop watches for us
        self.writing = False
        self.owed = False  # send() has refused bytes: CHAR_EVENT_DRAINED follows
        self.closed = False
        self.pumped_at = 0
        self.gathering: Delay | None = None
        self.listener: Listener | None = None  # a front end of the main loop's own: it hears without the device lock
        loop.add_fd(self.output.notifier.fileno(), self._on_wake)

    # --- to override ----------------------------------------------------------------------------------------

    def on_end(self) -> None:
        """The other side is gone. The default: no more input, output vanishes."""
        self.detach()

    def on_eof(self) -> None:
        """The other side has said all that it will."""
        self.on_end()

    def read(self, count: int) -> bytes:
        return os.read(self.read_fd, count)

    def write_some(self, data: bytes) -> int:
        return os.write(self.write_fd, data)

    def filter_input(self, data: bytes) -> bytes:
        return data

    def opening(self) -> bool:
        """What comes now is between both ends of the connection, and nothing for the device yet."""
        return False

    def encode(self, data: bytes) -> bytes:
        """Output as it goes over the descriptor."""
        return data

    def hang_up(self) -> None:
        """End this conversation, in the loop's next turn."""

    def set_echo(self, on: bool) -> None:
        """Whether a terminal shows what is typed, a line at a time; a person's monitor does that itself."""

    # --- descriptors ----------------------------------------------------------------------------------------

    def attach(self, read_fd: int, write_fd: int) -> None:
        """Begin to use descriptors, non-blocking ones as far as writing goes."""
        self.read_fd, self.write_fd = read_fd, write_fd
        self.pending = b""
        with self.lock:
            self.set_connected(True)
        self.reading = read_fd >= 0
        self._interest()
        self._pump()

    def detach(self) -> None:
        """Stop using them; the caller closes."""
        for fd in {self.read_fd, self.write_fd} - {-1}:
            self.loop.remove_fd(fd)
        self.read_fd = self.write_fd = -1
        self.reading = self.writing = False
        self.pending = b""
        with self.lock:
            self.set_connected(False)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self.gathering is not None:
            self.gathering.cancel()
        self.flush()
        self.loop.remove_fd(self.output.notifier.fileno())
        self.detach()

    def flush(self) -> None:
        """One last try to write what waits; never blocks for long."""
        for _ in range(64):
            self._pump()
            if not self.pending:
                break
            from vmrun.core.ready import ready

            if self.write_fd < 0 or not ready(self.write_fd, 0.05, writing=True):
                break

    def _interest(self) -> None:
        readers = self._on_readable if self.reading else None
        # what was sent to a listener is heard when there is time for it, and its sender is not gone before
        hangup = None if self.reading or self.listener is not None else self._on_hangup
        writers = self._pump if self.pending else None
        self.writing = bool(self.pending)
        if self.read_fd == self.write_fd:
            if self.read_fd >= 0:
                self.loop.add_fd(self.read_fd, readers, writers, hangup)
            return
        if self.read_fd >= 0:
            self.loop.add_fd(self.read_fd, readers, None, hangup)
        if self.write_fd >= 0:
            self.loop.add_fd(self.write_fd, None, writers)

    # --- output ---------------------------------------------------------------------------------------------

    def _on_wake(self) -> None:
        self.output.notifier.drain()
        self._gather()
        if self.stalled:
            self._resume()

    def _gather(self) -> None:
        """Write now, or in a moment when the last write is not a moment ago."""
        if self.gathering is None:
            if monotonic_ns() - self.pumped_at >= GATHER * 1e9:
                self._gathered()
            else:
                self.gathering = self.loop.call_later(GATHER, self._gathered)

    def _gathered(self) -> None:
        self.gathering = None
        self.pumped_at = monotonic_ns()
        self._pump()

    def send(self, data: bytes, lock: DeviceLock) -> int:
        """Past the ring, which is for other threads, and at once."""
        if self.write_fd < 0:
            return len(data)
        if self.pending or len(self.output):
            self.owed = True
            return 0
        part = data[:CHUNK]
        self.note(part)
        self.pending = self.encode(part)
        try:
            count = self.write_some(self.pending)
        except BlockingIOError:
            count = 0
        except OSError:
            self.on_end()
            return len(part)
        self.pending = self.pending[count:]
        if self.pending:
            self.owed = True
            self._interest()
        return len(part)

    def _pump(self) -> None:
        for _ in range(16):
            if not self.pending:
                if not len(self.output):
                    break
                with self.lock:
                    self.pending = self.encode(self.drain())
            if self.write_fd < 0:
                self.pending = b""
                break
            try:
                count = self.write_some(self.pending)
            except BlockingIOError:
                break
            except InterruptedError:
                continue
            except OSError:
                self.on_end()
                return
            self.pending = self.pending[count:]
        else:
            # Others want the loop too.
            self.output.notifier.notify()
        if self.writing != bool(self.pending):
            self._interest()
        if self.owed and not self.pending:
            self.owed = False
            with self.lock:
                self.drained()

    # --- input ----------------------------------------------------------------------------------------------

    def _resume(self) -> None:
        if not self._deliver_backlog():
            return
        with self.lock:
            room = self.room()
        if room and not self.reading and self.read_fd >= 0:
            self.reading = True
            self._interest()

    def _deliver_backlog(self) -> bool:
        """True when nothing is left of it."""
        while self.backlog:
            with self.lock:
                count = min(self.room(), len(self.backlog))
                if count:
                    self.deliver(self.backlog[:count])
            if not count:
                return False
            self.backlog = self.backlog[count:]
        return True

    def _hear(self, listener: Listener) -> None:
        """Input for who takes whatever comes, when he takes any."""
        if not listener.room():
            self.stalled, self.reading = True, False
            self._interest()
            return
        try:
            data = self.read(CHUNK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.on_eof()
            return
        data, self.backlog = self.filter_input(data) + self.backlog, b""
        if data:
            listener.hear(data)

    def _on_readable(self) -> None:
        if self.listener is not None:
            self._hear(self.listener)
            return
        room = 0
        if self.opening():
            room = CHUNK if len(self.backlog) < BACKLOG else 1
        elif self._deliver_backlog():
            with self.lock:
                room = self.room()
        if not room:
            self.reading = False
            self._interest()
            return
        try:
            data = self.read(min(room, CHUNK))
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.on_eof()
            return
        opening = self.opening()
        data = self.filter_input(data)
        if opening:
            self.backlog += data  # behind what is there of earlier peers
        elif data:
            with self.lock:
                self.deliver(data)
        if self.backlog:  # more came than the device has room for
            self._deliver_backlog()

    def _on_hangup(self) -> None:
        """The peer went while the device has no room: keep what it sent, and be free for another."""
        while len(self.backlog) < BACKLOG:
            try:
                data = self.read(CHUNK)
            except OSError:
                break
            if not data:
                break
            self.backlog += self.filter_input(data)
        self.on_end()
