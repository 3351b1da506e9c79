"""A monitor's end of a character back end: a session gets what the other side says, and says what it has to.

What the other side does not take waits here. Past BUSY bytes, or in a long command, no input is taken, so that nobody
can make answers faster than he takes them. Past LIMIT bytes, or when nothing was taken for `patience` seconds, the
conversation is over: of a client on a socket the connection too.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.backends.chardev.stream import StreamChar
    from vmrun.core.loop import Delay, Loop

    # What a session has: feed(bytes) and, if need be, busy, resume(), prompt(), close()
    Make = Callable[["Port"], Any]

BUSY = 1 << 16
LIMIT = 8 << 20
PATIENCE = 30.0
ROOM = 1 << 16  # bytes of input at a time
CLOSED, OPENED = 0, 1  # CHAR_EVENT_… of vmrun.backends.protocols
METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE")


class Port:
    """`make(port)` gives a session to whoever comes to `chardev`, one at a time; `gone(port)` is told of the end of
    each. greet: a person behind a shared terminal is greeted when he turns to the monitor.
    """

    def __init__(
        self,
        loop: Loop,
        lock: Any,
        chardev: StreamChar,
        make: Make,
        gone: Callable[[Port], object] = lambda port: None,
        *,
        greet: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        from vmrun.backends.chardev.base import PyFrontend

        self.loop, self.lock, self.chardev = loop, lock, chardev
        self.make, self.gone, self.greet, self.patience = make, gone, greet, patience
        self.session: Any = None
        self.pending = bytearray()
        self.input: list[bytes] = []
        self.starved = False  # input waits for room
        self.heard = False  # anything from this peer
        self.ending = False
        self._watch: Delay | None = None
        if hasattr(chardev, "received"):
            chardev.received = []
        if greet and hasattr(chardev, "on_focus"):
            chardev.on_focus = self._focus
        chardev.frontend = PyFrontend(self._receive, self.room, self._event)
        if hasattr(chardev, "listener"):
            chardev.listener = self
        loop.call_soon(self._open)

    @property
    def received(self) -> list[int]:
        """Descriptors that came along with what was heard, oldest first; the session takes them out."""
        return getattr(self.chardev, "received", None) or []

    @property
    def greeted(self) -> bool:
        """The peer has QMP's greeting already."""
        return bool(getattr(self.chardev, "greeted", False))

    # --- for the session ------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Now if it can be had, else later. The end of the conversation when too much waits."""
        if self.ending:
            return
        if not self.pending:
            count = self.chardev.send(data, self.lock)
            if count == len(data):
                return
            data = data[count:]
        self.pending += data
        self._pump()
        if len(self.pending) > LIMIT:
            self.ending = True  # not within the session's own call
            self.loop.call_soon(self._break_off)

    def finish(self) -> None:
        """The end, when all that waits is taken."""
        self.ending = True
        if not self._waits():
            self.loop.call_soon(self._break_off)

    def full(self) -> bool:
        """So much waits for the peer that nothing more should be answered."""
        return len(self.pending) > BUSY

    def look(self) -> None:
        """Take input again that had to wait: the session is not busy any more, or the peer has read."""
        if self.starved and self.room():
            self.starved = False
            with self.lock:
                self.chardev.accept_input()

    # --- the conversation -----------------------------------------------------------------------------------------

    def _open(self) -> None:
        turned = not self.greet or getattr(self.chardev, "focused", True)
        if turned and self.session is None and getattr(self.chardev, "connected", True):
            self.heard = self.ending = False
            self.session = self.make(self)
            self.look()

    def _focus(self) -> None:
        if self.session is None:
            self._open()
        else:
            self.session.prompt()

    def _over(self) -> None:
        """The peer has gone."""
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        self.pending.clear()
        self.input.clear()
        self.gone(self)
        self.session = None

    def _break_off(self) -> None:
        self._over()
        if getattr(self.chardev, "hangs_up", False):
            self.chardev.hang_up()

    def close(self) -> None:
        """What the peer takes at once of what waits, and no more of this."""
        if self.pending and not self.ending:
            self._pump()
        self._over()
        self.ending = True

    # --- output ---------------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        taken = 0
        while self.pending:
            part = bytes(memoryview(self.pending)[:ROOM])
            count = self.chardev.send(part, self.lock)
            del self.pending[:count]
            taken += count
            if count < len(part):
                break
        if self._watch is not None and (taken or not self.pending):
            self._watch.cancel()
            self._watch = None
        if self.pending and self._watch is None and getattr(self.chardev, "hangs_up", False):
            self._watch = self.loop.call_later(self.patience, self._impatient)

    def _waits(self) -> bool:
        """Something of what was said is not on its way yet."""
        return bool(self.pending or getattr(self.chardev, "pending", b""))

    def _impatient(self) -> None:
        self._watch = None
        self._break_off()

    def _drain(self) -> None:
        """The back end takes more."""
        self._pump()
        if self.ending:
            if not self._waits():
                self._break_off()
            return
        if not self.full():
            if hasattr(self.session, "resume"):
                self.session.resume()
            self.look()

    # --- input ----------------------------------------------------------------------------------------------------

    def room(self) -> int:
        """Bytes of input that are taken now. The device lock may be held."""
        if self.session is None or self.input or self.full() or getattr(self.session, "busy", False):
            self.starved = True
            return 0
        return ROOM

    def _receive(self, data: bytes) -> None:
        """Of a back end without a listener: the device lock is held, which a command may want to take."""
        self.input.append(data)
        self.loop.call_soon(self._feed)

    def _feed(self) -> None:
        data = b"".join(self.input)
        self.input.clear()
        self.hear(data)

    def hear(self, data: bytes) -> None:
        if not self.heard and is_http(data):
            self.ending = True
            self._break_off()
        elif data and self.session is not None and not self.ending:
            self.heard = True
            self.session.feed(data)
        self.look()

    def _event(self, what: int) -> None:
        if what == OPENED:
            self.loop.call_soon(self._open)
        elif what == CLOSED:
            self.loop.call_soon(self._over)
        elif self.pending or self.ending:
            self.loop.call_soon(self._drain)


def is_http(data: bytes) -> bool:
    """A request of a browser, which a page of the web may have sent here: none of its lines shall be a command."""
    method, space, rest = data[:16].partition(b" ")
    return bool(space) and method in METHODS and (rest[:1] in (b"/", b"*") or method == b"CONNECT")
