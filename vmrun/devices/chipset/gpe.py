"""General-purpose events and the hot-plug registers behind them, as qemu-kvm's firmware tables use them.

Ports: 0xafe0 GPE0 status (2 bytes) and enable (2); 0xae00 PCI slots: up, down, eject/features, removable, bus
selector (0 without `bridges`) and the number that a device was given (acpi-index).
Not modelled: buses behind bridges: the selector takes only bus 0; acpi-index: no device has one.
"""

from __future__ import annotations

from accel.api import PyIoRegion

from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

GPE0, GPE0_SIZE = 0xAFE0, 4
SLOTS, SLOTS_SIZE = 0xAE00, 0x18
BUSES = 256
PCI_EVENT = 0x02
UP, DOWN, EJECT, REMOVABLE, SELECT = 0, 4, 8, 12, 16


class Gpe:
    """`fixed()` gives a bit per slot that cannot be emptied; `set_level(level)` drives the SCI cause."""

    def __init__(self, fixed: Callable[[], int], bridges: bool, set_level: Callable[[int], None]) -> None:
        self.fixed, self.bridges, self.set_level = fixed, bridges, set_level
        self.eject: Callable[[int], None] | None = None
        self.status = self.enable = self.up = self.down = self.select = 0
        self._update()

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
        self.load({"status": 0, "enable": 0, "up": 0, "down": 0, "select": 0})

    def _update(self) -> None:
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
        self._update()

    def plug(self, slot: int) -> None:
        """A card was put in: tell the guest."""
        self.up |= 1 << slot
        self.status |= PCI_EVENT
        self._update()

    def ask_unplug(self, slot: int) -> None:
        """Ask the guest to let go of a card; it answers by writing EJECT."""
        self.down |= 1 << slot
        self.status |= PCI_EVENT
        self._update()

    def _read_slots(self, offset: int, size: int) -> int:
        if self.select and offset != SELECT:
            return 0xFFFFFFFF if offset == REMOVABLE and self.select < BUSES else 0
        if offset == UP:
            value = self.up
            self.up = 0  # told once
            return value
        if offset == DOWN:
            return self.down
        if offset == EJECT:
            return 0  # features: none
        if offset == REMOVABLE:
            return 0xFFFFFFFF & ~self.fixed()
        return self.select if offset == SELECT else 0

    def _write_slots(self, offset: int, size: int, value: int) -> None:
        if offset == SELECT:
            self.select = value & 0xFFFFFFFF if self.bridges else 0
        elif offset == EJECT and not self.select and self.eject is not None:
            for slot in range(32):
                if value >> slot & 1:
                    self.eject(slot)

    def save(self) -> dict[str, Any]:
        return {"status": self.status, "enable": self.enable, "up": self.up, "down": self.down, "select": self.select}

    def load(self, state: dict[str, Any]) -> None:
        for name, bits in (("status", 16), ("enable", 16), ("up", 32), ("down", 32), ("select", 32)):
            value = state.get(name)
            if not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise StateError(f"GPE: {name} cannot be {value!r}")
        self.status, self.enable, self.up, self.down = (state[n] for n in ("status", "enable", "up", "down"))
        self.select = state["select"]
        self._update()
