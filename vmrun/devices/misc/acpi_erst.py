"""acpi-erst: a store of error records that outlives a crash (ERST), on a PCI card; Linux's pstore writes to it.

Ref: ACPI specification 6.4, 18.5 (error serialization); UEFI specification 2.10, N.2 (records); QEMU
docs/specs/acpi_erst. BAR 0: an action and its value; BAR 1: the exchange buffer, as long as a record may be. What is
stored is a memory backend's: a header (magic, size of a record, where they begin, version, count, an identifier for
each piece of that size), then the records.
"""

from __future__ import annotations

import struct

from accel.api import PyIoRegion
from accel.ram import RamBlock
from accel.space import Region

from vmrun.bus.pci import PciDevice
from vmrun.core.props import Prop
from vmrun.core.registry import register
from vmrun.core.state import U8, U32, U64, Table
from vmrun.errors import BuildError, StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.core.platform import Platform

REGISTERS, ACTION, VALUE = 0x10, 0x0, 0x8
BEGIN_WRITE, BEGIN_READ, BEGIN_CLEAR, END, SET_OFFSET, EXECUTE, BUSY, STATUS = range(8)
GET_IDENTIFIER, SET_IDENTIFIER, COUNT, BEGIN_DUMMY = 8, 9, 10, 11
RANGE_BASE, RANGE_LENGTH, RANGE_ATTRIBUTES, TIMINGS = 13, 14, 15, 16
EXECUTE_MAGIC = 0x9C
SUCCESS, NO_SPACE, FAILED, EMPTY, NOT_FOUND = 0, 1, 3, 4, 5
MICROSECONDS = 100 << 32 | 10  # longest and usual time of an operation

HEADER = struct.Struct("<8sIIHHI")
MAGIC, VERSION = b"ERSTSTOR", 0x0100
LEAST_RECORD = 4096  # bytes of room for one
CPER_HEADER, CPER_LENGTH, CPER_ID = 128, 20, 96
NOBODY, ANYBODY = 0xFFFFFFFFFFFFFFFF, 0


