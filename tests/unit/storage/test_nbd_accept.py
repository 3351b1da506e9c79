"""Servers of NBD for whom the host has no descriptor at the moment."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from vmrun.backends.block.nbd_server import Export
from vmrun.cli.img.serve import answer
from vmrun.machine.exports import Server


class Scarce:
    """A listener who has no descriptor for the first client at first."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.told = [OSError(errno.EMFILE, os.strerror(errno.EMFILE)), OSError(errno.ECONNABORTED, "")]
        self.over = threading.Event()

    def settimeout(self, seconds: float) -> None:
        pass

    def accept(self) -> tuple[socket.socket, None]:
        if self.told:
            raise self.told.pop()
        if self.theirs.fileno() >= 0:
            return socket.socket(fileno=self.theirs.detach()), None
        self.over.wait(30)
        raise OSError(errno.EBADF, "")

    def close(self) -> None:
        self.over.set()


def begun(serve: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=serve, args=arguments, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("by", ["a machine", "a program"])
def test_who_comes_when_there_is_no_descriptor_is_served_later(by: str) -> None:
    listener: Any = Scarce()
    server = Server(SimpleNamespace())  # type: ignore[arg-type]
    if by == "a machine":
        server.listener = listener
        thread = begun(server._accept, listener)
    else:
        thread = begun(answer, listener, None, Export(SimpleNamespace(size=512), "", True), 1, False)
    listener.ours.settimeout(30)
    assert listener.ours.recv(8) == b"NBDMAGIC"
    listener.ours.close()
    server.listener = None
    if by == "a machine":
        listener.close()
    thread.join(30)
    assert not thread.is_alive()
