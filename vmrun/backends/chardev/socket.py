"""A chardev over a unix or TCP socket: as a server with one client at a time, as a server whose clients each have a
conversation of their own (monitors), or as a client.

Without a peer output vanishes. A client that loses its server tries again every `reconnect` seconds, if that
is given.
"""

from __future__ import annotations

import _socket  # `socket` itself brings in enum and selectors: 5 ms
import errno
import os

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.sockets import Listening, address_of, connect, text_of
from vmrun.backends.chardev.stream import CHUNK, StreamChar
from vmrun.backends.protocols import CharFrontend

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Delay, Loop
    from vmrun.errors import BackendError

    # what listens or is connected already (vmrun.monitor.early): a server, or a peer and whether it was greeted
    Given = Listening | tuple[Any, bool]

IAC, WILL, WONT, DO, DONT, SB, SE, BREAK = 255, 251, 252, 253, 254, 250, 240, 243
ECHO, BINARY, SUPPRESS_GO_AHEAD = 1, 0, 3
CONNECT_TIMEOUT = 10.0
MOST_FDS = 16


def open_socket(
    name: str,
    spec: dict[str, Any],
    loop: Loop,
    lock: DeviceLock,
    tls: Any = None,
    *,
    many: bool = False,
    given: Given | None = None,
) -> StreamChar | ManyChar:
    """From an address (vmrun.backends.chardev.sockets); `server`, `wait`, `telnet`, `websocket`, `reconnect` in
    seconds. `tls`: an ssl.SSLContext. many: a server is a ManyChar.
    """
    if not spec.get("server"):
        return ClientChar(name, spec, loop, lock, tls, given)
    return (ManyChar if many else ServerChar)(name, spec, loop, lock, tls, given)


def _refusal(name: str, act: str, spec: dict[str, Any], error: OSError) -> BackendError:
    """`act`: "listen on" or "connect to"."""
    remedy = {
        errno.EADDRINUSE: "another program listens there: stop it, or choose another address",
        errno.EACCES: "give this user the permission, or choose another address",
        errno.ECONNREFUSED: "start the server first, or make this side the server",
        errno.ENOENT: "start the server first, or make this side the server",
        errno.EADDRNOTAVAIL: "this host has no such address",
        errno.ENAMETOOLONG: "choose a shorter one: the kernel allows 107 bytes",
    }.get(error.errno or 0, "")
    if error.errno in (errno.ENOTSOCK, errno.EBADF):
        return refused(name, f"descriptor {spec['fd']} is no socket", "give the number of one that is")
    if isinstance(error, _socket.gaierror):
        remedy = "give an address instead"
    return refused(name, remedy=remedy, act=act, where=text_of(spec), why=error.strerror or str(error))


def _told(spec: dict[str, Any], address: str) -> str:
    """An address in QEMU's words."""
    kind, _, where = address.partition(":")
    if kind == "tcp":
        kind = "telnet" if spec.get("telnet") else "websocket" if spec.get("websocket") else kind
    elif spec.get("abstract"):
        where = f"{spec['path']},abstract=on,tight={'on' if spec.get('tight', True) else 'off'}"
    return f"{kind}:{where}{',server=on' if spec.get('server') else ''}"


