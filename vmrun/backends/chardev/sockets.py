"""Stream sockets by what a machine file or a command line says of them. OSError tells what is in the way, in words and
number.

`spec`: `path` (with `abstract` a name of the kernel's that is no file), or `host` and `port` (`ipv4` and `ipv6` say of
which kind; a server tries those up to `to`), or an inherited `fd`.
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
            self.socket = _bound(spec, self.family, self.address)
        try:
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


def _bound(spec: dict[str, Any], family: int, address: Any) -> Any:
    """A socket at the address, or at the first free port of those up to `to`. OSError."""
    last = 0 if family == _socket.AF_UNIX else min(int(spec.get("to") or 0), 65535)
    while True:
        made = _socket.socket(family, _socket.SOCK_STREAM)
        try:
            bind(made, family, address)
        except BaseException as error:
            made.close()
            taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
            if not taken or family == _socket.AF_UNIX or address[1] >= last:
                raise
            address = (address[0], address[1] + 1, *address[2:])
        else:
            return made


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
    from vmrun.core.inet import families, host_name

    wanted = families(spec)
    if not wanted:
        raise OSError(errno.EINVAL, "Cannot disable IPv4 and IPv6 at same time")
    if passive and _socket.AF_INET not in wanted and not spec.get("host"):
        host = "::"
    every = _socket.getaddrinfo(host_name(host), port, 0, _socket.SOCK_STREAM, 0, flags)
    found = [entry for entry in every if entry[0] in wanted]
    if not found:
        raise OSError(errno.EADDRNOTAVAIL, f"'{host}' has no address of the kind that is asked for")
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
