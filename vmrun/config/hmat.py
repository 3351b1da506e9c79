"""What a NUMA node says of its memory besides the amount: whose it is, how quick it is from there, its caches. All of
it is in the table HMAT, which is there when any node says some of it.
"""

from __future__ import annotations

from vmrun.config.node import plain
from vmrun.config.scalar import parse_size, size_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from vmrun.config.node import Node

    class Wrong(Protocol):
        """Who takes what is wrong: vmrun.config.work.Work, or who makes an error of the first."""

        def wrong(self, code: str, message: str, place: Any, path: str = "", *, remedy: str = "") -> None: ...

KEYS = ("initiator", "access", "caches")
MOST = 0xFFFF  # what a latency or bandwidth is divided to must be less
MIB = 1 << 20


def attributes(work: Wrong, section: Node, found: list[dict[str, Any]]) -> None:
    """Put them into `found`, the nodes with their processors, and check them."""
    if not any(key in node.value for node in section.value for key in KEYS):
        return
    for n, (given, node) in enumerate(zip(section.value, found, strict=True)):
        if "initiator" in given.value:
            node["initiator"] = given.value["initiator"].value
            _initiator(work, given.value["initiator"], found)
        elif node.get("cpus"):
            node["initiator"] = n  # its own
        if "access" in given.value:
            node["access"] = [_access(work, row, found) for row in given.value["access"].value]
        if "caches" in given.value:
            node["caches"] = _caches(work, given.value["caches"], node.get("access", ()))
    _fits(work, section, found)


def _wrong(work: Wrong, node: Node, message: str, remedy: str = "") -> None:
    work.wrong("VR0711", message, node.place, "numa", remedy=remedy)


def _initiator(work: Wrong, given: Node, found: list[dict[str, Any]]) -> None:
    if given.value >= len(found):
        _wrong(work, given, f"there is no NUMA node {given.value}; the last is {len(found) - 1}")
    elif not found[given.value].get("cpus"):
        _wrong(work, given, f"NUMA node {given.value} has no CPUs, and so nobody whose memory it could be")


def _access(work: Wrong, given: Node, found: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of `access`: nanoseconds, or bytes in a second."""
    row: dict[str, Any] = {"hierarchy": "memory", **plain(given)}
    _initiator(work, given.value["initiator"], found)
    wanted = str(row["data-type"]).rpartition("-")[2]
    other = {"latency": "bandwidth", "bandwidth": "latency"}[wanted]
    if wanted not in row or other in row:
        _wrong(work, given, f"{row['data-type']} has a '{wanted}', and no '{other}'")
        return {**row, wanted: 0}
    row[wanted] = parse_size(row[wanted]) or 0 if wanted == "bandwidth" else int(row[wanted])
    if wanted == "bandwidth" and row[wanted] % MIB:
        _wrong(work, given.value[wanted], f"a bandwidth of {size_text(row[wanted])} is no whole number of MiB")
    return row


def _caches(work: Wrong, section: Node, access: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for given in section.value:
        row: dict[str, Any] = {"associativity": "none", "policy": "none", "line": 0, **plain(given)}
        row["size"] = parse_size(row["size"]) or 0
        if any(row["level"] == other["level"] for other in rows):
            _wrong(work, given, f"there is a cache of level {row['level']} already")
        rows.append(row)
    rows.sort(key=lambda row: int(row["level"]))
    if [row["level"] for row in rows] != list(range(1, len(rows) + 1)):
        _wrong(work, section, "caches' levels are 1, 2 and 3, without a gap")
    elif any(low["size"] >= high["size"] for low, high in zip(rows, rows[1:], strict=False)):
        _wrong(work, section, "a cache is smaller than that of the next level")
    kinds = {kind for row in access for kind in ("latency", "bandwidth") if row.get(kind)}  # 0 is as none
    if rows and kinds != {"latency", "bandwidth"}:
        _wrong(work, section, "a node with caches has a latency and a bandwidth too", "add them to `access`")
    return rows


def _fits(work: Wrong, section: Node, found: list[dict[str, Any]]) -> None:
    """Values of one kind are multiples of a unit that they share, less than 65535 of it."""
    kinds: dict[tuple[str, str], dict[tuple[int, int], int]] = {}
    for target, node in enumerate(found):
        for row in node.get("access", ()):
            values = kinds.setdefault((row["hierarchy"], row["data-type"]), {})
            if (row["initiator"], target) in values:
                what = f"{row['data-type']} from NUMA node {row['initiator']} to {target} is given twice"
                _wrong(work, section.value[target].value["access"], what)
            values[row["initiator"], target] = int(row["latency"] if "latency" in row else row["bandwidth"])
    for (_, data_type), values in kinds.items():
        unit, most = 1, max(values.values())
        step = 10 if data_type.endswith("latency") else 2
        while most and not any(value % (unit * step) for value in values.values()):
            unit *= step
        if most // unit >= MOST:
            _wrong(work, section, f"the values of {data_type} are too far apart to be in one table")
