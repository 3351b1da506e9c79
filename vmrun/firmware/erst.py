"""The ERST table: how an operating system carries out each action on the error records of `acpi-erst`.

An action is a list of register accesses; that device has one register for the action and one for its value.
Ref: ACPI specification 6.4, 18.5.1.
"""

from __future__ import annotations

import struct

from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

READ, READ_VALUE, WRITE, WRITE_VALUE = range(4)  # instructions; the last one writes a value that the table has
ACTION, VALUE = 0, 8  # registers
WHOLE = {32: 3, 64: 4}  # bits of an access, and their code
EXECUTE_MAGIC = 0x9C
NOWHERE = (1 << 64) - 1  # what stands for an address until the firmware has given one

# action → what is done besides writing it: before it and after it, as (instruction, bits of the value register, value)
ACTIONS: dict[int, tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]] = {
    **{begin: ([], []) for begin in range(4)},
    4: ([(WRITE, 32, 0)], []),  # set record offset
    5: ([(WRITE_VALUE, 32, EXECUTE_MAGIC)], []),  # execute
    6: ([], [(READ_VALUE, 32, 1)]),  # busy
    7: ([], [(READ, 32, 0)]),  # status
    8: ([], [(READ, 64, 0)]),  # get identifier
    9: ([(WRITE, 64, 0)], []),  # set identifier
    10: ([], [(READ, 32, 0)]),  # count
    11: ([], []),  # dummy write
    13: ([], [(READ, 64, 0)]),  # range of the exchange buffer: where
    14: ([], [(READ, 64, 0)]),  # how long
    15: ([], [(READ, 32, 0)]),  # its attributes
    16: ([], [(READ, 64, 0)]),  # timings
}


def table(machine: MachineData, registers: int) -> bytes | None:
    """The body; None without the device. `registers`: where its first BAR is."""
    if parts.first(machine, "acpi-erst") is None:
        return None
    rows = []
    for action, (before, after) in ACTIONS.items():
        rows += [_row(action, instruction, registers + VALUE, bits, value) for instruction, bits, value in before]
        rows.append(_row(action, WRITE_VALUE, registers + ACTION, 32, action))
        rows += [_row(action, instruction, registers + VALUE, bits, value) for instruction, bits, value in after]
    return struct.pack("<III", 48, 0, len(rows)) + b"".join(rows)


def _row(action: int, instruction: int, address: int, bits: int, value: int) -> bytes:
    register = struct.pack("<BBBBQ", 0, bits, 0, WHOLE[bits], address & NOWHERE)
    return struct.pack("<BBBB", action, instruction, 0, 0) + register + struct.pack("<QQ", value, (1 << bits) - 1)
