"""Shell functions and aliases that a script has around QEMU: where they are, and where it calls them."""

from __future__ import annotations

import re
from contextlib import contextmanager

from vmrun.config.importers.words import Values, Word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_DEFINED = re.compile(
    r"^([ \t]*)(?:function[ \t]+([\w.-]+)[ \t]*(?:\([ \t]*\))?|([\w.-]+)[ \t]*\([ \t]*\))[ \t]*\n?[ \t]*\{", re.M
)
_BEFORE = r"(?:^|[;&|({!`]|\b(?:then|do|else|if|while|until|sudo|exec|time)[ \t])[ \t]*"
_BEHIND = r"(?=[ \t]*(?:[;\n&|)]|$)|[ \t]+[^\s(=])"
_ALIAS = re.compile(r"^[ \t]*alias[ \t]+([\w.-]+)=(?=['\"]?[^\n]*\b(?:qemu|kvm))", re.M)
SHIFT = re.compile(r"(?<![\w$-])shift\b(?:[ \t]+(\d))?")
MOST = 50  # functions of a text
DEEPEST = 8  # calls within calls


class Function:
    """Body from `start` to `end`; `calls`: its name where it is called."""

    def __init__(self, name: str, start: int, end: int) -> None:
        self.name, self.start, self.end = name, start, end
        self.calls: list[re.Match[str]] = []


def wrappers(text: str, program: re.Pattern[str]) -> list[Function]:
    """The functions that start a program, by its name or a variable that has it, or call one that does; with calls."""
    named = re.findall(rf"(?m)^[ \t]*(?:export[ \t]+)?([A-Za-z_]\w*)=[^\n]*?(?:{program.pattern})", text, program.flags)
    holders = {each[0] for each in named}
    held = re.compile(rf"\$\{{?(?:{'|'.join(map(re.escape, holders))})\b") if holders else program
    found: list[Function] = []
    for match in _DEFINED.finditer(text):
        line = text.find("\n", match.end())
        line = len(text) if line < 0 else line
        end = text.rfind("}", match.end(), line)
        if end < 0:
            close = re.compile(rf"^{match[1]}\}}", re.M).search(text, match.end())
            end = close.start() if close is not None else -1
        if end >= 0 and len(found) < MOST:
            found.append(Function(match[2] or match[3], match.end(), end))
    for function in found:
        pattern = re.compile(f"{_BEFORE}({re.escape(function.name)}){_BEHIND}", re.M)
        function.calls = [call for call in pattern.finditer(text) if not function.start <= call.start(1) < function.end]
    chosen = [each for each in found if any(which.search(text, each.start, each.end) for which in (program, held))]
    for function in chosen:  # which grows: who calls one of them is one
        for other in found:
            if other not in chosen and any(other.start <= call.start(1) < other.end for call in function.calls):
                chosen.append(other)
    return [function for function in chosen if function.calls]


@contextmanager
def given(values: Values, words: list[Word]) -> Iterator[None]:
    """Within: the values that a function sees which is called with these words."""
    names = ["@", "*", *map(str, range(1, 10))]
    before = {name: values.pop(name) for name in names if name in values}
    take(values, words)
    yield
    for name in names:
        values.pop(name, None)
    values.update(before)


def take(values: Values, words: list[Word]) -> None:
    """These are the arguments now."""
    values["@"] = values["*"] = words
    for place in range(1, 10):
        values.pop(str(place), None)
        if place <= len(words):
            values[str(place)] = [words[place - 1]]


def with_aliases(text: str) -> str:
    """Calls of aliases as those of variables, which is what they come to."""
    for name in dict.fromkeys(match[1] for match in _ALIAS.finditer(text)):
        text = re.sub(rf"(?m)^([ \t]*(?:sudo[ \t]+)?){re.escape(name)}(?=[ \t]+-)", rf"\1${name}", text)
    return text
