"""The way to an export of an NBD server: addresses, and all that is said before transmission.

Ref: the NBD protocol, newstyle and fixed, with TLS where credentials are given; oldstyle servers have one export.
"""

from __future__ import annotations

import struct
from errno import ECONNRESET, EINVAL
from time import monotonic, sleep
from typing import NamedTuple

from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.nbd import NbdNode

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from typing import Any

MOST_CONNECTIONS = 4
TIME = 30  # seconds for a connection and what is said on it
PATIENCE = 2  # seconds for a further connection
MOST_DIGITS = 9  # of a port
REST = 0.1  # seconds between two attempts
WINDOW = 1 << 20  # bytes of a transfer, as NbdNode has them
READ_ONLY, MULTI_CONN = 2, 256  # transmission flags
OPTIONS, REPLY = 0x49484156454F5054, 0x0003E889045565A9
NO_ZEROES = 2
POLICY, TLS_REQUIRED, UNKNOWN = 0x80000002, 0x80000005, 0x80000006
EXPORT_NAME, LIST, STARTTLS, INFO_OF, GO, STRUCTURED, LIST_CONTEXT, SET_CONTEXT = 1, 3, 5, 6, 7, 8, 9, 10  # options
ACK, SERVER, INFO, META_CONTEXT, UNSUPPORTED = 1, 2, 3, 4, 0x80000001  # replies to them
INFO_EXPORT, INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 0, 1, 2, 3
MOST_LISTED = 10_000  # exports, or contexts of one
MOST_TOLD = 1 << 24  # bytes of their names
OPTION_NAMES = {LIST: "list", STARTTLS: "starttls", GO: "go"}
REFUSALS = {
    POLICY: "Denied by server for {}", UNKNOWN: "Requested export not available",
    TLS_REQUIRED: "TLS negotiation required before {}\nDid you forget a valid tls-creds?",
}  # fmt: skip
FIXED = 1
OLD = 0x00420281861253  # in place of OPTIONS
ALLOCATION = "base:allocation"
# Of a connection: the host's, a server's that says what is no answer, and of names that are none.
FAULTS = (OSError, struct.error, ValueError)


class Place:
    """Where an export is: `address`: a path, or (host, port). `context`: what block status tells of. `tls`: a client's
    SSLContext, `hostname`: what its certificate has to say.
    """

    def __init__(
        self, address: Any, export: str, context: str = ALLOCATION, tls: Any = None, hostname: str | None = None
    ) -> None:
        """ImageError."""
        self.export, self.context, self.tls, self.hostname = export, context, tls, hostname
        self.address = address
        self.told = address
        if not isinstance(address, str):
            self.told = f"{address[0]}:{address[1]}"
            port = str(address[1])
            if not port.isdecimal() or len(port) > MOST_DIGITS or not 0 < int(port) < 65536:
                raise ImageError(f"address resolution failed for {self.told}: the port is no number")
            self.address = (address[0], int(port))
            self.hostname = hostname or address[0]


def open_nbd(name: str, readonly: bool) -> NbdNode:
    """`nbd://host:port/export`, `nbd+unix:///export?socket=path`, `nbd:host:port[:exportname=x]`, `nbd:unix:path…`."""
    try:
        return connect(_named(name), readonly, name)
    except ImageError as error:
        raise ImageError(f"Could not open '{name}': {error.text}") from None


def _named(name: str) -> Place:
    from urllib.parse import parse_qs, unquote, urlsplit

    if name.startswith(("nbd://", "nbd+tcp://", "nbd+unix://")):
        try:
            parts = urlsplit(name)
            port = parts.port or 10809
        except ValueError:
            raise ImageError("Invalid URI") from None
        export = unquote(parts.path.lstrip("/"))
        if name.startswith("nbd+unix"):
            paths = parse_qs(parts.query).get("socket")
            if not paths:
                raise ImageError("no `socket` in the address")
            return Place(paths[0], export)
        return Place((parts.hostname or "localhost", port), export)
    text, _, export = name.removeprefix("nbd:").partition(":exportname=")
    if text.startswith("unix:"):
        return Place(text[5:], export)
    host, _, port_text = text.rpartition(":")
    if not port_text.isdecimal():
        raise ImageError("the address has no port")
    return Place((host.strip("[]") or "localhost", port_text), export)


