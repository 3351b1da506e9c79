"""TOML with the place of every value: tomllib reads it, a small scan of the (by then valid) source finds
the places.
"""

from __future__ import annotations

from vmrun.config.node import Node
from vmrun.config.reading import Budget, fraction, nul
from vmrun.errors import ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_Path = tuple["str | int", ...]


def load_toml(text: str, file: str, problems: list[Problem]) -> Node:
    """The document in text, as Nodes. Raises ConfigError for syntax (TOML itself refuses duplicate keys)."""
    import tomllib

    del problems  # the reader stops at the first fault
    _bound_nesting(text, file)
    text = text.replace("\r\n", "\n")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, place = _position(str(error), text, file)
        raise ConfigError(f"not TOML: {what}", code="VR0106", place=place) from None
    except ValueError as error:  # a number of thousands of digits, a year 0
        raise ConfigError(f"not TOML: {error}", code="VR0106", place=Place(file)) from None
    places = _Scan(text).places
    return _node(value, (), places, Budget(file), 0, 1, (1, 1, 1, 1))


def _node(
    value: Any,
    path: _Path,
    places: dict[_Path, tuple[int, int, int, int]],
    budget: Budget,
    depth: int,
    entries: int,
    parent: tuple[int, int, int, int],
) -> Node:
    at = places.get(path, parent)
    line, col, key_line, key_col = at
    budget.spend(line, col, depth, entries)
    node = Node(value, budget.file, line, col, key_line, key_col)
    if type(value) is dict:
        node.value = {
            key: _node(child, (*path, key), places, budget, depth + 1, len(value), at) for key, child in value.items()
        }
    elif type(value) is list:
        node.value = [
            _node(child, (*path, index), places, budget, depth + 1, len(value), at) for index, child in enumerate(value)
        ]
    elif type(value) is str:
        if "\0" in value:
            raise nul(node.place)
    elif type(value) is float:
        raise fraction(str(value), node.place)
    elif type(value) not in (int, bool):
        raise ConfigError(
            f"{value}: dates and times are not used in machine files",
            code="VR0106",
            place=node.place,
            remedy=f'write "{value}" in quotes',
        )
    return node


def _bound_nesting(text: str, file: str) -> None:
    """tomllib recurses; a file of brackets only is refused before it gets there."""
    depth = 0
    for line_no, line in enumerate(text.split("\n"), 1):
        if line.count(".") > 1000 and "=" not in line[:2000] and not line.lstrip().startswith("#"):
            raise ConfigError("a key of more than 1000 parts", code="VR0105", place=Place(file, line_no, 1))
        depth = max(0, depth + line.count("[") + line.count("{") - line.count("]") - line.count("}"))
        if depth > 200:  # brackets inside strings count too, so this is generous; Budget has the real limit
            raise ConfigError("too many levels of nesting", code="VR0105", place=Place(file, line_no, 1))


def _position(message: str, text: str, file: str) -> tuple[str, Place]:
    """tomllib says '... (at line 3, column 7)' or '... (at end of document)'."""
    what, _, where = message.rpartition(" (at ")
    numbers = [int(word) for word in where.replace(",", " ").replace(")", " ").split() if word.isdecimal()]
    if len(numbers) == 2:
        return what, Place(file, numbers[0], numbers[1])
    lines = text.splitlines() or [""]
    return (what or message), Place(file, len(lines), len(lines[-1]) + 1)


class _Scan:
    """Walks valid TOML once and notes where each value and its key begin: path → (line, col, key line, key
    col).
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.line_start = 0
        self.places: dict[_Path, tuple[int, int, int, int]] = {}
        self.counts: dict[_Path, int] = {}
        self._document()

    def _here(self) -> tuple[int, int]:
        return self.line, self.at - self.line_start + 1

    def _step(self, count: int = 1) -> None:
        end = self.at + count
        newlines = self.text.count("\n", self.at, end)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rfind("\n", 0, end) + 1
        self.at = end

    def _blank(self, newlines: bool) -> None:
        text = self.text
        while self.at < len(text):
            char = text[self.at]
            if char in " \t\r" or (newlines and char == "\n"):
                self._step()
            elif char == "#":
                end = text.find("\n", self.at)
                self._step((end if end >= 0 else len(text)) - self.at)
            else:
                return

    def _document(self) -> None:
        table: _Path = ()
        while True:
            self._blank(True)
            if self.at >= len(self.text):
                return
            if self.text[self.at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> _Path:
        here = self._here()
        many = self.text.startswith("[[", self.at)
        self._step(2 if many else 1)
        keys = self._key()
        self._step(2 if many else 1)
        path: _Path = ()
        for key in keys[:-1]:
            path = self._enter((*path, key), here)
        path = (*path, keys[-1])
        self.places.setdefault(path, (*here, *here))
        if many:
            index = self.counts.get(path, 0)
            self.counts[path] = index + 1
            path = (*path, index)
            self.places[path] = (*here, *here)
        return path

    def _enter(self, path: _Path, here: tuple[int, int]) -> _Path:
        self.places.setdefault(path, (*here, *here))
        return (*path, self.counts[path] - 1) if path in self.counts else path

    def _pair(self, table: _Path) -> None:
        key_at = self._here()
        keys = self._key()
        self._step()  # =
        self._blank(False)
        path = table
        for key in keys[:-1]:
            path = self._enter((*path, key), key_at)
        self._value((*path, keys[-1]), key_at)

    def _key(self) -> list[str]:
        keys = []
        while True:
            self._blank(False)
            char = self.text[self.at]
            if char in "\"'":
                keys.append(self._string())
            else:
                start = self.at
                while self.text[self.at].isalnum() or self.text[self.at] in "-_":
                    self.at += 1
                keys.append(self.text[start : self.at])
            self._blank(False)
            if self.text[self.at] != ".":
                return keys
            self._step()

    def _string(self) -> str:
        """Steps over a string; its contents matter for keys only, which are never multi-line."""
        text, quote = self.text, self.text[self.at]
        long = text.startswith(quote * 3, self.at)
        end = self.at + (3 if long else 1)
        mark = quote * 3 if long else quote
        while not text.startswith(mark, end):
            end += 2 if text[end] == "\\" and quote == '"' else 1
        if long:  # up to two quotes may stand directly before the closing three
            while text.startswith(quote, end + 3):
                end += 1
        raw = text[self.at + len(mark) : end]
        self._step(end + len(mark) - self.at)
        if quote == '"' and "\\" in raw and not long:
            import tomllib

            return str(tomllib.loads(f'k = "{raw}"')["k"])
        return raw

    def _value(self, path: _Path, key_at: tuple[int, int] | None) -> None:
        here = self._here()
        self.places[path] = (*here, *(key_at or here))
        char = self.text[self.at]
        if char in "\"'":
            self._string()
        elif char == "[":
            self._step()
            index = 0
            while True:
                self._blank(True)
                if self.text[self.at] == "]":
                    self._step()
                    return
                if self.text[self.at] == ",":
                    self._step()
                    continue
                self._value((*path, index), None)
                index += 1
        elif char == "{":
            self._step()
            while True:
                self._blank(True)
                if self.text[self.at] == "}":
                    self._step()
                    return
                if self.text[self.at] == ",":
                    self._step()
                    continue
                self._pair(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1
