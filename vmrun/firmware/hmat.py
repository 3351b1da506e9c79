"""HMAT: whose memory each NUMA node's is, how quick it is from there, and the caches before it.

Latencies are written as multiples of a power of ten, bandwidths of a power of two, so that each fits 16 bits.
Ref: ACPI specification 6.4, 5.2.27.
"""

from __future__ import annotations

import struct

from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.sections import MachineData

HIERARCHIES = ("memory", "first-level", "second-level", "third-level")
DATA_TYPES = (
    *("access-latency", "read-latency", "write-latency"),
    *("access-bandwidth", "read-bandwidth", "write-bandwidth"),
)
ASSOCIATIVITY = ("none", "direct", "complex")
POLICY = ("none", "write-back", "write-through")
INITIATOR_KNOWN = 1
NOBODY = 128  # as an initiator
MIB = 1 << 20


def table(machine: MachineData) -> bytes | None:
    """The body; None where no node says whose memory it is."""
    nodes = parts.numa(machine)
    if not any("initiator" in node for node in nodes):
        return None
    body = bytes(4)
    for n, node in enumerate(nodes):
        flags = INITIATOR_KNOWN if "initiator" in node else 0
        body += struct.pack("<HHIHHII20x", 0, 0, 40, flags, 0, node.get("initiator", NOBODY), n)
    initiators = [n for n, node in enumerate(nodes) if node["cpus"]]
    for level, hierarchy in enumerate(HIERARCHIES):
        for kind, data_type in enumerate(DATA_TYPES):
            values = {
                (row["initiator"], target): _value(row)
                for target, node in enumerate(nodes)
                for row in node.get("access", ())
                if (row["hierarchy"], row["data-type"]) == (hierarchy, data_type)
            }
            if values:
                body += _localities(level, kind, initiators, len(nodes), values)
    for n, node in enumerate(nodes):
        caches = sorted(node.get("caches", ()), key=lambda cache: int(cache["level"]))
        body += b"".join(_cache(n, cache, len(caches)) for cache in caches)
    return body


def _value(row: dict[str, Any]) -> int:
    """Nanoseconds, or bytes in a second."""
    return int(row["latency"] if "latency" in row else row["bandwidth"])


def _localities(level: int, kind: int, initiators: list[int], targets: int, values: dict[Any, int]) -> bytes:
    base = common_unit(list(values.values()), kind < 3)
    unit = base * 1000 if kind < 3 else base // MIB  # picoseconds, or MiB in a second
    entries = [values.get((initiator, target), 0) // base for initiator in initiators for target in range(targets)]
    size = 32 + 4 * len(initiators) + 4 * targets + 2 * len(entries)
    head = struct.pack("<HHIBBHIIIQ", 1, 0, size, level, kind, 0, len(initiators), targets, 0, unit & (1 << 64) - 1)
    return head + struct.pack(f"<{len(initiators) + targets}I", *initiators, *range(targets)) + struct.pack(
        f"<{len(entries)}H", *entries
    )


def common_unit(values: list[int], decimal: bool) -> int:
    """The largest power of ten, or of two, that divides all of them."""
    known = [value for value in values if value]
    if not decimal:
        together = 0
        for value in known:
            together |= value
        return together & -together or 1
    unit = 1
    while known and not any(value % (unit * 10) for value in known):
        unit *= 10
    return unit


def _cache(node: int, cache: dict[str, Any], levels: int) -> bytes:
    attributes = levels | int(cache["level"]) << 4
    attributes |= ASSOCIATIVITY.index(cache["associativity"]) << 8 | POLICY.index(cache["policy"]) << 12
    attributes |= int(cache["line"]) << 16
    return struct.pack("<HHIIIQIHH", 2, 0, 32, node, 0, int(cache["size"]), attributes, 0, 0)
