"""Numbers as the line monitor takes them: decimal, hexadecimal, octal, characters, registers ($rip), and sums of them.

Operators and their order are QEMU's: | ^ &, then + -, then * / %, then unary + - ~ and parentheses; 64 bits.
"""

from __future__ import annotations

from vmrun.monitor.errors import QmpError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Register = Callable[[str], int]

MASK = (1 << 64) - 1
DEEPEST = 64


class ExpressionError(QmpError):
    """What was typed is no number."""


def signed(value: int) -> int:
    """64 bits as a number with a sign."""
    value &= MASK
    return value - (1 << 64) if value >> 63 else value


def value(text: str, register: Register) -> int:
    """QmpError in QEMU's words. `register(name)` may raise it too."""
    parser = _Parser(text, register)
    found = parser.sum(0)
    parser.blank()
    if parser.at < len(text):
        raise ExpressionError(f"invalid char '{text[parser.at]}' in expression")
    return found & MASK


class _Parser:
    def __init__(self, text: str, register: Register) -> None:
        self.text, self.at, self.register = text, 0, register

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
            if len(body) < 2 or body[1] != "'":
                words = "missing terminating ' character" if len(body) > 1 else "character constant expected"
                raise ExpressionError(words)
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
        start = self.at
        while self.at < len(self.text) and self.text[self.at].isalnum():
            self.at += 1
        word = self.text[start : self.at]
        if not word:
            raise ExpressionError(f"invalid char '{self.text[start]}' in expression")
        try:
            octal = len(word) > 1 and word[0] == "0" and word.isdecimal()
            found = int(word, 8) if octal else int(word, 0)
        except ValueError:
            raise ExpressionError(f"invalid char '{word[:1]}' in expression") from None
        if found > MASK:
            raise ExpressionError("number too large")
        return signed(found)
