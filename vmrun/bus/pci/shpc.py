"""The Standard Hot-Plug Controller of a bridge: its working registers, its commands, and the slots it looks after.

Ref: PCI Standard Hot-Plug Controller and Subsystem Specification 1.0, chapters 3 and 4.
Not modelled: 66 MHz and PCI-X (all slots run at 33 MHz), power faults, SERR.
Departures: the lid (MRL) of a slot opens and closes by itself when a card goes and comes, as qemu-kvm's does.
"""

from __future__ import annotations

from vmrun.bus.pci.capability import Capability
from vmrun.core.state import Bytes, Flag, Stateful, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.bus.pci.bus import PciBus
    from vmrun.bus.pci.device import PciDevice

SLOTS, SIZE, BAR_SIZE = 31, 0xA0, 0x100
SLOTS_33, COUNT, FIRST, PHYSICAL, BUS_SPEED, INTERFACE = 0x04, 0x0C, 0x0D, 0x0E, 0x10, 0x13
COMMAND, TARGET, STATUS, LOCATOR, CONTROL, SLOT = 0x14, 0x15, 0x16, 0x18, 0x20, 0x24
NUMBER_UP, LID_SENSOR, BUTTONS = 0x2000, 0x4000, 0x8000
INVALID_COMMAND, INVALID_SPEED = 0x04, 0x08
# control: what is held back, what happened
GLOBAL_OFF, COMMAND_OFF, ALL_OFF, COMMAND_DONE, ARBITER = 0x01, 0x04, 0x0F, 0x10000, 0x20000
# a slot's status
STATE, POWER_LED, ATTENTION_LED, LID_OPEN, PRESENCE, EMPTY = 0x03, 0x0C, 0x30, 0x100, 0xC00, 0xC00
POWERED, ENABLED, DISABLED = 1, 2, 3
LED_ON, LED_OFF = 1, 3
# its events, and what of them is held back
CAME_OR_WENT, BUTTON, LID, EVENTS, EVENTS_OFF = 0x01, 0x04, 0x08, 0x1F, 0x7F
CAPABILITY, SELECT, DATA = 0x0C, 2, 4


