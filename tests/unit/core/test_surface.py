"""Surfaces: what a viewer has not seen yet, exactly once, whatever the other viewers do."""

from __future__ import annotations

import random

import pytest

from vmrun.core.surface import MOST_PIXELS, TILE, Surface

Rect = tuple[int, int, int, int]


def area(rectangles: list[Rect]) -> set[tuple[int, int]]:
    """Every pixel, once: overlapping rectangles fail."""
    found: set[tuple[int, int]] = set()
    for x, y, width, height in rectangles:
        for line in range(y, y + height):
            for column in range(x, x + width):
                assert (column, line) not in found
                found.add((column, line))
    return found


@pytest.fixture
def surface() -> Surface:
    surface = Surface(100, 70)
    surface.publish()
    return surface


def test_everything_is_new_to_a_new_view(surface: Surface) -> None:
    assert surface.attach().take() == [(0, 0, 100, 70)]


def test_what_is_taken_is_seen(surface: Surface) -> None:
    view = surface.attach()
    view.take()
    assert view.take() == [] and not view.pending


def test_a_change_reaches_each_view_once_at_its_own_pace(surface: Surface) -> None:
    fast, slow = surface.attach(), surface.attach()
    fast.take(), slow.take()
    surface.fill(20, 20, 4, 4, 0x123456)
    surface.publish()
    assert fast.take() == [(16, 20, 16, 4)]
    surface.fill(0, 0, 1, 1, 0x123456)
    surface.publish()
    assert fast.take() == [(0, 0, 16, 1)]
    assert area(slow.take()) == area([(0, 0, 16, 1), (16, 20, 16, 4)])


def test_rectangles_cover_all_changed_tiles_without_overlap() -> None:
    rng = random.Random(1)
    for _ in range(50):
        surface = Surface(rng.randint(1, 90), rng.randint(1, 90))
        surface.publish()
        view = surface.attach()
        view.take()
        points = [(rng.randrange(surface.width), rng.randrange(surface.height)) for _ in range(rng.randint(1, 12))]
        for x, y in points:
            surface.fill(x, y, 1, 1, 1)
        surface.publish()
        found = area(view.take())
        tiles = {(x // TILE, y // TILE) for x, y in points}
        assert {(x // TILE, y // TILE) for x, y in found} == tiles
        assert set(points) <= found


def test_fills_and_marks_outside_are_cut_off(surface: Surface) -> None:
    view = surface.attach()
    view.take()
    surface.fill(90, 60, 1 << 31, 1 << 31, 7)
    surface.fill(1000, 1000, 5, 5, 7)
    surface.publish()
    assert surface.pixel(99, 69) == 7
    assert area(view.take()) == area([(80, 60, 20, 10)])


def test_another_size_makes_all_new_and_tells_the_view(surface: Surface) -> None:
    view = surface.attach()
    view.take()
    view.resized = False
    surface.resize(33, 17)
    assert view.resized
    assert view.take() == [(0, 0, 33, 17)]
    assert surface.pixel(32, 16) == 0


def test_the_same_size_changes_nothing(surface: Surface) -> None:
    surface.fill(1, 1, 1, 1, 5)
    surface.resize(100, 70)
    assert surface.pixel(1, 1) == 5


@pytest.mark.parametrize("size", [(0, 10), (10, 0), (MOST_PIXELS, 2)])
def test_impossible_sizes_are_refused_and_leave_the_picture(surface: Surface, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="no surface"):
        surface.resize(*size)
    assert (surface.width, surface.height) == (100, 70)


def test_a_part_can_be_asked_for_again(surface: Surface) -> None:
    view = surface.attach()
    view.take()
    view.add(0, 0, 17, 1)
    view.add(500, 0, 1, 1)
    assert view.take() == [(0, 0, 32, 1)]


def test_a_detached_view_hears_nothing(surface: Surface) -> None:
    view = surface.attach()
    surface.detach(view)
    view.take()
    surface.fill(0, 0, 1, 1, 1)
    surface.publish()
    assert view.take() == [] and not surface.watched


def test_pixels_come_as_rgb_and_as_rectangles(surface: Surface) -> None:
    surface.fill(1, 0, 1, 1, 0x010203)
    assert surface.rgb()[:6] == bytes((0, 0, 0, 1, 2, 3))
    assert surface.rectangle(1, 0, 2, 1) == bytes((3, 2, 1, 0, 0, 0, 0, 0))
    assert memoryview(surface).nbytes == 100 * 70 * 4
    with pytest.raises(IndexError):
        surface.rectangle(99, 0, 2, 1)
