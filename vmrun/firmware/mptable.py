"""The table by which kernels without ACPI find processors and the I/O APIC.

Ref: Intel MultiProcessor Specification 1.4.
"""

from __future__ import annotations

import struct

from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

ISA_BUS, PCI_BUS = 1, 0
PCI_IRQS = (10, 10, 11, 11)  # of PIRQA# to PIRQD#
ACTIVE_HIGH_LEVEL = 0x000D
MOST_ID = 254


def build(machine: MachineData, at: int) -> bytes:
    """The floating pointer, for address `at`, and the table right behind it."""
    table = _table(machine)
    pointer = bytearray(struct.pack("<4sIBBB5s", b"_MP_", at + 16, 1, 4, 0, bytes(5)))
    pointer[10] = -sum(pointer) & 0xFF
    return bytes(pointer) + table


def pirq(slot: int, pin: int) -> int:
    """0 to 3: which line pin 1 (INTA#) to 4 of a slot ends on."""
    return (slot + pin - 2) & 3


def _table(machine: MachineData) -> bytes:
    signature, features = 0x600, 0x201  # processor family 6; FPU and APIC
    entries = []
    ids = parts.apic_ids(machine)
    for index in parts.present(machine["cpus"]):
        if (id := ids[index]) <= MOST_ID:
            entries.append(struct.pack("<BBBBIIQ", 0, id, 0x14, 1 | 2 * (index == 0), signature, features, 0))
    entries.append(struct.pack("<BB6s", 1, PCI_BUS, b"PCI   "))
    entries.append(struct.pack("<BB6s", 1, ISA_BUS, b"ISA   "))
    ioapic = parts.first(machine, "ioapic")
    if ioapic is not None:
        base = int(ioapic["props"].get("base", 0xFEC00000))
        entries.append(struct.pack("<BBBBI", 2, 0, 0x11, 1, base))
        entries += [_interrupt(0, 0, ISA_BUS, irq, 2 if irq == 0 else irq) for irq in range(16) if irq not in _USED]
        for device in sorted({parts.slot(device)[0] for device in machine["devices"] if device.get("addr")}):
            for pin in range(4):
                irq = PCI_IRQS[pirq(device, pin + 1)]
                entries.append(_interrupt(0, ACTIVE_HIGH_LEVEL, PCI_BUS, device << 2 | pin, irq))
    entries.append(struct.pack("<BBHBBBB", 4, 3, 0, ISA_BUS, 0, 0xFF, 0))  # the 8259A on LINT0
    entries.append(struct.pack("<BBHBBBB", 4, 1, 0, ISA_BUS, 0, 0xFF, 1))  # NMI on LINT1
    body = b"".join(entries)
    head = struct.pack("<4sHBB8s12s", b"PCMP", 44 + len(body), 4, 0, b"VMRUN   ", b"PC          ")
    head += struct.pack("<IHHIHBB", 0, 0, len(entries), 0xFEE00000, 0, 0, 0)
    table = bytearray(head + body)
    table[7] = -sum(table) & 0xFF
    return bytes(table)


_USED = (2, 10, 11)  # the cascade; lines of PCI


def _interrupt(kind: int, flags: int, bus: int, source: int, pin: int) -> bytes:
    return struct.pack("<BBHBBBB", 3, kind, flags, bus, source, 0, pin)
