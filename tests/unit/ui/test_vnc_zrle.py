"""ZRLE sends each tile in the shortest of its forms, and rectangles end where what changed ends."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Callable, Iterator

import pytest

from tests.unit.ui.rfb import ZRLE
from tests.unit.ui.test_vnc import Setup, shown
from vmrun.core.surface import Surface

SIDE = 64
Colour = Callable[[int, int], int]
random_colours = random.Random(5)
NOISE = [random_colours.randrange(1 << 24) for _ in range(SIDE * SIDE)]
# what a tile shows → the byte that its form begins with
FORMS: dict[str, tuple[Colour, int]] = {
    "one colour": (lambda x, y: 0x123456, 1),
    "text": (lambda x, y: 0xFFFFFF if NOISE[y * SIDE + x] & 1 else 0, 2),
    "sixteen colours": (lambda x, y: NOISE[NOISE[y * SIDE + x] & 15], 16),
    "lines of a colour each": (lambda x, y: 0x808080 + y * 0x10203, 128),
    "two lines among others": (lambda x, y: 0x10203 * y if y in (3, 60) else 0x204060, 128 + 3),
    "many colours again and again": (lambda x, y: 0x10203 * ((y * 4 + x // 16) % 40), 128 + 40),
    "many colours of some pixels": (lambda x, y: NOISE[(y * SIDE + x) // 7], 128),
    "noise": (lambda x, y: NOISE[y * SIDE + x], 0),
}


@pytest.fixture
def setup(tmp_path: pathlib.Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    found.painter.size = (SIDE, SIDE)
    yield found
    found.close()


@pytest.mark.parametrize("what", FORMS)
def test_a_tile_goes_in_its_shortest_form(setup: Setup, what: str) -> None:
    colour, form = FORMS[what]

    def paint(surface: Surface) -> None:
        for y in range(SIDE):
            for x in range(SIDE):
                surface.fill(x, y, 1, 1, colour(x, y))

    setup.painter.paint = paint
    client = setup.client(ZRLE)
    client.update()
    assert client.pixels == shown(setup)
    assert client.kinds == {form}


@pytest.mark.parametrize("size", [(37, 64), (64, 5), (64, 64), (200, 130), (1, 1)])
def test_runs_go_on_from_line_to_line_and_have_any_length(setup: Setup, size: tuple[int, int]) -> None:
    setup.painter.size = size

    def paint(surface: Surface) -> None:
        rng, at, total = random.Random(7), 0, size[0] * size[1]
        while at < total:
            colour, length = rng.randrange(1 << 24), rng.choice((1, 2, 200, 255, 256, 257, 511, 512, 900))
            for n in range(at, min(at + length, total)):
                surface.fill(n % size[0], n // size[0], 1, 1, colour)
            at += length

    setup.painter.paint = paint
    client = setup.client(ZRLE)
    client.update()
    assert client.pixels == shown(setup)


@pytest.mark.parametrize("part", [(3, 3, 1, 1), (0, 15, 64, 2), (20, 7, 10, 40), (17, 16, 30, 16), (63, 63, 1, 1)])
def test_an_update_begins_and_ends_with_lines_that_changed(setup: Setup, part: tuple[int, int, int, int]) -> None:
    client = setup.client(ZRLE)
    client.update()
    setup.painter.paint = lambda surface: surface.fill(*part, 0x998877)
    rectangles = client.update(1)
    assert [(top, height) for _, top, _, height in rectangles] == [(part[1], part[3])]
    assert client.pixels == shown(setup)


def test_parts_that_lie_apart_are_each_sent(setup: Setup) -> None:
    client = setup.client(ZRLE)
    client.update()

    def paint(surface: Surface) -> None:
        surface.fill(2, 5, 3, 3, 0x111111)
        surface.fill(40, 9, 3, 30, 0x222222)

    setup.painter.paint = paint
    assert client.update(1) == [(0, 5, 16, 3), (32, 9, 16, 30)]
    assert client.pixels == shown(setup)
