"""A moment of a screen of characters, whoever has it: a VGA in a text mode, a terminal."""

from __future__ import annotations


class Screen:
    """A moment of the screen.

    mode is text, graphics or blank. rows: per line `columns` pairs of bytes (character, attribute). cursor:
    (row, column) or None while hidden. blink: attribute bit 7 blinks instead of brightening the background.
    width and height: pixels, of a graphics mode.
    """

    __slots__ = ("blink", "columns", "cursor", "height", "mode", "rows", "width")

    def __init__(
        self,
        mode: str,
        columns: int = 0,
        rows: tuple[bytes, ...] = (),
        cursor: tuple[int, int] | None = None,
        *,
        blink: bool = False,
        width: int = 0,
        height: int = 0,
    ) -> None:
        self.mode, self.columns, self.rows, self.cursor = mode, columns, rows, cursor
        self.blink, self.width, self.height = blink, width, height

    def cells(self, row: int) -> list[tuple[int, int]]:
        """(character, attribute) of each column of a row."""
        line = self.rows[row]
        return list(zip(line[0::2], line[1::2], strict=True))
