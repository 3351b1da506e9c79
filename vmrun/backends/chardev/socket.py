"""A chardev over a unix or TCP socket: one peer at a time, as a server or as a client.

Without a peer output vanishes. A client that loses its server tries again every `reconnect` seconds, if that
is given.
"""

from __future__ import annotations

import errno
import os
import socket

from vmrun.backends.chardev.stream import CHUNK, StreamChar
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Delay, Loop

IAC, WILL, WONT, DO, DONT, SB, SE, BREAK = 255, 251, 252, 253, 254, 250, 240, 243
ECHO, BINARY, SUPPRESS_GO_AHEAD = 1, 0, 3
CONNECT_TIMEOUT = 10.0


def open_socket(name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None) -> StreamChar:
    """From `path` (with `abstract`, a name of the kernel's that is no file), or `host` and `port`, or an inherited
    `fd`; `server`, `wait`, `nodelay`, `telnet`, `websocket`, `reconnect` in seconds. `tls`: an ssl.SSLContext.
    """
    return (ServerChar if spec.get("server") else ClientChar)(name, spec, loop, lock, tls)


def _address(name: str, spec: dict[str, Any], passive: bool) -> tuple[int, Any, str]:
    """(family, address, text)"""
    if spec.get("fd") is not None:
        try:
            inherited = socket.socket(fileno=os.dup(int(spec["fd"])))
        except OSError as error:
            raise _refusal(name, f"descriptor {spec['fd']} is no socket", error) from None
        return inherited.family, inherited, f"fd:{spec['fd']}"
    if spec.get("path"):
        path = spec["path"]
        if len(os.fsencode(path)) > 107:
            raise BackendError(
                f"chardev '{name}': the socket path '{path}' is longer than 107 bytes",
                remedy="choose a shorter one",
            )
        if spec.get("abstract"):
            name_ = b"\0" + os.fsencode(path)
            # as QEMU does: the rest of the address is part of the name, unless it is to be tight
            return socket.AF_UNIX, name_ if spec.get("tight", True) else name_.ljust(108, b"\0"), f"unix:@{path}"
        return socket.AF_UNIX, path, f"unix:{path}"
    host, port = spec.get("host") or "localhost", int(spec.get("port") or 0)
    try:
        flags = socket.AI_PASSIVE if passive else 0
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except socket.gaierror as error:
        raise BackendError(
            f"chardev '{name}': the host name '{host}' is not known: {error.strerror}",
            remedy="give an address instead",
        ) from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4], f"tcp:{host}:{port}"


def _refusal(name: str, what: str, error: OSError) -> BackendError:
    remedy = {
        errno.EADDRINUSE: "another program listens there: stop it, or choose another address",
        errno.EACCES: "give this user the permission, or choose another address",
        errno.ECONNREFUSED: "start the server first, or make this side the server",
        errno.ENOENT: "start the server first, or make this side the server",
        errno.EADDRNOTAVAIL: "this host has no such address",
    }.get(error.errno or 0, "")
    why = os.strerror(error.errno) if error.errno else str(error)
    return BackendError(f"chardev '{name}': {what}: {why}", remedy=remedy)


