"""docs/import.md lists the options as the table has them."""

from __future__ import annotations

import pathlib

from vmrun.config.importers.line import options_table

PAGE = pathlib.Path(__file__).parents[3] / "docs" / "import.md"


def test_the_page_has_the_table() -> None:
    assert options_table() in PAGE.read_text()
