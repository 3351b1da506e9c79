"""Printing: problems in their formats, and tables (rich on a terminal, plain columns elsewhere)."""

from __future__ import annotations

import sys

from vmrun.cli import STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterable, Sequence
    from typing import TextIO

    from vmrun.errors import Problem

MOST_SHOWN = 200  # problems of one file; a file with more has one cause that makes them all
_RED, _YELLOW, _BOLD, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"


def write(text: str, stream: TextIO | None = None) -> None:
    """Write text, whatever the stream's encoding can show of it."""
    stream = stream or sys.stdout
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    except OSError as error:
        if stream is sys.stdout and error.filename is None:
            error.filename = STDOUT
        raise


def print_problems(problems: Sequence[Problem], stream: TextIO | None = None) -> None:
    """Problems as text, to stderr unless told otherwise; in colour on a terminal."""
    stream = stream or sys.stderr
    colour = stream.isatty()
    for problem in problems[:MOST_SHOWN]:
        text = problem.text()
        if colour:
            tint = _RED if problem.severity == "error" else _YELLOW
            mark = f"{problem.severity} {problem.code}:"
            text = text.replace(mark, f"{tint}{mark}{_PLAIN}", 1)
        write(text + "\n", stream)
    if len(problems) > MOST_SHOWN:
        write(f"… and {len(problems) - MOST_SHOWN} more\n", stream)


def print_github(problems: Sequence[Problem]) -> None:
    """Problems as workflow commands, which GitHub shows beside the lines they are about."""
    for problem in problems:
        parts = []
        if problem.place is not None:
            parts.append(f"file={_parameter(problem.place.file)}")
            if problem.place.line:
                parts += [f"line={problem.place.line}", f"col={problem.place.col}"]
        parts.append(f"title={problem.code}")
        first, *rest = problem.text().split("\n")
        message = "\n".join([first.partition(f"{problem.code}: ")[2] or first, *rest])
        write(f"::{problem.severity} {','.join(parts)}::{_data(message)}\n")


def add_format(parser: ArgumentParser, *notations: str) -> None:
    """`--format`, and `--json`, its short form, as every command that prints data has them. The first is the default.
    """
    parser.add_argument("--format", choices=notations, default=notations[0], help=f"{notations[0]} by default")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="short for --format json")


def print_json(value: object) -> None:
    import json

    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout. On a terminal rich draws it; elsewhere columns are padded with spaces, without
    heads.
    """
    rows = [tuple(row) for row in rows]
    if sys.stdout.isatty():
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(*heads, box=SIMPLE_HEAD, pad_edge=False)
        for row in rows:
            drawn.add_row(*(Text(cell) for cell in row))
        Console().print(drawn)
        return
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(len(heads))]
    for row in rows:
        write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _parameter(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
