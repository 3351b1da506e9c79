"""What a management controller keeps: events (SEL), descriptions of sensors (SDR) and of parts (FRU).

Ref: IPMI v2.0 rev. 1.1, 31 (SEL), 32 (records in it), 33 (SDR), 34 (FRU), 43 (sensor records). Sizes, and what a
reservation counts, are those of QEMU's controller: one goes on with each record that is added.
"""

from __future__ import annotations

from vmrun.core.state import U16, U32, Bytes, Flag, Signed, Stateful, Table
from vmrun.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

OUT_OF_SPACE, INVALID_RESERVATION, TOO_LONG, NOT_PRESENT, INVALID_DATA = 0xC4, 0xC5, 0xC8, 0xCB, 0xCC
VERSION = 0x51  # 1.5, as both repositories say it
WHOLE, LAST, NEVER = 0xFF, 0xFFFF, b"\xff" * 4
INITIATE_ERASE, ERASURE_STATUS, ERASED = 0xAA, 0, 1
ENTRY, MOST_ENTRIES = 16, 128
ROOM, HEADER = 16384, 5
SYSTEM_EVENT, OEM_STAMPED, OEM_PLAIN = 0x02, 0xC0, 0xE0


class Refused(Exception):
    """`code` is the completion code of the answer."""

    def __init__(self, code: int) -> None:
        super().__init__(f"{code:#04x}")
        self.code = code


def word(value: int) -> bytes:
    return value.to_bytes(2, "little")


