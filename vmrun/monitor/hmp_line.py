"""A row of the line monitor's table, and what its handlers share."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.monitor.work import Work

    Handler = Callable[[Any, list[str], int], str | Work]


class Line:
    """One row: all names of the command, what follows them, and what it does in a few words."""

    def __init__(self, names: str, params: str, help: str, handler: Handler, least: int = 0) -> None:
        self.names, self.params, self.help, self.handler, self.least = names.split("|"), params, help, handler, least


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
