"""filter-dump, -mirror, -redirector and -buffer between a card and its netdev."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from accel.api import DeviceLock
from accel.clock import TimerQueue, VirtualClock
from vmrun.backends.net.base import PyCard, PyNet

from tests.unit.net.host import A, B, frame
from vmrun.backends.chardev.base import RingChar
from vmrun.backends.objects import make
from vmrun.errors import BuildError

OUT, IN = frame(B, A, b"out"), frame(A, B, b"in")


class Setup:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.got: list[bytes] = []
        self.net = PyNet(lambda data, header: self.sent.append(data))
        self.card = PyCard(lambda data, header: self.got.append(data))
        self.net.plug(self.card)
        clock = VirtualClock()
        self.chardevs = {"one": RingChar(), "two": RingChar()}
        self.platform: Any = SimpleNamespace(
            lock=DeviceLock(), netdev=lambda id: self.net, chardev=self.chardevs.__getitem__, virtual=clock,
            timers=TimerQueue(clock),
        )  # fmt: skip
        self.made: list[Any] = []

    def add(self, kind: str, **props: Any) -> Any:
        one = make({"qom-type": kind, "id": f"f{len(self.made)}", "netdev": "n", **props})
        one.complete(self.platform)
        self.made.append(one)
        return one

    def both(self) -> None:
        self.net.transmit(OUT)
        self.net.incoming(IN)

    def close(self) -> None:
        for one in self.made:
            one.release()


@pytest.fixture
def setup() -> Iterator[Setup]:
    one = Setup()
    yield one
    one.close()


@pytest.mark.parametrize(("queue", "kept"), [("all", [OUT, IN]), ("rx", [OUT]), ("tx", [IN])])
def test_a_dump_has_the_frames_of_its_direction(
    setup: Setup, tmp_path: pathlib.Path, queue: str, kept: list[bytes]
) -> None:
    path = tmp_path / "net.pcap"
    setup.add("filter-dump", file=str(path), queue=queue)
    setup.both()
    data, at, found = path.read_bytes(), 24, []
    while at < len(data):
        _, _, size, length = struct.unpack_from("=IIII", data, at)
        assert size == length
        found.append(data[at + 16 : at + 16 + size])
        at += 16 + size
    assert found == kept and setup.sent == [OUT] and setup.got == [IN]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ({}, ["f0", "f1", "f2"]),
        ({"position": "head"}, ["f2", "f0", "f1"]),
        ({"position": "id=f0"}, ["f0", "f2", "f1"]),
        ({"position": "id=f0", "insert": "before"}, ["f2", "f0", "f1"]),
        ({"position": "id=f1", "insert": "before"}, ["f0", "f2", "f1"]),
    ],
)
def test_a_filter_has_its_place(setup: Setup, given: dict[str, str], order: list[str]) -> None:
    for props in ({}, {}, given):
        setup.add("filter-buffer", interval=1000, **props)
    assert [one.name for one in setup.net.filters] == order


@pytest.mark.parametrize("position", ["id=nobody", "id=", "middle", ""])
def test_a_place_that_is_none_is_refused(setup: Setup, position: str) -> None:
    with pytest.raises(BuildError, match="not found|neither head nor tail"):
        setup.add("filter-buffer", interval=1000, position=position)
    assert setup.net.filters == ()


def test_a_mirror_copies(setup: Setup) -> None:
    setup.add("filter-mirror", outdev="one", queue="rx")
    setup.both()
    assert setup.chardevs["one"].output.take(1000) == struct.pack(">I", 60) + OUT
    assert setup.sent == [OUT] and setup.got == [IN]


def test_a_redirector_takes_frames_away_and_puts_others_in(setup: Setup) -> None:
    setup.add("filter-redirector", outdev="one", indev="two", queue="rx")
    setup.both()
    assert setup.sent == [] and setup.got == [IN]
    assert setup.chardevs["one"].output.take(1000) == struct.pack(">I", 60) + OUT
    data = struct.pack(">I", 60) + frame(B, A, b"other")
    for n in range(len(data)):
        setup.chardevs["two"].deliver(data[n : n + 1])
    assert setup.sent == [frame(B, A, b"other")]


def test_runts_pass_through_filters_as_they_are(setup: Setup) -> None:
    setup.add("filter-mirror", outdev="one", queue="tx")
    setup.add("filter-redirector", indev="two")
    setup.net.incoming(b"Hello!!")
    assert setup.chardevs["one"].output.take(1000) == struct.pack(">I", 7) + b"Hello!!"
    setup.chardevs["two"].deliver(struct.pack(">I", 3) + b"abc")
    assert setup.got == [b"Hello!!".ljust(14, b"\0"), b"abc".ljust(14, b"\0")] and setup.sent == [b"abc"]


def test_impossible_lengths_are_dropped(setup: Setup) -> None:
    setup.add("filter-redirector", indev="two", queue="rx")
    setup.chardevs["two"].deliver(struct.pack(">I", 0xFFFFFFFF) + bytes(100))
    setup.chardevs["two"].deliver(struct.pack(">I", 60) + OUT)
    assert setup.sent == [OUT]


def test_a_buffer_holds_frames_back(setup: Setup) -> None:
    one = setup.add("filter-buffer", interval=1000)
    setup.both()
    assert setup.sent == setup.got == []
    one._let_go()
    assert setup.sent == [OUT] and setup.got == [IN]


def test_frames_pass_by_a_filter_that_is_off(setup: Setup) -> None:
    setup.add("filter-buffer", interval=1000, status="off")
    setup.both()
    assert setup.sent == [OUT]


@pytest.mark.parametrize(
    ("kind", "props"),
    [
        ("filter-dump", {}), ("filter-dump", {"file": "/nowhere/at/all"}), ("filter-mirror", {}),
        ("filter-redirector", {}), ("filter-redirector", {"indev": "one", "outdev": "one"}), ("filter-buffer", {}),
        ("filter-buffer", {"interval": 1, "queue": "up"}), ("filter-buffer", {"interval": 1, "status": "maybe"}),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(setup: Setup, kind: str, props: dict[str, Any]) -> None:
    with pytest.raises(BuildError):
        setup.add(kind, **props)
    setup.both()
    assert setup.sent == [OUT]
