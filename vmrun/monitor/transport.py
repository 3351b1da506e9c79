"""Clients on the main loop: sockets, terminals, files. A client that does not read, or sends too much, is its own loss.

What a client does not take waits here; past BUSY bytes nothing more is read from it, so that it cannot make answers
faster than it takes them; past LIMIT bytes, or after PATIENCE seconds in which it took nothing, it is gone.
"""

from __future__ import annotations

import _socket  # `socket` itself brings in enum and selectors: 5 ms
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from vmrun.core.loop import Delay, Loop

    class Session(Protocol):
        def feed(self, data: bytes) -> None: ...

    Make = Callable[["Client"], Session]

CHUNK = 65536
MOST_FDS = 16
BUSY = 1 << 16
LIMIT = 8 << 20
PATIENCE = 30.0
BACKLOG = 1024  # a burst of clients, while the loop is busy


class Client:
    """One peer over descriptors. `session` gets what it sends; `send` and `close` are for the session."""

    def __init__(
        self,
        loop: Loop,
        read_fd: int,
        write_fd: int,
        make: Make,
        on_close: Callable[[Client], object] | None = None,
        *,
        owned: tuple[int, ...] = (),
        patience: float = PATIENCE,
    ) -> None:
        self.loop, self.read_fd, self.write_fd = loop, read_fd, write_fd
        self.owned, self.patience = owned, patience
        self.on_close = on_close
        self.pending = bytearray()
        self.closed = self.ending = False
        self.heard = False  # anything from the peer
        self.received: list[int] = []  # descriptors that came along, the newest MOST_FDS
        self.channel: Any = _unix(read_fd) if owned else None
        self._watch: Delay | None = None
        self.session = make(self)
        if not self.closed:
            self._interest()

    def send(self, data: bytes) -> None:
        """Now if it can be had, else later. The end of the client when too much waits."""
        if self.closed or self.ending or self.write_fd < 0:
            return
        if not self.pending:
            try:
                count = os.write(self.write_fd, data)
            except BlockingIOError:
                count = 0
            except OSError:
                self.ending = True  # not within the session's own call
                self.loop.call_soon(self.close)
                return
            if count == len(data):
                return
            data = data[count:]
        self.pending += data
        if len(self.pending) > LIMIT:
            self.ending = True
            self.loop.call_soon(self.close)
            return
        if self._watch is None:
            self._watch = self.loop.call_later(self.patience, self.close)
        self._interest()

    def finish(self) -> None:
        """Close when all that waits is written."""
        self.ending = True
        if not self.pending:
            self.loop.call_soon(self.close)

    def flush(self) -> None:
        """What the peer takes at once of what waits: before the end of the process."""
        if not self.closed and self.pending and not self.ending:
            try:
                os.write(self.write_fd, self.pending)
            except OSError:
                pass

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        for fd in {self.read_fd, self.write_fd} - {-1}:
            self.loop.remove_fd(fd)
        if self.channel is not None:
            self.channel.close()
        for fd in (*self.owned, *self.received):
            os.close(fd)
        self.received.clear()
        if self.on_close is not None:
            self.on_close(self)

    def look(self) -> None:
        """The session may have become busy, or free again."""
        self._interest()

    def full(self) -> bool:
        """So much waits for the peer that nothing more should be answered."""
        return len(self.pending) > BUSY

    def _interest(self) -> None:
        if self.closed:
            return
        busy = self.full() or getattr(self.session, "busy", False)
        reader = self._on_readable if not busy else None
        writer = self._on_writable if self.pending else None
        if self.read_fd == self.write_fd:
            self.loop.add_fd(self.read_fd, reader, writer)
            return
        if self.read_fd >= 0:
            self.loop.add_fd(self.read_fd, reader)
        if self.write_fd >= 0:
            self.loop.add_fd(self.write_fd, None, writer)

    def _on_writable(self) -> None:
        try:
            count = os.write(self.write_fd, self.pending)
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        del self.pending[:count]
        if self._watch is not None:
            self._watch.cancel()
            self._watch = self.loop.call_later(self.patience, self.close) if self.pending else None
        if not self.ending and not self.full() and hasattr(self.session, "resume"):
            self.session.resume()
        if self.ending and not self.pending:
            self.close()
        else:
            self._interest()

    def _on_readable(self) -> None:
        try:
            data = os.read(self.read_fd, CHUNK) if self.channel is None else self._receive()
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data and not self.heard and _is_http(data):
            self.close()
        elif data:
            self.heard = True
            self.session.feed(data)
            if getattr(self.session, "busy", False):
                self._interest()
        else:
            self.close()

    def _receive(self) -> bytes:
        """What was sent, and the descriptors with it."""
        data, more, _, _ = self.channel.recvmsg(CHUNK, _socket.CMSG_SPACE(4 * MOST_FDS))
        for level, kind, body in more:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(body) // 4 * 4, 4):
                    fd = int.from_bytes(body[at : at + 4], "little")
                    os.set_inheritable(fd, False)
                    self.received.append(fd)
        while len(self.received) > MOST_FDS:
            os.close(self.received.pop(0))
        return bytes(data)


