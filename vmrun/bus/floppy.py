"""The cable between a floppy controller and its two drives."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.object import Device

DRIVES = 2


class FloppyBus:
    """`controller` is the controller's device: connect(unit, backend, kind)."""

    kind = "floppy"

    def __init__(self, name: str, controller: Any) -> None:
        self.name, self.controller = name, controller
        self.devices: list[Device] = []
        self.units: dict[int, Any] = {}

    def take_unit(self, unit: int | None, device: Any) -> int:
        """Reserve a unit (0: A, 1: B; None: the first free one). BuildError when there is none."""
        if unit is None:
            unit = next((free for free in range(DRIVES) if free not in self.units), DRIVES)
        if unit in self.units:
            raise BuildError(f"{device.path}: {self.name} unit {unit} is taken by {self.units[unit].path}")
        if not 0 <= unit < DRIVES:
            raise BuildError(f"{device.path}: {self.name} has units 0 and 1")
        self.units[unit] = device
        return unit
