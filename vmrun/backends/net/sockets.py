"""netdev types `socket`, `stream` and `dgram`: frames to another virtual machine, vmrun's or QEMU's, through sockets.

`socket` is QEMU's older way of writing the same: listen and connect are streams, udp and mcast datagrams.
"""

from __future__ import annotations

import os
import socket as sockets
import struct

from vmrun.backends.net.packet import PacketNet, StreamNet
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Address = tuple[str, Any]  # ("unix", path), ("inet", (host, port)), ("fd", number)


class Wrong(Exception):
    """(option, sentence, remedy)"""


def open(name: str, spec: dict[str, Any], host: Any) -> Any:
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
        raise Wrong(option, f"'{text}' is not HOST:PORT", "like 127.0.0.1:1234")
    return host, int(port)


def _text(at: tuple[str, int]) -> str:
    return f"{at[0]}:{at[1]}"


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
    return _dgram({"remote": f"inet:{spec['mcast']}", "from": spec.get("localaddr")}, host)


# --- streams ------------------------------------------------------------------------------------------------------


def _made(family: str) -> sockets.socket:
    return sockets.socket(sockets.AF_UNIX if family == "unix" else sockets.AF_INET, sockets.SOCK_STREAM)


def _stream(spec: dict[str, Any], where: Address, server: bool, host: Any) -> StreamNet:
    net = StreamNet()
    kind, at = where
    if kind == "fd":
        net.use(host.iothread, at)
        return net
    return _listen(net, kind, at, host) if server else _connect(net, spec, kind, at, host)


def _listen(net: StreamNet, kind: str, at: Any, host: Any) -> StreamNet:
    """One peer at a time; when it goes, the next may come."""
    listener = _made(kind)
    listener.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
    if kind == "unix" and os.path.exists(at):
        os.unlink(at)
    listener.bind(at if kind == "unix" else (at[0] or "0.0.0.0", at[1]))
    listener.listen(1)
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
    net.info = f"listening at {at if kind == 'unix' else _text(listener.getsockname())}"
    net.port = 0 if kind == "unix" else listener.getsockname()[1]
    loop.add_fd(listener.fileno(), accept)
    return net


def _connect(net: StreamNet, spec: dict[str, Any], kind: str, at: Any, host: Any) -> StreamNet:
    seconds = int(spec.get("reconnect") or 0)

    def attempt() -> None:
        peer = _made(kind)
        try:
            peer.settimeout(5)
            peer.connect(at if kind == "unix" else (at[0] or "127.0.0.1", at[1]))
        except OSError:
            peer.close()
            raise
        _ready(net, kind, peer, host)

    def again() -> None:
        net.leave()
        try:
            attempt()
        except OSError:
            later()

    def later() -> None:
        if seconds and not net.closed:
            host.loop.call_later(seconds, again)

    def lost() -> None:
        net.leave()
        later()

    net.on_gone = lambda: host.loop.call_soon(lost)
    net.info = f"connected to {at if kind == 'unix' else _text(at)}"
    try:
        attempt()
    except OSError:
        if not seconds:
            raise
        later()
    return net


def _ready(net: StreamNet, kind: str, peer: sockets.socket, host: Any) -> None:
    if kind == "inet":
        peer.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
    net.use(host.iothread, peer.detach())


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
    group = kind == "inet" and 224 <= int(to[0].partition(".")[0] or 0) < 240
    if local is None and not group:
        raise Wrong("local", "is needed", "where the other sends to: unix:PATH or inet:HOST:PORT")
    one = sockets.socket(sockets.AF_UNIX if kind == "unix" else sockets.AF_INET, sockets.SOCK_DGRAM)
    try:
        if group:
            own = _member(one, to, spec.get("from") or (local[1][0] if local is not None else None))
            net.send_to(_inet_bytes(to), own)
        elif kind == "unix":
            assert local is not None
            if os.path.exists(local[1]):
                os.unlink(local[1])
            one.bind(local[1])
            net.send_to(struct.pack("=H", sockets.AF_UNIX) + to.encode() + b"\0")
        else:
            assert local is not None
            one.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
            one.bind((local[1][0] or "0.0.0.0", local[1][1]))
            net.send_to(_inet_bytes(to))
    except BaseException:
        one.close()
        raise
    net.use(host.iothread, one.detach())
    net.info = f"to {to if kind == 'unix' else _text(to)}"
    return net


def _inet_bytes(at: tuple[str, int]) -> bytes:
    host = sockets.gethostbyname(at[0] or "127.0.0.1")
    return struct.pack("=H", sockets.AF_INET) + struct.pack(">H", at[1]) + sockets.inet_aton(host) + bytes(8)


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
