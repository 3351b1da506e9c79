"""Filters of a network: filter-dump, filter-mirror, filter-redirector and filter-buffer, between a card and its netdev.

`queue` is seen from the netdev, as QEMU has it: `rx` is what the card sends, `tx` what it receives. Frames on a chardev
follow their length, four bytes, big-endian.
"""

from __future__ import annotations

import os
import struct
from time import time_ns

from vmrun.core.props import Prop, named
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

MOST_FRAME = 65536 + 14 + 8
MOST_HELD = 10_000
PCAP = struct.pack("=IHHiI", 0xA1B2C3D4, 2, 4, 0, 0)
ETHERNET = 1


class NetFilter(UserObject):
    """Subclasses say in `sees` whether a frame goes on."""

    changeable = ("status",)

    netdev = Prop("netdev", "", "the netdev")
    queue = Prop("enum", "all", "rx: what the card sends; tx: what it receives", choices=("all", "rx", "tx"))
    status = Prop("str", "on", "off: frames pass by")
    position = Prop("str", "tail", "among the netdev's filters: head, tail, or id=ID of another")
    insert = Prop("enum", "behind", "on which side of the other filter", choices=("before", "behind"))

    net: Any = None

    def complete(self, platform: Platform) -> None:
        self.platform = platform
        if not self.netdev:
            raise BuildError("Parameter 'netdev' is missing")
        if self.status not in ("on", "off"):
            raise BuildError(f"Invalid value '{self.status}' for 'status'")
        net: Any = platform.netdev(self.netdev)
        place = self._place([one.name for one in net.filters])
        self.prepare(platform)
        with platform.lock:
            net.add_filter(self, place)
        self.net = net

    def _place(self, others: list[str]) -> int:
        """Where among them this one goes."""
        if self.position in ("head", "tail"):
            return 0 if self.position == "head" else len(others)
        kind, _, other = self.position.partition("=")
        if kind != "id" or not other:
            raise BuildError(f"position: '{self.position}' is neither head nor tail nor id=ID of a filter")
        if other not in others:
            raise BuildError(f"filter '{other}' not found among those of netdev '{self.netdev}'")
        return others.index(other) + (1 if self.insert == "behind" else 0)

    def prepare(self, platform: Platform) -> None:
        """Open what the filter needs. BuildError."""

    def release(self) -> None:
        if self.net is not None:
            with self.platform.lock:
                self.net.remove_filter(self)
            self.net = None

    def passes(self, outgoing: bool, frame: bytes) -> bool:
        """The device lock is held."""
        if self.status == "off" or self.queue == ("tx" if outgoing else "rx"):
            return True
        return self.sees(outgoing, frame)

    def sees(self, outgoing: bool, frame: bytes) -> bool:
        raise NotImplementedError


