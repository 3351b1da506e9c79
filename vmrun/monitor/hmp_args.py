"""What may follow a command's name, declared, and the one reader of it: what is wrong is said in QEMU's words.

A declaration is a list of kinds, in order: `-x` a flag, `-x=` a flag with a word; `str`, `block`, `file` a word; `rest`
the line's end; `int` an expression of 32 bits, `long` of 64, `mega` of MiB, `index` one behind a dot; `size` bytes,
with MiB where no unit is said; `bool` on or off; `fmt` a format (`/4xw`); `options` key=value. `?` behind a kind: it
may be missing.
"""

from __future__ import annotations

import re

from vmrun.monitor import expression
from vmrun.monitor.errors import QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.monitor.expression import Register

LONGEST = 20  # digits of a number of 64 bits
WORDS = {"str": "string", "block": "block device name", "file": "filename"}
ESCAPES = {"n": "\n", "r": "\r", "\\": "\\", "'": "'", '"': '"'}
UNITS = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50, "e": 60}
SIZE = re.compile(r"\+?(0x[0-9a-f]+|\d+(?:\.\d*)?)([bkmgtpe]?)", re.IGNORECASE)
BOOL = re.compile(r"(?:on|off)(?!\S)")
FORMAT = re.compile(r"/(\d*[oxduicbhwgL]*)")


class ArgumentError(QmpError):
    """What follows a command's name is not what it takes."""


class Given(list[str]):
    """What was said: the words in their order, numbers and sizes in decimal; and the flags, with their words."""

    def __init__(self, words: list[str], flags: dict[str, str] | None = None) -> None:
        super().__init__(words)
        self.flags = flags or {}


def read(text: str, kinds: str, name: str, register: Register) -> Given:
    """ArgumentError, ExpressionError. `name` is the command's, all of its names; `register` what `$rip` is worth."""
    reader = _Reader(text, name, register)
    declared = kinds.split()
    for n, kind in enumerate(declared):
        if kind[0] == "-":
            later = [other[1] for other in declared[n + 1 :] if other[0] == "-"]
            reader.flag(kind, later)
        elif not reader.more() and kind.endswith("?"):
            break
        else:
            reader.argument(kind.rstrip("?"))
    if reader.more():
        raise ArgumentError(f"{name}: extraneous characters at the end of line")
    return Given(reader.words, reader.flags)


class _Reader:
    def __init__(self, text: str, name: str, register: Register) -> None:
        self.text, self.at, self.name, self.register = text, 0, name, register
        self.words: list[str] = []
        self.flags: dict[str, str] = {}

    def more(self) -> bool:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at < len(self.text)

    def flag(self, kind: str, later: list[str]) -> None:
        """One that comes after its turn is none; one that nobody takes any more is an error."""
        if not self.more() or self.text[self.at] != "-":
            return
        letter = self.text[self.at + 1 : self.at + 2]
        if letter != kind[1]:
            if letter not in later:
                raise ArgumentError(f"{self.name}: unsupported option -{letter}")
            return
        self.at += 2
        if kind.endswith("="):
            word = self._word() if self.more() else None
            if word is None:
                raise ArgumentError(f"{self.name}: value expected for -{letter}")
            self.flags[letter] = word
        else:
            self.flags[letter] = ""

    def argument(self, kind: str) -> None:
        self.more()
        if kind in WORDS or kind == "options":
            word = self._word()
            if word is None and kind != "options":
                raise ArgumentError(f"{self.name}: {WORDS[kind]} expected")
            if word is None and self.more():
                raise ArgumentError("")  # QEMU says nothing of a quotation that does not end
            self.words.append(word or "")
        elif kind == "rest":
            if not self.more():
                raise ArgumentError(f"{self.name}: string expected")
            self.words.append(self.text[self.at :].rstrip())
            self.at = len(self.text)
        elif kind == "bool":
            match = BOOL.match(self.text, self.at)
            if match is None:
                raise ArgumentError("Expected 'on' or 'off'")
            self._take(match)
        elif kind == "size":
            self.words.append(str(self._size()))
        elif kind == "fmt":
            self._format()
        else:
            self._number(kind)

    def _take(self, match: re.Match[str]) -> None:
        self.words.append(match[0])
        self.at = match.end()

    def _word(self) -> str | None:
        """Up to a blank, or between double quotes; None: there is none, or its quotation does not end."""
        if not self.more():
            return None
        if self.text[self.at] != '"':
            start = self.at
            while self.at < len(self.text) and not self.text[self.at].isspace():
                self.at += 1
            return self.text[start : self.at]
        word, at = "", self.at + 1
        while at < len(self.text) and self.text[at] != '"':
            if self.text[at] == "\\":
                at += 1
                letter = ESCAPES.get(self.text[at : at + 1])
                if letter is None:
                    return None
                word += letter
            else:
                word += self.text[at]
            at += 1
        if at >= len(self.text):
            return None
        self.at = at + 1
        return word

    def _size(self) -> int:
        match = SIZE.match(self.text, self.at)
        if match is None:
            raise ArgumentError("invalid size")
        digits, unit = match[1].lower(), match[2].lower() or "m"
        whole, _, part = digits.partition(".")
        scale, part = 1 << UNITS[unit], part[:LONGEST]
        if len(whole) > LONGEST:
            raise ArgumentError("invalid size")
        found: int = int(whole, 16 if whole.startswith("0x") else 10) * scale
        found += int(part or "0") * scale // 10 ** len(part)
        if found >> 63:
            raise ArgumentError("invalid size")
        self.at = match.end()
        return found

    def _format(self) -> None:
        match = FORMAT.match(self.text, self.at)
        if match is None:
            self.words.append("/")
            return
        self._take(match)
        rest = self.text[self.at : self.at + 1]
        if rest and not rest.isspace():
            raise ArgumentError(f"invalid char in format: '{rest}'")

    def _number(self, kind: str) -> None:
        if kind == "index":
            if self.text[self.at : self.at + 1] != ".":
                return
            self.at += 1
        found, self.at = expression.first(self.text, self.at, self.register)
        if kind in ("int", "index") and found >> 32:
            raise ArgumentError(f"'{self.name}' has failed: integer is for 32-bit values")
        if kind == "mega":
            if expression.signed(found) < 0:
                raise ArgumentError("enter a positive value")
            found = found << 20 & expression.MASK >> 1
        self.words.append(str(found))
