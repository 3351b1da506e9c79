"""docs/adding-a-device.md: the device on the page is one, and its test passes."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
from accel.clock import TimerQueue
from accel.run import MsiSink

from tests.unit.pci.card import Board
from vmrun.core import registry
from vmrun.errors import StateError

PAGE = pathlib.Path(__file__).resolve().parents[3] / "docs" / "adding-a-device.md"


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    names: dict[str, Any] = {}
    try:
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S):
            exec(compile(block, str(PAGE), "exec"), names)
        yield names
    finally:
        registry.drivers.pop("tally", None)


@pytest.fixture
def board() -> Board:
    board = Board(MsiSink())
    board.timers = TimerQueue(board.virtual)  # type: ignore[attr-defined]
    return board


def test_the_pages_test_passes(page: dict[str, Any], board: Board) -> None:
    page["test_a_request_counts_and_interrupts"](board)


def test_a_state_that_does_not_go_together_is_refused(page: dict[str, Any], board: Board) -> None:
    card: Any = board.plug(cls=page["Tally"])
    with pytest.raises(StateError):
        card.load({**card.save(), "status": 1})
    assert card.status == 0
