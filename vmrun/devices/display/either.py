"""Adapters that start as a VGA and show something else once their driver is there.

    EitherScanout(VgaScanout(…), other)         # other.active: the driver has the screen
"""

from __future__ import annotations

from vmrun.core.surface import Scanout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from accel.ram import DirtyLog

    from vmrun.core.surface import Surface
    from vmrun.devices.display.textscreen import TextScreen


class EitherScanout(Scanout):
    """`vga`'s picture until `other` is active."""

    def __init__(self, vga: Any, other: Any) -> None:
        self.vga, self.other = vga, other
        self.was_active = False

    def update(self, surface: Surface, full: bool, log: DirtyLog | None = None) -> None:
        """See Scanout.update."""
        active = self.other.active
        full = full or active != self.was_active
        self.was_active = active
        (self.other if active else self.vga).update(surface, full, log)

    @property
    def memory(self) -> Any:
        return self.vga.memory


class EitherText:
    """Characters of the VGA's text modes; None while the driver has the screen."""

    def __init__(self, vga: TextScreen, other: Any) -> None:
        self.vga, self.other = vga, other

    def snapshot(self) -> Any:
        return None if self.other.active else self.vga.snapshot()
