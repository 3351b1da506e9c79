"""The memory slots at 0xa00: one is selected, then asked about and told to.

    offset  read                             write
    0       address of the module (64 bits)  selector (32 bits)
    4                                        what the guest speaks of (_OST), of the selected slot
    8       its bytes (64 bits)              the outcome
    16      its NUMA node (32 bits)
    20      1 there, 2 came, 4 asked for     2, 4: these are heard; 8: the guest lets go of it

Ref: QEMU docs/specs/acpi_mem_hotplug.rst.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.state import KEEP, U32, Bytes, Stateful, Table, Words
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BASE, SIZE = 0xA00, 0x18
SELECTOR, OST_EVENT, OST_STATUS, STATUS = 0, 4, 8, 20
THERE, CAME, ASKED, EJECT = 1, 2, 4, 8
MEMORY_EVENT = 0x08
ALL = 0xFFFFFFFF


class MemoryHotplug(Stateful):
    """`count` slots. `event(bits)` tells the guest to look; `let_go(device)` takes a module out; `told(row)` hears what
    the guest says of one (ACPIOSTInfo).
    """

    def __init__(
        self,
        count: int,
        event: Callable[[int], None],
        let_go: Callable[[Any], None],
        told: Callable[[dict[str, Any]], None],
    ) -> None:
        self.count, self.event, self.let_go, self.told = count, event, let_go, told
        # as QEMU's, they live on over a reset
        words = (Words(name, count, ALL, KEEP) for name in ("ost_events", "ost_status"))
        flags = Bytes("flags", count, KEEP, each=CAME | ASKED)
        self.state = Table("memory-hotplug", 1, U32("selector", KEEP), flags, *words)
        self.modules: list[Any] = [None] * count
        self.selector = 0
        self.flags = bytearray(count)
        self.ost_events, self.ost_status = [0] * count, [0] * count

    def region(self) -> tuple[PyIoRegion, int, int]:
        return PyIoRegion("acpi-mem-hotplug", self.read, self.write, 1, 4), BASE, SIZE

    # --- for the machine ----------------------------------------------------------------------------------

    def check(self, device: Any) -> None:
        """A module has its slot from its realize on; here it is only shown."""

    def plugged(self, device: Any) -> None:
        """A module was put in while the guest runs."""
        self.flags[device.slot_number] = CAME
        self.event(MEMORY_EVENT)

    def ask_unplug(self, device: Any) -> None:
        self.flags[device.slot_number] |= ASKED
        self.event(MEMORY_EVENT)

    def ospm_status(self) -> list[dict[str, Any]]:
        return [self._row(slot) for slot in range(self.count)]

    def _row(self, slot: int) -> dict[str, Any]:
        module = self._here(slot)
        named = {"device": module.name} if module is not None and module.name else {}
        outcome = {"source": self.ost_events[slot], "status": self.ost_status[slot]}
        return {**named, "slot": str(slot), "slot-type": "DIMM", **outcome}

    def _here(self, slot: int) -> Any:
        """The module that these registers tell of; a non-volatile one takes the slot, but has a table of its own."""
        module = self.modules[slot]
        return module if module is not None and module.hotplug is self else None

    # --- for the guest ------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if self.selector >= self.count:
            return 0
        module = self._here(self.selector)
        address, amount, node = (module.address, module.size, module.node) if module is not None else (0, 0, 0)
        values = {0: address, 4: address >> 32, 8: amount, 12: amount >> 32, 16: node}
        if offset == STATUS:
            return int(self.flags[self.selector]) | (THERE if module is not None else 0)
        return int(values.get(offset, ALL)) & ALL

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == SELECTOR:
            self.selector = value & ALL
            return
        if self.selector >= self.count:
            return
        slot = self.selector
        if offset == OST_EVENT:
            self.ost_events[slot] = value & ALL
        elif offset == OST_STATUS:
            self.ost_status[slot] = value & ALL
            self.told(self._row(slot))
        elif offset == STATUS and value & CAME:
            self.flags[slot] &= ~CAME
        elif offset == STATUS and value & ASKED:
            self.flags[slot] &= ~ASKED
        elif offset == STATUS and value & EJECT and self._here(slot) is not None:
            self.flags[slot] = 0
            self.let_go(self.modules[slot])

    # --- places -------------------------------------------------------------------------------------------

    def take(self, device: Any, wanted: int) -> int:
        """The slot of a module; the first free one for -1. BuildError in QEMU's words."""
        if not self.count:
            raise BuildError("no slots where allocated, please specify the 'slots' option")
        if wanted == -1:
            free = [slot for slot, module in enumerate(self.modules) if module is None]
            if not free:
                raise BuildError("no free slots available")
            wanted = free[0]
        if not 0 <= wanted < self.count:
            raise BuildError(f"invalid slot number {wanted}, valid range is [0-{self.count - 1}]")
        if self.modules[wanted] is not None:
            raise BuildError(f"slot {wanted} is busy")
        self.modules[wanted] = device
        return wanted

    def give_back(self, device: Any) -> None:
        for slot, module in enumerate(self.modules):
            if module is device:
                self.modules[slot] = None
                self.flags[slot] = 0
