"""The other end of a migration that is no file: a socket (tcp:HOST:PORT, unix:PATH) or a command (exec:COMMAND). The
state goes over it in one piece, while the machine stands still.
"""

from __future__ import annotations

import os
import socket
import subprocess

from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.loop import Loop

SCHEMES = ("tcp", "unix", "exec")
PATIENCE = 20  # seconds until an end that takes nothing is given up


def is_one(path: str) -> bool:
    return ":" in path and path.partition(":")[0] in SCHEMES


def check(uri: str) -> None:
    """BackendError for what is none of them, or is not whole."""
    scheme, _, rest = uri.partition(":")
    if scheme == "tcp":
        _address(rest)
    elif not rest:
        raise BackendError(f"{scheme}: needs a {'command' if scheme == 'exec' else 'path'}")


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise BackendError(f"error parsing address '{text}'", remedy="written as tcp:HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _shell(command: str, **ends: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", command], **ends)  # type: ignore[call-overload,no-any-return]


def send(uri: str) -> tuple[int, Callable[[], None]]:
    """(a descriptor to write to, what to call when all is written: BackendError when the other end failed). Waits."""
    scheme, _, rest = uri.partition(":")
    if scheme == "exec":
        end, theirs = socket.socketpair()  # what is written to it can be given up, other than a pipe
        with theirs:
            process = _shell(rest, stdin=theirs.fileno())

        def over() -> None:
            if process.wait():
                raise BackendError(f"the command ended with {process.returncode}")

        return _patient(end), over
    try:
        if scheme == "unix":
            end = socket.socket(socket.AF_UNIX)
            end.settimeout(PATIENCE)
            end.connect(rest)
        else:
            host, port = _address(rest)
            end = socket.create_connection((host or "localhost", port), timeout=PATIENCE)
    except OSError as error:
        raise BackendError(f"Failed to connect to '{rest}': {error.strerror or error}") from None
    return _patient(end), lambda: None


def _patient(end: socket.socket) -> int:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE.to_bytes(8, "little") + bytes(8))
    return end.detach()


class Listener:
    """Waits for the one who brings a state: `found(descriptor)` on the main loop, once. BackendError when it cannot."""

    def __init__(self, loop: Loop, uri: str, found: Callable[[int], None]) -> None:
        scheme, _, rest = uri.partition(":")
        self.loop, self.found, self.path, self.server = loop, found, "", socket.socket()
        self.server.close()
        try:
            if scheme == "unix":
                self.server = socket.socket(socket.AF_UNIX)
                if os.path.exists(rest) and not os.path.isfile(rest):
                    os.unlink(rest)  # as QEMU does: one that was left behind
                self.server.bind(rest)
                self.path = rest
                self.server.listen(1)
            else:
                host, port = _address(rest)
                six = ":" in host
                self.server = socket.create_server(
                    (host, port), family=socket.AF_INET6 if six else socket.AF_INET, backlog=1
                )
        except OSError as error:
            self.server.close()
            raise BackendError(f"Failed to listen at '{rest}': {error.strerror or error}") from None
        loop.add_fd(self.server.fileno(), self._come)

    def _come(self) -> None:
        end, _ = self.server.accept()
        self.end()
        self.found(end.detach())

    def end(self) -> None:
        """The machine's end (machine.works), too; any number of times."""
        if self.server.fileno() >= 0:
            self.loop.remove_fd(self.server.fileno())
            self.server.close()
            if self.path:
                os.unlink(self.path)


def receive(command: str) -> tuple[int, Callable[[], None]]:
    """(a descriptor to read what a command writes from, what ends the command)."""
    process = _shell(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    fd = os.dup(process.stdout.fileno())
    process.stdout.close()

    def over() -> None:
        process.terminate()
        process.wait()

    return fd, over


def spool(fd: int, ended: Callable[[], bool]) -> int:
    """A file without a name of the state that comes out of a descriptor, which is closed. Waits until the state is
    whole or nothing more comes, or for `ended`.
    """
    import select
    import tempfile

    from vmrun.machine.snapfile import Whole

    ready, whole = select.poll(), Whole()
    ready.register(fd, select.POLLIN)
    with tempfile.TemporaryFile() as kept, os.fdopen(fd, "rb", buffering=0) as given:
        while not ended() and not whole.found:
            if ready.poll(500):
                data = given.read(1 << 20)
                if not data:
                    break
                whole.feed(data)
                kept.write(data)
        kept.seek(0)
        return os.dup(kept.fileno())
