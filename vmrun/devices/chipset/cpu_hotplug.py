"""Which processors there are, at 0xaf00: for the firmware's tables, in two forms.

It starts as a bitmap, a bit per APIC id, 32 bytes, read only. Writing 0 to the first byte turns it into registers, and
so they stay: one processor is selected, then asked about. With a selector that names none, all reads 0.

    offset  read                       write
    0       command data 2 (32 bits)   selector (32 bits)
    4       status: 1 if it is there   control: clears events, ejects
    5                                  command
    8       command data (32 bits)     command data

Ref: QEMU docs/specs/acpi_cpu_hotplug.rst.
Not modelled: taking processors out: what would ask for it, or do it, is ignored.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.state import KEEP, U8, U32, Bytes, Flag, Stateful, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BASE, SIZE, REGISTERS_SIZE = 0xAF00, 32, 12
SELECTOR, STATUS, COMMAND, DATA = 0, 4, 5, 8
NEXT_EVENT, OST_EVENT, OST_STATUS, ARCH_ID = 0, 1, 2, 3  # commands: what the data are then
MOST_COMMAND, INSERTING = 3, 2


class CpuHotplug(Stateful):
    """`ids`: APIC ids of all processors that there can be; the first `present` of them are there. `event` tells the
    guest that one has come.
    """

    # QEMU's registers, too, live on over a reset.
    state = Table(
        "cpu-hotplug", 1,
        Flag("bitmap", KEEP), U32("selector", KEEP), U8("command", KEEP, most=MOST_COMMAND),
        U32("ost_event", KEEP), U32("ost_status", KEEP), Bytes("inserting", lambda chip: len(chip.ids), KEEP, each=1),
    )  # fmt: skip

    def __init__(self, ids: Sequence[int], present: int, event: Callable[[], None] = lambda: None) -> None:
        self.ids, self.present, self.event = list(ids), present, event
        self.bitmap = True
        self.selector = self.command = self.ost_event = self.ost_status = 0
        self.inserting = bytearray(len(self.ids))

    def region(self) -> tuple[PyIoRegion, int, int]:
        return PyIoRegion("acpi-cpu-hotplug", self.read, self.write, 1, 4), BASE, SIZE

    def plugged(self) -> None:
        """The next processor is there now: tell the guest."""
        self.inserting[self.present] = not self.bitmap  # the bitmap has no events of its own
        self.present += 1
        self.event()

    def read(self, offset: int, size: int) -> int:
        if self.bitmap:
            bits = sum(1 << id for id in self.ids[: self.present])
            return bits >> (8 * offset) & ((1 << 8 * size) - 1)
        if offset >= REGISTERS_SIZE:
            return (1 << 8 * size) - 1  # nothing is there any more
        if self.selector >= len(self.ids):
            return 0
        id = self.ids[self.selector]
        if offset == SELECTOR:
            return id >> 32 if self.command == ARCH_ID else 0
        if offset == STATUS:
            return int(self.selector < self.present) | (INSERTING if self.inserting[self.selector] else 0)
        if offset == DATA:
            return {NEXT_EVENT: self.selector, ARCH_ID: id & 0xFFFFFFFF}.get(self.command, 0)
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if self.bitmap:
            self.bitmap = not (offset == 0 and value == 0)
        elif offset == SELECTOR:
            self.selector = value & 0xFFFFFFFF
        elif self.selector >= len(self.ids):
            return
        elif offset == STATUS:
            if value & INSERTING:
                self.inserting[self.selector] = 0
        elif offset == COMMAND:
            if value & 0xFF <= MOST_COMMAND:
                self.command = value & 0xFF
            if self.command == NEXT_EVENT:
                self._find_event()
        elif offset == DATA:
            if self.command == OST_EVENT:
                self.ost_event = value & 0xFFFFFFFF
            elif self.command == OST_STATUS:
                self.ost_status = value & 0xFFFFFFFF

    def _find_event(self) -> None:
        """Select the next processor, from the selected one on, that has something to tell."""
        count = len(self.ids)
        for step in range(count):
            index = (self.selector + step) % count
            if self.inserting[index]:
                self.selector = index
                return
