"""A terminal without a terminal: what is written to it becomes cells, as on a VT100 with colours.

Ref: ECMA-48 (CUU, CUD, CUF, CUB, CHA, CUP, ED, EL, SGR, DSR), ANSI.SYS (save and restore the cursor); what of it QEMU's
`vc` takes. Bytes are characters of code page 437.
Not modelled: scrolling regions, insertion and deletion, tabs that move, a history to scroll back to.
"""

from __future__ import annotations

from vmrun.core.textmode import Screen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

COLUMNS, ROWS = 80, 30  # on 640 x 480 pixels
MOST_COLUMNS, MOST_ROWS = 512, 256
MOST_NUMBERS, LARGEST = 16, 9999  # of a sequence
PLAIN = 0x07  # grey on black, as an attribute byte of the VGA
COLOURS = (0, 4, 2, 6, 1, 5, 3, 7)  # ANSI's by the VGA's numbers
ESC, TAB = 0x1B, 8


class Terminal:
    """`feed` what is written; `answer` gets what the terminal says of itself. `changed`: rows since somebody looked."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self.columns, self.rows = columns, rows
        self.answer: Callable[[bytes], object] = lambda data: None
        self.cells = [self._blank() for _ in range(rows)]
        self.x = self.y = 0
        self.saved = (0, 0)
        self.colour, self.bold, self.inverse, self.hidden = PLAIN, False, False, False
        self.changed = set(range(rows))
        self._sequence: bytearray | None = None  # what came after ESC

    def _blank(self) -> bytearray:
        return bytearray(b" " + bytes((PLAIN,))) * self.columns

    @property
    def attribute(self) -> int:
        found = self.colour | (8 if self.bold else 0)
        if self.inverse:
            found = found >> 4 & 7 | (found & 7) << 4 | found & 8
        return found >> 4 << 4 | found >> 4 & 7 if self.hidden else found

    def snapshot(self) -> Screen:
        """The screen now (what vmrun.core.console calls a TextReader)."""
        cursor = (self.y, min(self.x, self.columns - 1))
        return Screen("text", self.columns, tuple(bytes(row) for row in self.cells), cursor)

    # --- writing --------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        self.changed.add(self.y)  # the cursor goes
        at = 0
        while at < len(data):
            byte = data[at]
            at += 1
            if byte >= 0x20 and self._sequence is None:
                first = at - 1
                while at < len(data) and data[at] >= 0x20:
                    at += 1
                self._put(data[first:at])
                continue
            if self._sequence is not None:
                self._escaped(byte)
            elif byte == ESC:
                self._sequence = bytearray()
            elif byte == 0x0D:
                self.x = 0
            elif byte == 0x0A:
                self._line_feed()
            elif byte == 0x08:
                self.x = max(min(self.x, self.columns) - 1, 0)
            elif byte == 0x09:
                self.x += TAB - self.x % TAB
                if self.x > self.columns:
                    self.x = 0
                    self._line_feed()
        self.changed.add(self.y)

    def _put(self, text: bytes) -> None:
        while text:
            if self.x >= self.columns:
                self.x = 0
                self._line_feed()
            part, text = text[: self.columns - self.x], text[self.columns - self.x :]
            behind = self.x + len(part)
            self.cells[self.y][2 * self.x : 2 * behind : 2] = part
            self.cells[self.y][2 * self.x + 1 : 2 * behind : 2] = bytes((self.attribute,)) * len(part)
            self.changed.add(self.y)
            self.x = behind

    def _line_feed(self) -> None:
        self.changed.add(self.y)
        if self.y + 1 < self.rows:
            self.y += 1
        else:
            del self.cells[0]
            self.cells.append(self._blank())
            self.changed.update(range(self.rows))

    # --- sequences ------------------------------------------------------------------------------------------------

    def _escaped(self, byte: int) -> None:
        sequence = self._sequence
        assert sequence is not None
        if not sequence and byte != 0x5B:  # only CSI is known
            self._sequence = None
        elif not sequence or byte in b"0123456789;?":
            sequence.append(byte)
            if len(sequence) > 64:
                self._sequence = None
        else:
            self._sequence = None
            words = bytes(sequence[1:]).split(b";")[:MOST_NUMBERS]
            self._control(chr(byte), [min(int(word), LARGEST) if word.isdigit() else 0 for word in words])

    def _control(self, final: str, numbers: list[int]) -> None:
        first, count = numbers[0], max(numbers[0], 1)
        if final in "ABCDG":
            steps = {"A": (0, -count), "B": (0, count), "C": (count, 0), "D": (-count, 0), "G": (count - 1 - self.x, 0)}
            self._go(self.x + steps[final][0], self.y + steps[final][1])
        elif final in "Hf":
            self._go(max(numbers[1], 1) - 1 if len(numbers) > 1 else 0, count - 1)
        elif final == "J":
            self._erase_screen(first)
        elif final == "K":
            self._erase_line(self.y, 0 if first else self.x, self.columns if first != 1 else self.x + 1)
        elif final == "m":
            for number in numbers:
                self._rendition(number)
        elif final == "n" and first == 5:
            self.answer(b"\x1b[0n")
        elif final == "n" and first == 6:
            self.answer(b"\x1b[%d;%dR" % (self.y + 1, min(self.x, self.columns - 1) + 1))
        elif final == "s":
            self.saved = (self.x, self.y)
        elif final == "u":
            self._go(*self.saved)

    def _go(self, x: int, y: int) -> None:
        self.changed.add(self.y)
        self.x, self.y = min(max(x, 0), self.columns - 1), min(max(y, 0), self.rows - 1)

    def _erase_line(self, row: int, first: int, behind: int) -> None:
        first, behind = min(first, self.columns), min(behind, self.columns)
        self.cells[row][2 * first : 2 * behind] = self._blank()[: 2 * max(behind - first, 0)]
        self.changed.add(row)

    def _erase_screen(self, what: int) -> None:
        for row in range(self.rows):
            if what == 2 or (row < self.y if what else row > self.y):
                self._erase_line(row, 0, self.columns)
        if what < 2:
            self._erase_line(self.y, 0 if what else self.x, self.x + 1 if what else self.columns)

    def _rendition(self, number: int) -> None:
        if number == 0:
            self.colour, self.bold, self.inverse, self.hidden = PLAIN, False, False, False
        elif number in (1, 22):
            self.bold = number == 1
        elif number in (7, 27):
            self.inverse = number == 7
        elif number in (8, 28):
            self.hidden = number == 8
        elif 30 <= number < 38:
            self.colour = self.colour & 0x70 | COLOURS[number - 30]
        elif 40 <= number < 48:
            self.colour = self.colour & 0x07 | COLOURS[number - 40] << 4