def dword(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def erase(data: bytes, reservation: int, clear: Callable[[], None]) -> bytes:
    """Both repositories are cleared the same way: reservation, "CLR", what to do."""
    if int.from_bytes(data[:2], "little") != reservation:
        raise Refused(INVALID_RESERVATION)
    if data[2:5] != b"CLR":
        raise Refused(INVALID_DATA)
    if data[5] == INITIATE_ERASE:
        clear()
    elif data[5] != ERASURE_STATUS:
        raise Refused(INVALID_DATA)
    return bytes([ERASED])


def cut(record: bytes, offset: int, count: int, room: int) -> bytes:
    """A record or a part of it, for an answer with `room` bytes left. Refused."""
    if count == WHOLE:
        count = max(len(record) - offset, 0)
    if offset + count > len(record):
        raise Refused(INVALID_DATA)
    if count > room:
        raise Refused(TOO_LONG)
    return record[offset : offset + count]


class EventLog(Stateful):
    """`now()` is the controller's time in seconds since 1970, without what the system has set (`time_offset`)."""

    state = Table(
        "ipmi-sel",
        1,
        Bytes("entries", most=ENTRY * MOST_ENTRIES),
        Bytes("last_addition", 4, NEVER),
        Bytes("last_clear", 4, NEVER),
        Signed("time_offset", -0xFFFFFFFF, 0xFFFFFFFF),
        U16("reservation"),
        Flag("overflow"),
    )
    entries: bytes
    last_addition: bytes
    last_clear: bytes
    time_offset: int
    reservation: int
    overflow: bool

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.reset()

    def check_state(self, values: dict[str, Any]) -> None:
        if len(values["entries"]) % ENTRY:
            raise StateError("ipmi-sel: a part of an entry")

    def time(self) -> bytes:
        return dword(self.now() + self.time_offset)

    def set_time(self, data: bytes) -> None:
        self.time_offset = int.from_bytes(data, "little") - self.now()

    def info(self) -> bytes:
        count = len(self.entries) // ENTRY
        free = ENTRY * (MOST_ENTRIES - count)
        flags = 0x02 | (0x80 if self.overflow else 0)  # reservations are known
        return bytes([VERSION]) + word(count) + word(free) + self.last_addition + self.last_clear + bytes([flags])

    def add(self, event: bytes) -> int | None:
        """Its number; None when the log is full. The controller sets number and time."""
        number = len(self.entries) // ENTRY
        if number >= MOST_ENTRIES:
            self.overflow = True
            return None
        self.entries += self.stamped(event, number)
        self.last_addition = self.time()
        self.reservation = self.reservation + 1 & 0xFFFF
        return number

    def stamped(self, event: bytes, number: int = 0) -> bytes:
        entry = word(number) + event[2:ENTRY]
        return entry if entry[2] >= OEM_PLAIN else entry[:3] + self.time() + entry[7:]

    def get(self, data: bytes) -> bytes:
        """Reservation, record, offset, count → the next record and what was asked for."""
        reservation, number, offset, count = _read(data)
        if offset and reservation != self.reservation:
            raise Refused(INVALID_RESERVATION)
        there = len(self.entries) // ENTRY
        if not there:
            raise Refused(NOT_PRESENT)
        count = max(ENTRY - offset, 0) if count == WHOLE else count
        if offset >= ENTRY or offset + count > ENTRY:
            raise Refused(INVALID_DATA)
        if number == LAST:
            number = there - 1
        if number >= there:
            raise Refused(NOT_PRESENT)
        following = number + 1 if number + 1 < there else LAST
        entry = self.entries[ENTRY * number : ENTRY * (number + 1)]
        return word(following) + entry[offset : offset + count]

    def clear(self) -> None:
        self.entries = b""
        self.overflow = False
        self.last_clear = self.time()
        self.reservation = self.reservation + 1 & 0xFFFF


class SensorRecords(Stateful):
    """Records one after another, each with its number."""

    state = Table(
        "ipmi-sdr",
        1,
        Bytes("records", most=ROOM),
        Bytes("last_addition", 4, NEVER),
        Bytes("last_clear", 4, NEVER),
        U16("reservation"),
        U32("next_number", most=0x10000),
        Flag("overflow"),
    )
    records: bytes
    last_addition: bytes
    last_clear: bytes
    reservation: int
    next_number: int
    overflow: bool

    def __init__(self, time: Callable[[], bytes]) -> None:
        self.time = time
        self.reset()

    def check_state(self, values: dict[str, Any]) -> None:
        records = values["records"]
        if sum(map(len, _records(records))) != len(records):
            raise StateError("ipmi-sdr: a part of a record")

    def each(self) -> list[bytes]:
        return _records(self.records)

    def info(self) -> bytes:
        flags = 0x22 | (0x80 if self.overflow else 0)  # reservations; changes while sensors work
        free = word(ROOM - len(self.records))
        return bytes([VERSION]) + word(len(self.each())) + free + self.last_addition + self.last_clear + bytes([flags])

    def add(self, record: bytes) -> int | None:
        """Its number; None when it is no record or finds no room."""
        if not HEADER <= len(record) <= 0xFF or record[4] + HEADER != len(record) or record[2] != VERSION:
            return None
        if len(self.records) + len(record) > ROOM or self.next_number > 0xFFFE:
            self.overflow = True
            return None
        number = self.next_number
        self.next_number += 1
        self.records += word(number) + record[2:]
        self.last_addition = self.time()
        self.reservation = self.reservation + 1 & 0xFFFF
        return number

    def get(self, data: bytes, room: int) -> bytes:
        reservation, number, offset, count = _read(data)
        if offset and reservation != self.reservation:
            raise Refused(INVALID_RESERVATION)
        records = self.each()
        numbers = [int.from_bytes(record[:2], "little") for record in records]
        if number not in numbers:  # QEMU's knows no "the last one" here
            raise Refused(NOT_PRESENT)
        at = numbers.index(number)
        if offset > len(records[at]):
            raise Refused(INVALID_DATA)
        following = word(numbers[at + 1] if at + 1 < len(records) else LAST)
        return following + cut(records[at], offset, count, room - len(following))

    def clear(self) -> None:
        self.records = b""
        self.overflow = False
        self.last_clear = self.time()
        self.reservation = self.reservation + 1 & 0xFFFF


def _records(data: bytes) -> list[bytes]:
    """Each record, as far as they are whole."""
    found, at = [], 0
    while at + HEADER <= len(data) and at + HEADER + data[at + 4] <= len(data):
        found.append(data[at : at + HEADER + data[at + 4]])
        at += len(found[-1])
    return found


def _read(data: bytes) -> tuple[int, int, int, int]:
    return int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little"), data[4], data[5]


class FruAreas:
    """Inventories of parts: areas of the same size, by number."""

    def __init__(self, size: int, data: bytes) -> None:
        self.size = size
        self.data = bytearray(data.ljust(-(-max(len(data), 1) // size) * size, b"\0"))

    def at(self, number: int, offset: int) -> int:
        """Where in `data`. The last byte of an area cannot be addressed."""
        if number >= len(self.data) // self.size or offset >= self.size - 1:
            raise Refused(INVALID_DATA)
        return number * self.size + offset

    def info(self, number: int) -> bytes:
        self.at(number, 0)
        return word(self.size) + b"\0"  # accessed by bytes

    def read(self, number: int, offset: int, count: int) -> bytes:
        at = self.at(number, offset)
        found = bytes(self.data[at : at + min(count, self.size - offset)])
        return bytes([len(found)]) + found

    def write(self, number: int, offset: int, data: bytes) -> bytes:
        at = self.at(number, offset)
        data = data[: self.size - offset]
        self.data[at : at + len(data)] = data
        return bytes([len(data)])
