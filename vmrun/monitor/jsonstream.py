"""JSON values out of a stream of bytes, whatever else is in it.

A value may come in any number of pieces, several may come in one. What is no JSON gives one error and is skipped up to
something that looks like a new beginning: the end of a line, a brace or bracket, or one of the bytes FEh and FFh that
no UTF-8 text has. A value may have MAX_SIZE bytes and MAX_DEPTH levels; the rest of a larger one is read and forgotten.

Ref: RFC 8259. As QEMU does, strings may also stand in single quotes, and a key that comes twice is an error.
"""

from __future__ import annotations

import json
import re
from math import inf

MAX_SIZE = 1 << 20
MAX_DEPTH = 256

_OUTSIDE = re.compile(rb"""["'{}\[\]\x00-\x08\x0b\x0c\x0e-\x1f\xfe\xff]""")
_DOUBLE = re.compile(rb'["\\\x00-\x1f\xfe\xff]')
_SINGLE = re.compile(rb"['\\\x00-\x1f\xfe\xff]")
_START = re.compile(rb"[{}\[\]\n\xfe\xff]")
_SPACE = b" \t\r\n"


class JsonError(Exception):
    """What was wrong, in QEMU's words."""


class JsonStream:
    """`feed(bytes)` returns the values and errors (JsonError objects) that these bytes complete, in order."""

    def __init__(self) -> None:
        self._forget()
        self._skipping = False

    def _forget(self) -> None:
        self._data = bytearray()
        self._at = 0  # how far _data has been looked at
        self._closers: list[int] = []
        self._quote = 0
        self._token = 0  # where the string begins that _quote is of

    def feed(self, data: bytes) -> list[object]:
        if not self._data and not self._skipping and data[:1] == b"{" and len(data) < MAX_SIZE:
            try:
                return [_loads(data)]
            except (ValueError, RecursionError, JsonError):
                pass  # a part, several at once, or wrong: the long way tells
        self._data += data
        found: list[object] = []
        while self._data:
            before = len(self._data), self._skipping
            if self._skipping:
                self._skip()
            if not self._skipping and not self._closers and self._at == 0:
                self._begin(found)
            if self._closers or self._quote:
                self._go_on(found)
                if len(self._data) > MAX_SIZE and (self._closers or self._quote):
                    self._fail(found, "JSON token size limit exceeded")
                    self._data.clear()
            if (len(self._data), self._skipping) == before:
                break
        return found

    # --- between values -------------------------------------------------------------------------------------

    def _skip(self) -> None:
        """Over the rest of something wrong."""
        match = _START.search(self._data)
        if match is None:
            self._data.clear()
            return
        byte = self._data[match.start()]
        opens = byte in b"{["
        del self._data[: match.start() if opens else match.end()]
        self._skipping = byte in b"}]"

    def _begin(self, found: list[object]) -> None:
        """At the start of a value, with nothing of it seen."""
        data = self._data
        count = len(data) - len(data.lstrip(_SPACE))
        if count:
            del data[:count]
        if not data:
            return
        first = data[0]
        if first in b"{[":
            self._closers.append(0x7D if first == 0x7B else 0x5D)
            self._at = 1
        elif first in b"\"'":
            self._quote, self._at = first, 1
        elif first < 0x20 or first >= 0xFE or first in b"}]":
            del data[:1]
            found.append(JsonError(f"JSON parse error, stray '{_shown(bytes([first]))}'"))
        else:
            self._word(found)

    def _word(self, found: list[object]) -> None:
        """A number or a keyword: no command, so its value does not matter, only its end."""
        match = re.match(rb"[\w.+-]+(?=[^\w.+-])", self._data)
        if match is None:
            if re.fullmatch(rb"[\w.+-]*", self._data) and len(self._data) < 256:
                return
            self._fail(found, f"JSON parse error, stray '{_shown(bytes(self._data[:16]))}'")
            return
        word = match.group()
        del self._data[: match.end()]
        try:
            found.append(_loads(word))
        except (ValueError, JsonError):
            kind = "invalid keyword" if word[:1].isalpha() else "stray"
            self._fail(found, f"JSON parse error, {kind} '{_shown(word)}'")

    # --- inside a value -------------------------------------------------------------------------------------

    def _go_on(self, found: list[object]) -> None:
        """Look for the end of the value."""
        data, at = self._data, self._at
        while True:
            if self._quote:
                pattern = _DOUBLE if self._quote == 0x22 else _SINGLE
            else:
                pattern = _OUTSIDE
            match = pattern.search(data, at)
            if match is None:
                self._at = len(data)
                return
            byte, at = data[match.start()], match.end()
            if byte == 0x5C:  # what a backslash hides may not have come yet
                if at == len(data):
                    self._at = match.start()
                    return
                if data[at] >= 0x20:  # a control character ends the string, backslash or not
                    at += 1
            elif byte < 0x20 or byte >= 0xFE:
                text = _shown(bytes(data[self._token if self._quote else at - 1 : at]))
                del data[: at if byte != 0x0A else at - 1]
                self._fail(found, f"JSON parse error, stray '{text}'")
                return
            elif self._quote:
                self._quote = 0
                if not self._closers:
                    self._take(found, at)
                    return
            elif byte in b"\"'":
                self._quote, self._token = byte, match.start()
            elif byte in b"{[":
                self._closers.append(0x7D if byte == 0x7B else 0x5D)
                if len(self._closers) > MAX_DEPTH:
                    del data[:at]
                    self._fail(found, "JSON nesting depth limit exceeded")
                    return
            elif byte != self._closers.pop():
                del data[:at]
                self._fail(found, "JSON parse error, expecting value")
                return
            elif not self._closers:
                self._take(found, at)
                return

    def _take(self, found: list[object], end: int) -> None:
        text = bytes(self._data[:end])
        rest = self._data[end:]
        self._forget()
        self._data = rest
        try:
            found.append(_loads(text))
        except JsonError as error:
            found.append(error)
        except (ValueError, RecursionError):
            found.append(JsonError("JSON parse error, expecting value"))

    def _fail(self, found: list[object], text: str) -> None:
        rest = self._data
        self._forget()
        self._data, self._skipping = rest, True
        found.append(JsonError(text))


def _loads(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise JsonError("JSON parse error, invalid UTF-8 sequence in string") from None
    if "'" in text:
        from vmrun.core.quotes import requoted

        text = requoted(text)
    return _decoder.decode(text)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("JSON parse error, duplicate key")
    return found


def _constant(word: str) -> object:
    raise JsonError(f"JSON parse error, invalid keyword '{word}'")


def _float(word: str) -> float:
    value = float(word)
    if value in (inf, -inf):  # which no answer could repeat
        raise JsonError(f"JSON parse error, '{word[:40]}' is out of range")
    return value


_decoder = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float)


def _shown(data: bytes) -> str:
    return data.decode("ascii", "backslashreplace")