class Shpc(Stateful):
    """`changed(level)`: the interrupt is wanted or not. `let_go(device)`: its slot was switched off for good."""

    state = Table("shpc", 1, Bytes("registers", SIZE, lambda chip: chip.at_reset()), Flag("level"))

    def __init__(
        self, bus: PciBus, changed: Callable[[bool], None], let_go: Callable[[PciDevice], None]
    ) -> None:
        self.bus, self.changed, self.let_go = bus, changed, let_go
        self.level = False
        self.registers = bytearray(self.at_reset())
        self.writable, self.clears = bytearray(SIZE), bytearray(SIZE)
        self.writable[COMMAND], self.writable[TARGET], self.writable[CONTROL] = 0xFF, 0x1F, ALL_OFF
        self.clears[CONTROL + 2] = (COMMAND_DONE | ARBITER) >> 16
        for slot in range(SLOTS):
            self.clears[SLOT + 4 * slot + 2] = EVENTS
            self.writable[SLOT + 4 * slot + 3] = EVENTS_OFF

    def at_reset(self) -> bytes:
        found = bytearray(SIZE)
        found[SLOTS_33] = found[COUNT] = SLOTS
        found[FIRST] = INTERFACE_1_0 = 1
        found[PHYSICAL : PHYSICAL + 2] = (1 | NUMBER_UP | LID_SENSOR | BUTTONS).to_bytes(2, "little")
        found[INTERFACE] = INTERFACE_1_0
        found[CONTROL] = ALL_OFF
        taken = {device.devfn >> 3 for device in self.bus.devices if not device.devfn & 7}
        for slot in range(SLOTS):
            status = ENABLED | LED_ON << 2 if slot + 1 in taken else DISABLED | LED_OFF << 2 | LID_OPEN | EMPTY
            found[SLOT + 4 * slot : SLOT + 4 * slot + 2] = status.to_bytes(2, "little")
            found[SLOT + 4 * slot + 3] = EVENTS_OFF
        return bytes(found)

    # --- registers ----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        return int.from_bytes(self.registers[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        for at in range(offset, min(offset + size, SIZE)):
            byte = value >> 8 * (at - offset) & 0xFF
            mask = self.writable[at]
            self.registers[at] = (self.registers[at] & ~mask | byte & mask) & ~(byte & self.clears[at])
        if offset < COMMAND + 2 and offset + size > COMMAND:
            self._command(self.registers[COMMAND])
        self._update()

    def _field(self, slot: int, mask: int) -> int:
        word = int.from_bytes(self.registers[SLOT + 4 * slot : SLOT + 4 * slot + 2], "little")
        return (word & mask) // (mask & -mask)

    def _set(self, slot: int, mask: int, value: int) -> None:
        at = SLOT + 4 * slot
        word = int.from_bytes(self.registers[at : at + 2], "little") & ~mask | value * (mask & -mask)
        self.registers[at : at + 2] = word.to_bytes(2, "little")

    def _happened(self, slot: int, events: int) -> None:
        self.registers[SLOT + 4 * slot + 2] |= events

    def _update(self) -> None:
        """The locator says which slots, and whether a command, want to be looked at."""
        locator = 0
        for slot in range(SLOTS):
            at = SLOT + 4 * slot
            if self.registers[at + 2] & ~self.registers[at + 3]:
                locator |= 2 << slot
        control = int.from_bytes(self.registers[CONTROL : CONTROL + 4], "little")
        if control & COMMAND_DONE and not control & COMMAND_OFF:
            locator |= 1
        self.registers[LOCATOR : LOCATOR + 4] = locator.to_bytes(4, "little")
        level = bool(locator and not control & GLOBAL_OFF)
        self.changed(level)
        self.level = level

    # --- commands -----------------------------------------------------------------------------------------

    def _command(self, code: int) -> None:
        self.registers[STATUS : STATUS + 2] = bytes(2)
        if code < 0x40:
            self._slot_command(self.registers[TARGET] & 0x1F, code & 3, code >> 2 & 3, code >> 4 & 3)
        elif code == 0x40:
            pass  # 33 MHz, as ever
        elif code < 0x48:
            self.registers[STATUS] |= INVALID_SPEED
        elif code in (0x48, 0x49):
            self._all(POWERED if code == 0x48 else ENABLED)
        else:
            self._invalid()
        self.registers[CONTROL + 2] |= COMMAND_DONE >> 16

    def _invalid(self) -> None:
        self.registers[STATUS] |= INVALID_COMMAND

    def _all(self, state: int) -> None:
        if any(self._field(slot, STATE) == ENABLED for slot in range(SLOTS)):
            self._invalid()
            return
        for slot in range(SLOTS):
            if self._field(slot, LID_OPEN):
                self._slot_command(slot + 1, 0, LED_OFF, 0)
            else:
                self._slot_command(slot + 1, state, LED_ON, 0)

    def _slot_command(self, target: int, state: int, power: int, attention: int) -> None:
        slot = target - 1
        if not 0 <= slot < SLOTS:
            self._invalid()
            return
        current = self._field(slot, STATE)
        if current == ENABLED and state == POWERED:
            self._invalid()
            return
        if power:
            self._set(slot, POWER_LED, power)
        if attention:
            self._set(slot, ATTENTION_LED, attention)
        if current == DISABLED and state in (POWERED, ENABLED):
            self._set(slot, STATE, state)
        elif current in (POWERED, ENABLED) and state == DISABLED:
            self._set(slot, STATE, state)
            if self._field(slot, POWER_LED) == LED_OFF:  # the driver is done with the card
                self._empty(slot)

    def _empty(self, slot: int) -> None:
        for device in list(self.bus.devices):
            if device.devfn >> 3 == slot + 1:
                self.let_go(device)
        self._set(slot, LID_OPEN, 1)
        self._set(slot, PRESENCE, 3)
        self._happened(slot, LID | CAME_OR_WENT)

    # --- for the machine ----------------------------------------------------------------------------------

    def check(self, device: PciDevice) -> None:
        slot = device.devfn >> 3
        if not 1 <= slot <= SLOTS:
            raise BuildError(
                f"Unsupported PCI slot {slot} for standard hotplug controller. Valid slots are between 1 and {SLOTS}."
            )

    def plugged(self, device: PciDevice) -> None:
        slot = (device.devfn >> 3) - 1
        if self._field(slot, LID_OPEN):
            self._set(slot, LID_OPEN, 0)
            self._set(slot, PRESENCE, 0)
            self._happened(slot, BUTTON | LID | CAME_OR_WENT)
        else:
            self._happened(slot, BUTTON)  # takes a removal back
        self._update()

    def ask_unplug(self, device: PciDevice) -> None:
        slot = (device.devfn >> 3) - 1
        self.check(device)
        self._happened(slot, BUTTON)
        if self._field(slot, STATE) == DISABLED and self._field(slot, POWER_LED) == LED_OFF:
            self._empty(slot)
        self._update()


class ShpcCapability(Capability):
    """The registers through configuration space: a dword is selected, then read or written."""

    def __init__(self, chip: Shpc) -> None:
        super().__init__(CAPABILITY, bytes(6), b"\xff\0\xff\xff\xff\xff")
        self.chip = chip

    def written(self) -> None:
        config, at = self.device.config, self.offset
        dword = config.get(at + SELECT, 1) * 4
        config.set_dword(at + DATA, self.chip.read(dword, 4))
