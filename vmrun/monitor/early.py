"""QMP's greeting before there is a machine: a client waits for it, and building takes longer than all else.

What clients say meanwhile waits in their sockets until the machine's loop runs. QEMU greets from a thread of its own.

    early = Early()
    early.connected(fd)                      # greeted
    listening = early.listen({"path": …})    # whoever connects is greeted, by a thread
    …
    early.end()                              # the thread is gone; listening.clients: descriptors that were greeted
"""

from __future__ import annotations

import _thread
import os
import select

from vmrun import __version__
from vmrun.monitor.transport import listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The words of QmpSession, without what it takes to make them
_VERSION = f'{{"qemu": {{"major": 7, "minor": 2, "micro": 0}}, "package": "vmrun-{__version__}"}}'
GREETING = f'{{"QMP": {{"version": {_VERSION}, "capabilities": ["oob"]}}}}\r\n'.encode()


class Listening:
    """A server socket; `path` of a unix one, '' of others; clients: descriptors that connected early."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.socket, self.address, self.path = listen(spec)
        self.clients: list[int] = []

    def close(self) -> None:
        """Nobody took it over."""
        for fd in self.clients:
            os.close(fd)
        self.socket.close()
        if self.path:
            try:
                os.unlink(self.path)
            except OSError:
                pass


class Early:
    def __init__(self) -> None:
        self.greeted: set[int] = set()
        self.listening: list[Listening] = []
        self._stop: tuple[int, int] | None = None
        self._ended: Any = None

    def connected(self, fd: int) -> None:
        """Greet who is on a connected descriptor. One that is gone or does not take it is greeted later, as usual."""
        try:
            if os.write(fd, GREETING) == len(GREETING):
                self.greeted.add(fd)
        except OSError:
            pass

    def listen(self, spec: dict[str, Any]) -> Listening:
        """OSError when the address cannot be had."""
        made = Listening(spec)
        self.listening.append(made)
        return made

    def begin(self) -> None:
        """The thread begins to accept; it holds the interpreter for microseconds at a time."""
        if self.listening:
            self._stop = os.pipe2(os.O_CLOEXEC)
            self._ended = _thread.allocate_lock()
            self._ended.acquire()
            _thread.start_new_thread(self._serve, (self._stop[0],))

    def _serve(self, stop: int) -> None:
        poll = select.poll()
        poll.register(stop, select.POLLIN)
        by_fd = {made.socket.fileno(): made for made in self.listening}
        for fd in by_fd:
            poll.register(fd, select.POLLIN)
        try:
            while True:
                for ready, _ in poll.poll():
                    if ready == stop:
                        return
                    try:
                        fd, _ = by_fd[ready].socket._accept()
                    except OSError:
                        continue
                    os.set_blocking(fd, False)
                    by_fd[ready].clients.append(fd)
                    self.connected(fd)
        finally:
            self._ended.release()

    def end(self) -> None:
        """After this nothing is accepted here. Any number of times."""
        if self._stop is not None:
            os.write(self._stop[1], b"x")
            self._ended.acquire()
            for fd in self._stop:
                os.close(fd)
            self._stop = None
