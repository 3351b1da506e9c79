"""netdev types `socket`, `stream` and `dgram`: frames to another virtual machine, vmrun's or QEMU's, through sockets.

`socket` is QEMU's older way of writing the same: listen and connect are streams, udp and mcast datagrams.
"""

from __future__ import annotations

import os
import socket as sockets
import stat
import struct

from vmrun.backends.net.packet import PacketNet, StreamNet
from vmrun.core.inet import host_name
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Address = tuple[str, Any]  # ("unix", path), ("inet", (host, port)), ("fd", number)


CONNECT_TIMEOUT = 5  # seconds, while a machine starts


class Wrong(Exception):
    """(option, sentence, remedy)"""


def open(name: str, spec: dict[str, Any], host: Any) -> Any:
    spec = {**spec, "id": name}
    try:
        if spec["type"] == "stream":
            return _stream(spec, _parse("addr", spec.get("addr")), bool(spec.get("server")), host)
        if spec["type"] == "dgram":
            return _dgram(spec, host)
        return _socket(spec, host)
    except Wrong as exc:
        option, text, remedy = exc.args
        raise BackendError(
            f"netdev '{name}': {option}: {text}", code="VR0641", path=f"netdevs.{name}.{option}", remedy=remedy
        ) from None
    except OSError as exc:
        where = spec.get("addr") or spec.get("listen") or spec.get("connect") or spec.get("local") or spec.get("udp")
        raise BackendError(
            f"netdev '{name}': {where or spec.get('mcast') or spec.get('remote') or ''}: {exc.strerror or exc}",
            code="VR0642",
            path=f"netdevs.{name}",
            remedy="see with `ss -anp` who has it, and whether the other side listens",
        ) from None


def _parse(option: str, text: Any) -> Address:
    kind, _, rest = str(text or "").partition(":")
    if kind == "unix" and rest:
        return "unix", rest
    if kind == "inet":
        return "inet", _inet(option, rest)
    if kind == "fd" and rest.isdecimal():
        return "fd", int(rest)
    raise Wrong(option, f"'{text or ''}' is no address", "unix:PATH, inet:HOST:PORT or fd:NUMBER")


def _inet(option: str, text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise Wrong(option, f"'{text}' is not HOST:PORT", "like 127.0.0.1:1234 or [::1]:1234")
    return host.strip("[]"), int(port)


def _text(at: tuple[str, int]) -> str:
    return f"[{at[0]}]:{at[1]}" if ":" in at[0] else f"{at[0]}:{at[1]}"


def _found(at: tuple[str, int], kind: sockets.SocketKind, passive: bool) -> tuple[sockets.AddressFamily, Any]:
    """The family and address of the kernel's, of a host by name or number. Raises OSError."""
    host = at[0] or ("0.0.0.0" if passive else "127.0.0.1")
    flags = sockets.AI_PASSIVE if passive else 0
    row = sockets.getaddrinfo(host_name(host), at[1], type=kind, flags=flags)[0]
    return row[0], row[4]


def _socket(spec: dict[str, Any], host: Any) -> Any:
    ways = [key for key in ("fd", "listen", "connect", "mcast", "udp") if spec.get(key) is not None]
    if len(ways) != 1:
        raise Wrong(ways[0] if ways else "type", "exactly one of fd, listen, connect, mcast and udp is needed", "")
    way = ways[0]
    if way == "fd":
        with sockets.socket(fileno=os.dup(spec["fd"])) as probe:
            stream = probe.type == sockets.SOCK_STREAM
        if stream:
            return _stream(spec, ("fd", spec["fd"]), False, host)
        return _dgram({"local": f"fd:{spec['fd']}"}, host)
    where = _inet(way, str(spec[way]))
    if way in ("listen", "connect"):
        return _stream(spec, ("inet", where), way == "listen", host)
    if way == "udp":
        if spec.get("localaddr") is None:
            raise Wrong("localaddr", "udp needs it: the address that the other sends to", "localaddr: HOST:PORT")
        return _dgram({"local": f"inet:{spec['localaddr']}", "remote": f"inet:{spec['udp']}"}, host)
    if not _is_group(where):
        raise Wrong("mcast", f"{where[0]} is no multicast address", "one of 224.0.0.0 to 239.255.255.255")
    return _dgram({"remote": f"inet:{spec['mcast']}", "from": spec.get("localaddr")}, host)


def _is_group(where: tuple[str, int]) -> bool:
    first = where[0].partition(".")[0]
    return first.isdecimal() and 224 <= int(first) < 240


def _clear(path: str) -> None:
    """A socket goes, as with QEMU, and an empty file, as mkstemp(3) leaves; another stays: binding to it fails then."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return
    if stat.S_ISSOCK(found.st_mode) or stat.S_ISREG(found.st_mode) and not found.st_size:
        os.unlink(path)


# --- streams ------------------------------------------------------------------------------------------------------


def _made(kind: str, at: Any, passive: bool = False) -> tuple[sockets.socket, Any]:
    """A stream socket of the address's family, and the address as the kernel has it."""
    if kind == "unix":
        return sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM), at
    family, place = _found(at, sockets.SOCK_STREAM, passive)
    return sockets.socket(family, sockets.SOCK_STREAM), place


