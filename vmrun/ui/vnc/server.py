"""The VNC server: listening, who may look and for how long, and when the screen is looked at.

`listen` is QEMU's: HOST:DISPLAY (port 5900 + DISPLAY), :DISPLAY, unix:PATH, or none; `to=` tries further displays. The
screen is looked at INTERVAL after a client asked and more and more rarely while nothing moves; without a client that
waits for an update there is no timer at all.
"""

from __future__ import annotations

import errno
import hmac
import os
import socket
import time

from vmrun.core import unixsocket
from vmrun.core.inet import families, host_name
from vmrun.core.x509 import subject
from vmrun.errors import BackendError
from vmrun.ui.vnc.client import Client
from vmrun.ui.vnc.keyqueue import KeyQueue
from vmrun.ui.vnc.security import SASL, VNC_AUTHENTICATION, wanted
from vmrun.ui.vnc.stream import ProtocolError, Stream, WebSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.clipboard import Clipboard
    from vmrun.core.console import Console
    from vmrun.core.input import InputRouter
    from vmrun.core.keymap import Layout
    from vmrun.core.loop import Loop
    from vmrun.ui.vnc.page import Page

FIRST_PORT, FIRST_WEBSOCKET = 5900, 5700
INTERVAL, SLOWEST = 1 / 33, 0.25  # seconds between looks; QEMU's is 30 ms
ECHO = 0.008  # seconds that a guest is given to show what a key did
MOST_CLIENTS = 64
MOST_CONNECTING = 32  # clients that have not said yet who they are; QEMU's `connections`
KEY_DELAY = 10  # ms between keys
CALLING = 10.0  # seconds until a viewer must have answered
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
        clipboard: Clipboard | None = None,
        password: bytes | None = None,
        anonymous: bool = False,
        may_enter: Callable[[str, str], bool] = lambda key, name: True,
    ) -> None:
        self.may_enter = may_enter  # ("tls-authz" or "sasl-authz", a name): whether that one is let in
        # "powerdown" and "reset" of clients that may press the machine's buttons; None: no client may
        self.power = power if settings.get("power-control") else None
        self.layout = layout  # of clients that send characters and no keys
        self.tls = tls  # an ssl.SSLContext that viewers must speak TLS with
        self.anonymous = anonymous  # it has no certificate
        self.id = str(settings.get("id") or "default")
        self.bound = "display" in settings  # to one device's screen
        self.consoles: list[Console] = []  # that its viewers may turn to
        self.name, self.console, self.input, self.loop, self.tell = name, console, input, loop, tell
        self.share = str(settings.get("share") or "allow-exclusive")
        self.needs_password = bool(settings.get("password")) or password is not None
        self.password = password[:8] if password else None
        self.sasl = bool(settings.get("sasl"))
        if self.sasl:
            from vmrun.ui.vnc.sasl import library

            library()
        self.lossy = bool(settings.get("lossy"))
        self.adaptive = not settings.get("non-adaptive")  # what was sent as JPEG is sent exactly once it stands still
        self.keys = KeyQueue(loop, int(settings.get("key-delay-ms", KEY_DELAY)) / 1000, self._hungry)
        self.lock_keys = bool(settings.get("lock-key-sync", True))
        self.connections = int(settings.get("connections", MOST_CONNECTING))
        self.expires: float | None = None  # seconds of the wall clock
        self.clients: list[Client] = []
        self.listeners: list[tuple[socket.socket, bool]] = []
        self.addresses: list[tuple[str, str, str]] = []  # host, service, family
        self.websockets: list[tuple[str, str, str]] = []
        self.path = ""  # of a unix socket, removed at the end
        self.pages: list[Page] = []  # for browsers on this host
        if clipboard is None:
            from vmrun.core.clipboard import Clipboard

            clipboard = Clipboard()
        self.clipboard = clipboard
        self._families = families(settings)
        self._wrong, self._blocked = 0, 0.0
        self._timer: Any = None
        self._next = self._looked = 0.0
        self._wait = INTERVAL
        listen = str(settings.get("listen") or ":0")
        if listen == "none":
            return
        if settings.get("reverse"):
            self._call(listen)
            return
        try:
            self._listen(listen, int(settings.get("to") or 0))
            if settings.get("websocket"):
                self._listen_websocket(settings["websocket"])
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> tuple[str, str, str]:
        """(host, service, family) of the first place that it listens at; empty without one."""
        return self.addresses[0] if self.addresses else ("", "", "")

    # --- listening ----------------------------------------------------------------------------------------

    def _listen(self, listen: str, to: int) -> None:
        if listen.startswith("unix:"):
            self._bind(socket.AF_UNIX, listen[5:], listen)
            self.path = listen[5:]  # known when it is ours: it is removed at the end
            self.addresses = [("", self.path, "unix")]
            return
        host, display = split(listen)
        last = max(display, to)
        for number in range(display, last + 1):
            try:
                self.addresses = self._tcp(host, FIRST_PORT + number, False)
            except BackendError as error:
                if number == last or getattr(error, "errno", None) != errno.EADDRINUSE:
                    raise
                continue
            return

    def _listen_websocket(self, wanted: Any) -> None:
        host, service, family = self.address
        host = host if family != "unix" else "127.0.0.1"
        if len(self.addresses) > 1:  # all of them
            host = ""
        if wanted is True or wanted == "on":
            port = FIRST_WEBSOCKET + (int(service) - FIRST_PORT if family != "unix" else 0)
        else:
            text = str(wanted)
            if ":" in text:
                host, _, text = text.rpartition(":")
            port = int(text)
        self.websockets = self._tcp(host.strip("[]"), port, True)

    def _tcp(self, host: str, port: int, web: bool) -> list[tuple[str, str, str]]:
        """(host, service, family) of all that it listens at: whatever the host's name stands for, IPv4 and IPv6."""
        try:
            found = socket.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
            )
        except (socket.gaierror, OverflowError, UnicodeError) as error:
            raise BackendError(
                f"vnc: '{host}:{port}' is no address: {error}", remedy="give an address, like 127.0.0.1:0"
            ) from None
        places = list(dict.fromkeys((entry[0], entry[4]) for entry in found if entry[0] in self._families))
        places.sort(key=lambda entry: entry[0] != socket.AF_INET)
        if not places:
            raise BackendError(
                f"vnc: '{host}:{port}' has no address of the family asked for", remedy="change `ipv4:` and `ipv6:`"
            )
        before, missing = list(self.listeners), None
        bound: list[Any] = []
        for family, address in places:
            if bound:  # any free port is the same one for both
                address = (address[0], int(bound[0][1]), *address[2:])
            try:
                name = self._bind(family, address, f"{host or '0.0.0.0'}:{port}", web)
            except BackendError as error:
                number = getattr(error, "errno", 0)
                if number in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):  # a host without IPv6
                    missing = error
                    continue
                self._leave([entry for entry in self.listeners if entry not in before], "")
                raise
            bound.append((str(name[0]), str(name[1]), "ipv6" if family == socket.AF_INET6 else "ipv4"))
        if not bound and missing is not None:
            raise missing
        return bound

    def _bind(self, family: int, address: Any, what: str, web: bool = False) -> Any:
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            failure = BackendError(f"vnc: cannot listen on {what}: {error.strerror}", remedy="choose another address")
            failure.errno = error.errno  # type: ignore[attr-defined]
            raise failure from None
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if family == socket.AF_UNIX:
                unixsocket.bind(listener, address)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
            listener.listen(8)
        except (OSError, OverflowError) as error:
            listener.close()
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
        places: list[tuple[str, str, str]] = []
        try:
            for host, port in addresses:
                if host.startswith("unix:"):
                    self._bind(socket.AF_UNIX, host[5:], host)
                    self.path = host[5:]
                    places.append(("", self.path, "unix"))
                else:
                    places += self._tcp(host, port, False)
        except BackendError:
            made = [entry for entry in self.listeners if not entry[1] and entry not in old]
            self._leave(made, self.path if self.path != path else "")
            self.path = path
            raise
        self._leave(old, path if path != self.path else "")
        if not any(host.startswith("unix:") for host, _ in addresses):
            self.path = ""
        self.addresses = places

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
        connecting = [client for client in self.clients if not client.ready]
        if len(connecting) >= self.connections:  # who does not come to the point makes room
            connecting[0].stream.close()
        self._add(peer, address, web)

    def _call(self, where: str) -> None:
        """Reverse: connect to a viewer that listens at HOST:PORT."""
        try:
            if where.startswith("unix:"):
                peer = socket.socket(socket.AF_UNIX)
                peer.settimeout(CALLING)
                peer.connect(where[5:])
                address: Any = ""
            else:
                host, port = split(where, most=65535)
                peer = socket.create_connection((host_name(host or "127.0.0.1"), port), CALLING)
                address = peer.getpeername()
        except OSError as error:
            raise BackendError(
                f"vnc: no viewer listens at {where}: {error.strerror or error}", remedy="start the viewer first"
            ) from None
        self._add(peer, address, False)

    def adopt(self, fd: int, trusted: bool) -> None:
        """A viewer that somebody else has accepted; trusted: it need not say who it is. OSError."""
        peer = socket.socket(fileno=fd)
        try:
            address = peer.getpeername()
        except OSError:
            peer.detach()
            raise
        self._add(peer, address, False, trusted)

    def _add(self, peer: socket.socket, address: Any, web: bool, trusted: bool = False) -> None:
        if peer.family == socket.AF_UNIX:
            who = ("", "", "unix")
        else:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            who = (str(address[0]), str(address[1]), "ipv6" if peer.family == socket.AF_INET6 else "ipv4")
        holder: list[Client] = []
        stream = (WebSocket if web else Stream)(
            peer, self.loop, lambda data: self._heard(holder, data), lambda: self._gone(holder)
        )
        if web and self.tls is not None:
            stream.start_tls(self.tls, self.trusts)
        self._welcome(holder, stream, who, trusted)

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
        if stream.closed:  # it had gone before it could be greeted, when nobody knew it yet
            self._remove(client)

    def _remove(self, client: Client) -> None:
        self.clients.remove(client)
        client.close()
        self.tell("VNC_DISCONNECTED", {"server": self._server_info(), "client": self._client_info(client)})

    # --- who may look -------------------------------------------------------------------------------------

    def trusts(self, certificate: dict[str, Any] | None) -> bool:
        """Whether a viewer that has shown it may go on."""
        return self.anonymous or self.may_enter("tls-authz", subject(certificate))

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
        if self.blocked:
            return "Too many wrong passwords: try again later"
        right = self.password is not None and (self.expires is None or time.time() < self.expires)
        if right and hmac.compare_digest(cipher(self.password or b"", challenge), answer):
            self._wrong = 0
            return ""
        self.wrong()
        return "Authentication failed"

    @property
    def blocked(self) -> bool:
        """Whether nobody may try to come in now."""
        return time.monotonic() < self._blocked

    def wrong(self) -> None:
        """Somebody tried in vain."""
        self._wrong += 1
        if self._wrong >= MOST_TRIES:
            self._wrong, self._blocked = 0, time.monotonic() + PENALTY

    # --- looking ------------------------------------------------------------------------------------------

    @property
    def absolute(self) -> bool:
        return self.input.absolute

    def look_soon(self) -> None:
        """A client waits: look at the screen, INTERVAL after the last look, and often for a while."""
        self._wait = INTERVAL
        self._look_at(max(time.monotonic(), self._looked + INTERVAL))

    def expect(self) -> None:
        """A key was pressed: look as soon as a quick guest has answered."""
        self._wait = INTERVAL
        self._look_at(time.monotonic() + ECHO)

    def _look_at(self, due: float) -> None:
        """Look then, or before."""
        if self._timer is not None:
            if self._next <= due:
                return
            self._timer.cancel()
            self._timer = None
        if any(client.hungry for client in self.clients):
            self._next = due
            self._timer = self.loop.call_later(max(due - time.monotonic(), 0.0), self._look)

    def _look(self) -> None:
        self._timer = None
        self._looked = time.monotonic()
        changed = self.console.refresh()
        self._wait = INTERVAL if changed else min(self._wait * 1.25, SLOWEST)
        for client in list(self.clients):
            try:
                client.update()
            except ProtocolError:
                client.stream.end()
        self._look_at(self._looked + self._wait)

    def _hungry(self) -> bool:
        """Whether another key would be taken: a terminal takes all."""
        return hasattr(self.console, "typed") or self.input.hungry()

    def turn(self, number: int) -> None:
        """Its viewers see console `number` from now on, counted from 0; their keys are let go of before."""
        if number >= len(self.consoles) or self.consoles[number] is self.console:
            return
        self.input.release_all()
        before, self.console = self.console, self.consoles[number]
        for client in self.clients:
            client.turned(before)
        self.look_soon()

    # --- what monitors ask --------------------------------------------------------------------------------

    def _server_info(self) -> dict[str, Any]:
        host, service, family = self.address
        return {"auth": self.kind, "host": host, "service": service, "family": family, "websocket": False}

    @staticmethod
    def _client_info(client: Client) -> dict[str, Any]:
        host, service, family = client.peer
        web = isinstance(client.stream, WebSocket)
        user = {"sasl_username": client.user} if client.user else {}
        shown = subject(client.stream.certificate)
        if shown:
            user["x509_dname"] = shown
        return {"host": host, "service": service, "family": family, "websocket": web, **user}

    @property
    def auth(self) -> str:
        """QMP's word for what a viewer has to do."""
        return f"vencrypt+{'tls' if self.anonymous else 'x509'}+{self._plain}" if self.tls is not None else self._plain

    @property
    def _plain(self) -> str:
        """The same without TLS, and of a WebSocket inside of it."""
        return {VNC_AUTHENTICATION: "vnc", SASL: "sasl"}.get(wanted(self), "none")

    @property
    def kind(self) -> str:
        """The same as one of VncPrimaryAuth."""
        return "vencrypt" if self.tls is not None else self._plain

    def _sub(self) -> dict[str, str]:
        return {"vencrypt": self.auth.partition("+")[2].replace("+", "-")} if self.tls is not None else {}

    def info(self) -> dict[str, Any]:
        """QMP's VncInfo."""
        host, service, family = self.address
        clients = [self._client_info(client) for client in self.clients if client.ready]
        return {
            "enabled": True, "auth": self.auth, "host": host, "service": service, "family": family, "clients": clients,
        }

    def info2(self) -> dict[str, Any]:
        """QMP's VncInfo2."""
        servers: list[dict[str, Any]] = []
        for web, places in ((False, self.addresses), (True, self.websockets)):
            how = {"auth": self._plain} if web else {"auth": self.kind, **self._sub()}
            for host, service, family in places:
                servers.append({"host": host, "service": service, "family": family, "websocket": web, **how})
        clients = [self._client_info(client) for client in self.clients if client.ready]
        found = {"id": self.id, "server": servers, "clients": clients, "auth": self.kind, **self._sub()}
        device = getattr(self.console.device, "id", None)
        return found if device is None or not self.bound else {**found, "display": device}

    def close(self) -> None:
        self.keys.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for page in list(self.pages):
            page.close()
        for client in list(self.clients):
            client.stream.close()
        self._leave(list(self.listeners), self.path)
        self.path = ""


def split(listen: str, most: int = 65535 - FIRST_PORT) -> tuple[str, int]:
    """HOST:DISPLAY, [V6]:DISPLAY, :DISPLAY or DISPLAY."""
    host, colon, number = listen.rpartition(":")
    if not colon:
        host, number = "", listen
    if not number.isascii() or not number.isdigit() or int(number) > most:
        remedy = "write HOST:DISPLAY, like 127.0.0.1:0, or unix:PATH"
        raise BackendError(f"vnc: '{listen}' is no display", remedy=remedy)
    return host.strip("[]"), int(number)


def cipher(password: bytes, challenge: bytes) -> bytes:
    """DES with the password's bytes mirrored, as the protocol has it (RFC 6143 7.2.2)."""
    try:
        from Crypto.Cipher import DES
    except ImportError:
        raise ProtocolError("VNC passwords need the package pycryptodome (vmrun's extra `vnc`)") from None
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in password[:8].ljust(8, b"\0"))
    return bytes(DES.new(key, DES.MODE_ECB).encrypt(challenge))
