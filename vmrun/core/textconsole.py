"""A console that shows a terminal's cells instead of an adapter's picture: what a `vc` chardev is seen on."""

from __future__ import annotations

from vmrun.core.console import Console
from vmrun.core.surface import Scanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.core.surface import Surface
    from vmrun.core.textterminal import Terminal

WIDTH, HEIGHT = 8, 16  # pixels of a cell
BRIGHT = 8  # of an attribute: both colours are
# 0x00RRGGBB of the eight colours, dark and bright
PALETTE = [sum((0xFF if n & BRIGHT else 0xAA) << 8 * bit for bit in range(3) if n >> bit & 1) for n in range(16)]


class TextConsole(Console):
    """`name`: the chardev's. `typed(bytes)`: what a viewer's keys say. `font()`: bytes with the VGA's font in them."""

    def __init__(
        self, name: str, terminal: Terminal, typed: Callable[[bytes], object], memory: Any, font: Callable[[], bytes]
    ) -> None:
        super().__init__(None, _Scanout(terminal, font), memory, text=terminal)
        self.name, self.terminal, self.typed = name, terminal, typed
        self.surface.resize(terminal.columns * WIDTH, terminal.rows * HEIGHT)


class _Scanout(Scanout):
    def __init__(self, terminal: Terminal, font: Callable[[], bytes]) -> None:
        self.terminal, self.font = terminal, font
        self.bits = b""
        self.cells: dict[tuple[int, int], list[bytes]] = {}  # (character, attribute) → its lines of pixels

    def update(self, surface: Surface, full: bool, log: Any = None) -> None:
        terminal = self.terminal
        rows = range(terminal.rows) if full else sorted(terminal.changed)
        cursor = terminal.snapshot().cursor
        for row in rows:
            cells = terminal.cells[row]
            parts = [self._lines(char, attribute) for char, attribute in zip(cells[::2], cells[1::2], strict=True)]
            if cursor is not None and cursor[0] == row:
                attribute = cells[2 * cursor[1] + 1]
                turned = attribute >> 4 & 7 | (attribute & 7) << 4 | attribute & BRIGHT
                parts[cursor[1]] = self._lines(cells[2 * cursor[1]], turned)
            surface.put(row * HEIGHT, b"".join(part[line] for line in range(HEIGHT) for part in parts))
        terminal.changed.clear()

    def _lines(self, char: int, attribute: int) -> list[bytes]:
        found = self.cells.get((char, attribute))
        if found is None:
            if not self.bits:
                from vmrun.core.fonts import font_bits

                self.bits = font_bits(self.font(), HEIGHT) or bytes(256 * HEIGHT)
            ink, paper = (
                PALETTE[colour & 7 | attribute & BRIGHT].to_bytes(4, "little") for colour in (attribute, attribute >> 4)
            )
            found = self.cells[char, attribute] = [
                b"".join(ink if byte >> bit & 1 else paper for bit in range(7, -1, -1))
                for byte in self.bits[char * HEIGHT : (char + 1) * HEIGHT]
            ]
        return found