def open_nbd_options(options: dict[str, Any], readonly: bool, objects: dict[str, Any]) -> NbdNode:
    """The options of a -blockdev: server.type, .path or .host and .port, and those that nodeoptions.py has. `objects`:
    the host's, for tls-creds.
    """
    server = options.get("server", options)
    if "filename" in options:
        return _by_options(options, _named(str(options["filename"])), str(options["filename"]), readonly, objects)
    if not isinstance(server, dict):
        raise ImageError("Invalid parameter type for 'server', expected: object")
    if server.get("type", "inet") not in ("inet", "unix"):
        raise ImageError(
            f"Parameter 'server.type' does not accept value '{server['type']}'; inet and unix are modelled"
        )
    if "path" in server and "host" in server:
        raise ImageError("path and host may not be used at the same time")
    export = str(options.get("export", ""))
    if "path" in server:
        name = f"nbd+unix://{'/' if export else ''}{export}?socket={server['path']}"
        return _by_options(options, Place(str(server["path"]), export), name, readonly, objects)
    if "host" not in server:
        raise ImageError("NBD server address missing")
    address = (str(server["host"]), server.get("port", 10809))
    name = f"nbd://{address[0]}:{address[1]}{'/' if export else ''}{export}"
    return _by_options(options, Place(address, export), name, readonly, objects)


def _by_options(
    options: dict[str, Any], place: Place, name: str, readonly: bool, objects: dict[str, Any]
) -> NbdNode:
    place.context = str(options.get("x-dirty-bitmap", "")) or ALLOCATION
    creds = options.get("tls-creds")
    if creds is not None:
        made = objects.get(str(creds))
        if made is None or not hasattr(made, "context"):
            raise ImageError(f"No TLS credentials with id '{creds}'")
        if made.endpoint != "client":
            raise ImageError("Expecting TLS credentials with a client endpoint")
        place.tls, place.hostname = made.context, str(options.get("tls-hostname") or place.hostname or "") or None
    return connect(place, readonly, name, int(options.get("reconnect-delay", 0)), int(options.get("open-timeout", 0)))


def connect(place: Place, readonly: bool, name: str, delay: int = 0, timeout: int = 0) -> NbdNode:
    """`delay`: seconds that requests wait for a server that is away; `timeout`: for which it may be so now.
    ImageError.
    """
    end = monotonic() + timeout
    while True:
        try:
            return _connected(place, readonly, name, delay)
        except ImageError:
            if monotonic() >= end:
                raise
        sleep(min(REST, max(0.0, end - monotonic())))


def _connected(place: Place, readonly: bool, name: str, delay: int) -> NbdNode:
    found: list[sockets.socket] = []
    try:
        socket, terms = negotiate(place)
        found.append(socket)
        if terms.context is None and place.context != ALLOCATION:
            raise ImageError(f"requested x-dirty-bitmap {place.context} not found")
        if not readonly and terms.flags & READ_ONLY:
            raise ImageError("request for write access denied")
        _more(place, terms, found)
    except BaseException as error:
        for socket in found:
            socket.close()
        if isinstance(error, FAULTS):
            raise _failure(place, error) from None
        raise

    def dial() -> list[sockets.socket]:
        """For NbdNode."""
        try:
            socket, again = negotiate(place)
        except (ImageError, struct.error, ValueError) as error:
            raise OSError(EINVAL, str(error)) from None
        if again != terms:  # not what guests and formats have seen
            socket.close()
            raise OSError(EINVAL, "the export is another by now")
        more = [socket]
        _more(place, terms, more)
        return more

    return NbdNode(
        found, terms.size, terms.flags, readonly, name, terms.structured, terms.context, terms.block, terms.most, dial,
        delay,
    )  # fmt: skip


def _failure(place: Place, error: Exception) -> ImageError:
    nonsense = "the server's answer is not one"
    why = nonsense if isinstance(error, struct.error) else getattr(error, "strerror", None) or str(error) or nonsense
    return ImageError(f"Failed to connect to '{place.told}': {why}")


def _more(place: Place, terms: Terms, found: list[sockets.socket]) -> None:
    """Further connections to the same export, where the server has them."""
    try:
        while terms.flags & MULTI_CONN and len(found) < MOST_CONNECTIONS:
            socket, again = negotiate(place, PATIENCE)
            found.append(socket)
            if again != terms:  # another export by now
                found.pop().close()
                break
    except (ImageError, *FAULTS):
        pass  # the server has had enough: those there are do


class Terms(NamedTuple):
    """Of an export: bytes, transmission flags, whether replies are structured, the number of the context or None, the
    bytes of a block, the most of a transfer.
    """

    size: int
    flags: int
    structured: bool = False
    context: int | None = None
    block: int = 1
    most: int = WINDOW


class Offer(NamedTuple):
    """What a server tells of an export. `blocks`: (least, best, most) bytes of a request, or None."""

    name: str
    description: str
    size: int
    flags: int
    blocks: tuple[int, int, int] | None
    contexts: list[str]


def offers(place: Place) -> list[Offer]:
    """All that a server has. ImageError."""
    try:
        socket = dialled(place, TIME)
        try:
            socket, flags = _greeted(socket, place)
            if isinstance(flags, Terms) or not flags & FIXED:
                raise ImageError("the server knows no list of exports: give the export's name to who asks for it")
            return _offers(socket)
        finally:
            socket.close()
    except FAULTS as error:
        raise _failure(place, error) from None