def _stream(spec: dict[str, Any], where: Address, server: bool, host: Any) -> StreamNet:
    net = StreamNet()
    net.name = spec.get("id", "")
    kind, at = where
    if kind == "fd":
        net.use(host.iothread, at)
        return net
    return _listen(net, kind, at, host) if server else _connect(net, spec, kind, at, host)


def _listen(net: StreamNet, kind: str, at: Any, host: Any) -> StreamNet:
    """One peer at a time; when it goes, the next may come."""
    listener, place = _made(kind, at, passive=True)
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    if kind == "unix":
        _clear(at)
    try:
        listener.bind(place)
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    loop = host.loop

    def accept() -> None:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        loop.remove_fd(listener.fileno())
        _ready(net, kind, peer, host)

    def gone() -> None:
        _tell(net, host)
        loop.call_soon(again)

    def again() -> None:
        net.leave()
        if listener.fileno() >= 0:
            loop.add_fd(listener.fileno(), accept)

    def close() -> None:
        if listener.fileno() >= 0:
            loop.remove_fd(listener.fileno())
            listener.close()
            if kind == "unix" and os.path.exists(at):
                os.unlink(at)

    net.on_gone, net.on_close = gone, close
    net.info = f"listening at {at if kind == 'unix' else _text(listener.getsockname()[:2])}"
    net.port = 0 if kind == "unix" else listener.getsockname()[1]
    loop.add_fd(listener.fileno(), accept)
    return net


def _connect(net: StreamNet, spec: dict[str, Any], kind: str, at: Any, host: Any) -> StreamNet:
    """With `reconnect` nobody need be there yet, and nothing waits for it: every attempt is watched by the loop."""
    seconds = int(spec.get("reconnect") or 0)
    under_way: list[sockets.socket] = []

    def attempt() -> None:
        if net.closed:
            return
        try:
            peer, place = _made(kind, at)
            under_way.append(peer)
            peer.setblocking(False)
            peer.connect(place)
        except BlockingIOError as exc:
            if kind == "unix":  # its queue is full
                failed(exc)
            else:
                host.loop.add_fd(peer.fileno(), on_writable=decided)
        except OSError as exc:
            failed(exc)
        else:
            _ready(net, kind, under_way.pop(), host)

    def decided() -> None:
        peer = under_way[-1]
        host.loop.remove_fd(peer.fileno())
        if peer.getsockopt(sockets.SOL_SOCKET, sockets.SO_ERROR):
            failed(None)
        else:
            _ready(net, kind, under_way.pop(), host)

    def failed(why: OSError | None) -> None:
        while under_way:
            under_way.pop().close()
        host.loop.call_later(seconds, attempt)

    def lost() -> None:
        net.leave()
        if seconds and not net.closed:
            host.loop.call_later(seconds, attempt)

    def gone() -> None:
        _tell(net, host)
        host.loop.call_soon(lost)

    def close() -> None:
        while under_way:
            host.loop.remove_fd(under_way[-1].fileno())
            under_way.pop().close()

    net.on_gone, net.on_close = gone, close
    net.info = f"connected to {at if kind == 'unix' else _text(at)}"
    if seconds:
        attempt()
        return net
    peer, place = _made(kind, at)
    try:
        peer.settimeout(CONNECT_TIMEOUT)
        peer.connect(place)
    except OSError:
        peer.close()
        raise
    _ready(net, kind, peer, host)
    return net


