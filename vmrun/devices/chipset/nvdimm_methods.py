"""What answers the methods of non-volatile modules: the guest fills a page of its memory with a question, writes the
page's address to port 0xa18, and finds the answer in the same page.

    question: handle of the module, revision, function, arguments      answer: its bytes, status or functions, data

The page is etc/acpi/nvdimm-mem, which the firmware places. A module's label area is behind what the guest sees of it.
Ref: QEMU docs/specs/acpi_nvdimm; NVDIMM DSM interface 1.3, of Intel; ACPI specification 6.4, 5.2.25 (NFIT).
"""

from __future__ import annotations

import struct

from accel.api import PyIoRegion
from accel.dma import Dma

from vmrun.core.state import KEEP, Flag, Stateful, Table
from vmrun.errors import BuildError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from accel.space import AddressSpace

    from vmrun.core.interfaces import PersistentModule

BASE, SIZE = 0xA18, 4
PAGE = 4096
QUESTION = struct.Struct("<III")
REVISION = 1
ROOT, TABLE = 0, 0x10000  # handles that no module has: of all of them, and of the table of all
SUCCESS, UNSUPPORTED, NO_MODULE, INVALID, CHANGED = 0, 1, 2, 3, 0x100
FUNCTIONS, READ_TABLE = 0, 1
LABEL_SIZE, READ_LABEL, WRITE_LABEL = 4, 5, 6
PLACE = struct.Struct("<II")  # offset and length, of a piece of the label area
PIECE = PAGE - QUESTION.size - PLACE.size  # the longest
NVDIMM_EVENT = 0x10


class NvdimmMethods(Stateful):
    """`modules()`: those that there are. `persistence`: the platform's capabilities, 0 for none. `event(bits)` tells
    the guest to look.
    """

    state = Table("nvdimm-methods", 1, Flag("table_changed", KEEP))
    table_changed: bool

    def __init__(
        self,
        memory: AddressSpace,
        modules: Callable[[], Iterable[PersistentModule]],
        persistence: int,
        event: Callable[[int], None],
    ) -> None:
        self.dma, self.modules, self.persistence, self.event = Dma(memory), modules, persistence, event
        self.table_changed = True  # since the guest began to read it

    def region(self) -> tuple[PyIoRegion, int, int]:
        return PyIoRegion("nvdimm-acpi-io", lambda offset, size: 0, self._write, 4, 4), BASE, SIZE

    # --- for the machine ----------------------------------------------------------------------------------

    def fit(self) -> bytes:
        """What the table says of the modules: its structures."""
        return structures(self.modules(), self.persistence)

    def check(self, device: Any) -> None:
        """A module has its slot from its realize on; here it is only shown."""

    def plugged(self, device: Any) -> None:
        """A module was put in while the guest runs."""
        self.table_changed = True
        self.event(NVDIMM_EVENT)

    def ask_unplug(self, device: Any) -> None:
        raise BuildError("nvdimm device hot unplug is not supported yet.")

    # --- for the guest ------------------------------------------------------------------------------------

    def _write(self, offset: int, size: int, address: int) -> None:
        page = self.dma.read(address, PAGE)
        if page is not None:
            handle, revision, function = QUESTION.unpack_from(page)
            answer = self.answer(handle, revision, function, page[QUESTION.size :])
            self.dma.write(address, struct.pack("<I", 4 + len(answer)) + answer)

    def answer(self, handle: int, revision: int, function: int, arguments: bytes) -> bytes:
        """What follows its length: a status and data, or the functions that there are."""
        if revision != REVISION:
            return _status(UNSUPPORTED)
        if handle == TABLE:
            return self._table(function, arguments)
        if handle == ROOT:
            return _status(SUCCESS if function == FUNCTIONS else UNSUPPORTED)  # none but this one
        module = next((each for each in self.modules() if each.slot_number + 1 == handle), None)
        labelled = module is not None and module.label_size > 0
        if function == FUNCTIONS:
            known = (FUNCTIONS, LABEL_SIZE, READ_LABEL, WRITE_LABEL) if labelled else ()
            return _status(sum(1 << each for each in known))
        if module is None:
            return _status(NO_MODULE)
        return _label(module, function, arguments) if labelled else _status(UNSUPPORTED)

    def _table(self, function: int, arguments: bytes) -> bytes:
        if function == FUNCTIONS:
            return _status(1 << FUNCTIONS | 1 << READ_TABLE)
        if function != READ_TABLE:
            return _status(UNSUPPORTED)
        (offset,) = struct.unpack_from("<I", arguments)
        table = self.fit()
        if offset > len(table):
            return _status(INVALID)
        if not offset:
            self.table_changed = False
        elif self.table_changed:
            return _status(CHANGED)
        return _status(SUCCESS) + table[offset : offset + PAGE - 8]


def _status(value: int) -> bytes:
    return struct.pack("<I", value)


def _label(module: PersistentModule, function: int, arguments: bytes) -> bytes:
    if function == LABEL_SIZE:
        return struct.pack("<III", SUCCESS, module.label_size, PIECE)
    if function not in (READ_LABEL, WRITE_LABEL):
        return _status(UNSUPPORTED)
    offset, length = PLACE.unpack_from(arguments)
    if length > PIECE or offset + length > module.label_size:
        return _status(INVALID)
    if function == READ_LABEL:
        return _status(SUCCESS) + module.read_label(offset, length)
    module.write_label(offset, arguments[PLACE.size : PLACE.size + length])
    return _status(SUCCESS)


# --- the table of modules -----------------------------------------------------------------------------------


def structures(modules: Iterable[Any], persistence: int = 0) -> bytes:
    """The structures of an NFIT: of each module where it is, which it is, and how it is spoken to; then what the
    platform keeps at a loss of power.
    """
    found = b""
    for module in sorted(modules, key=lambda each: int(each.slot_number)):
        handle = module.slot_number + 1  # 0 is the root's; indices of a range and of what controls it, two for each
        found += struct.pack(
            "<HHHHIIQQQQQ", 0, 56, 2 * handle, HOT_ADDED | NODE_KNOWN, 0, module.node, *PERSISTENT_MEMORY,
            module.address, module.size, WRITE_BACK | NON_VOLATILE,
        )  # fmt: skip
        unarmed = NOT_ARMED if module.unarmed else 0
        found += struct.pack(
            "<HHIHHHHQQQHHHH", 1, 48, handle, 0, 0, 2 * handle, 2 * handle + 1, module.size, 0, 0, 0, 1, unarmed, 0
        )
        vendor, device, revision = 0x8086, 1, 1
        found += struct.pack(
            "<HHHHHH6xBBHHIHH5QH6x", 4, 80, 2 * handle + 1, vendor, device, revision, 0, 0, 0, 0,
            FIRST_SERIAL + module.slot_number, DSM_INTERFACE, 0, 0, 0, 0, 0, 0, 0,
        )  # fmt: skip
    if persistence:
        found += struct.pack("<HHB3xI4x", 7, 16, persistence.bit_length() - 1, persistence)
    return found


HOT_ADDED, NODE_KNOWN, NOT_ARMED = 1, 2, 8
WRITE_BACK, NON_VOLATILE = 8, 0x8000  # attributes of UEFI's memory map
PERSISTENT_MEMORY = (0x4074B4F366F0D379, 0xDB8CB718330D43AC)  # 66f0d379-b4f3-4074-ac43-0d3318b78cdb
FIRST_SERIAL = 0x123456
DSM_INTERFACE = 0x301