class FilterDump(NetFilter):
    driver = "filter-dump"

    file = Prop("str", "", "the pcap file")
    maxlen = Prop("uint32", 65536, "bytes of a frame that are kept at most")

    def prepare(self, platform: Platform) -> None:
        if not self.file:
            raise BuildError("dump filter needs 'file' property set!")
        try:
            self.fd = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            os.write(self.fd, PCAP + struct.pack("=II", self.maxlen, ETHERNET))
        except OSError as exc:
            raise BuildError(f"net dump: can't open {self.file}: {exc.strerror}") from None

    def sees(self, outgoing: bool, frame: bytes) -> bool:
        now = time_ns() // 1000
        kept = frame[: self.maxlen]
        try:
            os.write(self.fd, struct.pack("=IIII", now // 1_000_000, now % 1_000_000, len(kept), len(frame)) + kept)
        except OSError:
            pass  # a full disk loses the copy, not the frame
        return True

    def release(self) -> None:
        super().release()
        os.close(self.fd)


class FilterMirror(NetFilter):
    driver = "filter-mirror"

    outdev = Prop("chardev", "", "the chardev that gets a copy")
    vnet_hdr_support = Prop("bool", False, "only off")

    def prepare(self, platform: Platform) -> None:
        _plain_frames(self.vnet_hdr_support)
        if not self.outdev:
            raise BuildError("filter mirror needs 'outdev' property set!")
        self.out = platform.chardev(self.outdev)

    def sees(self, outgoing: bool, frame: bytes) -> bool:
        _write(self.out, frame)
        return True


def _plain_frames(headers: bool) -> None:
    if headers:
        raise BuildError("vmrun's frames have no vnet header: leave out 'vnet_hdr_support=on'")


def _write(chardev: Any, frame: bytes) -> None:
    """Whole or not at all: half a frame would spoil all that follow."""
    data = struct.pack(">I", len(frame)) + frame
    ring = chardev.output
    if ring.capacity - len(ring) > len(data):
        chardev.write(data)


class FilterRedirector(NetFilter):
    driver = "filter-redirector"

    indev = Prop("chardev", "", "the chardev whose frames go on from here")
    outdev = Prop("chardev", "", "the chardev that frames go to instead")
    vnet_hdr_support = Prop("bool", False, "only off")

    def prepare(self, platform: Platform) -> None:
        _plain_frames(self.vnet_hdr_support)
        if not self.indev and not self.outdev:
            raise BuildError("filter redirector needs 'indev' or 'outdev' at least one property set")
        if self.indev and self.indev == self.outdev:
            raise BuildError("'indev' and 'outdev' could not be same for filter redirector")
        self.out = platform.chardev(self.outdev) if self.outdev else None
        self.source: Any = None
        self.waiting = b""
        if self.indev:
            from vmrun.backends.chardev.base import PyFrontend

            self.source = platform.chardev(self.indev)
            self.source.frontend = PyFrontend(self._came, lambda: 65536)

    def sees(self, outgoing: bool, frame: bytes) -> bool:
        if self.out is None:
            return True
        _write(self.out, frame)
        return False

    def _came(self, data: bytes) -> None:
        """Bytes of `indev`; nothing after an impossible length makes sense, so that the rest of them is dropped."""
        self.waiting += data
        while len(self.waiting) >= 4:
            length = int.from_bytes(self.waiting[:4], "big")
            if length > MOST_FRAME:
                self.waiting = b""
                return
            if len(self.waiting) < 4 + length:
                return
            frame, self.waiting = self.waiting[4 : 4 + length], self.waiting[4 + length :]
            if self.net is None or self.status == "off":
                continue
            if self.queue in ("all", "tx"):
                self.net.inject(False, frame, self)
            if self.queue in ("all", "rx"):
                self.net.inject(True, frame, self)

    def release(self) -> None:
        super().release()
        if self.source is not None:
            from vmrun.backends.chardev.base import PyFrontend

            self.source.frontend = PyFrontend()


class FilterBuffer(NetFilter):
    driver = "filter-buffer"

    interval = Prop("uint32", 0, "microseconds that frames are held")
    netbuffer = named("x-netbuffer", "bool", False, "makes no difference", idle="nothing else is buffered")

    def prepare(self, platform: Platform) -> None:
        from accel.clock import PyTimer

        if not self.interval:
            raise BuildError("Parameter 'interval' expects a non-zero value")
        self.held: list[tuple[bool, bytes]] = []
        self.timer = PyTimer(platform.timers, self._let_go)

    def sees(self, outgoing: bool, frame: bytes) -> bool:
        if len(self.held) < MOST_HELD:
            self.held.append((outgoing, frame))
        if self.timer.deadline < 0:
            self.timer.schedule(self.platform.virtual.time() + self.interval * 1000)
        return False

    def _let_go(self) -> None:
        held, self.held = self.held, []
        for outgoing, frame in held:
            if self.net is not None:
                self.net.inject(outgoing, frame, self)

    def changed(self, name: str) -> None:
        if self.status == "off":
            self._let_go()

    def release(self) -> None:
        with self.platform.lock:
            self.timer.stop()
            self._let_go()
        super().release()
