"""The VNC server: listening, who may look and for how long, and when the screen is looked at.

`listen` is QEMU's: HOST:DISPLAY (port 5900 + DISPLAY), :DISPLAY, unix:PATH, or none; `to=` tries further displays;
`ipv4` and `ipv6` say which of the addresses count: it listens at all of them, those of :DISPLAY are the host's own. The
screen is looked at INTERVAL after a client asked and more and more rarely while nothing moves; without a client that
waits for an update there is no timer at all.
"""

from __future__ import annotations

import errno
import hmac
import os
import socket
import time

from vmrun.errors import BackendError
from vmrun.ui.vnc.client import Client, ProtocolError
from vmrun.ui.vnc.stream import Stream, WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.console import Console
    from vmrun.core.input import InputRouter
    from vmrun.core.keymap import Layout
    from vmrun.core.loop import Loop
    from vmrun.ui.vnc.page import Page

FIRST_PORT, FIRST_WEBSOCKET = 5900, 5700
INTERVAL, SLOWEST = 1 / 30, 0.25  # seconds between looks
MOST_CLIENTS = 64
_NO_FAMILY = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)  # of a host without IPv6
# After this many wrong passwords in a row nobody may try for a while.
MOST_TRIES, PENALTY = 5, 2.0


class VncServer:
    """`tell(event, data)` hears VNC_CONNECTED, VNC_INITIALIZED, VNC_DISCONNECTED.

    BackendError when it cannot listen.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        name: str,
        console: Console,
        input: InputRouter,
        loop: Loop,
        layout: Layout,
        tell: Callable[[str, dict[str, Any]], object] = lambda event, data: None,
        tls: Any = None,
        power: Callable[[str], object] | None = None,
    ) -> None:
        # "powerdown" and "reset" of clients that may press the machine's buttons; None: no client may
        self.power = power if settings.get("power-control") else None
        self.layout = layout  # of clients that send characters and no keys
        self.tls = tls  # an ssl.SSLContext that viewers must speak TLS with
        self.name, self.console, self.input, self.loop, self.tell = name, console, input, loop, tell
        self.share = str(settings.get("share") or "allow-exclusive")
        self.needs_password = bool(settings.get("password"))
        self.password: bytes | None = None
        self.expires: float | None = None  # seconds of the wall clock
        self.clients: list[Client] = []
        self.listeners: list[tuple[socket.socket, bool]] = []
        self.address: tuple[str, str, str] = ("", "", "")  # host, service, family
        self.websocket: tuple[str, str, str] | None = None
        self.path = ""  # of a unix socket, removed at the end
        self.pages: list[Page] = []  # for browsers on this host
        self.families = families(settings.get("ipv4"), settings.get("ipv6"))
        self._host = ""  # as it was given
        self._wrong, self._blocked = 0, 0.0
        self._timer: Any = None
        self._wait = INTERVAL
        listen = str(settings.get("listen") or ":0")
        if listen == "none":
            return
        if settings.get("reverse"):
            self._call(listen)
            return
        self._listen(listen, int(settings.get("to") or 0))
        wanted = settings.get("websocket")
        if wanted:
            try:
                self._listen_websocket(wanted)
            except BaseException:
                self.close()
                raise

    # --- listening ----------------------------------------------------------------------------------------

    def _listen(self, listen: str, to: int) -> None:
        if listen.startswith("unix:"):
            self.path = listen[5:]
            self.address = ("", self.path, "unix")
            self._bind(socket.AF_UNIX, self.path, "unix:" + self.path)
            return
        host, display = split(listen)
        self._host = host
        last = max(display, to)
        for number in range(display, last + 1):
            try:
                port = self._tcp(host, FIRST_PORT + number, False)
            except BackendError as error:
                if number == last or getattr(error, "errno", None) != errno.EADDRINUSE:
                    raise
                continue
            self.address = (*port, "ipv6" if ":" in port[0] else "ipv4")
            return

    def _listen_websocket(self, wanted: Any) -> None:
        host = self._host if self.address[2] != "unix" else "127.0.0.1"
        if wanted is True or wanted == "on":
            port = FIRST_WEBSOCKET + (int(self.address[1]) - FIRST_PORT if self.address[2] != "unix" else 0)
        else:
            text = str(wanted)
            if ":" in text:
                host, _, text = text.rpartition(":")
            port = int(text)
        found = self._tcp(host, port, True)
        self.websocket = (*found, "ipv6" if ":" in found[0] else "ipv4")

    def _tcp(self, host: str, port: int, web: bool) -> tuple[str, str]:
        """(address, port) that it listens on."""
        try:
            found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except (socket.gaierror, OverflowError) as error:
            raise BackendError(
                f"vnc: '{host}:{port}' is no address: {error}", remedy="give an address, like 127.0.0.1:0"
            ) from None
        found = [entry for entry in found if entry[0] in self.families]
        found.sort(key=lambda entry: entry[0] != socket.AF_INET)
        if not found:
            raise BackendError(
                f"vnc: '{host}:{port}' has no address of the family asked for", remedy="change `ipv4:` and `ipv6:`"
            )
        made = len(self.listeners)
        first: tuple[str, str] | None = None
        for family, _, _, _, address in found:
            if first is not None:
                address = (address[0], int(first[1]), *address[2:])
            try:
                bound = self._bind(family, address, f"{host or address[0]}:{port}", web)
            except BackendError as error:
                if first is not None and getattr(error, "errno", 0) in _NO_FAMILY:
                    continue
                self._leave(self.listeners[made:], "")
                raise
            first = first or (str(bound[0]), str(bound[1]))
        assert first is not None
        return first

    def _bind(self, family: int, address: Any, what: str, web: bool = False) -> Any:
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failure = BackendError(f"vnc: cannot listen on {what}: {error.strerror}")
            failure.errno = error.errno  # type: ignore[attr-defined]
            raise failure from None
        try:
            if family != socket.AF_UNIX:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:  # IPv4 has a listener of its own, or none
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind(address)
            listener.listen(8)
        except (OSError, OverflowError) as error:
            listener.close()
            if family == socket.AF_UNIX and getattr(error, "errno", 0) == errno.EADDRINUSE and _stale(address):
                os.unlink(address)
                return self._bind(family, address, what, web)
            number = getattr(error, "errno", 0) or 0
            remedy = {
                errno.EADDRINUSE: "another program listens there: choose another display, or add `to:`",
                errno.EACCES: "give this user the permission, or choose another display",
                errno.EADDRNOTAVAIL: "this host has no such address",
            }.get(number, "")
            why = os.strerror(number) if number else str(error)
            failure = BackendError(f"vnc: cannot listen on {what}: {why}", remedy=remedy)
            failure.errno = number  # type: ignore[attr-defined]
            raise failure from None
        listener.setblocking(False)
        self.listeners.append((listener, web))
        self.loop.add_fd(listener.fileno(), lambda: self._accept(listener, web))
        return listener.getsockname()

    def move(self, addresses: list[tuple[str, int]]) -> None:
        """Listen there from now on: (host or address, port), or ("unix:PATH", 0). Viewers stay, and so does what is for
        browsers. BackendError, and nothing has changed.
        """
        old, path = [entry for entry in self.listeners if not entry[1]], self.path
        first: tuple[str, str, str] | None = None
        try:
            for host, port in addresses:
                if host.startswith("unix:"):
                    self.path = host[5:]
                    self._bind(socket.AF_UNIX, self.path, host)
                    found = ("", self.path, "unix")
                else:
                    bound = self._tcp(host, port, False)
                    found = (*bound, "ipv6" if ":" in bound[0] else "ipv4")
                first = first or found
        except BackendError:
            made = [entry for entry in self.listeners if not entry[1] and entry not in old]
            self._leave(made, self.path if self.path != path else "")
            self.path = path
            raise
        assert first is not None
        self._leave(old, path if path != self.path else "")
        if not any(host.startswith("unix:") for host, _ in addresses):
            self.path = ""
        self.address = first

    def _leave(self, listeners: list[tuple[socket.socket, bool]], path: str) -> None:
        """Close some listeners, and remove the unix socket of one of them."""
        for entry in listeners:
            self.listeners.remove(entry)
            self.loop.remove_fd(entry[0].fileno())
            entry[0].close()
        if path:
            try:
                os.unlink(path)
            except OSError:
                pass

    def _accept(self, listener: socket.socket, web: bool) -> None:
        try:
            peer, address = listener.accept()
        except OSError:
            return
        if len(self.clients) >= MOST_CLIENTS:
            peer.close()
            return
        self._add(peer, address, web)

    def _call(self, where: str) -> None:
        """Reverse: connect to a viewer that listens at HOST:PORT."""
        if where.startswith("unix:"):
            family, address = socket.AF_UNIX, where[5:]
        else:
            host, port = split(where)
            family, address = socket.AF_INET, (host or "127.0.0.1", port)  # type: ignore[assignment]
        peer = socket.socket(family, socket.SOCK_STREAM)
        try:
            peer.settimeout(10)
            peer.connect(address)
        except OSError as error:
            peer.close()
            raise BackendError(
                f"vnc: no viewer listens at {where}: {error.strerror or error}", remedy="start the viewer first"
            ) from None
        self._add(peer, address, False)

    def _add(self, peer: socket.socket, address: Any, web: bool) -> None:
        if peer.family == socket.AF_UNIX:
            who = ("", "", "unix")
        else:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            who = (str(address[0]), str(address[1]), "ipv6" if peer.family == socket.AF_INET6 else "ipv4")
        holder: list[Client] = []
        stream = (WebSocket if web else Stream)(
            peer, self.loop, lambda data: self._heard(holder, data), lambda: self._gone(holder)
        )
        self._welcome(holder, stream, who)

    def take(
        self, stream: Stream, address: Any
    ) -> tuple[Callable[[bytes], None], Callable[[], None]]:
        """A viewer that has shown already that it may look; what hears its bytes and its end."""
        holder: list[Client] = []
        self._welcome(holder, stream, (str(address[0]), str(address[1]), "ipv4"), trusted=True)
        return lambda data: self._heard(holder, data), lambda: self._gone(holder)

    def _heard(self, holder: list[Client], data: bytes) -> None:
        try:
            holder[0].feed(data)
        except ProtocolError:
            holder[0].stream.end()

    def _gone(self, holder: list[Client]) -> None:
        if holder and holder[0] in self.clients:
            self._remove(holder[0])

    def _welcome(self, holder: list[Client], stream: Stream, who: tuple[str, str, str], trusted: bool = False) -> None:
        client = Client(self, stream, who, trusted)
        holder.append(client)
        stream.on_room = self.look_soon
        self.clients.append(client)
        self.tell("VNC_CONNECTED", {"server": self._server_info(), "client": self._client_info(client)})

    def _remove(self, client: Client) -> None:
        self.clients.remove(client)
        client.close()
        self.tell("VNC_DISCONNECTED", {"server": self._server_info(), "client": self._client_info(client)})

    # --- who may look -------------------------------------------------------------------------------------

    def admit(self, client: Client) -> None:
        """The handshake is over: one that wants the screen for itself gets it, as `share` allows."""
        if self.share == "allow-exclusive" and not client.shared:
            for other in list(self.clients):
                if other is not client and other.ready:
                    other.stream.close()
        elif self.share == "force-shared" and not client.shared:
            raise ProtocolError("this server does not give the screen to one client alone")
        self.tell("VNC_INITIALIZED", {"server": self._server_info(), "client": self._client_info(client)})

    def set_password(self, password: str | None) -> None:
        """None and an empty one let nobody in. Eight bytes count, the protocol has no more."""
        self.needs_password = True
        self.password = password.encode()[:8] if password else None

    def check_password(self, challenge: bytes, answer: bytes) -> str:
        """'' when it is right, else why the client is refused."""
        now = time.monotonic()
        if now < self._blocked:
            return "Too many wrong passwords: try again later"
        right = self.password is not None and (self.expires is None or time.time() < self.expires)
        if right and hmac.compare_digest(cipher(self.password or b"", challenge), answer):
            self._wrong = 0
            return ""
        self._wrong += 1
        if self._wrong >= MOST_TRIES:
            self._wrong, self._blocked = 0, now + PENALTY
        return "Authentication failed"

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def absolute(self) -> bool:
        return self.input.absolute

    def look_soon(self) -> None:
        """A client waits: look at the screen within INTERVAL, and often for a while."""
        self._wait = INTERVAL
        if self._timer is not None and self._next > time.monotonic() + INTERVAL:
            self._timer.cancel()
            self._timer = None
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and any(client.hungry for client in self.clients):
            self._next = time.monotonic() + self._wait
            self._timer = self.loop.call_later(self._wait, self._look)

    def _look(self) -> None:
        self._timer = None
        changed = self.console.refresh()
        self._wait = INTERVAL if changed else min(self._wait * 1.25, SLOWEST)
        for client in list(self.clients):
            try:
                client.update()
            except ProtocolError:
                client.stream.end()
        self._arm()

    # --- what monitors ask --------------------------------------------------------------------------------

    def _server_info(self) -> dict[str, Any]:
        host, service, family = self.address
        return {"auth": self.kind, "host": host, "service": service, "family": family, "websocket": False}

    @staticmethod
    def _client_info(client: Client) -> dict[str, Any]:
        host, service, family = client.peer
        web = isinstance(client.stream, WebSocket)
        return {"host": host, "service": service, "family": family, "websocket": web}

    @property
    def auth(self) -> str:
        """QMP's word for what a viewer has to do."""
        plain = "vnc" if self.needs_password else "none"
        return f"vencrypt+x509+{plain}" if self.tls is not None else plain

    @property
    def kind(self) -> str:
        """The same as one of VncPrimaryAuth."""
        return "vencrypt" if self.tls is not None else self.auth

    def _sub(self) -> dict[str, str]:
        return {"vencrypt": "x509-vnc" if self.needs_password else "x509-none"} if self.tls is not None else {}

    def info(self) -> dict[str, Any]:
        """QMP's VncInfo."""
        host, service, family = self.address
        clients = [self._client_info(client) for client in self.clients if client.ready]
        return {
            "enabled": True, "auth": self.auth, "host": host, "service": service, "family": family, "clients": clients,
        }

    def info2(self) -> dict[str, Any]:
        """QMP's VncInfo2."""
        servers = [{**self._server_info(), "auth": self.kind, **self._sub()}]
        if self.websocket is not None:
            host, service, family = self.websocket
            servers.append({"host": host, "service": service, "family": family, "websocket": True, "auth": self.kind})
        clients = [self._client_info(client) for client in self.clients if client.ready]
        return {"id": "default", "server": servers, "clients": clients, "auth": self.kind, **self._sub()}

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for page in list(self.pages):
            page.close()
        for client in list(self.clients):
            client.stream.close()
        self._leave(list(self.listeners), self.path)
        self.path = ""


