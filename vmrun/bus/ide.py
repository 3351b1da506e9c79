"""An IDE channel's cable: two units."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.object import Device
    from vmrun.core.platform import Platform


class IdeBus:
    """`channel` is the controller's ATA channel (attach(unit, backend, identity))."""

    kind = "IDE"

    def __init__(self, name: str, platform: Platform) -> None:
        self.name = name
        self.platform = platform
        self.channel: Any = None
        self.devices: list[Device] = []
        self.units: dict[int, Device] = {}

    def take_unit(self, unit: int | None, device: Device) -> int:
        """Reserve a unit (0 master, 1 slave; None: the first free one). BuildError when there is none."""
        if unit is None:
            unit = 0 if 0 not in self.units else 1
        if unit in self.units:
            raise BuildError(f"{device.path}: {self.name} unit {unit} is taken by {self.units[unit].path}")
        if unit not in (0, 1):
            raise BuildError(f"{device.path}: {self.name} has units 0 and 1, not {unit}")
        self.units[unit] = device
        return unit
