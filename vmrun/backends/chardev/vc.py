"""A terminal of vmrun's own on the machine's display: viewers turn to it (VNC: Ctrl-Alt-2 and so on), and type there.

Its size is `cols` and `rows`, or `width` and `height` in pixels, characters being 8 x 16.
"""

from __future__ import annotations

import os

from vmrun.backends.chardev.stream import StreamChar
from vmrun.core.textterminal import COLUMNS, MOST_COLUMNS, MOST_ROWS, ROWS, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from accel.api import DeviceLock

    from vmrun.core.loop import Loop

CELL_WIDTH, CELL_HEIGHT = 8, 16
PIECE = 4096  # bytes that the main loop draws in a go


class VcChar(StreamChar):
    """What is typed goes through a pipe: whoever listens takes it at his pace, and more than a pipe holds is lost."""

    address = "vc"

    def __init__(self, name: str, spec: dict[str, Any], loop: Loop, lock: DeviceLock) -> None:
        super().__init__(name, loop, lock)
        columns = int(spec.get("cols") or int(spec.get("width") or 0) // CELL_WIDTH or COLUMNS)
        rows = int(spec.get("rows") or int(spec.get("height") or 0) // CELL_HEIGHT or ROWS)
        self.terminal = Terminal(min(columns, MOST_COLUMNS), min(rows, MOST_ROWS))
        self.terminal.answer = self.typed
        self.on_close: Callable[[], object] = lambda: None
        self.ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.terminal.feed(b"\x1b[44m%s console\x1b[0m\r\n" % name.encode())
        self.attach(*self.ends)

    def write_some(self, data: bytes) -> int:
        self.terminal.feed(data[:PIECE])
        return min(len(data), PIECE)

    def typed(self, data: bytes) -> None:
        try:
            os.write(self.ends[1], data)
        except OSError:
            pass  # nobody takes what is typed

    def close(self) -> None:
        if not self.closed:
            super().close()
            self.on_close()
            for fd in self.ends:
                os.close(fd)
