"""The pointer that a driver hands to its adapter, on its way to the viewers, who draw it."""

from __future__ import annotations

from vmrun.core.console import Cursor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.console import Console
    from vmrun.core.platform import Platform


class HardwarePointer:
    """Mixed into a card, or one of its outputs, that has `console`. `pointer_changed` is called on any thread, with the
    device lock held; the main loop does it, once for all that came meanwhile.
    """

    console: Console
    platform: Platform
    waiting_pointer: list[Any]

    def pointer_changed(self, move: bool, picture: Any, at: tuple[int, int] | None) -> None:
        """`picture`: what Cursor takes, None for none; left alone when the pointer is only moved. `at` None: hidden."""
        waiting = bool(self.waiting_pointer)
        kept = [entry for entry in self.waiting_pointer if move and not entry[0]][-1:]
        self.waiting_pointer[:] = [*kept, (move, picture, at)]
        if not waiting:
            self.platform.call_soon(self._show_pointer)

    def _show_pointer(self) -> None:
        with self.platform.lock:
            steps, self.waiting_pointer = self.waiting_pointer, []
        for move, picture, at in steps:
            if not move:
                self.console.define_cursor(Cursor(*picture) if picture is not None else None)
            self.console.move_cursor(at)
