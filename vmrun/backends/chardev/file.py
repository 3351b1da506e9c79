"""Chardevs over files: output to a file, and a pair of named pipes."""

from __future__ import annotations

import os
import stat

from vmrun.backends.chardev.errors import refused
from vmrun.backends.chardev.stream import StreamChar
from vmrun.core import fdsets
from vmrun.errors import BackendError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from accel.api import DeviceLock

    from vmrun.core.loop import Loop


def open_path(name: str, path: str, flags: int) -> int:
    """A descriptor; BackendError in the user's words."""
    try:
        return fdsets.open_file(path, flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        import errno

        remedy = {
            errno.ENOENT: "create the directory, or name another path",
            errno.EACCES: "give this user the permission, or name another path",
            errno.EPERM: "give this user the permission, or name another path",
            errno.EISDIR: "name a file in that directory",
            errno.ENXIO: "start the program that reads the pipe first",
            errno.EROFS: "name a path on a file system that can be written",
            errno.ENOSPC: "free some space on it",
        }.get(error.errno or 0, "")
        why = "nothing reads this pipe" if error.errno == errno.ENXIO else os.strerror(error.errno or 0)
        raise refused(name, remedy=remedy, act="open", where=f"'{path}'", why=why) from None


class FileChar(StreamChar):
    """A full disk loses output, not the guest. `source`: a file whose content is the input."""

    def __init__(
        self, name: str, path: str, append: bool, loop: Loop, lock: DeviceLock, source: str | None = None
    ) -> None:
        self.source = open_path(name, source, os.O_RDONLY) if source else -1
        try:
            self.fd = open_path(name, path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC))
        except BackendError:
            if self.source >= 0:
                os.close(self.source)
            raise
        super().__init__(name, loop, lock)
        self.address = path
        self.attach(self.source, self.fd)

    def on_end(self) -> None:
        """All input is read; output goes on. A disk that refuses output has the last word."""
        if self.source < 0:
            super().on_end()
            return
        self.loop.remove_fd(self.source)
        os.close(self.source)
        self.source = self.read_fd = -1
        self.reading = False

    def close(self) -> None:
        super().close()
        for fd in {self.fd, self.source} - {-1}:
            os.close(fd)
        self.fd = self.source = -1


class PipeChar(StreamChar):
    """Named pipes PATH.in (to the guest) and PATH.out (from it), or PATH alone for both."""

    def __init__(self, name: str, path: str, loop: Loop, lock: DeviceLock) -> None:
        # Read and write, so that opening needs no peer and a peer that goes is no end of file.
        if os.path.exists(path + ".in") or os.path.exists(path + ".out"):
            self.fds = [open_path(name, path + ".in", os.O_RDWR)]
            try:
                self.fds.append(open_path(name, path + ".out", os.O_RDWR))
            except BackendError:
                os.close(self.fds[0])
                raise
        else:
            self.fds = [open_path(name, path, os.O_RDWR)]
        for fd in self.fds:
            if not stat.S_ISFIFO(os.fstat(fd).st_mode):
                for other in self.fds:
                    os.close(other)
                raise refused(
                    name, f"'{path}' is no named pipe", remedy=f"mkfifo {path}.in {path}.out"
                )
        super().__init__(name, loop, lock)
        self.address = path
        self.attach(self.fds[0], self.fds[-1])

    def close(self) -> None:
        super().close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []
