"""Declared state: what a table lets through, what it refuses, and that a refused state changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from accel.clock import PyTimer, SteppedClock, TimerQueue

from vmrun.core.state import (
    KEEP,
    U8,
    U32,
    Bytes,
    Deadline,
    Deadlines,
    Flag,
    Maybe,
    Moment,
    Part,
    Parts,
    Rows,
    Signed,
    Stateful,
    Table,
    Words,
)
from vmrun.errors import StateError


class Inner(Stateful):
    state = Table("inner", 1, U8("value", 7))

    def __init__(self) -> None:
        self.value = 0
        self.settled = 0

    def settle(self) -> None:
        self.settled += 1


class Chip(Stateful):
    state = Table(
        "chip",
        2,
        U8("small", 3, most=9),
        U32("odd", 1, least=1),
        Signed("level", -5, 5),
        Flag("on"),
        Bytes("cells", 4, b"\1\2\3\4", each=0x7F),
        Bytes("queue", most=3),
        Words("words", 2, 0xFFFF),
        Maybe(U8("sending")),
        Rows("rows", 2, U8("a", (1, 2)), U8("b", 5)),
        Moment("start"),
        Deadline("timer"),
        Deadlines("timers"),
        U8("battery", KEEP),
        Part("inner"),
        Parts("parts"),
        readers={1: lambda old: {**old, "small": old["small"] * 2}},
    )

    def __init__(self) -> None:
        self.clock = SteppedClock(1000)
        queue = TimerQueue(self.clock)
        self.timer = PyTimer(queue, lambda: None)
        self.timers = [PyTimer(queue, lambda: None) for _ in range(2)]
        self.cells = bytearray(4)
        self.battery = 200
        self.inner = Inner()
        self.parts = {"x": Inner(), "y": Inner()}
        self.refuse = False
        self.reset()

    def check_state(self, values: dict[str, Any]) -> None:
        if self.refuse:
            raise StateError("these do not go together")


@pytest.fixture
def chip() -> Chip:
    return Chip()


def test_reset_gives_the_reset_values_and_keeps_what_is_to_be_kept(chip: Chip) -> None:
    chip.small, chip.cells[0], chip.battery, chip.inner.value = 9, 0, 100, 0
    chip.timer.schedule(5000)
    chip.reset()
    assert (chip.small, bytes(chip.cells), chip.battery, chip.inner.value) == (3, b"\1\2\3\4", 100, 7)
    assert chip.timer.deadline == -1
    assert chip.rows == [{"a": 1, "b": 5}, {"a": 2, "b": 5}]


def test_state_comes_back_on_a_clock_that_starts_elsewhere(chip: Chip) -> None:
    chip.small, chip.sending, chip.queue, chip.words = 4, 17, b"ab", [1, 2]
    chip.start = 900
    chip.timer.schedule(1500)
    chip.timers[1].schedule(1001)
    chip.parts["y"].value = 99
    other = Chip()
    other.clock.set_time(70_000)
    other.load(chip.save())
    assert (other.small, other.sending, other.queue, other.words, other.parts["y"].value) == (4, 17, b"ab", [1, 2], 99)
    assert (other.start, other.timer.deadline) == (69_900, 70_500)
    assert [timer.deadline for timer in other.timers] == [-1, 70_001]
    assert other.save() == chip.save()


def test_each_part_is_settled_before_its_owner(chip: Chip) -> None:
    seen = []
    chip.settle = lambda: None  # type: ignore[method-assign]  # of the instance: tables look at the class
    before = chip.inner.settled
    Chip.settle = lambda self: seen.append(self.inner.settled)  # type: ignore[method-assign]
    try:
        Chip.state._hooks.clear()
        chip.load(chip.save())
    finally:
        Chip.settle = Stateful.settle  # type: ignore[method-assign]
        Chip.state._hooks.clear()
    assert seen == [before + 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("small", 10),
        ("small", True),
        ("small", "3"),
        ("small", None),
        ("odd", 0),
        ("level", -6),
        ("on", 1),
        ("cells", b"123"),
        ("cells", "1234"),
        ("cells", bytes([0x80] * 4)),
        ("queue", b"1234"),
        ("words", [1]),
        ("words", [1, 0x10000]),
        ("words", (1, 2)),
        ("sending", 256),
        ("rows", [{"a": 1, "b": 5}]),
        ("rows", [{"a": 1, "b": 5}, {"a": 1}]),
        ("rows", [{"a": 1, "b": 5}, {"a": 1, "b": 5, "c": 0}]),
        ("start", 1 << 62),
        ("timer", -(1 << 62)),
        ("timer", 1.5),
        ("timers", [None]),
        ("inner", None),
        ("inner", {}),
        ("parts", {"x": {}}),
        ("of", "another"),
        ("of", 3),
        ("version", 3),
        ("version", True),
        ("new", 1),
    ],
)
def test_an_impossible_value_is_refused_and_changes_nothing(chip: Chip, field: str, value: object) -> None:
    before = chip.save()
    with pytest.raises(StateError):
        chip.load({**before, field: value})
    assert chip.save() == before


def test_the_wrong_value_is_named(chip: Chip) -> None:
    state = chip.save()
    state["parts"]["y"]["value"] = 256
    with pytest.raises(StateError, match=r"chip\.parts\[y\]\.value is 256, outside 0\.\.255"):
        chip.load(state)


def test_a_missing_field_is_named(chip: Chip) -> None:
    state = chip.save()
    del state["level"]
    with pytest.raises(StateError, match=r"chip\.level is missing"):
        chip.load(state)


def test_values_that_do_not_go_together_change_nothing(chip: Chip) -> None:
    before = chip.save()
    chip.refuse = True
    with pytest.raises(StateError, match="go together"):
        chip.load({**before, "small": 4})
    assert chip.small == 3


def test_a_reader_makes_an_old_version_into_this_one(chip: Chip) -> None:
    chip.load({**chip.save(), "version": 1, "small": 4})
    assert chip.small == 8


def test_what_a_reader_makes_is_checked_and_what_it_cannot_read_refused(chip: Chip) -> None:
    for broken in ({"small": 5}, {"small": None}):
        with pytest.raises(StateError):
            chip.load({**chip.save(), "version": 1, **broken})


def test_a_huge_value_makes_a_short_message(chip: Chip) -> None:
    for value in ("x" * 100_000, 1 << 100_000, b"x" * 100_000, [0] * 100_000):
        with pytest.raises(StateError) as told:
            chip.load({**chip.save(), "small": value})
        assert len(str(told.value)) < 300


def test_compiled_bytes_are_whole_and_outlive_nothing() -> None:
    """Cython's own conversion of a u8 array ends at a zero byte; the view keeps its chip alive."""
    import gc

    from accel.api import IrqLine
    from vmrun.devices.timer.mc146818 import Mc146818

    clock = SteppedClock()
    rtc = Mc146818(clock, TimerQueue(clock), IrqLine())
    rtc.set_cmos(0x10, 0)
    rtc.set_cmos(0x7F, 0xAA)
    view = rtc.cells
    assert len(view) == 128 and view[0x7F] == 0xAA
    del rtc
    gc.collect()
    assert view[0x7F] == 0xAA
