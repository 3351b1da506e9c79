"""What a back end is handed, without a machine, and a card that notes what comes."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from accel.aio import IoThread
from accel.api import DeviceLock
from vmrun.backends.net.base import PyCard

from vmrun.backends.net import open_netdev
from vmrun.core.loop import Loop

A, B, C = (b"\x52\x54\x00\x00\x00" + bytes([n]) for n in (1, 2, 3))
ALL = b"\xff" * 6


def frame(to: bytes, source: bytes, data: bytes = b"", size: int = 60) -> bytes:
    return (to + source + b"\x88\xb5" + data).ljust(size, b"\0")


class TestHost:
    __test__ = False

    def __init__(self) -> None:
        self.lock = DeviceLock()
        self.iothread = IoThread(self.lock)
        self.loop = Loop(self.lock)
        self.hubs: dict[int, Any] = {}
        self.config: dict[str, Any] = {"segments": {}}
        self.nets: dict[str, Any] = {}
        self.iothread.resume()
        self.thread = threading.Thread(target=self.loop.run, daemon=True)
        self.thread.start()

    def netdev(self, id: str) -> Any:
        return self.nets[id]

    def open(self, id: str, **spec: Any) -> Any:
        net = self.nets[id] = open_netdev(id, spec, self)  # type: ignore[arg-type]
        with self.lock:
            net.set_running(True)
        return net

    def close(self) -> None:
        self.loop.call_soon(self.loop.stop)
        self.thread.join(10)
        for net in self.nets.values():
            net.close()
        self.iothread.close()
        self.loop.close()


class Card:
    """At `net`; takes everything unless `room` is False."""

    def __init__(self, host: TestHost, net: Any, takes: int = 0) -> None:
        self.host, self.net, self.room = host, net, True
        self.frames: list[bytes] = []
        self.headers: list[Any] = []
        self.port = PyCard(self._receive, lambda: self.room, takes=takes)
        with host.lock:
            net.plug(self.port)

    def _receive(self, frame: bytes, header: Any) -> bool:
        self.frames.append(frame)
        self.headers.append(header)
        return True

    def send(self, frame: bytes) -> bool:
        with self.host.lock:
            return bool(self.net.transmit(frame))

    def wait(self, count: int = 1, seconds: float = 20) -> list[bytes]:
        until(lambda: len(self.frames) >= count, seconds)
        return self.frames


def until(seen: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not seen():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.002)


__all__ = ["ALL", "A", "B", "C", "Card", "SimpleNamespace", "TestHost", "frame", "until"]
