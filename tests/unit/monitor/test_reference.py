"""docs/qmp.md has the commands that there are."""

from __future__ import annotations

import pathlib

from vmrun.monitor.reference import MARK, text

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "qmp.md"


def test_the_reference_is_what_the_table_says() -> None:
    """`python -m vmrun.monitor.reference` makes what stands below the mark."""
    assert PAGE.read_text().partition(MARK)[2] == text()