@register("acpi-erst", description="ACPI error record serialization table (ERST) device")
class AcpiErst(PciDevice):
    vendor_id, device_id, class_code = 0x1B36, 0x0012, 0xFF0000
    hotpluggable = False

    memdev = Prop("object", doc="the memory backend with the records", visible=False, of=("memory-backend",))
    record_size = Prop("uint32", 0x2000, "bytes of room for a record: a power of two, 4096 at least", unit="bytes")

    state: Table = PciDevice.state.extend(
        "acpi-erst",
        1,
        U8("operation", most=BEGIN_DUMMY),
        U8("status", most=NOT_FOUND),
        U32("offset"),
        U32("next_slot"),
        U64("identifier"),
        U64("value"),
    )
    operation: int
    status: int
    offset: int
    next_slot: int
    identifier: int
    value: int

    def pci_realize(self, platform: Platform) -> None:
        if self.memdev is None:
            raise BuildError("'memdev' property is not set")
        memory: Any = platform.user_object(self.memdev)
        if not hasattr(memory, "own_block"):
            raise BuildError(f"object '{self.memdev}' is no memory backend")
        if memory.users:
            raise BuildError(f"can't use already busy memdev: {self.memdev}")
        self.store: Any = memory.own_block()
        self._open(memory.size)
        self.exchange = RamBlock(f"{self.name}.exchange", self.record_size)
        self.add_bar(0, PyIoRegion("acpi-erst", self._read, self._write, 4, 8), REGISTERS, "mem32")
        self.add_bar(1, Region.ram(f"{self.name}.exchange", self.exchange), self.record_size, "mem32")
        self.ram_blocks += [self.exchange, self.store]
        memory.users.append(self.path)
        self.memory = memory

    def unrealize(self) -> None:
        super().unrealize()
        self.memory.users.remove(self.path)

    def check_state(self, values: dict[str, Any]) -> None:
        if values["next_slot"] > self.slots:
            raise StateError("acpi-erst: a slot that is not there")

    # --- the store ------------------------------------------------------------------------------------------

    def _open(self, size: int) -> None:
        """Make a store of empty memory; else it must be one, of records of this size. `first` is where they begin."""
        record = self.record_size
        if record < LEAST_RECORD or record & (record - 1):
            raise BuildError(f"ERST record_size {record} is invalid")
        if size % record:
            raise BuildError(f"ACPI ERST requires storage size be multiple of record size ({record >> 10}KiB)")
        self.first = -(-(HEADER.size + 8 * (size // record)) // record) * record
        self.map_at = HEADER.size + 8 * (self.first // record)  # what the header takes up is counted too
        self.slots = (size - self.first) // record
        if self.slots < 1:
            raise BuildError(f"ACPI ERST: {size:#x} bytes have no room for a record", remedy="give the backend more")
        magic, *found, _ = HEADER.unpack(self.store.read(0, HEADER.size))
        if magic == bytes(8):
            self.store.write(0, HEADER.pack(MAGIC, record, self.first, VERSION, 0, 0))
        elif (magic, found) != (MAGIC, [record, self.first, VERSION, 0]):
            raise BuildError(
                f"ERST: memory backend '{self.memdev}' holds no store with records of {record} bytes",
                remedy="give the record_size that it was made with, or an empty file",
            )

    def _count(self) -> int:
        return int.from_bytes(self.store.read(HEADER.size - 4, 4), "little")

    def _mark(self, slot: int, identifier: int, change: int) -> None:
        self.store.write(self.map_at + 8 * slot, identifier.to_bytes(8, "little"))
        self.store.write(HEADER.size - 4, (self._count() + change & 0xFFFFFFFF).to_bytes(4, "little"))

    def _identifiers(self) -> tuple[int, ...]:
        """Of each slot; 0 where it is free."""
        return struct.unpack(f"<{self.slots}Q", self.store.read(self.map_at, 8 * self.slots))

    def _slot(self, identifier: int) -> int:
        """-1: there is none."""
        found = self._identifiers()
        return found.index(identifier) if identifier in found else -1

    def _at(self, slot: int) -> int:
        return int(self.first + slot * self.record_size)

    # --- registers -------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> int:
        return self.value >> 8 * (offset - VALUE) if offset >= VALUE else 0

    def _write(self, offset: int, size: int, value: int) -> None:
        if offset >= VALUE:
            shift = 8 * (offset - VALUE)
            mask = ((1 << 8 * size) - 1) << shift
            self.value = (self.value & ~mask | value << shift & mask) & NOBODY
        elif offset == ACTION:
            self._act(value)

    def _act(self, action: int) -> None:
        if action in (BEGIN_WRITE, BEGIN_READ, BEGIN_CLEAR, END, BEGIN_DUMMY):
            self.operation = action
        elif action == SET_OFFSET:
            self.offset = self.value & 0xFFFFFFFF
        elif action == SET_IDENTIFIER:
            self.identifier = self.value
        elif action == EXECUTE:
            if self.value & 0xFF == EXECUTE_MAGIC:
                self.status = self._execute()
        elif action == GET_IDENTIFIER:
            self.value, self.status = self._following(), SUCCESS
        else:
            answers = {BUSY: 0, STATUS: self.status, COUNT: self._count(), RANGE_LENGTH: self.record_size}
            answers |= {RANGE_BASE: self.bars[1].mapped or 0, RANGE_ATTRIBUTES: 0, TIMINGS: MICROSECONDS}
            self.value = answers.get(action, self.value)

    def _execute(self) -> int:
        """The status."""
        if self.operation == BEGIN_WRITE:
            return self._store()
        if self.operation == BEGIN_READ:
            return self._fetch()
        return self._clear() if self.operation == BEGIN_CLEAR else SUCCESS

    def _record(self) -> bytes:
        """The one in the exchange buffer; empty when it is none or not whole."""
        room = self.record_size - self.offset
        if room < CPER_HEADER:
            return b""
        head = self.exchange.read(self.offset, CPER_HEADER)
        length = int.from_bytes(head[CPER_LENGTH : CPER_LENGTH + 4], "little")
        return self.exchange.read(self.offset, length) if CPER_HEADER <= length <= room else b""

    def _store(self) -> int:
        record = self._record()
        identifier = int.from_bytes(record[CPER_ID : CPER_ID + 8], "little")
        if not record or identifier in (NOBODY, ANYBODY):
            return FAILED
        slot = self._slot(identifier)
        added = slot < 0
        if added:
            slot = self._slot(ANYBODY)
            if slot < 0:
                return NO_SPACE
        self.store.write(self._at(slot), record.ljust(self.record_size, b"\xff"))
        self._mark(slot, identifier, int(added))
        return SUCCESS

    def _fetch(self) -> int:
        room = self.record_size - self.offset
        if not self._count():
            return EMPTY
        identifier = self.identifier
        if identifier == ANYBODY:
            self.next_slot = 0
            identifier = self._following()
        if room < CPER_HEADER or identifier == NOBODY:
            return FAILED
        slot = self._slot(identifier)
        if slot < 0:
            self.next_slot = 0
            self.identifier = self._following()  # there is this one
            return NOT_FOUND
        length = int.from_bytes(self.store.read(self._at(slot) + CPER_LENGTH, 4), "little")
        if not CPER_HEADER <= length <= room:
            return FAILED
        self.exchange.write(self.offset, self.store.read(self._at(slot), length))
        return SUCCESS

    def _clear(self) -> int:
        if self.identifier in (NOBODY, ANYBODY):
            return FAILED
        slot = self._slot(self.identifier)
        if slot < 0:
            return NOT_FOUND
        self._mark(slot, ANYBODY, -1)
        return SUCCESS

    def _following(self) -> int:
        """Identifiers one after another, behind the last one that there is none, and then from the first again."""
        found = self._identifiers()
        for slot in range(self.next_slot, self.slots):
            if found[slot]:
                self.next_slot = slot + 1
                return int(found[slot])
        self.next_slot = 0
        return NOBODY
