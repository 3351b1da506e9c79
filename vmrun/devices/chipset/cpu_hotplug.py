"""Which processors there are, at 0xaf00: for the firmware's tables, in two forms.

It starts as a bitmap, a bit per APIC id, 32 bytes, read only. Writing 0 to the first byte turns it into registers, and
so they stay: one processor is selected, then asked about. With a selector that names none, all reads 0.

    offset  read                       write
    0       command data 2 (32 bits)   selector (32 bits)
    4       status: 1 if it is there,  control: 2, 4 clear those events, 8 ejects
            2 it came, 4 it shall go
    5                                  command
    8       command data (32 bits)     command data

Ref: QEMU docs/specs/acpi_cpu_hotplug.rst.
The first processor stays; the others come and go in any order.
Not modelled: ejection by firmware (bit 4).
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.state import KEEP, U8, U32, Bytes, Flag, Stateful, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

BASE, SIZE, REGISTERS_SIZE = 0xAF00, 32, 12
SELECTOR, STATUS, COMMAND, DATA = 0, 4, 5, 8
NEXT_EVENT, OST_EVENT, OST_STATUS, ARCH_ID = 0, 1, 2, 3  # commands: what the data are then
MOST_COMMAND, INSERTING, REMOVING, EJECT = 3, 2, 4, 8


class CpuHotplug(Stateful):
    """`ids`: APIC ids of all processors that there can be; `present`: which of them are there, by index. `event` tells
    the guest that there is something to ask about, `let_go(index)` the machine that the guest has ejected one.
    """

    # QEMU's registers, too, live on over a reset.
    state = Table(
        "cpu-hotplug", 2,
        Flag("bitmap", KEEP), U32("selector", KEEP), U8("command", KEEP, most=MOST_COMMAND),
        U32("ost_event", KEEP), U32("ost_status", KEEP), Bytes("inserting", lambda chip: len(chip.ids), KEEP, each=1),
        Bytes("removing", lambda chip: len(chip.ids), KEEP, each=1),
        readers={1: lambda old: {**old, "removing": bytes(len(old["inserting"]))}},
    )  # fmt: skip

    def __init__(
        self,
        ids: Sequence[int],
        present: Iterable[int],
        event: Callable[[], None] = lambda: None,
        let_go: Callable[[int], None] = lambda index: None,
    ) -> None:
        self.ids, self.present, self.event, self.let_go = list(ids), set(present), event, let_go
        self.bitmap = True
        self.selector = self.command = self.ost_event = self.ost_status = 0
        self.inserting, self.removing = bytearray(len(self.ids)), bytearray(len(self.ids))

    def region(self) -> tuple[PyIoRegion, int, int]:
        return PyIoRegion("acpi-cpu-hotplug", self.read, self.write, 1, 4), BASE, SIZE

    def plugged(self, index: int) -> None:
        """Processor `index` is there now: tell the guest."""
        self.inserting[index] = not self.bitmap  # the bitmap has no events of its own
        self.present.add(index)
        self.event()

    def ask(self, index: int) -> bool:
        """Ask the guest to let go of one. False: the bitmap cannot."""
        if not self.bitmap:
            self.removing[index] = 1
            self.event()
        return not self.bitmap

    def read(self, offset: int, size: int) -> int:
        if self.bitmap:
            bits = sum(1 << self.ids[index] for index in self.present)
            return bits >> (8 * offset) & ((1 << 8 * size) - 1)
        if offset >= REGISTERS_SIZE:
            return (1 << 8 * size) - 1  # nothing is there any more
        if self.selector >= len(self.ids):
            return 0
        id = self.ids[self.selector]
        if offset == SELECTOR:
            return id >> 32 if self.command == ARCH_ID else 0
        if offset == STATUS:
            inserting, removing = self.inserting[self.selector], self.removing[self.selector]
            there = self.selector in self.present
            return int(there) | (INSERTING if inserting else 0) | (REMOVING if removing else 0)
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
            self._control(value)
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

    def _control(self, value: int) -> None:
        index = self.selector
        if value & INSERTING:
            self.inserting[index] = 0
        elif value & REMOVING:
            self.removing[index] = 0
        elif value & EJECT and index in self.present - {0}:
            self.inserting[index] = self.removing[index] = 0
            self.present.discard(index)
            self.let_go(index)

    def _find_event(self) -> None:
        """Select the next processor, from the selected one on, that has something to tell."""
        count = len(self.ids)
        for step in range(count):
            index = (self.selector + step) % count
            if self.inserting[index] or self.removing[index]:
                self.selector = index
                return
