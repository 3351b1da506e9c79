"""SRAT and SLIT: which processors and which memory belong to which NUMA node, and how far apart nodes are.

Ref: ACPI specification 6.4, 5.2.16 and 5.2.17.
The range for memory modules belongs to the last node until one comes, which says its own (_PXM).
"""

from __future__ import annotations

import struct

from vmrun.firmware import parts
from vmrun.firmware.dsdt_cpus import LOCAL_APIC_IDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

BASE_END, EXTENDED = 0xA0000, 0x100000  # RAM ends at the first and goes on at the second
ENABLED, HOT_PLUGGABLE, NON_VOLATILE = 1, 2, 4
SPARE = 2  # ranges for the two holes that a node can be cut by; unused ones are there, disabled


# what the NFIT says of non-volatile modules; address, bytes and node of each
Persistent = tuple[bytes, tuple[tuple[int, int, int], ...]]


def tables(machine: MachineData, persistent: tuple[tuple[int, int, int], ...] = ()) -> list[tuple[bytes, bytes]]:
    """(signature, body) of each, with non-volatile modules; none without nodes, no SLIT without distances."""
    nodes = parts.numa(machine)
    if not nodes:
        return []
    found = [(b"SRAT", _srat(machine, persistent))]
    if any(node.get("distances") for node in nodes):
        found.append((b"SLIT", _slit(nodes)))
    return found


def _srat(machine: MachineData, persistent: tuple[tuple[int, int, int], ...]) -> bytes:
    of = parts.nodes_of_processors(machine)
    body = struct.pack("<IQ", 1, 0)
    for index, id in enumerate(parts.apic_ids(machine)):
        node = of.get(index, 0)
        if id < LOCAL_APIC_IDS:
            body += struct.pack("<BBBBIBBHI", 0, 16, node, id, ENABLED, 0, 0, 0, 0)
        else:
            body += struct.pack("<BBHIIIII", 2, 24, 0, node, id, ENABLED, 0, 0)
    pieces = [(start, size, node, ENABLED) for start, size, node in ranges(machine)]
    pieces += [(*place, ENABLED | NON_VOLATILE) for place in persistent]
    pieces += [(0, 0, 0, 0)] * (len(parts.numa(machine)) + SPARE - len(pieces))
    slots = machine.get("memory-slots")
    if slots:
        last = len(parts.numa(machine)) - 1
        pieces.append((int(slots["base"]), int(slots["size"]), last, ENABLED | HOT_PLUGGABLE))
    for start, size, node, flags in pieces:
        body += struct.pack("<BBIHQQIIQ", 1, 40, node, 0, start, size, 0, flags, 0)
    return body


def ranges(machine: MachineData) -> list[tuple[int, int, int]]:
    """(address, bytes, node) of all RAM: nodes follow one another around the holes at 640 KiB and below 4 GiB."""
    low = parts.memory_below_4g(machine)
    areas = [(0, BASE_END), (EXTENDED, low), (parts.high_ram(machine), parts.end_of_memory(machine))]
    found = []
    at = 0
    for n, node in enumerate(parts.numa(machine)):
        end = at + int(node["memory"])  # counted as if RAM were in one piece, the hole at 640 KiB part of it
        for area, (first, last) in enumerate(areas):
            offset = first - low if area == 2 else 0
            start, stop = max(at + offset, first), min(end + offset, last)
            if start < stop:
                found.append((start, stop - start, n))
        at = end
    return found


def _slit(nodes: list[dict[str, Any]]) -> bytes:
    """A distance for each pair: 10 to oneself, 20 where nothing is said."""
    body = struct.pack("<Q", len(nodes))
    for n, node in enumerate(nodes):
        given = node.get("distances") or [10 if other == n else 20 for other in range(len(nodes))]
        body += bytes(int(value) for value in given)
    return body