def _offers(socket: sockets.socket) -> list[Offer]:
    _ask(socket, STRUCTURED, b"")
    structured = _answer(socket)[0] == ACK
    _ask(socket, LIST, b"")
    named: list[tuple[str, str]] = []
    room = MOST_TOLD
    while (reply := _answer(socket))[0] == SERVER and len(named) < MOST_LISTED and room > 0:
        room -= len(reply[1])
        (length,) = struct.unpack(">I", reply[1][:4])
        text = reply[1][4:]
        named.append((text[:length].decode(errors="replace"), text[length:].decode(errors="replace")))
    if reply[0] != ACK:
        raise _refusal(LIST, *reply)
    return [_offer(socket, name, description, structured) for name, description in named]


def _offer(socket: sockets.socket, name: str, description: str, structured: bool) -> Offer:
    size, flags, blocks = 0, 0, None
    contexts: list[str] = []
    label = name.encode()
    asked = (INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE)
    _ask(socket, INFO_OF, struct.pack(">I", len(label)) + label + struct.pack(">H3H", len(asked), *asked))
    for _ in range(64):
        kind, data = _answer(socket)
        if kind != INFO:
            break
        (what,) = struct.unpack(">H", data[:2])
        if what == INFO_EXPORT:
            size, flags = struct.unpack(">QH", data[2:12])
        elif what == INFO_DESCRIPTION:
            description = data[2:].decode(errors="replace")
        elif what == INFO_BLOCK_SIZE:
            blocks = struct.unpack(">III", data[2:14])
    if structured:
        _ask(socket, LIST_CONTEXT, struct.pack(">I", len(label)) + label + struct.pack(">I", 0))
        while (reply := _answer(socket))[0] == META_CONTEXT and len(contexts) < MOST_LISTED:
            contexts.append(reply[1][4:].decode(errors="replace"))
    return Offer(name, description, size, flags, blocks, contexts)


def dialled(place: Place, seconds: float) -> sockets.socket:
    """Connected, with a time limit. OSError."""
    import socket as sockets

    if not isinstance(place.address, str):
        found = sockets.create_connection(place.address, seconds)
        found.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        found.setsockopt(sockets.SOL_SOCKET, sockets.SO_KEEPALIVE, 1)
        return found
    found = sockets.socket(sockets.AF_UNIX)
    found.settimeout(seconds)
    try:
        _connect(found, place.address, monotonic() + seconds)
    except BaseException:
        found.close()
        raise
    return found


def negotiate(place: Place, seconds: float = TIME) -> tuple[sockets.socket, Terms]:
    """A connection in transmission. OSError, struct.error, ImageError."""
    found = dialled(place, seconds)
    try:
        found, terms = _haggle(found, place)
        found.settimeout(None)
        return found, terms
    except BaseException:
        found.close()
        raise


def _connect(socket: sockets.socket, path: str, end: float) -> None:
    """A server whose queue is full is asked again until `end`: with a time limit the kernel does not wait for it."""
    while True:
        try:
            return socket.connect(path)
        except BlockingIOError:
            if monotonic() > end:
                raise
        sleep(0.01)


def _read(socket: sockets.socket, count: int) -> bytes:
    """All of it within the socket's time limit, however it drips."""
    data, limit = b"", socket.gettimeout() or TIME
    end = monotonic() + limit
    try:
        while len(data) < count:
            piece = socket.recv(min(count - len(data), 65536))
            if not piece:
                raise OSError(ECONNRESET, "the server ends the conversation")
            data += piece
            socket.settimeout(max(end - monotonic(), 0.001))
    finally:
        socket.settimeout(limit)
    return data


def _ask(socket: sockets.socket, option: int, body: bytes) -> None:
    socket.sendall(struct.pack(">QII", OPTIONS, option, len(body)) + body)


def _answer(socket: sockets.socket) -> tuple[int, bytes]:
    """(kind, data) of one reply to an option."""
    magic, _, kind, length = struct.unpack(">QIII", _read(socket, 20))
    if magic != REPLY or length > 1 << 16:
        raise OSError(EINVAL, "the server's answer is not one")
    return kind, _read(socket, length)


def _context(socket: sockets.socket, name: bytes, context: str) -> int | None:
    """The number of a context; None: the server does not know it."""
    query = context.encode()
    _ask(socket, SET_CONTEXT, struct.pack(">I", len(name)) + name + struct.pack(">II", 1, len(query)) + query)
    number = None
    for _ in range(64):
        kind, data = _answer(socket)
        if kind == META_CONTEXT and data[4:] == query:
            number = struct.unpack(">I", data[:4])[0]
        elif kind != META_CONTEXT:
            return number if kind == ACK else None
    raise OSError(EINVAL, "the server does not come to an end")


