"""Numbers as the line monitor takes them: decimal, hexadecimal, octal, characters, registers ($rip), and sums of them.

Operators and their order are QEMU's: | ^ &, then + -, then * / %, then unary + - ~ and parentheses; 64 bits.
"""

from __future__ import annotations

import re

from vmrun.monitor.errors import QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Register = Callable[[str], int]

MASK = (1 << 64) - 1
NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
DEEPEST = 64
LONGEST = 20  # decimal digits of 64 bits


class ExpressionError(QmpError):
    """What was typed is no number."""


def signed(value: int) -> int:
    """64 bits as a number with a sign."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def first(text: str, at: int, register: Register) -> tuple[int, int]:
    """The value of the expression that begins there, and where it ends. QmpError in QEMU's words; `register(name)` may
    raise it too.
    """
    parser = _Parser(text, at, register)
    return parser.sum(0) & MASK, parser.at


def value(text: str, register: Register) -> int:
    """The whole text is an expression. QmpError."""
    found, at = first(text, 0, register)
    if text[at:].strip():
        raise ExpressionError(f"invalid char '{text[at:].lstrip()[0]}' in expression")
    return found


class _Parser:
    def __init__(self, text: str, at: int, register: Register) -> None:
        self.text, self.at, self.register = text, at, register

    def blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def next(self) -> str:
        self.blank()
        return self.text[self.at] if self.at < len(self.text) else ""

    def sum(self, depth: int) -> int:
        left = self.logic(depth)
        while self.next() in ("+", "-"):
            operator, self.at = self.text[self.at], self.at + 1
            right = self.logic(depth)
            left = left + right if operator == "+" else left - right
        return signed(left)

    def logic(self, depth: int) -> int:
        left = self.product(depth)
        while self.next() in ("&", "|", "^"):
            operator, self.at = self.text[self.at], self.at + 1
            right = self.product(depth)
            left = left & right if operator == "&" else left | right if operator == "|" else left ^ right
        return signed(left)

    def product(self, depth: int) -> int:
        left = self.unary(depth)
        while self.next() in ("*", "/", "%"):
            operator, self.at = self.text[self.at], self.at + 1
            right = self.unary(depth)
            if operator == "*":
                left = signed(left * right)
            elif not right:
                raise ExpressionError("division by zero")
            else:
                quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
                left = quotient if operator == "/" else left - quotient * right
        return left

    def unary(self, depth: int) -> int:
        if depth > DEEPEST:
            raise ExpressionError("the expression is too deep")
        char = self.next()
        if not char:
            raise ExpressionError("unexpected end of expression")
        if char in "+-~":
            self.at += 1
            found = self.unary(depth + 1)
            return {"+": found, "-": signed(-found), "~": ~found}[char]
        if char == "(":
            self.at += 1
            found = self.sum(depth + 1)
            if self.next() != ")":
                raise ExpressionError("')' expected")
            self.at += 1
            return found
        if char == "'":
            body = self.text[self.at + 1 : self.at + 3]
            if not body:
                raise ExpressionError("character constant expected")
            if body[1:] != "'":
                raise ExpressionError("missing terminating ' character")
            self.at += 3
            return ord(body[0])
        if char == "$":
            return self._register()
        return self._number()

    def _register(self) -> int:
        start = self.at = self.at + 1
        while self.at < len(self.text) and (self.text[self.at].isalnum() or self.text[self.at] in "_."):
            self.at += 1
        return signed(self.register(self.text[start : self.at]))

    def _number(self) -> int:
        """As far as it is one: 08 is 0 and an 8 that is not its."""
        match = NUMBER.match(self.text, self.at)
        if match is None:
            raise ExpressionError(f"invalid char '{self.text[self.at]}' in expression")
        self.at = match.end()
        digits = match[0].lower()
        base = 16 if digits[:2] == "0x" else 8 if digits[0] == "0" else 10
        found = int(digits, base) if base != 10 or len(digits) <= LONGEST else MASK + 1
        if found > MASK:
            raise ExpressionError("number too large")
        return signed(found)
