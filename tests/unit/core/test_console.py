"""Consoles: a screen that is looked at costs a dirty log, one that is not costs nothing."""

from __future__ import annotations

import pytest
from accel.ram import RamBlock

from vmrun.core.console import Console, Cursor
from vmrun.core.surface import Scanout, Surface


class Memory:
    """An accelerator that notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def log_dirty(self, block: RamBlock, on: bool) -> None:
        self.calls.append(("log", on))

    def sync_dirty(self, block: RamBlock) -> None:
        self.calls.append("sync")

    def drain(self) -> int:
        self.calls.append("drain")
        return 0


class Painter(Scanout):
    def __init__(self) -> None:
        self.block = RamBlock("v", 4096)
        self.full: list[bool] = []
        self.colour = 1

    @property
    def memory(self) -> RamBlock:
        return self.block

    def update(self, surface: Surface, full: bool, log: object = None) -> None:
        self.full.append(full)
        surface.fill(0, 0, 1, 1, self.colour)


@pytest.fixture
def console() -> Console:
    return Console(None, Painter(), Memory())


def test_a_single_look_draws_everything_and_starts_no_log(console: Console) -> None:
    console.refresh()
    console.refresh()
    assert console.scanout.full == [True, True]  # type: ignore[attr-defined]
    assert console.memory.calls == ["drain", "drain"]  # type: ignore[attr-defined]


def test_the_first_viewer_starts_the_log_and_the_last_one_ends_it(console: Console) -> None:
    one, other = console.attach(), console.attach()
    console.detach(one)
    console.detach(other)
    assert console.memory.calls == [("log", True), ("log", False)]  # type: ignore[attr-defined]


def test_while_somebody_looks_only_changes_are_drawn(console: Console) -> None:
    console.attach()
    console.refresh()
    console.refresh()
    assert console.scanout.full == [True, False]  # type: ignore[attr-defined]
    assert console.memory.calls[-2:] == ["drain", "sync"]  # type: ignore[attr-defined]


def test_a_viewer_after_a_pause_gets_all_of_the_picture(console: Console) -> None:
    view = console.attach()
    console.refresh()
    console.detach(view)
    console.attach()
    console.refresh()
    assert console.scanout.full == [True, True]  # type: ignore[attr-defined]


def test_refresh_tells_whether_anything_changed(console: Console) -> None:
    view = console.attach()
    assert console.refresh()
    assert view.take() == [(0, 0, 640, 480)]


def test_a_cursor_has_the_pixels_it_says() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Cursor(2, 2, 0, 0, bytes(3))


def test_viewers_can_tell_that_the_cursor_changed(console: Console) -> None:
    before = console.cursor_changes
    console.define_cursor(Cursor(1, 1, 0, 0, bytes(4)))
    console.move_cursor((3, 4))
    assert console.cursor_changes == before + 2 and console.cursor_at == (3, 4)
