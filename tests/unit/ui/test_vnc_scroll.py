"""Rows that only moved are copied by a client that can: the picture is the same, in fewer bytes."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.ui.rfb import COPY_RECT, HEXTILE, RAW, TIGHT, ZRLE
from tests.unit.ui.test_vnc import Setup, shown
from vmrun.core.surface import Surface
from vmrun.ui.vnc.scroll import Rows

WIDTH, HEIGHT = 96, 120
WHOLE = [(0, 0, WIDTH, HEIGHT)]


@pytest.fixture
def setup(tmp_path: pathlib.Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    found.painter.size = (WIDTH, HEIGHT)
    yield found
    found.close()


def rows_of(colours: list[int]) -> Any:
    def paint(surface: Surface) -> None:
        for y, colour in enumerate(colours):
            surface.fill(0, y, WIDTH, 1, colour)

    return paint


def some_rows(rng: random.Random, count: int) -> list[int]:
    """As text has them: a third is background."""
    return [rng.choice([0, rng.randrange(1 << 24), rng.randrange(1 << 24)]) for _ in range(count)]


@pytest.mark.parametrize("move", [16, 1, -16, -3])
def test_a_screen_that_scrolls_is_copied(setup: Setup, move: int) -> None:
    rng = random.Random(1)
    colours = some_rows(rng, HEIGHT)
    setup.painter.paint = rows_of(colours)
    client = setup.client(COPY_RECT, ZRLE)
    client.update()
    new = some_rows(rng, abs(move))
    colours = [*colours[move:], *new] if move > 0 else [*new, *colours[:move]]
    setup.painter.paint = rows_of(colours)
    sent = client.update(1)
    assert client.pixels == shown(setup)
    assert sum(height for _, _, height in client.copied) > 100
    assert sum(height for _, y, _, height in sent if (y, height) not in [c[1:] for c in client.copied]) < 40


@pytest.mark.parametrize("encoding", [RAW, HEXTILE, TIGHT, ZRLE])
def test_any_mixture_of_moves_and_changes_is_shown_right(setup: Setup, encoding: int) -> None:
    rng = random.Random(encoding)
    colours = some_rows(rng, HEIGHT)
    setup.painter.paint = rows_of(colours)
    client = setup.client(COPY_RECT, encoding)
    client.update()
    for _ in range(50):
        first, behind = sorted(rng.sample(range(HEIGHT + 1), 2))
        move = rng.choice([1, 8, 16, -1, -16, 30])
        part = colours[first:behind]
        if abs(move) < len(part):
            new = some_rows(rng, abs(move))
            part = [*part[move:], *new] if move > 0 else [*new, *part[:move]]
        colours[first:behind] = part
        colours[rng.randrange(HEIGHT)] = rng.randrange(1 << 24)
        paint, x, y = rows_of(list(colours)), rng.randrange(WIDTH), rng.randrange(HEIGHT)

        def both(surface: Surface, paint: Any = paint, x: int = x, y: int = y) -> None:
            paint(surface)
            surface.fill(x, y, 9, 9, 0x123456)

        setup.painter.paint = both
        client.update(rng.random() < 0.9)
        assert client.pixels == shown(setup)
    assert client.copied


def test_a_client_that_does_not_copy_is_sent_pixels(setup: Setup) -> None:
    colours = some_rows(random.Random(2), HEIGHT)
    setup.painter.paint = rows_of(colours)
    client = setup.client(ZRLE)
    client.update()
    setup.painter.paint = rows_of([*colours[16:], *colours[:16]])
    client.update(1)
    assert client.pixels == shown(setup) and not client.copied


def test_a_client_that_asks_for_everything_may_have_lost_it() -> None:
    surface, rows, rng = Surface(WIDTH, HEIGHT), Rows(), random.Random(3)
    colours = some_rows(rng, HEIGHT)
    rows_of(colours)(surface)
    assert rows.moves(surface, WHOLE) == []
    rows.note(surface, WHOLE)
    rows_of([*colours[16:], *colours[:16]])(surface)
    assert rows.moves(surface, WHOLE) == [(0, 16, HEIGHT - 16)]
    rows.forget()
    assert rows.moves(surface, WHOLE) == []


def test_looks_in_vain_are_left_out_and_what_scrolls_then_is_soon_copied_again(setup: Setup) -> None:
    rng = random.Random(9)
    client = setup.client(COPY_RECT, ZRLE)
    colours: list[int] = []
    for _ in range(20):
        colours = some_rows(rng, HEIGHT)
        setup.painter.paint = rows_of(colours)
        client.update(1)
        assert client.pixels == shown(setup) and not client.copied
    for n in range(12):  # some rows of it stay as they were while nobody looks
        colours[n * 5 : n * 5 + 40] = some_rows(rng, len(colours[n * 5 : n * 5 + 40]))
        setup.painter.paint = rows_of(list(colours))
        client.update(1)
        assert client.pixels == shown(setup)
    copied = []
    for _ in range(12):
        colours = [*colours[16:], *some_rows(rng, 16)]
        setup.painter.paint = rows_of(list(colours))
        client.update(1)
        copied.append(len(client.copied))
        assert client.pixels == shown(setup)
    assert copied[-1] - copied[-4] == 3  # each of the last


def test_few_rows_and_rows_of_one_colour_are_not_looked_for() -> None:
    surface, rows = Surface(WIDTH, HEIGHT), Rows()
    rows.note(surface, WHOLE)
    surface.fill(0, 0, WIDTH, HEIGHT, 0x445566)
    assert rows.moves(surface, WHOLE) == []
    rows.note(surface, WHOLE)
    rows_of(some_rows(random.Random(4), 10))(surface)
    assert rows.moves(surface, [(0, 0, WIDTH, 10)]) == []


@pytest.mark.parametrize("apart", [1, 2, 4, 8, 40])
def test_rows_of_the_same_pixels_in_another_order_are_other_rows(apart: int) -> None:
    surface, rows = Surface(WIDTH, HEIGHT), Rows()

    def draw(first: int, second: int, moved: int) -> None:
        for y in range(HEIGHT):
            surface.fill(0, y, WIDTH, 1, y + moved)
            surface.fill(first, y, 1, 1, 0x808080 + y + moved)
            surface.fill(second, y, 1, 1, 0x123456 - y - moved)

    draw(8, 8 + apart, 0)
    rows.note(surface, WHOLE)
    draw(8 + apart, 8, 10)
    assert rows.moves(surface, WHOLE) == []
