"""Broken files and exactly what is said about each: broken/NAME.yaml and the messages in
broken/NAME.yaml.txt.

The expected texts were written by hand from what a user needs to know: line, both culprits, remedy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.config.catalogue import Catalogue
from vmrun.config.resolve import check_file

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(path.name for path in BROKEN.iterdir() if path.suffix != ".txt")


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 25


@pytest.mark.parametrize("name", FILES)
def test_broken_file_gives_exactly_these_messages(
    name: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BROKEN)
    machine, problems = check_file(name, catalogue=catalogue)
    said = "".join(f"{problem.text()}\n" for problem in problems)
    assert said == (BROKEN / f"{name}.txt").read_text(encoding="utf-8")
    assert machine is None
