"""What devices see: regions, lines, fans, rings, notifiers, the lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from accel.api import (
    Action,
    ByteRing,
    DeviceLock,
    IrqFan,
    IrqLine,
    Notifier,
    PyIoRegion,
    PyIrqSink,
    callback_errors,
    set_callback_error_handler,
)


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What is reported of callbacks that raise."""
    found: list[str] = []
    set_callback_error_handler(lambda where, exc: found.append(f"{where}: {exc}"))
    yield found
    set_callback_error_handler(None)


def broken(*args: int) -> int:
    raise RuntimeError("oops")


def test_a_callback_that_raises_reads_as_all_ones(told: list[str]) -> None:
    region = PyIoRegion("chip", broken, broken)
    assert region.load(3, 2) == 0xFFFF
    assert region.store(3, 2, 0) == Action.NONE


def test_a_callback_that_raises_is_reported_once_and_counted(told: list[str]) -> None:
    region = PyIoRegion("chip", broken, None)
    for offset in range(1000):
        region.load(offset, 1)
    assert told == ["chip: read of 1 at 0x0: oops"]
    assert callback_errors() == 1000


def test_each_device_that_raises_is_reported(told: list[str]) -> None:
    for name in ("one", "two"):
        PyIoRegion(name, broken, None).load(0, 1)
    assert [text.partition(":")[0] for text in told] == ["one", "two"]


def test_reports_have_an_end(told: list[str]) -> None:
    for n in range(1000):
        PyIoRegion(f"chip{n}", broken, None).load(0, 1)
    assert len(told) == 256


def test_a_region_without_callbacks_reads_as_all_ones() -> None:
    region = PyIoRegion("none")
    assert (region.load(0, 1), region.store(0, 1, 5)) == (0xFF, Action.NONE)


def test_a_negative_answer_is_cut_to_the_size() -> None:
    assert PyIoRegion("chip", lambda offset, size: -2).load(0, 4) == 0xFFFFFFFE


def test_a_line_tells_only_changes() -> None:
    levels: list[tuple[int, int]] = []
    line = IrqLine(PyIrqSink(lambda n, level: levels.append((n, level))), 5)
    for level in (1, 1, 7, 0, 0, 1):
        line.drive(level)
    assert levels == [(5, 1), (5, 0), (5, 1)]


def test_a_pulse_is_two_changes() -> None:
    levels: list[int] = []
    IrqLine(PyIrqSink(lambda n, level: levels.append(level)), 5).pulse()
    assert levels == [1, 0]


def test_a_line_that_is_plugged_in_elsewhere_takes_its_level_along() -> None:
    old: list[int] = []
    new: list[int] = []
    line = IrqLine(PyIrqSink(lambda n, level: old.append(level)), 0)
    line.drive(1)
    line.connect(PyIrqSink(lambda n, level: new.append(level)), 0)
    assert (old, new) == ([1, 0], [1])


def test_inputs_of_a_fan_are_wired_or() -> None:
    levels: list[int] = []
    fan = IrqFan("gsi", 4)
    fan.connect(2, PyIrqSink(lambda n, level: levels.append(level)), 9)
    first, second = IrqLine(fan, 2), IrqLine(fan, 2)
    first.drive(1)
    second.drive(1)
    first.drive(0)
    assert (levels, fan.level(2)) == ([1], 1)
    second.drive(0)
    assert fan.level(2) == 0 and levels[-1] == 0


def test_an_input_drives_all_its_targets() -> None:
    got: list[int] = []
    fan = IrqFan("gsi", 2)
    for target in range(3):
        fan.connect(1, PyIrqSink(lambda n, level: got.append(n) if level else None), target)
    IrqLine(fan, 1).drive(1)
    assert got == [0, 1, 2]


@pytest.mark.parametrize("n", [2, 1 << 31])
def test_an_input_that_is_not_there_is_an_error_from_python_and_nothing_from_a_line(n: int) -> None:
    fan = IrqFan("gsi", 2)
    with pytest.raises(IndexError):
        fan.connect(n, PyIrqSink(lambda n, level: None), 0)
    IrqLine(fan, n).drive(1)
    assert [fan.level(0), fan.level(1)] == [0, 0]


def test_a_ring_keeps_order_and_refuses_what_does_not_fit() -> None:
    ring = ByteRing(4)
    assert ring.put(b"abcdef") == 4
    assert ring.take(2) == b"ab"
    assert ring.put(b"xyz") == 2
    assert (ring.peek(10), len(ring)) == (b"cdxy", 4)
    assert ring.take() == b"cdxy"


def test_a_ring_signals_once_a_burst() -> None:
    import os

    notifier = Notifier()
    ring = ByteRing(16, notifier)
    ring.put(b"abc")
    assert int.from_bytes(os.read(notifier.fileno(), 8), "little") == 1
    ring.put(b"d")
    with pytest.raises(BlockingIOError):
        os.read(notifier.fileno(), 8)


def test_the_device_lock_may_be_taken_again_by_its_owner_and_by_nobody_else() -> None:
    lock = DeviceLock()
    got = threading.Event()

    def other() -> None:
        with lock:
            got.set()

    thread = threading.Thread(target=other)
    with lock:
        with lock:
            thread.start()
        assert not got.wait(0.02)
    thread.join(20)
    assert got.is_set()
