"""netdev type `segment`: how a port of a segment finds the others, in a directory that only its user may enter.

Each port listens at `<pid>-<id>-<n>.sock` there. Joining is done with the directory locked: a port sees all that came
before it and connects to them; those that come later connect to it. What a machine that crashed left behind is removed
by the next.
"""

from __future__ import annotations

import fcntl
import os
import socket

from vmrun.backends.net.segment import SegmentNet
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOM = 4 << 20  # bytes that may be under way on a link; the kernel gives what it allows
BACKLOG = 64


def directory(name: str, given: str | None) -> str:
    """Where the ports of a segment meet."""
    if given:
        return given
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/vmrun-{os.getuid()}"
    return os.path.join(base, "vmrun", "segments", name)


def open(name: str, spec: dict[str, Any], host: Any) -> SegmentNet:
    segment = str(spec["segment"])
    where = directory(segment, (host.config.get("segments", {}).get(segment) or {}).get("dir"))
    net = SegmentNet(host.iothread)
    try:
        os.makedirs(where, 0o700, exist_ok=True)
        if os.stat(where).st_uid != os.getuid():
            raise BackendError(f"netdev '{name}': segment '{segment}': {where} belongs to somebody else", code="VR0640")
        lock = os.open(where, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _join(net, name, where, host)
        finally:
            os.close(lock)
    except OSError as exc:
        net.close()
        raise BackendError(
            f"netdev '{name}': segment '{segment}' in {where}: {exc.strerror}",
            code="VR0640",
            path=f"netdevs.{name}",
            remedy="say another directory: `segments: {" + segment + ": {dir: PATH}}`",
        ) from None
    return net


def _join(net: SegmentNet, name: str, where: str, host: Any) -> None:
    number = 0
    while os.path.exists(own := os.path.join(where, f"{os.getpid()}-{name}-{number}.sock")):
        number += 1
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _bind(listener, own)
    listener.listen(BACKLOG)
    listener.setblocking(False)
    for entry in sorted(os.listdir(where)):
        path = os.path.join(where, entry)
        if path == own or not entry.endswith(".sock"):
            continue
        peer = _prepared(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        try:
            _connect(peer, path)
        except ConnectionRefusedError:
            peer.close()
            os.unlink(path)  # nobody listens there any more
        except OSError:
            peer.close()
        else:
            with host.lock:
                _link(net, peer)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with host.lock:
                _link(net, _prepared(peer))

    def leave() -> None:
        host.loop.remove_fd(listener.fileno())
        listener.close()
        try:
            os.unlink(own)
        except OSError:
            pass

    host.loop.add_fd(listener.fileno(), accept)
    net.leave = leave


def _prepared(peer: socket.socket) -> socket.socket:
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        peer.setsockopt(socket.SOL_SOCKET, option, ROOM)
    return peer


def _link(net: SegmentNet, peer: socket.socket) -> None:
    fd = peer.detach()
    if not net.join(fd):
        os.close(fd)


def _short(path: str) -> tuple[str, int]:
    """A way to a socket that is short enough for an address, and the descriptor that it goes by."""
    fd = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
    return f"/proc/self/fd/{fd}/{os.path.basename(path)}", fd


def _bind(one: socket.socket, path: str) -> None:
    short, fd = _short(path)
    try:
        if os.path.exists(path):
            os.unlink(path)
        one.bind(short)
    finally:
        os.close(fd)


def _connect(one: socket.socket, path: str) -> None:
    short, fd = _short(path)
    try:
        one.connect(short)
    finally:
        os.close(fd)
