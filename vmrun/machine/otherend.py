"""The other end of a migration that is no file: a socket (tcp:HOST:PORT, unix:PATH) or a command (exec:COMMAND). The
state goes over it in one piece, while the machine stands still.
"""

from __future__ import annotations

import os

from vmrun.core.inet import host_name
from vmrun.errors import BackendError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket  # it and subprocess take 10 ms of a start: they come when they are needed
    import subprocess
    from collections.abc import Callable

    from vmrun.core.loop import Loop

SCHEMES = ("tcp", "unix", "exec")
PATIENCE = 20  # seconds until an end that takes nothing is given up
SLOW = 2  # seconds that a command has for its end when it is told to


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
    import subprocess

    try:
        return subprocess.Popen(["/bin/sh", "-c", command], **ends)  # type: ignore[call-overload,no-any-return]
    except (OSError, ValueError) as error:  # -sandbox spawn=deny; a name with a zero byte
        raise BackendError(f"'{command}' cannot be started: {getattr(error, 'strerror', None) or error}") from None


def _stop(process: subprocess.Popen[bytes]) -> None:
    import subprocess

    process.terminate()
    try:
        process.wait(SLOW)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def send(uri: str, ended: Callable[[], bool]) -> tuple[int, Callable[[bool], None]]:
    """(a descriptor to write to, what to call when that is closed: `over(whether all is written)` waits for a command's
    end or for `ended`, BackendError when it failed). BackendError when there is nobody. Waits.
    """
    import socket

    scheme, _, rest = uri.partition(":")
    if scheme == "exec":
        end, theirs = socket.socketpair()  # what is written to it can be given up, other than a pipe
        with theirs:
            try:
                process = _shell(rest, stdin=theirs.fileno())
            except BackendError:
                end.close()
                raise
        return _patient(end), lambda whole: _over(process, whole, ended)
    try:
        if scheme == "tcp":
            host, port = _address(rest)
            where = host_name(host or "localhost"), port
            return _patient(socket.create_connection(where, timeout=PATIENCE)), lambda whole: None
        with socket.socket(socket.AF_UNIX) as end:
            end.settimeout(PATIENCE)
            end.connect(rest)
            return _patient(end), lambda whole: None
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
        raise BackendError(f"Failed to connect to '{rest}': {getattr(error, 'strerror', None) or error}") from None


def _over(process: subprocess.Popen[bytes], whole: bool, ended: Callable[[], bool]) -> None:
    import subprocess

    while process.poll() is None:
        if not whole or ended():
            _stop(process)
            return
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            pass
    if process.returncode:
        raise BackendError(f"the command ended with {process.returncode}")


def _patient(end: socket.socket) -> int:
    import socket

    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, PATIENCE.to_bytes(8, "little") + bytes(8))
    return end.detach()


class Listener:
    """Waits for the one who brings a state: `found(descriptor)` on the main loop, once. BackendError when it cannot."""

    def __init__(self, loop: Loop, uri: str, found: Callable[[int], None]) -> None:
        import socket
        import stat

        scheme, _, rest = uri.partition(":")
        self.loop, self.found, self.path, self.server = loop, found, "", socket.socket()
        self.server.close()
        try:
            if scheme == "unix":
                self.server = socket.socket(socket.AF_UNIX)
                if os.path.exists(rest) and stat.S_ISSOCK(os.stat(rest).st_mode):
                    os.unlink(rest)  # one that was left behind
                self.server.bind(rest)
                self.path = os.path.abspath(rest) if not rest.startswith("\0") else ""  # a daemon leaves its directory
                self.server.listen(1)
            else:
                host, port = _address(rest)
                six = ":" in host
                self.server = socket.create_server(
                    (host, port), family=socket.AF_INET6 if six else socket.AF_INET, backlog=1
                )
        except (OSError, ValueError) as error:  # ValueError: a name that cannot be one
            self.server.close()
            raise BackendError(f"Failed to listen at '{rest}': {getattr(error, 'strerror', None) or error}") from None
        self.address = {"type": "unix", "path": rest}
        if scheme != "unix":
            host, port = self.server.getsockname()[:2]  # which port it is, where it was to be any
            self.address = {"type": "inet", "host": host, "port": str(port)}
        self.server.setblocking(False)
        loop.add_fd(self.server.fileno(), self._come)

    def _come(self) -> None:
        try:
            end, _ = self.server.accept()
        except OSError:  # who came is gone, or there are no descriptors: another comes
            return
        self.end()
        self.found(end.detach())

    def end(self) -> None:
        """The machine's end (machine.works), too; any number of times."""
        if self.server.fileno() >= 0:
            self.loop.remove_fd(self.server.fileno())
            self.server.close()
            try:
                if self.path:
                    os.unlink(self.path)
            except OSError:  # somebody was quicker, or -runas left it to another user
                pass


def receive(command: str) -> tuple[int, Callable[[], None]]:
    """(a descriptor to read what a command writes from, what ends the command)."""
    fd, theirs = os.pipe()
    try:
        process = _shell(command, stdout=theirs)
    except BackendError:
        os.close(fd)
        raise
    finally:
        os.close(theirs)
    return fd, lambda: _stop(process)


def spool(fd: int, ended: Callable[[], bool]) -> int:
    """A file without a name of the state that comes out of a descriptor, which is closed. Waits until the state is
    whole, can be none any more, or nothing more comes, or for `ended`. StateError: it cannot be read or kept.
    """
    import select
    import tempfile

    from vmrun.machine.snapfile import Whole

    ready, whole = select.poll(), Whole()
    ready.register(fd, select.POLLIN)
    try:
        with os.fdopen(fd, "rb", buffering=0) as given, tempfile.TemporaryFile() as kept:
            while not ended() and not whole.found:
                if ready.poll(500):
                    data = given.read(1 << 20)
                    if not data:
                        break
                    whole.feed(data)
                    kept.write(data)
            kept.seek(0)
            return os.dup(kept.fileno())
    except OSError as error:
        raise StateError(f"the state cannot be taken: {error.strerror}") from None
