"""A page with the screen for a browser on this host: noVNC's files and a WebSocket, behind a token that serves once.

    page = Page(server)             # a VncServer; it listens on 127.0.0.1, at a port of the system's choice
    page.url                        # http://127.0.0.1:PORT/TOKEN/vnc.html?…

Who has the address may connect once, without a password: it is handed to who may talk to the machine's monitor. A page
of another site cannot: names other than this host's own, and other origins, are refused. When the viewer leaves, all
of it is gone.

Ref: RFC 9110, 9112 as far as a browser needs them to fetch files. noVNC comes from the system's package.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket

from vmrun.errors import BackendError
from vmrun.ui.vnc.stream import WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.ui.vnc.server import VncServer

PLACES = ("/usr/share/novnc", "/usr/share/webapps/novnc", "/usr/share/noVNC")
KINDS = {
    ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml", ".png": "image/png", ".ico": "image/x-icon", ".json": "application/json",
    ".woff": "font/woff", ".ttf": "font/ttf", ".oga": "audio/ogg", ".mp3": "audio/mpeg",
}  # fmt: skip
SOCKET = "websockify"
MOST_FILE = 4 << 20
MOST_PEERS = 32  # connections at a time


def novnc() -> str:
    """The directory of noVNC. BackendError where there is none."""
    for place in PLACES:
        if os.path.exists(os.path.join(place, "vnc.html")):
            return place
    raise BackendError("noVNC is not installed, which the page is made of", remedy="apt-get install novnc")


class Page:
    def __init__(self, server: VncServer) -> None:
        self.server, self.files = server, novnc()
        self.token = secrets.token_urlsafe(24)
        self.used = False
        self.peers: list[_Peer] = []
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(8)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        server.loop.add_fd(self.listener.fileno(), self._accept)
        server.pages.append(self)

    @property
    def url(self) -> str:
        query = f"autoconnect=1&reconnect=0&resize=remote&path={self.token}/{SOCKET}"
        return f"http://127.0.0.1:{self.port}/{self.token}/vnc.html?{query}"

    def _accept(self) -> None:
        try:
            peer, address = self.listener.accept()
        except OSError:
            return
        if len(self.peers) >= MOST_PEERS:
            peer.close()
            return
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peers.append(_Peer(self, peer, address))

    def gone(self, peer: _Peer) -> None:
        """A connection is over; with the viewer's, everything is."""
        if peer in self.peers:
            self.peers.remove(peer)
        if peer.viewer:
            self.close()

    def own(self, fields: dict[bytes, bytes]) -> bool:
        """Whether a request was made to this host by name, and by a page of ours if by any."""
        names = {f"{host}:{self.port}".encode() for host in ("127.0.0.1", "localhost")}
        origin = fields.get(b"origin")
        return fields.get(b"host") in names and (origin is None or origin.removeprefix(b"http://") in names)

    def path(self, target: bytes) -> str | None:
        """What is asked for behind the token; None for another or none."""
        path = target.partition(b"?")[0]
        token, _, rest = path.removeprefix(b"/").partition(b"/")
        return rest.decode("latin-1") if hmac.compare_digest(token, self.token.encode()) else None

    def file(self, path: str) -> tuple[bytes, str] | None:
        """A file of noVNC's and its kind."""
        kind = KINDS.get(os.path.splitext(path)[1])
        full = os.path.realpath(os.path.join(self.files, path))
        # Debian's package links to libraries in directories of their own
        if kind is None or ".." in path.split("/") or not full.startswith("/usr/share/") or not os.path.isfile(full):
            return None
        with open(full, "rb") as file:
            return file.read(MOST_FILE), kind

    def close(self) -> None:
        if self.listener.fileno() < 0:
            return
        self.server.loop.remove_fd(self.listener.fileno())
        self.listener.close()
        self.server.pages.remove(self)
        for peer in list(self.peers):
            peer.close()


class _Peer(WebSocket):
    """A browser's connection: one file, or the viewer."""

    def __init__(self, page: Page, peer: socket.socket, address: Any) -> None:
        self.page, self.address = page, address
        self.viewer = False
        self._client_heard: Any = None
        self._client_gone: Any = None
        super().__init__(peer, page.server.loop, self._payload, self._over)

    def _payload(self, data: bytes) -> None:
        if self._client_heard is not None:
            self._client_heard(data)

    def _over(self) -> None:
        if self._client_gone is not None:
            self._client_gone()
        self.page.gone(self)

    def _request(self, head: bytes, fields: dict[bytes, bytes]) -> bool:
        """True when the upgrade may go on."""
        words = head.partition(b"\r\n")[0].split(b" ")
        path = self.page.path(words[1]) if len(words) == 3 and words[0] == b"GET" else None
        if path is None or not self.page.own(fields):
            return self._answer(b"403 Forbidden")
        if path == SOCKET and b"sec-websocket-key" in fields:
            if self.page.used:
                return self._answer(b"403 Forbidden")
            self.page.used = self.viewer = True
            self._client_heard, self._client_gone = self.page.server.take(self, self.address)
            return True
        found = self.page.file(path)
        if found is None:
            return self._answer(b"404 Not Found")
        return self._answer(b"200 OK", *found)

    def _answer(self, status: bytes, data: bytes = b"", kind: str = "text/plain") -> bool:
        head = [b"HTTP/1.1 " + status, b"Connection: close", b"Cache-Control: no-store", b"X-Frame-Options: DENY"]
        head += [f"Content-Type: {kind}".encode(), b"Content-Length: %d" % len(data), b"Referrer-Policy: no-referrer"]
        self._plain(b"\r\n".join(head) + b"\r\n\r\n" + data)
        self.end()
        return False
