"""General-purpose events and the slot hot-plug registers behind them, as qemu-kvm's firmware tables use them.

Ports: 0xafe0 GPE0 status (2 bytes) and enable (2); 0xae00 PCI slots of the bus that is selected: up, down,
eject/features, removable, bus selector (0 without `bridges`) and the number that a device was given (acpi-index).
Buses are numbered when the machine starts: the root first, then the buses behind bridges that were there, depth first.
A card goes when the guest writes its slot to eject; one that was asked for goes with the next reset at the latest.
Ref: QEMU docs/specs/acpi_pci_hotplug.rst.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.core.state import U16, U32, Parts, Stateful, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vmrun.bus.pci import PciBus, PciDevice

GPE0, GPE0_SIZE = 0xAFE0, 4
SLOTS, SLOTS_SIZE = 0xAE00, 0x18
BUSES = 256
PCI_EVENT, CPU_EVENT = 0x02, 0x04
UP, DOWN, EJECT, REMOVABLE, SELECT, INDEX = 0, 4, 8, 12, 16, 20
ALL = 0xFFFFFFFF


class _Slots(Stateful):
    """One bus: a bit per slot for cards that came (up) and cards that are asked for (down)."""

    state = Table("gpe-slots", 1, U32("up"), U32("down"))

    def __init__(self, bus: PciBus) -> None:
        self.bus = bus
        self.up = self.down = 0

    def cards(self, slot: int) -> list[PciDevice]:
        return [device for device in self.bus.devices if device.devfn >> 3 == slot]

    def removable(self) -> int:
        """A bit per slot whose card can be taken out, or that is empty."""
        fixed = {device.devfn >> 3 for device in self.bus.devices if stays(device)}
        return ALL & ~sum(1 << slot for slot in fixed)


def stays(device: PciDevice) -> bool:
    """Bridges of the start stay: what is behind them is described in the firmware's tables."""
    return not device.hotpluggable or (device.header_type == 1 and not device.hotplugged)


class Gpe(Stateful):
    """`root` (None: its slots are fixed) and, with `bridges`, the buses behind it. `set_level(level)` drives the SCI
    cause, `let_go(device)` takes a card out of the machine.
    """

    state = Table(
        "gpe", 2, U16("status"), U16("enable"), U32("select"), U32("index"), Parts("buses"),
        readers={1: lambda fields: {**fields, "index": 0}},
    )  # fmt: skip

    def __init__(
        self,
        root: PciBus,
        root_too: bool,
        bridges: bool,
        set_level: Callable[[int], None],
        let_go: Callable[[PciDevice], None],
    ) -> None:
        self.root, self.root_too, self.bridges = root, root_too, bridges
        self.set_level, self.let_go = set_level, let_go
        self.slots: list[_Slots] | None = None  # by number; None until the machine starts
        self.status = self.enable = self.select = self.index = 0
        self.settle()

    def regions(self) -> list[tuple[PyIoRegion, int, int]]:
        return [
            (PyIoRegion("acpi-gpe0", self._read_gpe, self._write_gpe, 1, 1), GPE0, GPE0_SIZE),
            (
                PyIoRegion("acpi-pci-hotplug", self._read_slots, self._write_slots, 4, 4),
                SLOTS,
                SLOTS_SIZE,
            ),
        ]

    def reset(self) -> None:
        if self.slots is None:
            self._number()
        self.status = self.enable = self.select = self.index = 0
        for slots in self.slots or ():
            for slot in range(32):
                if slots.down >> slot & 1:
                    self._eject(slots, slot)
        self.settle()

    def _number(self) -> None:
        buses = list(self._depth_first(self.root)) if self.bridges else [self.root]
        self.slots = [_Slots(bus) for bus in buses if bus is not self.root or self.root_too]
        for slots in self.slots:
            if slots.bus.hotplug is None or slots.bus.bridge is not None:
                slots.bus.hotplug = self

    def _depth_first(self, bus: PciBus) -> Iterator[PciBus]:
        """The youngest first, as qemu-kvm numbers them."""
        yield bus
        for device in reversed(bus.devices):
            for behind in device.buses.values():
                if behind.kind == "PCI":
                    yield from self._depth_first(behind)

    @property
    def buses(self) -> list[_Slots]:
        return self.slots or []

    def settle(self) -> None:
        self.set_level(1 if self.status & self.enable else 0)

    def _read_gpe(self, offset: int, size: int) -> int:
        return (self.status | self.enable << 16) >> (8 * offset) & 0xFF

    def _write_gpe(self, offset: int, size: int, value: int) -> None:
        value &= 0xFF
        if offset < 2:
            self.status &= ~(value << (8 * offset))
        else:
            shift = 8 * (offset - 2)
            self.enable = self.enable & ~(0xFF << shift) | value << shift
        self.settle()

    # --- for the machine ----------------------------------------------------------------------------------

    def _slots_of(self, device: PciDevice) -> _Slots:
        for slots in self.slots or ():
            if slots.bus is device.parent_bus:
                return slots
        raise BuildError("Unsupported bus. Bus doesn't have property 'acpi-pcihp-bsel' set")

    def check(self, device: PciDevice) -> None:
        self._slots_of(device)

    def plugged(self, device: PciDevice) -> None:
        """A card was put in: tell the guest."""
        self._slots_of(device).up |= 1 << (device.devfn >> 3)
        self.event(PCI_EVENT)

    def ask_unplug(self, device: PciDevice) -> None:
        """Ask the guest to let go of a card; it answers by writing EJECT."""
        self._slots_of(device).down |= 1 << (device.devfn >> 3)
        self.event(PCI_EVENT)

    def event(self, bits: int) -> None:
        """Something happened that the guest shall look at."""
        self.status |= bits
        self.settle()

    def processor_event(self) -> None:
        """A processor came."""
        self.event(CPU_EVENT)

    # --- for the guest ------------------------------------------------------------------------------------

    def _selected(self) -> _Slots | None:
        slots = self.slots or []
        return slots[self.select] if self.select < len(slots) else None

    def _read_slots(self, offset: int, size: int) -> int:
        if self.select >= BUSES:
            return 0
        if offset == SELECT:
            return self.select
        if offset == INDEX:
            index, self.index = self.index, 0  # told once
            return index
        slots = self._selected()
        if slots is None:
            return ALL if offset == REMOVABLE else 0
        if offset == UP:
            value = slots.up
            if self.bridges:
                slots.up = 0  # told once
            return value
        if offset == DOWN:
            return slots.down
        return slots.removable() if offset == REMOVABLE else 0

    def _write_slots(self, offset: int, size: int, value: int) -> None:
        if offset == SELECT:
            self.select = value & ALL if self.bridges else 0
            self.index = 0
        elif offset in (EJECT, INDEX):
            slots, lowest = self._selected(), (value & -value & ALL).bit_length() - 1
            if offset == INDEX:
                cards = slots.cards(lowest) if slots is not None else []
                self.index = cards[-1].acpi_index if cards else 0
            elif slots is not None and lowest >= 0:
                self._eject(slots, lowest)

    def _eject(self, slots: _Slots, slot: int) -> None:
        slots.down &= ~(1 << slot)
        slots.up &= ~(1 << slot)
        for device in slots.cards(slot):
            if not stays(device):
                self.let_go(device)
