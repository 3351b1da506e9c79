"""QMP's greeting before there is a machine: a client waits for it, and building takes longer than all else.

What clients say meanwhile waits in their sockets until the machine's loop runs. QEMU greets from a thread of its own.

    early = Early()
    given = early.connect({"path": …})       # connected, and greeted; for open_chardev
    given = early.listen({"path": …})        # whoever connects is greeted, by a thread
    …
    early.end()                              # the thread is gone; given.clients: who has come
"""

from __future__ import annotations

import _thread
import os
import select

from vmrun import __version__
from vmrun.backends.chardev.sockets import Listening, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The words of QmpSession, without what it takes to make them
_VERSION = f'{{"qemu": {{"major": 7, "minor": 2, "micro": 0}}, "package": "vmrun-{__version__}"}}'
GREETING = f'{{"QMP": {{"version": {_VERSION}, "capabilities": ["oob"]}}}}\r\n'.encode()


class Early:
    def __init__(self) -> None:
        self.listening: list[Listening] = []
        self._stop: tuple[int, int] | None = None
        self._ended: Any = None

    def connect(self, spec: dict[str, Any], greets: bool = True) -> tuple[Any, bool]:
        """(a connected socket, whether its other end was greeted). One that is gone or does not take it is greeted
        later, as usual. OSError when nobody is there.
        """
        peer = connect(spec)
        peer.setblocking(False)
        return peer, greets and _greet(peer.fileno())

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
                    by_fd[ready].clients.append((fd, _greet(fd)))
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


def _greet(fd: int) -> bool:
    try:
        return os.write(fd, GREETING) == len(GREETING)
    except OSError:
        return False