class SocketChar(StreamChar):
    """A connected peer. Subclasses say how one comes about."""

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any) -> None:
        self.peer: socket.socket | None = None
        self.nodelay = bool(spec.get("nodelay"))
        self.telnet = _Telnet() if spec.get("telnet") else None
        self.framed = bool(spec.get("websocket"))
        self.web: Any = None  # a WebSocket, with a peer
        self.tls, self.host = tls, spec.get("host") or ""
        super().__init__(name, loop, lock)
        with lock:
            self.set_connected(False)

    def use(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if self.nodelay and peer.family != socket.AF_UNIX:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            server = isinstance(self, ServerChar)
            name = None if server or not self.tls.check_hostname and not self.host else self.host or "localhost"
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
        server = ",server=on" if isinstance(self, ServerChar) else ""
        if self.peer is None:
            return f"disconnected:{self.address}{server}"
        if self.address.startswith("unix:") or self.address.startswith("fd:"):
            return f"{self.address}{server}"
        try:
            other = self.peer.getpeername()
        except OSError:
            return f"{self.address}{server}"
        return f"{self.address}{server} <-> {other[0]}:{other[1]}"

    def drop(self) -> None:
        self.web = None
        self.detach()
        if self.peer is not None:
            self.peer.close()
            self.peer = None

    def read(self, count: int) -> bytes:
        if self.tls is None or self.peer is None:
            return super().read(count)
        import ssl

        try:
            data = self.peer.recv(count)
            while self.peer.pending():  # type: ignore[attr-defined]  # what no descriptor tells of
                self.backlog += self.filter_input(self.peer.recv(CHUNK))
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
        return data

    def write_some(self, data: bytes) -> int:
        # MSG_NOSIGNAL is Python's default: SIGPIPE is ignored.
        if self.tls is None or self.peer is None:
            return os.write(self.write_fd, data)
        import ssl

        try:
            return self.peer.send(data)
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
            if self.peer is not None:
                self.loop.call_soon(self.on_end)
            return b""
        self.pending += answer
        if self.web.open and not was_open:
            with self.lock:
                self.set_connected(True)
        self._pump()
        return data

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

    def drain(self, limit: int = 65536) -> bytes:
        data: bytes = super().drain(limit)
        if self.web is not None:
            return self.web.frame(data) if data else data
        return data.replace(b"\xff", b"\xff\xff") if self.telnet is not None else data

    def close(self) -> None:
        super().close()
        if self.peer is not None:
            self.peer.close()
            self.peer = None


class ServerChar(SocketChar):
    """Listens; `wait()` returns when the first client is there (or at once where that is not wanted)."""

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None) -> None:
        family, address, self.address = _address(name, spec, True)
        self.must_wait = bool(spec.get("wait", True))
        self.path = "" if spec.get("abstract") else spec.get("path") or ""
        inherited = isinstance(address, socket.socket)
        self.listener = address if inherited else socket.socket(family, socket.SOCK_STREAM)
        try:
            if not inherited:
                self._bind(name, family, address)
            self.listener.listen(1)
        except OSError as error:
            self.listener.close()
            raise _refusal(name, f"cannot listen on {self.address}", error) from None
        if family != socket.AF_UNIX and not inherited:
            bound = self.listener.getsockname()
            self.address = f"tcp:{bound[0]}:{bound[1]}"
        self.listener.setblocking(False)
        super().__init__(name, spec, loop, lock, tls)
        loop.add_fd(self.listener.fileno(), self._on_client)

    def _bind(self, name: str, family: int, address: Any) -> None:
        if family != socket.AF_UNIX:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(address)
            return
        try:
            self.listener.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or isinstance(address, bytes) or not _stale(address):
                raise
            # Left behind by a program that died: nobody answers there.
            os.unlink(address)
            self.listener.bind(address)

    def _on_client(self) -> None:
        try:
            peer, _ = self.listener.accept()
        except OSError:
            return
        if self.peer is not None:
            peer.close()
            return
        self.loop.remove_fd(self.listener.fileno())
        self.use(peer)

    def wait(self, timeout: float | None = None) -> bool:
        """Until a client is there; False when `timeout` seconds passed first."""
        if not self.must_wait or self.peer is not None:
            return True
        import select

        if not select.select((self.listener,), (), (), timeout)[0]:
            return False
        self._on_client()
        return self.peer is not None

    def on_end(self) -> None:
        self.drop()
        if not self.closed:
            self.loop.add_fd(self.listener.fileno(), self._on_client)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self.loop.remove_fd(self.listener.fileno())
        self.listener.close()
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass


class ClientChar(SocketChar):
    """Connects when it is created; that it works is part of opening, unless `reconnect` lets it come
    later."""

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock, tls: Any = None) -> None:
        self.family, self.target, self.address = _address(name, spec, False)
        self.reconnect = float(spec.get("reconnect") or 0)
        self.trying: socket.socket | None = None
        self.timer: Delay | None = None
        peer: socket.socket | None = None
        try:
            peer = self._connect(CONNECT_TIMEOUT)
        except OSError as error:
            if not self.reconnect:
                raise _refusal(name, f"cannot connect to {self.address}", error) from None
        super().__init__(name, spec, loop, lock, tls)
        if peer is not None:
            self.use(peer)
        else:
            self._later()

    def _connect(self, timeout: float) -> socket.socket:
        if isinstance(self.target, socket.socket):
            peer, self.target = self.target, None
            return peer
        if self.target is None:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        peer = socket.socket(self.family, socket.SOCK_STREAM)
        peer.settimeout(timeout)
        try:
            peer.connect(self.target)
        except OSError:
            peer.close()
            raise
        return peer

    def on_end(self) -> None:
        self.drop()
        self._later()

    def _later(self) -> None:
        if self.reconnect and not self.closed:
            self.timer = self.loop.call_later(self.reconnect, self._again)

    def _again(self) -> None:
        """Begin to connect; the main loop goes on meanwhile."""
        self._give_up()
        if not isinstance(self.target, tuple | str | bytes):
            return
        self.trying = socket.socket(self.family, socket.SOCK_STREAM)
        self.trying.setblocking(False)
        if self.trying.connect_ex(self.target) in (0, errno.EINPROGRESS):
            self.loop.add_fd(self.trying.fileno(), None, self._connected)
            self.timer = self.loop.call_later(CONNECT_TIMEOUT, self._again)
        else:
            self._give_up()
            self._later()

    def _connected(self) -> None:
        peer, self.trying = self.trying, None
        assert peer is not None
        self.loop.remove_fd(peer.fileno())
        if self.timer is not None:
            self.timer.cancel()
        if peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
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


def _stale(path: str) -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(1.0)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False


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
