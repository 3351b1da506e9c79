"""A console: one screen of the machine, the adapter that draws it and everybody who looks.

    console = platform.add_console(device, VgaScanout(…))       # the adapter, at realize
    view = console.attach()                                     # a viewer: VNC client, terminal, test
    console.refresh()                                           # when the viewer wants to know
    for x, y, width, height in view.take(): …                   # what it has not seen
    console.detach(view)

There is no timer here: a screen that nobody looks at costs nothing, not even a dirty log of its memory. Everything
belongs to the main thread.
"""

from __future__ import annotations

from accel.ram import DirtyLog

from vmrun.core.surface import Surface

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from accel.ram import RamBlock

    from vmrun.core.surface import Scanout, View

    class Memory(Protocol):
        """What an accelerator knows about writes to guest memory."""

        def log_dirty(self, block: RamBlock, on: bool) -> None: ...
        def sync_dirty(self, block: RamBlock) -> None: ...
        def drain(self) -> int: ...

    class TextReader(Protocol):
        """Reads text modes; what it gives has mode, columns, rows, cursor, blink, width, height."""

        def snapshot(self) -> Any: ...


class Cursor:
    """A pointer that the adapter draws over the picture: `pixels` are 0xAARRGGBB, four bytes each, little-endian."""

    __slots__ = ("height", "hot_x", "hot_y", "pixels", "width")

    def __init__(self, width: int, height: int, hot_x: int, hot_y: int, pixels: bytes) -> None:
        if len(pixels) != width * height * 4:
            raise ValueError(f"a cursor of {width} x {height} pixels has {width * height * 4} bytes")
        self.width, self.height, self.hot_x, self.hot_y, self.pixels = width, height, hot_x, hot_y, pixels


class Console:
    """`device` owns it, `head` numbers the screens of one device, `scanout` draws, `memory` is the accelerator.

    `text` reads the screen as characters where the adapter has text modes.
    """

    def __init__(
        self, device: Any, scanout: Scanout, memory: Memory, head: int = 0, text: TextReader | None = None
    ) -> None:
        self.device, self.scanout, self.memory, self.head, self._text = device, scanout, memory, head, text
        self.surface = Surface()
        self.on_resize: Callable[[int, int], bool] | None = None  # a viewer wants another size; True: the guest is told
        self.cursor: Cursor | None = None
        self.cursor_at: tuple[int, int] | None = None  # None: hidden
        self.cursor_changes = 0  # a number that grows: viewers compare it with the one they have seen
        self._log: DirtyLog | None = None
        self._fresh = False  # the surface is up to date but for what the dirty log tells

    # --- viewers ------------------------------------------------------------------------------------------

    def attach(self) -> View:
        """A view to which everything is new. The first one starts the dirty log."""
        block = self.scanout.memory
        if self._log is None and block is not None:
            self._log = DirtyLog(block, self.memory)
        view: View = self.surface.attach()
        return view

    def detach(self, view: View) -> None:
        self.surface.detach(view)
        if not self.surface.watched:
            self.close()

    def refresh(self) -> bool:
        """Bring the surface up to date; True when something changed. Any number of viewers may ask."""
        self.memory.drain()
        if self._log is not None:
            self._log.sync()
        self.scanout.update(self.surface, not self._fresh, self._log)
        self._fresh = self.surface.watched
        return bool(self.surface.publish())

    def characters(self) -> Any:
        """The screen as characters, or None when the adapter has no text modes."""
        if self._text is None:
            return None
        self.memory.drain()
        return self._text.snapshot()

    # --- adapters with a pointer of their own -----------------------------------------------------------------

    def define_cursor(self, cursor: Cursor | None) -> None:
        self.cursor = cursor
        self.cursor_changes += 1

    def move_cursor(self, at: tuple[int, int] | None) -> None:
        self.cursor_at = at
        self.cursor_changes += 1

    def close(self) -> None:
        """Nobody looks any more, or the adapter goes: viewers keep a picture that no longer changes."""
        self._fresh = False
        if self._log is not None:
            self._log.stop()
            self._log = None