def _ready(net: StreamNet, kind: str, peer: sockets.socket, host: Any) -> None:
    if kind == "inet":
        peer.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    try:
        there = peer.getpeername()
    except OSError:
        there = ""  # gone already: reading tells
    net.use(host.iothread, peer.detach())
    if kind == "unix":
        _tell(net, host, {"type": "unix", "path": there if isinstance(there, str) else ""})
    elif there:
        _tell(net, host, {"type": "inet", "host": there[0], "port": str(there[1])})


def _tell(net: StreamNet, host: Any, peer: dict[str, str] | None = None) -> None:
    """A peer has come, or gone: the machine's monitors hear of it."""
    tell = getattr(host, "on_stream", None)
    if tell is not None:
        tell(net.name, peer)


# --- datagrams ------------------------------------------------------------------------------------------------------


def _dgram(spec: dict[str, Any], host: Any) -> PacketNet:
    local = _parse("local", spec["local"]) if spec.get("local") is not None else None
    remote = _parse("remote", spec["remote"]) if spec.get("remote") is not None else None
    net = PacketNet()
    if local is not None and local[0] == "fd":
        net.send_to(b"")
        net.use(host.iothread, local[1])
        net.info = f"fd={local[1]}"
        return net
    if remote is None:
        raise Wrong("remote", "is needed", "where the frames go to: unix:PATH or inet:HOST:PORT")
    kind, to = remote
    group = kind == "inet" and _is_group(to)
    if local is None and not group:
        raise Wrong("local", "is needed", "where the other sends to: unix:PATH or inet:HOST:PORT")
    family = sockets.AF_UNIX if kind == "unix" else _found(to, sockets.SOCK_DGRAM, False)[0]
    one = sockets.socket(family, sockets.SOCK_DGRAM)
    try:
        if group:
            own = _member(one, to, spec.get("from") or (local[1][0] if local is not None else None))
            net.send_to(_inet_bytes(to), own)
        elif kind == "unix":
            assert local is not None
            _clear(local[1])
            one.bind(local[1])
            net.send_to(struct.pack("=H", sockets.AF_UNIX) + to.encode() + b"\0")
        else:
            assert local is not None
            one.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            one.bind(_found(local[1], sockets.SOCK_DGRAM, True)[1])
            net.send_to(_inet_bytes(to))
    except BaseException:
        one.close()
        raise
    net.use(host.iothread, one.detach())
    net.info = f"to {to if kind == 'unix' else _text(to)}"
    return net


def _inet_bytes(at: tuple[str, int]) -> bytes:
    """A sockaddr_in or sockaddr_in6."""
    family, place = _found(at, sockets.SOCK_DGRAM, False)
    port = struct.pack("=H", family) + struct.pack(">H", place[1])
    if family == sockets.AF_INET:
        return port + sockets.inet_aton(place[0]) + bytes(8)
    return port + bytes(4) + sockets.inet_pton(family, place[0].partition("%")[0]) + struct.pack("=I", place[3])


def _member(one: sockets.socket, group: tuple[str, int], source: str | None) -> bytes:
    """Join a multicast group; the address that own datagrams come from."""
    one.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    one.bind(group)
    own = sockets.inet_aton(source) if source else bytes(4)
    one.setsockopt(sockets.IPPROTO_IP, sockets.IP_ADD_MEMBERSHIP, sockets.inet_aton(group[0]) + own)
    one.setsockopt(sockets.IPPROTO_IP, sockets.IP_MULTICAST_LOOP, 1)
    if source:
        one.setsockopt(sockets.IPPROTO_IP, sockets.IP_MULTICAST_IF, own)
    return b""  # datagrams of the host's other members have the same address and port: the card ignores its own
