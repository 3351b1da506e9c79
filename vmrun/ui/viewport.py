"""The part of a text screen that a terminal of any size can show: it follows the cursor."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Part:
    """A screen, as far as it is shown; the names are those of the whole one. `at` is its place in that, `cut` whether
    something is missing.
    """

    __slots__ = ("at", "blink", "columns", "cursor", "cut", "height", "mode", "rows", "width")

    def __init__(self, screen: Any, columns: int, rows: int, before: tuple[int, int]) -> None:
        """`columns` and `rows` of the terminal; `before`: where the part was, which it leaves only for the cursor."""
        self.mode, self.width, self.height, self.blink = screen.mode, screen.width, screen.height, screen.blink
        self.columns, self.rows, self.cursor = screen.columns, screen.rows, screen.cursor
        self.cut = bool(screen.rows) and (screen.columns > columns or len(screen.rows) > rows)
        self.at = (0, 0)
        if not self.cut:
            return
        rows = max(1, rows - 1)  # the last line says that something is cut
        row, column = screen.cursor or (0, 0)
        top = _slide(before[0], row, rows, len(screen.rows))
        left = _slide(before[1], column, columns, screen.columns)
        self.at = (top, left)
        self.rows = tuple(line[2 * left : 2 * (left + columns)] for line in screen.rows[top : top + rows])
        self.columns = min(columns, screen.columns - left)
        if screen.cursor is not None:
            self.cursor = (row - top, column - left)


def _slide(start: int, wanted: int, room: int, whole: int) -> int:
    """Where a window of `room` begins so that `wanted` is in it: where it was, if that will do."""
    if wanted < start:
        start = wanted
    elif wanted >= start + room:
        start = wanted - room + 1
    return max(0, min(start, whole - room))
