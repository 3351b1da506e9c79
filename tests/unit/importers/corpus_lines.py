"""The command lines of corpus/*.txt."""

from __future__ import annotations

import pathlib
import shlex

HERE = pathlib.Path(__file__).parent / "corpus"


def lines(name: str) -> list[list[str]]:
    """Arguments, without the program's name, of each line that is no comment."""
    text = (HERE / f"{name}.txt").read_text()
    return [shlex.split(line)[1:] for line in text.splitlines() if line and not line.startswith("#")]


OLD, NEW = lines("old"), lines("new")
EVERY = OLD + NEW
