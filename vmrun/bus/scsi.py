"""A SCSI bus: units at (channel, target, lun), which come and go while the machine runs."""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.object import Device
    from vmrun.core.platform import Platform


class ScsiBus:
    """`units` is the adapter's table of units (add, remove); `channels`, `targets`, `luns`: the highest numbers that
    there can be. The adapter may set `appeared` and `leaving`, which are called with a unit that comes or goes while
    the machine runs. The device lock is held. Whoever touches a unit from the host's side enters the table
    (`with units:`): an adapter may serve its commands without the device lock.
    """

    kind = "SCSI"

    def __init__(
        self, name: str, platform: Platform, units: Any, *, channels: int = 0, targets: int = 7, luns: int = 7
    ) -> None:
        self.name, self.platform, self.units = name, platform, units
        self.channels, self.targets, self.luns = channels, targets, luns
        self.devices: list[Device] = []
        self.owner: Any = None
        self.places: dict[tuple[int, int, int], Device] = {}
        self.hotplug: ScsiBus | None = self
        self.appeared: Any = None
        self.leaving: Any = None
        self.changed: Any = None            # (unit, asc, ascq): a unit has another size

    def take_place(self, device: Device, channel: int, target: int | None, lun: int | None) -> tuple[int, int, int]:
        """Reserve a place, the first free one where something is not given. BuildError when there is none."""
        most_of = {"channel": (channel, self.channels), "id": (target, self.targets), "lun": (lun, self.luns)}
        for what, (value, most) in most_of.items():
            if value is not None and value > most:
                raise BuildError(f"{device.path}: bad scsi {what}: {value}; {self.name} has 0 to {most}")
        targets = range(self.targets + 1) if target is None else (target,)
        luns = range(self.luns + 1) if lun is None and target is not None else (lun or 0,)
        for one in targets:
            for other in luns:
                if (channel, one, other) not in self.places:
                    self.places[channel, one, other] = device
                    return channel, one, other
        if target is not None and lun is not None:
            raise BuildError(
                f"{device.path}: lun {channel}.{target}.{lun} of {self.name} is taken by "
                f"{self.places[channel, target, lun].path}"
            )
        raise BuildError(f"{device.path}: {self.name} has no place left")

    def leave(self, device: Device) -> None:
        self.places = {place: other for place, other in self.places.items() if other is not device}

    # --- while the machine runs -------------------------------------------------------------------------------

    def check(self, device: Device) -> None:
        """Anything can be put in; its place was found at realize."""

    def plugged(self, device: Any) -> None:
        if self.appeared is not None:
            with self.units:
                self.appeared(device.chip)

    def ask_unplug(self, device: Any) -> None:
        """Nobody can refuse: the guest is told, and the unit is gone."""
        if self.leaving is not None:
            with self.units:
                self.leaving(device.chip)
        self.platform.let_go(device)