def _greeted(socket: sockets.socket, place: Place) -> tuple[sockets.socket, Any]:
    """The socket to go on with, in TLS where that is wanted, and the handshake's flags: of an oldstyle server Terms."""
    magic, kind = struct.unpack(">8sQ", _read(socket, 16))
    if magic != b"NBDMAGIC" or kind not in (OPTIONS, OLD):
        raise OSError(EINVAL, "not a server of the newstyle protocol")
    if kind == OLD:
        size, flags = struct.unpack(">QI", _read(socket, 12))
        _read(socket, 124)
        if place.export:
            raise ImageError("Server does not support non-empty export names")
    else:
        (flags,) = struct.unpack(">H", _read(socket, 2))
        socket.sendall(struct.pack(">I", flags & (FIXED | NO_ZEROES)))
    if place.tls is not None:
        if kind == OLD or not flags & FIXED:
            raise ImageError("Server does not support STARTTLS")
        socket = _encrypted(socket, place)
    return socket, Terms(size, flags & 0xFFFF) if kind == OLD else flags


def _haggle(socket: sockets.socket, place: Place) -> tuple[sockets.socket, Terms]:
    """The socket to go on with, and what `negotiate` gives. When it fails, one in TLS is closed here: its other end
    closes `socket`.
    """
    going, flags = _greeted(socket, place)
    try:
        return going, flags if isinstance(flags, Terms) else _agreed(going, flags, place)
    except BaseException:
        going.close()
        raise


def _agreed(socket: sockets.socket, flags: int, place: Place) -> Terms:
    """With a newstyle server, by its options."""
    name = place.export.encode()
    no_zeroes = flags & NO_ZEROES
    if not flags & FIXED:  # it knows no other option
        return Terms(*_by_name(socket, name, no_zeroes))
    _ask(socket, STRUCTURED, b"")
    structured = _answer(socket)[0] == ACK
    number = _context(socket, name, place.context) if structured else None
    _ask(socket, GO, struct.pack(">I", len(name)) + name + struct.pack(">HH", 1, INFO_BLOCK_SIZE))
    size, transmission, block, most = None, 0, 1, WINDOW
    for _ in range(64):
        kind, data = _answer(socket)
        what = struct.unpack(">H", data[:2])[0] if kind == INFO and len(data) >= 2 else None
        if what == INFO_EXPORT and len(data) >= 12:
            size, transmission = struct.unpack(">QH", data[2:12])
        elif what == INFO_BLOCK_SIZE and len(data) >= 14:
            block, _, most = struct.unpack(">III", data[2:14])
            if not 0 < block <= 1 << 16 or block & (block - 1) or most < block:
                raise ImageError(f"server advertises blocks of {block} bytes, at most {most}: they make no sense")
        elif kind == ACK:
            if size is None:
                raise OSError(EINVAL, "the server tells no size")
            return Terms(size, transmission, structured, number, block, most)
        elif kind == UNSUPPORTED:  # an old server
            return Terms(*_by_name(socket, name, no_zeroes), structured, number)
        elif kind & 0x80000000:
            raise _refusal(GO, kind, data)
    raise OSError(EINVAL, "the server does not come to an end")


def _encrypted(socket: sockets.socket, place: Place) -> sockets.socket:
    from vmrun.backends.block.nbd_tls import plain

    _ask(socket, STARTTLS, b"")
    kind, data = _answer(socket)
    if kind == UNSUPPORTED:
        raise ImageError("Server does not support STARTTLS")
    if kind != ACK:
        raise _refusal(STARTTLS, kind, data)
    if place.hostname is None and getattr(place.tls, "check_hostname", False):
        raise ImageError("No hostname for certificate validation", "say `tls-hostname`")
    return plain(socket, place.tls, place.hostname)


def _refusal(option: int, kind: int, data: bytes) -> ImageError:
    """Of an option that a server has answered with an error."""
    which = f"option {option} ({OPTION_NAMES[option]})"
    told = data.decode(errors="replace")[:4096]
    text = REFUSALS.get(kind, f"Server refuses {{}} with error {kind & 0x7FFFFFFF}").format(which)
    return ImageError(f"{text}\nserver reported: {told}" if told else text)


def _by_name(socket: sockets.socket, name: bytes, no_zeroes: int) -> tuple[int, int]:
    """(size, transmission flags) by NBD_OPT_EXPORT_NAME: a server that has no such export hangs up."""
    _ask(socket, EXPORT_NAME, name)
    size, flags = struct.unpack(">QH", _read(socket, 10))
    if not no_zeroes:
        _read(socket, 124)
    return size, flags