def split(listen: str) -> tuple[str, int]:
    """HOST:DISPLAY, [V6]:DISPLAY, :DISPLAY or DISPLAY."""
    host, colon, number = listen.rpartition(":")
    if not colon:
        host, number = "", listen
    if not number.isascii() or not number.isdigit() or int(number) > 65535 - FIRST_PORT:
        remedy = "write HOST:DISPLAY, like 127.0.0.1:0, or unix:PATH"
        raise BackendError(f"vnc: '{listen}' is no display", remedy=remedy)
    return host.strip("[]"), int(number)


def families(ipv4: bool | None, ipv6: bool | None) -> tuple[int, ...]:
    """Whose addresses count, as QEMU takes its two switches: one that is on alone leaves the other out."""
    wanted = ipv4 if ipv4 is not None else not ipv6, ipv6 if ipv6 is not None else not ipv4
    return tuple(
        family for family, counts in zip((socket.AF_INET, socket.AF_INET6), wanted, strict=True) if counts
    )


def cipher(password: bytes, challenge: bytes) -> bytes:
    """DES with the password's bytes mirrored, as the protocol has it (RFC 6143 7.2.2)."""
    try:
        from Crypto.Cipher import DES
    except ImportError:
        raise ProtocolError("VNC passwords need the package pycryptodome (vmrun's extra `vnc`)") from None
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password[:8].ljust(8, b"\0"))
    return bytes(DES.new(key, DES.MODE_ECB).encrypt(challenge))


def _stale(path: str) -> bool:
    """Whether a socket is in the way that nobody listens on."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
    return False