def _unix(fd: int) -> Any:
    """The descriptor as a socket that carries descriptors, a copy of its own; None for anything else."""
    try:
        found = _socket.socket(fileno=os.dup(fd))
    except OSError:
        return None
    if found.family == _socket.AF_UNIX:
        return found
    found.close()
    return None


METHODS = (b"GET", b"POST", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"CONNECT", b"TRACE")


def _is_http(data: bytes) -> bool:
    """A request of a browser, which a page of the web may have sent here: none of its lines shall be a command."""
    method, space, rest = data[:16].partition(b" ")
    return bool(space) and method in METHODS and (rest[:1] in (b"/", b"*") or method == b"CONNECT")


class Listener:
    """A server socket, unix or TCP: every connection gets a session of its own."""

    def __init__(
        self,
        loop: Loop,
        spec: dict[str, Any],
        make: Make,
        on_close: Callable[[Client], object] = lambda client: None,
        *,
        patience: float = PATIENCE,
        early: tuple[Any, Any, str] | None = None,
    ) -> None:
        """`early`: what listen(spec) gave, of one that listens already."""
        self.loop, self.make, self.on_close, self.patience = loop, make, on_close, patience
        self.clients: set[Client] = set()
        self.waiting: list[Callable[[], object]] = []
        self.socket, self.address, self.path = early if early is not None else listen(spec)
        loop.add_fd(self.socket.fileno(), self._on_client)

    def take(self, fd: int) -> None:
        """A client that has connected already."""
        self.clients.add(adopt(self.loop, fd, self.make, self._gone, patience=self.patience))

    def _on_client(self) -> None:
        try:
            fd, _ = self.socket._accept()
        except OSError:  # gone again, or the process has no descriptor left; the others go on
            return
        self.take(fd)
        for call in self.waiting:
            call()
        self.waiting.clear()

    def _gone(self, client: Client) -> None:
        self.clients.discard(client)
        self.on_close(client)

    def close(self) -> None:
        for client in list(self.clients):
            client.flush()
            client.close()
        self.loop.remove_fd(self.socket.fileno())
        self.socket.close()
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass


def listen(spec: dict[str, Any]) -> tuple[Any, Any, str]:
    """(a socket that listens on `path`, on `host` and `port`, or the inherited `fd`; its address; the path to remove at
    the end, or ''). OSError when the address cannot be had.
    """
    inherited = spec.get("fd") is not None
    if inherited:
        made = _socket.socket(fileno=os.dup(int(spec["fd"])))
        family, address = made.family, f"fd:{spec['fd']}"
    else:
        family, address = address_of(spec, passive=True)
        made = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        if not inherited:
            _bind(made, family, address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    path = address if family == _socket.AF_UNIX and not inherited else ""
    if family != _socket.AF_UNIX and not inherited:
        address = made.getsockname()
    made.setblocking(False)
    return made, address, path


def adopt(
    loop: Loop,
    fd: int,
    make: Make,
    on_close: Callable[[Client], object] | None = None,
    *,
    patience: float = PATIENCE,
) -> Client:
    """A client on a connected descriptor, which it owns from now on."""
    os.set_blocking(fd, False)
    try:
        sock = _socket.socket(fileno=os.dup(fd))
        try:
            if sock.family != _socket.AF_UNIX:
                sock.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        finally:
            sock.close()
    except OSError:
        pass  # no socket: a pipe or a terminal will do
    return Client(loop, fd, fd, make, on_close, owned=(fd,), patience=patience)


def connect(spec: dict[str, Any]) -> int:
    """A descriptor connected to a unix or TCP address, or an inherited one. OSError when there is nobody."""
    if spec.get("fd") is not None:
        return os.dup(int(spec["fd"]))
    family, address = address_of(spec)
    sock = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        sock.connect(address)
        return sock.detach()
    finally:
        sock.close()


def address_of(spec: dict[str, Any], passive: bool = False) -> tuple[int, Any]:
    """(family, address) of `path`, or `host` and `port`. OSError with the reason."""
    if spec.get("path"):
        if len(os.fsencode(spec["path"])) > 107:
            raise OSError(36, f"UNIX socket path '{spec['path']}' is too long")
        return _socket.AF_UNIX, spec["path"]
    flags = _socket.AI_PASSIVE if passive else 0
    host, port = spec.get("host") or None, int(spec.get("port") or 0)
    found = _socket.getaddrinfo(host or ("0.0.0.0" if passive else "localhost"), port, 0, _socket.SOCK_STREAM, 0, flags)
    found.sort(key=lambda entry: entry[0] != _socket.AF_INET)
    return found[0][0], found[0][4]


def _bind(sock: Any, family: int, address: Any) -> None:
    if family != _socket.AF_UNIX:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        sock.bind(address)
        return
    try:
        sock.bind(address)
    except OSError:
        if not stale(address):
            raise
        os.unlink(address)  # left behind by a program that died
        sock.bind(address)


def stale(path: str) -> bool:
    """True for a socket that nobody listens on."""
    import stat

    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return False
        os.close(connect({"path": path}))
        return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
