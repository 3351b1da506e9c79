"""Stream sockets by what a machine file or a command line says of them. OSError tells what is in the way, in words and
number.

`spec`: `path` (with `abstract` a name of the kernel's that is no file), or `host` and `port`, or an inherited `fd`.
"""

from __future__ import annotations

import _socket  # `socket` itself brings in enum and selectors: 5 ms
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BACKLOG = 1024  # a burst of clients, while the loop is busy
LONGEST = 107  # bytes of a unix socket's path


class Listening:
    """A socket that listens; `address` as the kernel has it, `text` for people; `clients`: those that somebody has
    accepted already (vmrun.monitor.early), as a descriptor and whether QMP's greeting was sent.
    """

    def __init__(self, spec: dict[str, Any], backlog: int = BACKLOG) -> None:
        """OSError when the address cannot be had."""
        self.clients: list[tuple[int, bool]] = []
        self.path = ""  # to be removed at the end
        self.address: Any = None
        inherited = spec.get("fd") is not None
        if inherited:
            self.socket = inherited_socket(spec)
            self.family = self.socket.family
        else:
            self.family, self.address = address_of(spec, passive=True)
            self.socket = _socket.socket(self.family, _socket.SOCK_STREAM)
        try:
            if not inherited:
                bind(self.socket, self.family, self.address)
            self.socket.listen(backlog)
        except BaseException:
            self.socket.close()
            raise
        self.text = text_of(spec)
        if self.family != _socket.AF_UNIX:
            self.address = self.socket.getsockname()
            self.text = f"tcp:{self.address[0]}:{self.address[1]}"
        elif inherited:
            self.address = self.socket.getsockname()
            self.text = f"unix:{self.address}" if isinstance(self.address, str) else self.text
        elif not spec.get("abstract"):
            self.path = self.address
        self.socket.setblocking(False)

    def accept(self) -> Any:
        """The next client's socket; None when there is none, or the process has no descriptor left."""
        try:
            fd, _ = self.socket._accept()
        except OSError:
            return None
        return _socket.socket(fileno=fd)

    def close(self) -> None:
        for fd, _ in self.clients:
            os.close(fd)
        self.clients.clear()
        self.socket.close()
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass


def connect(spec: dict[str, Any], timeout: float | None = None) -> Any:
    """A connected socket; waits for it, at most `timeout` seconds."""
    if spec.get("fd") is not None:
        return inherited_socket(spec)
    family, address = address_of(spec, passive=False)
    made = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        made.settimeout(timeout)
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made


def inherited_socket(spec: dict[str, Any]) -> Any:
    return _socket.socket(fileno=os.dup(int(spec["fd"])))


def text_of(spec: dict[str, Any]) -> str:
    """Where it is, in words: "unix:PATH", "tcp:HOST:PORT", "fd:N"."""
    if spec.get("fd") is not None:
        return f"fd:{spec['fd']}"
    if spec.get("path"):
        return f"unix:{'@' if spec.get('abstract') else ''}{spec['path']}"
    return f"tcp:{spec.get('host') or ''}:{spec.get('port')}"


def address_of(spec: dict[str, Any], *, passive: bool) -> tuple[int, Any]:
    """(family, address): IPv4 when there is a choice. `passive`: to listen on, by default on all of the host's."""
    path = spec.get("path")
    if path:
        if len(os.fsencode(path)) > LONGEST:
            raise OSError(errno.ENAMETOOLONG, f"UNIX socket path '{path}' is too long")
        if not spec.get("abstract"):
            return _socket.AF_UNIX, path
        name = b"\0" + os.fsencode(path)
        # as QEMU does: the rest of the address is part of the name, unless it is to be tight
        return _socket.AF_UNIX, name if spec.get("tight", True) else name.ljust(LONGEST + 1, b"\0")
    flags = _socket.AI_PASSIVE if passive else 0
    host, port = spec.get("host") or None, int(spec.get("port") or 0)
    host = host or ("0.0.0.0" if passive else "localhost")
    found = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM, 0, flags)
    found.sort(key=lambda entry: entry[0] != _socket.AF_INET)
    return found[0][0], found[0][4]


def bind(sock: Any, family: int, address: Any) -> None:
    """To an address of its family. OSError."""
    if family == _socket.AF_UNIX:
        from vmrun.core import unixsocket

        unixsocket.bind(sock, address)
        return
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    sock.bind(address)
