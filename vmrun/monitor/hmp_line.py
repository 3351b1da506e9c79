"""A row of the line monitor's table, and what its handlers share."""

from __future__ import annotations

from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vmrun.monitor.work import Work

    Handler = Callable[[Any, Given, int], str | Work]


class Line:
    """One row: all names of the command or view, what follows them (for people, and as `hmp_args` reads it), and what
    it does in a few words.
    """

    def __init__(self, names: str, params: str, help: str, handler: Handler, takes: str = "") -> None:
        self.names, self.params, self.help, self.handler, self.takes = names.split("|"), params, help, handler, takes

    @property
    def title(self) -> str:
        return "|".join(self.names)


def by_name(*lines: Line) -> dict[str, Line]:
    return {name: line for line in lines for name in line.names}


class Asker:
    """What a QMP handler takes for its session."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine
        self.negotiated = True
        self.fds: dict[str, int] = {}

    def received(self) -> int:
        return -1


def ask(machine: Any, name: str, /, **given: Any) -> Any:
    """The answer of a QMP command. QmpError."""
    from vmrun.monitor import table

    command = table.load()[name]
    named = {key if "_" in name else key.replace("_", "-"): value for key, value in given.items()}  # old commands: _
    return command.handler(Asker(machine), **command.arguments(named))


def one_of(word: str, names: Iterable[str]) -> str:
    """A word that is one of some names. QmpError in the words that the line monitor has for it."""
    if word not in names:
        raise QmpError(f"invalid parameter value: {word}")
    return word


def words_of(text: str) -> list[str]:
    """Separated by blanks; double quotes keep blanks together."""
    words: list[str] = []
    word, quoted, started = "", False, False
    for char in text.strip():
        if char == '"':
            quoted, started = not quoted, True
        elif char.isspace() and not quoted:
            if word or started:
                words.append(word)
            word, started = "", False
        else:
            word += char
    return [*words, word] if word or started else words
