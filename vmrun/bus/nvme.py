"""An NVM subsystem: up to 32 controllers, up to 256 namespaces; and a controller's bus, where namespaces are put.

Ref: NVM Express 1.4, 1.5, 6.1. Namespaces do not come and go while the machine runs, as in QEMU.
"""

from __future__ import annotations

from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MOST_CONTROLLERS = 32
MOST_NAMESPACES = 256


class Subsystem:
    """Controllers by number (NvmeChip), namespaces by theirs (NvmeSpace, and who has it alone: a controller, or None).
    `name` tells of a subsystem of its own; without one it is a controller's, alone.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.controllers: list[Any] = [None] * MOST_CONTROLLERS
        self.spaces: dict[int, Any] = {}
        self.owners: dict[int, Any] = {}

    def number(self) -> int:
        """Of the next controller. BuildError when there is no room."""
        if None not in self.controllers:
            raise BuildError("no more free controller id")
        return self.controllers.index(None)

    def join(self, chip: Any, number: int) -> None:
        chip.join(number, list(self.controllers), bool(self.name))
        self.controllers[number] = chip
        for nsid, space in self.spaces.items():
            chip.know(space, space.shared and self.owners[nsid] is not None)

    def part(self, chip: Any) -> None:
        self.controllers[chip.number] = None
        chip.part()

    def free(self, nsid: int) -> int:
        """The number of a namespace that would have this one; 0: the first that is free. BuildError."""
        if nsid > MOST_NAMESPACES:
            raise BuildError(f"invalid namespace id (must be between 0 and {MOST_NAMESPACES})")
        if nsid in self.spaces:
            raise BuildError(f"namespace id '{nsid}' already allocated", remedy="give it another nsid, or none")
        found = nsid or next((n for n in range(1, MOST_NAMESPACES + 1) if n not in self.spaces), 0)
        if not found:
            raise BuildError("no free namespace id")
        return found

    def add(self, space: Any, owner: Any) -> None:
        """Put a namespace in. `owner`: the controller whose bus it is on, to which it is attached, with all others if
        it is shared; None: it is attached to none.
        """
        self.spaces[space.nsid], self.owners[space.nsid] = space, owner
        for chip in self.controllers:
            if chip is not None:
                chip.know(space, owner is not None and (space.shared or chip is owner))

    def remove(self, space: Any) -> None:
        del self.spaces[space.nsid], self.owners[space.nsid]
        for chip in self.controllers:
            if chip is not None:
                chip.forget_space(space)

    def resized(self, space: Any) -> None:
        """The namespace's drive has another size. The device lock is held."""
        next(chip for chip in self.controllers if chip is not None).space_resized(space)


class NvmeBus:
    """A controller's: `chip` is the controller, `subsystem` what it belongs to. Both are there when it is realized."""

    kind = "nvme-bus"
    hotplug = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.devices: list[Any] = []
        self.owner: Any = None
        self.chip: Any = None
        self.subsystem: Any = None
