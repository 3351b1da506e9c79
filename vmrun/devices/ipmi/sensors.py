"""Sensors of a management controller: which events each may tell, which it has told, and its reading.

They are those that the sensor records describe. Ref: IPMI v2.0 rev. 1.1, 35 (commands), 43.1 and 43.2 (records of types
1 and 2), 42 (events of each kind).
"""

from __future__ import annotations

from vmrun.core.state import U8, U16, Flag, Stateful, Table
from vmrun.devices.ipmi.records import INVALID_DATA, Refused, word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 20
EVENTS_ON, SCANNING_ON = 0x80, 0x40
FULL, COMPACT = 1, 2  # types of records that describe a sensor
THRESHOLD = 0x01  # kind of events; the others are discrete
UNKNOWN = 0xFF

# what is done with a mask or a value of Set Sensor Reading
KEEP, WRITE, SET_BITS, CLEAR_BITS = range(4)
NO_EVENT, WHOLE_DATA, OWN_OFFSET = range(3)


class Sensor(Stateful):
    """Sixteen events, by their offsets; one is told when its bit of the enabled ones is set."""

    state = Table(
        "ipmi-sensor",
        1,
        Flag("present"),
        U8("status", most=EVENTS_ON | SCANNING_ON),
        U8("reading"),
        U16("asserted"),
        U16("deasserted"),
        U16("assert_enable"),
        U16("deassert_enable"),
        U8("type"),
        U8("event_type"),
    )
    present: bool
    status: int
    reading: int
    asserted: int
    deasserted: int
    assert_enable: int
    deassert_enable: int
    type: int
    event_type: int

    def __init__(self) -> None:
        self.reset()

    def describe(self, record: bytes) -> None:
        """Take what a record says; all events that the sensor knows are enabled."""
        self.present = True
        self.status = (SCANNING_ON if record[10] & 0x40 else 0) | (EVENTS_ON if record[10] & 0x20 else 0)
        self.type, self.event_type = record[12], record[13] & 0x7F
        self.assert_enable = int.from_bytes(record[14:16], "little")
        self.deassert_enable = int.from_bytes(record[16:18], "little")

    def enables(self) -> bytes:
        return bytes([self.status]) + word(self.assert_enable) + word(self.deassert_enable)

    def set_enables(self, data: bytes) -> None:
        """Switches, and masks of which enables are set (operation 1) or cleared (2)."""
        operation = data[0] >> 4 & 3
        if operation == 3:
            raise Refused(INVALID_DATA)
        self.status = data[0] & (EVENTS_ON | SCANNING_ON)
        asserts, deasserts = _masks(data[1:])
        if operation == 1:
            self.assert_enable |= asserts
            self.deassert_enable |= deasserts
        elif operation == 2:
            self.assert_enable &= ~asserts
            self.deassert_enable &= ~deasserts

    def events(self) -> bytes:
        return bytes([self.reading, self.status]) + word(self.asserted) + word(self.deasserted)

    def read(self) -> bytes:
        """QEMU's sensors have no present states but those that were told."""
        more = b"" if self.event_type == THRESHOLD else b"\0"
        return bytes([self.reading, self.status, 0]) + more

    def set_reading(self, data: bytes, tell: Callable[[bool, bytes], None]) -> None:
        """Operations, reading, masks of assertions and deassertions, event data. tell(deasserted, event data)."""
        operations, event = data[0], (data[6:] + bytes(3))[:3]
        wanted = operations >> 6
        if operations & 3 > WRITE or wanted > OWN_OFFSET or wanted and len(data) < 7:
            raise Refused(INVALID_DATA)
        asserts, deasserts = _masks(data[2:])
        if operations & 3 == WRITE:
            self.reading = data[1]
        if len(data) > 2:
            self.asserted = _changed(self.asserted, asserts, operations >> 4 & 3)
        if len(data) > 4:
            self.deasserted = _changed(self.deasserted, deasserts, operations >> 2 & 3)
        if wanted == NO_EVENT or self.event_type == THRESHOLD:
            return
        if wanted == OWN_OFFSET:
            event = bytes([event[0] & 0xF0]) + event[1:]
        bit = 1 << (event[0] & 0x0F)
        if self.asserted & bit & self.assert_enable:
            tell(False, event)
        if self.deasserted & bit & self.deassert_enable:
            tell(True, event)


def _masks(data: bytes) -> tuple[int, int]:
    """Two masks, as far as there are bytes."""
    data = data[:4].ljust(4, b"\0")
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:], "little")


def _changed(old: int, given: int, operation: int) -> int:
    return {KEEP: old, WRITE: given, SET_BITS: old | given, CLEAR_BITS: old & given}[operation]


def described(records: list[bytes]) -> list[Sensor]:
    """All sensors there can be; those that records of the right types name are present."""
    sensors = [Sensor() for _ in range(MOST)]
    for record in records:
        if len(record) >= 20 and record[3] in (FULL, COMPACT) and record[7] < MOST:
            sensors[record[7]].describe(record)
    return sensors
