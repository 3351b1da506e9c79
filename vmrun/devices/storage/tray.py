"""A drive's tray, as the user's hand and the guest move it; whatever the bus."""

from __future__ import annotations

from vmrun.core.interfaces import Removable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform


class Tray(Removable):
    """Of a device whose `chip` has a tray: tray_open, locked, medium_changed, eject_asked, on_tray."""

    chip: Any

    def watch_tray(self, platform: Platform) -> None:
        """At realize: when the guest moves the tray, the machine is told."""
        self.chip.on_tray = lambda opened: platform.tray_moved(self, opened)

    @property
    def tray_is_open(self) -> bool:
        return bool(self.chip.tray_open)

    @property
    def locked(self) -> bool:
        """Whether the guest holds the door."""
        return bool(self.chip.locked)

    def open_tray(self, force: bool) -> tuple[bool, bool]:
        if self.chip.tray_open:
            return False, False
        if self.chip.locked and not force:
            self.chip.eject_asked()
            return False, True
        self.chip.medium_changed(False)
        return True, False

    def close_tray(self) -> bool:
        if not self.chip.tray_open:
            return False
        self.chip.medium_changed(True)
        return True
