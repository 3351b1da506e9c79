"""The table of differences is what the tests use, and the page is the table."""

from __future__ import annotations

import pathlib

import pytest

from tests.devices.differences import DIFFERENCES, page

HERE = pathlib.Path(__file__).parent


def test_the_page_is_fresh():
    """`python -m tests.devices.differences > docs/devices/differences.md` makes it."""
    assert (HERE.parents[1] / "docs/devices/differences.md").read_text() == page()


@pytest.mark.parametrize("key", DIFFERENCES)
def test_a_test_finds_the_difference(key):
    sources = "".join(path.read_text() for path in HERE.glob("test_*.py"))
    assert f'DIFFERENCES["{key}"]' in sources
    assert DIFFERENCES[key].vmrun != DIFFERENCES[key].qemu
