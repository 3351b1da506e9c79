"""JSON with the place of every value. The standard reader tells none, so the structure is walked here."""

from __future__ import annotations

from json.decoder import JSONDecodeError
from json.decoder import scanstring as _scanstring  # type: ignore[attr-defined]

from vmrun.config.node import Node
from vmrun.config.reading import Budget, duplicate, fraction, nul
from vmrun.errors import ConfigError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\r\n"
_WORDS = {"true": True, "false": False, "null": None}


def load_json(text: str, file: str, problems: list[Problem]) -> Node:
    """The value in text, as Nodes. Raises ConfigError for syntax; adds duplicate keys to problems."""
    reader = _Reader(text, file, problems)
    node = reader.value(reader.skip(0), 0, 1)
    end = reader.skip(reader.at)
    if end != len(text):
        raise reader.wrong("something follows the end of the file's value", end)
    return node


class _Reader:
    __slots__ = ("at", "budget", "file", "line_no", "line_start", "problems", "text")

    def __init__(self, text: str, file: str, problems: list[Problem]) -> None:
        self.text = text
        self.file = file
        self.problems = problems
        self.budget = Budget(file)
        self.at = 0
        self.line_no = 1  # of line_start, the last line whose beginning is known: places are asked in order
        self.line_start = 0

    def skip(self, at: int) -> int:
        text = self.text
        while at < len(text) and text[at] in _SPACE:
            at += 1
        return at

    def where(self, at: int) -> tuple[int, int]:
        newlines = self.text.count("\n", self.line_start, at)
        if newlines:
            self.line_no += newlines
            self.line_start = self.text.rfind("\n", 0, at) + 1
        return self.line_no, at - self.line_start + 1

    def wrong(self, what: str, at: int) -> ConfigError:
        return ConfigError(f"not JSON: {what}", code="VR0106", place=Place(self.file, *self.where(at)))

    def string(self, at: int) -> str:
        try:
            value: str
            value, self.at = _scanstring(self.text, at + 1, True)
        except JSONDecodeError as error:
            raise self.wrong(error.msg, error.pos) from None
        place = Place(self.file, *self.where(at))
        if "\0" in value:
            raise nul(place)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ConfigError("half of a surrogate pair is not a character", code="VR0104", place=place) from None
        return value

    def value(self, at: int, depth: int, entries: int) -> Node:
        line, col = self.where(at)
        self.budget.spend(line, col, depth, entries)
        first = self.text[at : at + 1]
        node = Node(None, self.file, line, col)
        if first == "{":
            node.value = self.mapping(at, depth)
        elif first == "[":
            node.value = self.sequence(at, depth)
        elif first == '"':
            node.value = self.string(at)
        else:
            node.value = self.word(at)
        return node

    def mapping(self, at: int, depth: int) -> dict[str, Node]:
        result: dict[str, Node] = {}
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "}":
            self.at = at + 1
            return result
        while True:
            if self.text[at : at + 1] != '"':
                raise self.wrong("a key in double quotes is expected here", at)
            line, col = self.where(at)
            key = self.string(at)
            at = self.skip(self.at)
            if self.text[at : at + 1] != ":":
                raise self.wrong("':' is expected here", at)
            node = self.value(self.skip(at + 1), depth + 1, len(result) + 1)
            node.key_line, node.key_col = line, col
            if key in result:
                first = result[key]
                self.problems.append(duplicate(key, self.file, (line, col), (first.key_line, first.key_col)))
            result[key] = node
            at = self.skip(self.at)
            sign = self.text[at : at + 1]
            if sign == "}":
                self.at = at + 1
                return result
            if sign != ",":
                raise self.wrong("',' or '}' is expected here", at)
            at = self.skip(at + 1)

    def sequence(self, at: int, depth: int) -> list[Node]:
        result: list[Node] = []
        at = self.skip(at + 1)
        if self.text[at : at + 1] == "]":
            self.at = at + 1
            return result
        while True:
            result.append(self.value(at, depth + 1, len(result) + 1))
            at = self.skip(self.at)
            sign = self.text[at : at + 1]
            if sign == "]":
                self.at = at + 1
                return result
            if sign != ",":
                raise self.wrong("',' or ']' is expected here", at)
            at = self.skip(at + 1)

    def word(self, at: int) -> Any:
        end = at
        text = self.text
        while end < len(text) and (text[end].isalnum() or text[end] in "+-._"):
            end += 1
        self.at = end
        word = text[at:end]
        if word in _WORDS:
            return _WORDS[word]
        digits = word.removeprefix("-")
        if digits.isdecimal() and digits.isascii() and (digits == "0" or digits[0] != "0"):
            if len(digits) > 20:
                raise self.wrong("a number of so many digits is not used in machine files", at)
            return int(word)
        if digits[:1].isdigit() and ("." in word or "e" in word.lower()):
            raise fraction(word, Place(self.file, *self.where(at)))
        raise self.wrong(f"{word or text[at : at + 1] or 'the end of the file'!r} is no value", at)