class SocketChar(StreamChar):
    """A connected peer. Subclasses say how one comes about."""

    hangs_up = True

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any) -> None:
        self.spec = spec
        self.peer: Any = None
        self.greeted = False  # the peer has had QMP's greeting
        self.received: list[int] | None = None  # a list: descriptors that came along are kept, the newest MOST_FDS
        self.telnet = _Telnet() if spec.get("telnet") else None
        self.framed = bool(spec.get("websocket"))
        self.web: Any = None  # a WebSocket, with a peer
        self.tls, self.host = tls, spec.get("host") or ""
        super().__init__(name, loop, lock)
        with lock:
            self.set_connected(False)

    def use(self, peer: Any) -> None:
        peer.setblocking(False)
        if peer.family != _socket.AF_UNIX:
            # whatever `nodelay` says: bytes are gathered before they come here
            peer.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        if self.tls is not None:
            server = not isinstance(self, ClientChar)
            name = None if server or not self.tls.check_hostname and not self.host else self.host or "localhost"
            import socket

            peer = socket.socket(fileno=peer.detach())
            peer.setblocking(False)  # the new object believes otherwise
            try:
                peer = self.tls.wrap_socket(peer, server, do_handshake_on_connect=False, server_hostname=name)
            except (OSError, ValueError):
                peer.close()
                self.on_end()
                return
        self.peer = peer
        if self.framed:
            from vmrun.backends.chardev.websocket import WebSocket

            self.web = WebSocket()
        self.attach(peer.fileno(), peer.fileno())
        if self.telnet is not None:
            self.telnet.reset()
            self.pending = self.telnet.GREETING + self.pending
            self._pump()

    def set_connected(self, connected: bool) -> None:
        """Nothing goes to a WebSocket before its handshake."""
        super().set_connected(connected and (self.web is None or self.web.open))

    @property
    def filename(self) -> str:
        """As QEMU tells of it."""
        where = _told(self.spec, self.address)
        if self.peer is None:
            return f"disconnected:{where}"
        if self.peer.family == _socket.AF_UNIX:
            return where
        try:
            other = self.peer.getpeername()
        except OSError:
            return where
        return f"{where} <-> {other[0]}:{other[1]}"

    def drop(self) -> None:
        self.web = None
        self.detach()
        self.greeted = False
        while self.received:
            os.close(self.received.pop())
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def hang_up(self) -> None:
        peer = self.peer

        def end() -> None:
            if self.peer is peer and peer is not None:
                self.on_end()

        self.loop.call_soon(end)

    def on_eof(self) -> None:
        if self.listener is None:
            self.on_end()
            return
        self.reading = False
        self._interest()
        self.listener.finish()

    def read(self, count: int) -> bytes:
        if self.tls is None or self.peer is None:
            if self.peer is not None and self.received is not None and self.peer.family == _socket.AF_UNIX:
                return self._with_descriptors(count)
            return super().read(count)
        import ssl

        try:
            if self.peer.version() is None:
                self.peer.do_handshake()
                if not self._may_enter():
                    raise ConnectionAbortedError
                raise BlockingIOError  # what was said after it is for later
            data: bytes = self.peer.recv(count)
            while self.peer.pending():  # what no descriptor tells of
                self.backlog += self.filter_input(self.peer.recv(CHUNK))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def _may_enter(self) -> bool:
        """What the object of `tls-authz`, if there is one, says of the name in the peer's certificate."""
        allows = getattr(self.tls, "allows", None)
        if allows is None:
            return True
        from vmrun.core.x509 import subject

        return bool(allows(subject(self.peer.getpeercert())))

    def _with_descriptors(self, count: int) -> bytes:
        kept = self.received
        assert kept is not None
        data, more, _, _ = self.peer.recvmsg(count, _socket.CMSG_SPACE(4 * MOST_FDS))
        for level, kind, body in more:
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
                for at in range(0, len(body) // 4 * 4, 4):
                    fd = int.from_bytes(body[at : at + 4], "little")
                    os.set_inheritable(fd, False)
                    kept.append(fd)
        while len(kept) > MOST_FDS:
            os.close(kept.pop(0))
        return bytes(data)

    def write_some(self, data: bytes) -> int:
        # MSG_NOSIGNAL is Python's default: SIGPIPE is ignored.
        if self.tls is None or self.peer is None:
            return os.write(self.write_fd, data)
        import ssl

        try:
            return int(self.peer.send(data))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def _unframed(self, data: bytes) -> bytes:
        from vmrun.backends.chardev.websocket import Broken

        was_open = self.web.open
        try:
            data, answer = self.web.feed(data)
        except Broken as end:
            self.pending += end.answer
            self._pump()
            self.hang_up()
            return b""
        self.pending += answer
        if self.web.open and not was_open:
            with self.lock:
                self.set_connected(True)
        self._pump()
        return data

    def opening(self) -> bool:
        encrypted = self.tls is None or self.peer is None or self.peer.version() is not None
        return not encrypted or (self.web is not None and not self.web.open)

    def filter_input(self, data: bytes) -> bytes:
        if self.web is not None:
            return self._unframed(data)
        if self.telnet is None:
            return data
        data, breaks = self.telnet.feed(data)
        for _ in range(breaks):
            with self.lock:
                self.send_break()
        return data

    def encode(self, data: bytes) -> bytes:
        if self.web is not None:
            return self.web.frame(data) if data else data
        return data.replace(b"\xff", b"\xff\xff") if self.telnet is not None else data

    def close(self) -> None:
        super().close()
        self.drop()


class ServerChar(SocketChar):
    """Listens; `wait()` returns when the first client is there (or at once where that is not wanted)."""

    def __init__(
        self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None, given: Any = None
    ) -> None:
        self.listening = given or _listen(name, spec)
        self.address = self.listening.text
        self.must_wait = bool(spec.get("wait", True))
        super().__init__(name, spec, loop, lock, tls)
        loop.add_fd(self.listening.socket.fileno(), self._on_client)

    def _on_client(self) -> None:
        peer = self.listening.accept()
        if peer is None:
            return
        if self.peer is not None:
            peer.close()
            return
        self.loop.remove_fd(self.listening.socket.fileno())
        self.use(peer)

    def adopt(self, fd: int) -> bool:
        """A client that somebody else has accepted; not while there is another."""
        if self.peer is not None:
            return False
        self.loop.remove_fd(self.listening.socket.fileno())
        self.use(_socket.socket(fileno=fd))
        return True

    def wait(self, timeout: float | None = None) -> bool:
        """Until a client is there; False when `timeout` seconds passed first."""
        if not self.must_wait or self.peer is not None:
            return True
        from vmrun.core.ready import ready

        if not ready(self.listening.socket.fileno(), timeout):
            return False
        self._on_client()
        return self.peer is not None

    def on_end(self) -> None:
        self.drop()
        if not self.closed:
            self.loop.add_fd(self.listening.socket.fileno(), self._on_client)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self.loop.remove_fd(self.listening.socket.fileno())
        self.listening.close()


def _listen(name: str, spec: dict[str, Any]) -> Listening:
    try:
        return Listening(spec)
    except OSError as error:
        raise _refusal(name, "listen on", spec, error) from None


class PeerChar(SocketChar):
    """One of the clients of a ManyChar."""

    def __init__(self, server: ManyChar, peer: Any, greeted: bool) -> None:
        self.server = server
        self.address = server.address
        super().__init__(server.name, server.spec, server.loop, server.lock, server.tls)
        if server.log is not None:
            self.log_to(server.log)
        self.greeted = greeted
        self.client = peer

    def begin(self) -> None:
        self.use(self.client)

    def on_end(self) -> None:
        self.server.peers.discard(self)
        self.close()
        self.listener = None
        self.frontend = CharFrontend()


class ManyChar:
    """A server socket that takes any number of clients: `welcome` is told of the chardev of each, and sets its front
    end. Monitors have it, so that one client more is no client less.
    """

    def __init__(
        self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None, given: Any = None
    ) -> None:
        self.name, self.spec, self.loop, self.lock, self.tls = name, spec, loop, lock, tls
        self.listening: Listening = given or _listen(name, spec)
        self.address = self.listening.text
        self.must_wait = bool(spec.get("wait", True))
        self.peers: set[PeerChar] = set()
        self.log: Callable[[bytes], object] | None = None
        self._welcome: Callable[[PeerChar], object] | None = None
        self.closed = False

    def serve(self, welcome: Callable[[PeerChar], object]) -> None:
        """From now on; those who have come already are the first."""
        self._welcome = welcome
        self.loop.add_fd(self.listening.socket.fileno(), self._on_client)
        for fd, greeted in self.listening.clients:
            self._take(_socket.socket(fileno=fd), greeted)
        self.listening.clients.clear()

    def _on_client(self) -> None:
        peer = self.listening.accept()
        if peer is not None:
            self._take(peer, False)

    def adopt(self, fd: int) -> bool:
        """A client that somebody else has accepted."""
        self._take(_socket.socket(fileno=fd), False)
        return True

    def _take(self, peer: Any, greeted: bool) -> None:
        assert self._welcome is not None
        made = PeerChar(self, peer, greeted)
        self.peers.add(made)
        self._welcome(made)
        made.begin()

    @property
    def peer(self) -> PeerChar | None:
        """One of the clients; None without any."""
        return next(iter(self.peers), None)

    @property
    def filename(self) -> str:
        """As QEMU tells of it."""
        peer = self.peer
        return f"disconnected:{_told(self.spec, self.address)}" if peer is None else peer.filename

    def log_to(self, write: Callable[[bytes], object]) -> None:
        self.log = write

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        for peer in list(self.peers):
            peer.close()
        self.peers.clear()
        self.loop.remove_fd(self.listening.socket.fileno())
        self.listening.close()


class ClientChar(SocketChar):
    """Connects when it is created; that it works is part of opening, unless `reconnect` lets it come
    later.
    """

    def __init__(
        self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None, given: Any = None
    ) -> None:
        self.spec = spec
        self.address = text_of(spec)
        self.reconnect = float(spec.get("reconnect") or 0)
        self.trying: Any = None
        self.timer: Delay | None = None
        peer, greeted = given or (None, False)
        try:
            peer = peer or connect(spec, CONNECT_TIMEOUT)
        except OSError as error:
            if not self.reconnect:
                raise _refusal(name, "connect to", spec, error) from None
        super().__init__(name, spec, loop, lock, tls)
        self.greeted = greeted
        if peer is not None:
            self.use(peer)
        else:
            self._later()

    def on_end(self) -> None:
        self.drop()
        self._later()

    def _later(self) -> None:
        if self.reconnect and not self.closed:
            self.timer = self.loop.call_later(self.reconnect, self._again)

    def _again(self) -> None:
        """Begin to connect; the main loop goes on meanwhile."""
        self._give_up()
        if self.spec.get("fd") is not None:
            return  # there is only one
        try:
            family, address = address_of(self.spec, passive=False)
        except OSError:
            self._later()
            return
        self.trying = _socket.socket(family, _socket.SOCK_STREAM)
        self.trying.setblocking(False)
        if self.trying.connect_ex(address) in (0, errno.EINPROGRESS):
            self.loop.add_fd(self.trying.fileno(), None, self._connected)
            self.timer = self.loop.call_later(CONNECT_TIMEOUT, self._again)
        else:
            self._give_up()
            self._later()

    def _connected(self) -> None:
        peer, self.trying = self.trying, None
        self.loop.remove_fd(peer.fileno())
        if self.timer is not None:
            self.timer.cancel()
        if peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            peer.close()
            self._later()
        else:
            self.use(peer)

    def _give_up(self) -> None:
        if self.trying is not None:
            self.loop.remove_fd(self.trying.fileno())
            self.trying.close()
            self.trying = None

    def close(self) -> None:
        super().close()
        self._give_up()
        if self.timer is not None:
            self.timer.cancel()


class _Telnet:
    """Just enough of RFC 854: character mode, binary, options of the client refused in silence."""

    GREETING = bytes((IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD, IAC, WILL, BINARY, IAC, DO, BINARY))

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.state = 0  # 0 data, IAC, an option's verb, SB

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """(bytes for the guest, number of breaks)"""
        out, breaks = bytearray(), 0
        for byte in data:
            if self.state == 0:
                if byte == IAC:
                    self.state = IAC
                else:
                    out.append(byte)
            elif self.state == IAC:
                self.state = 0
                if byte == IAC:
                    out.append(byte)
                elif byte in (WILL, WONT, DO, DONT, SB):
                    self.state = byte
                elif byte == BREAK:
                    breaks += 1
            elif self.state == SB:
                if byte == IAC:
                    self.state = SE
            elif self.state == SE:
                self.state = 0 if byte == SE else SB
            else:
                self.state = 0
        return bytes(out), breaks
