"""Reference counts of another width (`amend -o refcount_bits=`): all of them anew, behind everything the image has.

The old ones stay what they are until the header, written in one piece, names the new ones; a process that is killed
before leaks the clusters of the new ones.
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MOST_TABLE = 8 << 20  # bytes of a table of reference blocks that a reader takes


def change_width(node: Any, order: int) -> None:
    """Counts of 1 << order bits. `node` writes nothing more by itself: it is turned to reading, and closed afterwards.
    ValueError in QEMU's words.
    """
    node.turn(True)
    counts = dict(_counts(node))
    most = (1 << (1 << order)) - 1
    for cluster, count in counts.items():
        if count > most:
            bits = 1 << order
            raise ValueError(
                f"Cannot decrease refcount entry width to {bits} bits: Cluster at offset "
                f"{cluster << node.cluster_bits:#x} has a refcount of {count}"
            )
    header, size = node.header, node.cluster_size
    for at in filter(None, _blocks(node)):
        counts.pop(at >> node.cluster_bits, None)
    old = header.refcount_table_offset >> node.cluster_bits
    for n in range(header.refcount_table_clusters):
        counts.pop(old + n, None)
    per = size * 8 >> order
    first = -(-node.file.size // size)
    used = {cluster // per for cluster in counts}
    blocks = table = 0
    while True:  # the new ones count themselves
        covered = used | set(range(first // per, (first + blocks + table) // per + 1))
        length = -(-(max(covered) + 1) * 8 // size)
        if len(covered) == blocks and length == table:
            break
        blocks, table = max(blocks, len(covered)), max(table, length)
        if len(covered) < blocks:
            break
    if table * size > MOST_TABLE:
        raise ValueError("Reference count table too large")
    for n in range(blocks + table):
        counts[first + n] = 1
    entries = [0] * (table * size // 8)
    for place, block in enumerate(sorted(covered)):
        entries[block] = (first + place) << node.cluster_bits
        held = {cluster - block * per: count for cluster, count in counts.items() if cluster // per == block}
        node.file.write((first + place) << node.cluster_bits, _pack(held, size, order))
    at = (first + blocks) << node.cluster_bits
    node.file.write(at, struct.pack(f">{len(entries)}Q", *entries))
    node.file.sync()
    header.refcount_table_offset, header.refcount_table_clusters, header.refcount_order = at, table, order
    node.file.write(0, header.pack())
    node.file.sync()


def _blocks(node: Any) -> list[int]:
    """Where the reference blocks are, with zeros for those that are not there."""
    header = node.header
    raw = node.file.read(header.refcount_table_offset, header.refcount_table_clusters * node.cluster_size)
    return [entry & ~511 for entry in struct.unpack(f">{len(raw) // 8}Q", raw)]


def _counts(node: Any) -> Iterator[tuple[int, int]]:
    """(cluster, count) of all that somebody refers to."""
    order = node.header.refcount_order
    per = node.cluster_size * 8 >> order
    for number, at in enumerate(_blocks(node)):
        raw = node.file.read(at, node.cluster_size) if at else b""
        if not any(raw):
            continue
        if order >= 3:
            values = struct.unpack(f">{per}{'BHIQ'[order - 3]}", raw)
        else:
            bits, mask = 1 << order, (1 << (1 << order)) - 1
            values = tuple(byte >> shift & mask for byte in raw for shift in range(0, 8, bits))
        for n, value in enumerate(values):
            if value:
                yield number * per + n, value


def _pack(held: dict[int, int], size: int, order: int) -> bytes:
    """A block with the counts of some of its clusters."""
    if order >= 3:
        values = [0] * (size * 8 >> order)
        for n, count in held.items():
            values[n] = count
        return struct.pack(f">{len(values)}{'BHIQ'[order - 3]}", *values)
    data, bits = bytearray(size), 1 << order
    for n, count in held.items():
        data[n * bits >> 3] |= count << (n * bits & 7)
    return bytes(data)
