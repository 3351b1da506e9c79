"""A connected viewer's bytes on the main loop: what it sends, what waits for it; plain or inside a WebSocket.

Ref: RFC 6455 (The WebSocket Protocol); noVNC speaks RFB in its binary frames.
"""

from __future__ import annotations

import base64
import hashlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.loop import Loop

MOST_READ = 65536
MOST_HEADER = 8192  # bytes of an HTTP request
MOST_FRAME = 1 << 20
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class ProtocolError(Exception):
    """The client broke the protocol, or was refused; the connection ends."""


class Stream:
    """`on_data(bytes)` hears the peer; `on_close()` is called once, when it has gone or `close` was called."""

    def __init__(
        self, peer: socket.socket, loop: Loop, on_data: Callable[[bytes], object], on_close: Callable[[], object]
    ) -> None:
        self.peer, self.loop, self.on_data, self.on_close = peer, loop, on_data, on_close
        self.on_room: Callable[[], object] = lambda: None
        self.encode: Callable[[bytes], bytes] | None = None  # SASL's layer over what is written
        self.closed = False
        self._output: list[bytes] = []
        self.waiting = 0  # bytes that the peer has not taken
        self._stuck = False  # the peer takes no more for now
        self._ending = False
        self.certificate: Any = None  # what of the peer's ssl tells
        self._trusts: Callable[[Any], bool] = bool
        self._tls: Any = None  # an SSLObject, once the peer has asked for it
        self._in: Any = None
        self._out: Any = None
        self._clear: list[bytes] | None = None  # what waits for the end of TLS's handshake
        peer.setblocking(False)
        self._watch()

    def write(self, data: bytes) -> None:
        """Sent when the peer takes it."""
        if self.encode is not None and data:
            data = self.encode(data)
        self._pack(data)

    def _pack(self, data: bytes) -> None:
        """What is written, as the peer wants it: as it is, or in frames."""
        self._plain(data)

    def _plain(self, data: bytes) -> None:
        """Bytes outside of frames, inside of TLS where there is TLS."""
        if self.closed or not data:
            return
        if self._clear is not None:
            self._clear.append(data)
            return
        if self._tls is not None:
            self._tls.write(data)
            data = self._out.read()
        self._put(data)

    def _put(self, data: bytes) -> None:
        """Bytes as they go out."""
        if not data:
            return
        self._output.append(data)
        self.waiting += len(data)
        self._flush()

    def start_tls(self, context: Any, trusts: Callable[[Any], bool]) -> None:
        """From now on all is encrypted; `context` is an ssl.SSLContext. A peer that cannot, or whose certificate
        `trusts` refuses, is closed.
        """
        import ssl

        self._in, self._out, self._clear = ssl.MemoryBIO(), ssl.MemoryBIO(), []
        self._tls, self._trusts = context.wrap_bio(self._in, self._out, server_side=True), trusts

    def _encrypted(self, data: bytes) -> None:
        import ssl

        self._in.write(data)
        try:
            if self._clear is not None:
                try:
                    self._tls.do_handshake()
                finally:
                    self._put(self._out.read())
                self.certificate = self._tls.getpeercert()
                if not self._trusts(self.certificate):
                    self.close()
                    return
                waiting, self._clear = self._clear, None
                for part in waiting:
                    self._plain(part)
            while not self.closed and not self._ending:
                part = self._tls.read(MOST_READ)
                if not part:
                    self.close()
                    return
                self.on_data(part)
        except ssl.SSLWantReadError:
            if not self.closed:
                self._put(self._out.read())
        except (ssl.SSLError, OSError):
            self.close()

    def end(self) -> None:
        """Close when everything has been sent."""
        self._ending = True
        if not self.waiting:
            self.close()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.loop.remove_fd(self.peer.fileno())
            self.peer.close()
            self.on_close()

    def _watch(self) -> None:
        self._stuck = bool(self._output)
        self.loop.add_fd(self.peer.fileno(), self._readable, self._flush if self._stuck else None)

    def _readable(self) -> None:
        try:
            data = self.peer.recv(MOST_READ)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
        elif self._tls is not None:
            self._encrypted(data)
        elif not self._ending:
            self.on_data(data)

    def _flush(self) -> None:
        had = bool(self._output)
        while self._output:
            data = self._output[0]
            try:
                sent = self.peer.send(data)
            except BlockingIOError:
                break
            except OSError:
                self.close()
                return
            self.waiting -= sent
            if sent == len(data):
                self._output.pop(0)
            else:
                self._output[0] = data[sent:]
        if self.closed:
            return
        if self._stuck != bool(self._output):
            self._watch()
        if had and not self._output:
            if self._ending:
                self.close()
            else:
                self.on_room()


class WebSocket(Stream):
    """The same behind an HTTP upgrade. `on_data` hears the frames' payload."""

    def __init__(
        self, peer: socket.socket, loop: Loop, on_data: Callable[[bytes], object], on_close: Callable[[], object]
    ) -> None:
        self._buffer = b""
        self._open = False
        self._early: list[bytes] = []
        self._heard = on_data
        super().__init__(peer, loop, self._raw, on_close)

    def _pack(self, data: bytes) -> None:
        if not self._open:
            self._early.append(data)
            return
        self._frame(BINARY, data)

    def _frame(self, kind: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = bytes((0x80 | kind, size))
        elif size < 65536:
            head = bytes((0x80 | kind, 126)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | kind, 127)) + size.to_bytes(8, "big")
        self._plain(head + data)

    def _raw(self, data: bytes) -> None:
        self._buffer += data
        if not self._open and not self._upgrade():
            return
        while not self.closed and self._next():
            pass

    def _upgrade(self) -> bool:
        """Answer the request once it is whole."""
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(self._buffer) > MOST_HEADER:
                self.close()
            return False
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[name.strip().lower()] = value.strip()
        if not self._request(head, fields):
            return False
        key = fields.get(b"sec-websocket-key")
        if key is None or not head.startswith(b"GET "):
            self._plain(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.end()
            return False
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        answer = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
        answer.append(b"Sec-WebSocket-Accept: " + accept)
        if b"binary" in fields.get(b"sec-websocket-protocol", b""):
            answer.append(b"Sec-WebSocket-Protocol: binary")
        self._plain(b"\r\n".join(answer) + b"\r\n\r\n")
        self._open, self._buffer = True, rest
        for data in self._early:
            self._frame(BINARY, data)
        self._early.clear()
        return True

    def _request(self, head: bytes, fields: dict[bytes, bytes]) -> bool:
        """Whether this request may become a WebSocket; a subclass answers others itself."""
        return True

    def _next(self) -> bool:
        """Take one frame off the buffer; False when there is no whole one."""
        data = self._buffer
        if len(data) < 2:
            return False
        kind, size, at = data[0] & 0x0F, data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        if not data[1] & 0x80 or size > MOST_FRAME:
            self.close()  # a client masks its frames
            return False
        if len(data) < at + 4 + size:
            return False
        mask, payload = data[at : at + 4], data[at + 4 : at + 4 + size]
        self._buffer = data[at + 4 + size :]
        whole = int.from_bytes(payload, "big") ^ int.from_bytes((mask * (size // 4 + 1))[:size], "big")
        payload = whole.to_bytes(size, "big")
        if kind in (CONTINUATION, BINARY, TEXT):
            self._heard(payload)
        elif kind == PING:
            self._frame(PONG, payload)
        elif kind == CLOSE:
            self._frame(CLOSE, payload[:2])
            self.end()
        return True
