"""A text screen as ANSI sequences for a terminal, whole or as the difference from what was shown before.

Rows are bytes in pairs: character in code page 437, attribute (bits 0-3 foreground, 4-6 background, 7 blink
or bright background), as TextScreen.snapshot() gives them.
"""

from __future__ import annotations

from vmrun.core.cp437 import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

# The PC counts blue 1, red 4; terminals count red 1, blue 4.
_ANSI = (0, 4, 2, 6, 1, 5, 3, 7)
RESET = "\x1b[0m"


def plain(rows: Sequence[bytes]) -> str:
    """The characters alone, one line per row, without trailing blanks."""
    return "\n".join(text(row[0::2]).rstrip() for row in rows)


def render(rows: Sequence[bytes], cursor: tuple[int, int] | None = None, *, blink: bool = True) -> str:
    """The whole screen from the terminal's top left corner, and the cursor where the guest has it."""
    lines = [f"\x1b[{n + 1};1H{_line(row, blink)}" for n, row in enumerate(rows)]
    return "\x1b[?25l" + "".join(lines) + RESET + _place(cursor)


def style(attribute: int, blink: bool = True) -> str:
    """The terminal's colours for an attribute byte."""
    front = _ANSI[attribute & 7] + (90 if attribute & 8 else 30)
    back = _ANSI[attribute >> 4 & 7] + (100 if attribute & 0x80 and not blink else 40)
    return f"\x1b[0;{front};{back}{';5' if attribute & 0x80 and blink else ''}m"


class Differ:
    """Keeps a terminal in step with a screen: `update` gives what must be written, '' for no change."""

    def __init__(self) -> None:
        self.rows: tuple[bytes, ...] = ()
        self.cursor: tuple[int, int] | None = None
        self.shape: tuple[Any, ...] = ()

    def update(self, screen: Any) -> str:
        """`screen` is a snapshot (mode, columns, rows, cursor, blink, width, height)."""
        shape = (screen.mode, screen.columns, len(screen.rows), screen.width, screen.height, screen.blink)
        if shape != self.shape:
            self.shape, self.rows, self.cursor = shape, screen.rows, screen.cursor
            clear = f"{RESET}\x1b[2J\x1b[1;1H"
            if screen.mode != "text":
                size = f": {screen.width}x{screen.height}" if screen.mode == "graphics" else ""
                return f"{clear}\x1b[?25l[{screen.mode}{size}]"
            return clear + render(screen.rows, screen.cursor, blink=screen.blink)
        out = []
        for n, (old, new) in enumerate(zip(self.rows, screen.rows, strict=True)):
            if old != new:
                first, last = _changed(old, new)
                out.append(f"\x1b[{n + 1};{first + 1}H{_line(new[2 * first : 2 * last + 2], screen.blink)}")
        if not out and screen.cursor == self.cursor:
            return ""
        self.rows, self.cursor = screen.rows, screen.cursor
        return "".join(["\x1b[?25l", *out, RESET if out else "", _place(screen.cursor)])


def _line(row: bytes, blink: bool) -> str:
    """Characters with their colours; neighbours of one attribute share one sequence."""
    out = []
    attributes = row[1::2]
    start = 0
    while start < len(attributes):
        end = start + 1
        while end < len(attributes) and attributes[end] == attributes[start]:
            end += 1
        out.append(style(attributes[start], blink) + text(row[2 * start : 2 * end : 2]))
        start = end
    return "".join(out)


def _changed(old: bytes, new: bytes) -> tuple[int, int]:
    """First and last differing column."""
    columns = [n for n in range(len(new) // 2) if old[2 * n : 2 * n + 2] != new[2 * n : 2 * n + 2]]
    return columns[0], columns[-1]


def _place(cursor: tuple[int, int] | None) -> str:
    return f"\x1b[{cursor[0] + 1};{cursor[1] + 1}H\x1b[?25h" if cursor is not None else "\x1b[?25l"
