"""-numa: nodes with memory and processors, and the distances between them. A node's memory stands there (mem=) or with
the -object that memdev= names; processors are given by number, or by socket, core and thread (-numa cpu). How quick
memory is (hmat-lb, hmat-cache, initiator=) wants -machine hmat=on.
"""

from __future__ import annotations

from vmrun.config.importers.qemuopts import LineError, number, only, settings, size, split
from vmrun.config.importers.state import Line, Opt
from vmrun.config.scalar import parse_size, size_text
from vmrun.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.importers.qemuopts import Option

MOST = 128
NEAR = 10  # the distance of a node to itself
STEP = 8 << 20  # what QEMU divides memory by that no node claims


def numa(line: Line, option: Option) -> None:
    given = settings(option, "type")
    kind = given.pop("type", "")
    if kind == "node":
        _node(line, option, given)
    elif kind == "dist":
        _far(line, option, given)
    elif kind == "cpu":
        _place(line, option, given)
    elif kind == "hmat-lb":
        _access(line, option, given)
    elif kind == "hmat-cache":
        _cache(line, option, given)
    else:
        raise option.wrong(f"Parameter 'type' does not accept value '{kind}'", kind)


def _far(line: Line, option: Option, given: dict[str, Any]) -> None:
    only(option, given, ("src", "dst", "val"))
    src, dst, value = (number(option, key, given.get(key, "")) for key in ("src", "dst", "val"))
    if not 0 <= src < MOST or not 0 <= dst < MOST:
        raise option.wrong(f"Invalid node {max(src, dst)}, max possible could be {MOST - 1}")
    if src not in line.nodes or dst not in line.nodes:
        raise option.wrong(
            "Source/Destination NUMA node is missing. Please use '-numa node' option to declare it first."
        )
    if value < NEAR:
        raise option.wrong(f"NUMA distance ({value}) is invalid, it shouldn't be less than {NEAR}.")
    if src == dst and value != NEAR:
        raise option.wrong(f"Local distance of node {src} should be {NEAR}.")
    line.distances[src, dst] = value


def _place(line: Line, option: Option, given: dict[str, Any]) -> None:
    """-numa cpu: kept until all of the line is read; the topology may come after it."""
    only(option, given, ("node-id", "socket-id", "die-id", "cluster-id", "core-id", "thread-id"))
    if "node-id" not in given:
        raise option.wrong("Missing mandatory node-id property")
    for key in ("die-id", "cluster-id"):
        if key in given:
            raise option.wrong(f"{key} is not supported", key)
    wanted = {key: number(option, key, value) for key, value in given.items()}
    node = wanted.pop("node-id")
    if node not in line.nodes:
        raise option.wrong(
            f"Invalid node-id={node}, NUMA node must be defined with -numa node,nodeid=ID before it's used with "
            "-numa cpu,node-id=ID"
        )
    line.places.append((option, node, wanted))


def placed(line: Line) -> None:
    """Which processors -numa cpu meant: they are in the nodes then."""
    if not line.places:
        return
    cpus = line.file.get("cpus", {})
    most = int(cpus.get("maxcpus") or cpus.get("count") or 1)
    sockets, cores, threads = (int(cpus.get(name) or 0) for name in ("sockets", "cores", "threads"))
    threads = threads or 1
    if not cores:
        # a count alone is cores since pc-i440fx-6.2, sockets before
        cores = most // ((sockets or 1) * threads) if line.prefers_cores() or sockets else 1
    taken = {cpu: id for id, node in line.nodes.items() for cpu in node.get("cpus", ())}
    for option, node, wanted in line.places:
        found = []
        for index in range(most):
            place = {
                "socket-id": index // (max(cores, 1) * threads),
                "core-id": index // threads % max(cores, 1),
                "thread-id": index % threads,
            }
            if all(place[key] == value for key, value in wanted.items()):
                found.append(index)
        if not found:
            raise option.wrong("no match found")
        for index in found:
            if taken.setdefault(index, node) != node:
                raise option.wrong(f"CPU is already assigned to node-id: {taken[index]}")
        cpus_of = line.nodes[node].setdefault("cpus", [])
        cpus_of.extend(index for index in found if index not in cpus_of)


def _node(line: Line, option: Option, given: dict[str, Any]) -> None:
    only(option, given, ("nodeid", "cpus", "mem", "memdev", "initiator"))
    id = number(option, "nodeid", given["nodeid"]) if "nodeid" in given else len(line.nodes)
    if not 0 <= id < MOST:
        raise option.wrong(f"Max number of NUMA nodes reached: {id}")
    if id in line.nodes:
        raise option.wrong(f"Duplicate NUMA nodeid: {id}")
    node: dict[str, Any] = {}
    for part in split(option.value or ""):
        if part.startswith("cpus="):
            first, _, last = part.removeprefix("cpus=").partition("-")
            low, high = number(option, "cpus", first), number(option, "cpus", last or first)
            if not 0 <= low <= high < 4096:
                raise option.wrong(f"Parameter 'cpus' expects a range of processors, not '{first}-{last or first}'")
            node.setdefault("cpus", []).extend(range(low, high + 1))
    if "mem" in given:
        node["memory"] = size(option, "mem", given["mem"], "m")
    if "initiator" in given:
        _on(line, option)
        node["initiator"] = number(option, "initiator", given["initiator"])
    line.nodes[id] = node
    if "memdev" in given:
        line.memory_of[id] = option, str(given["memdev"])


def _on(line: Line, option: Option) -> None:
    if not line.run.get("hmat", (None, False))[1]:
        raise option.wrong(
            "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine hmat=on before "
            "using any of hmat specific options"
        )


def _target(line: Line, option: Option, given: dict[str, Any], key: str) -> dict[str, Any]:
    _on(line, option)
    id = number(option, key, given.pop(key, ""))
    if id not in line.nodes:
        raise option.wrong(f"Invalid {key}={id}, it should be less than {max(line.nodes, default=-1) + 1}", key)
    return line.nodes[id]


def _access(line: Line, option: Option, given: dict[str, Any]) -> None:
    only(option, given, ("initiator", "target", "hierarchy", "data-type", "latency", "bandwidth"))
    node = _target(line, option, given, "target")
    row: dict[str, Any] = {"initiator": number(option, "initiator", given.get("initiator", ""))}
    row |= {key: given[key] for key in ("hierarchy", "data-type") if key in given}
    if "latency" in given:
        row["latency"] = number(option, "latency", given["latency"])
    if "bandwidth" in given:
        row["bandwidth"] = size_text(size(option, "bandwidth", given["bandwidth"]))
    node.setdefault("access", []).append(row)


def _cache(line: Line, option: Option, given: dict[str, Any]) -> None:
    only(option, given, ("node-id", "size", "level", "associativity", "policy", "line"))
    node = _target(line, option, given, "node-id")
    row: dict[str, Any] = {"level": number(option, "level", given.get("level", ""))}
    row["size"] = size_text(size(option, "size", given.get("size", "")))
    row |= {key: given[key] for key in ("associativity", "policy") if key in given}
    row |= {"line": number(option, "line", given["line"])} if "line" in given else {}
    node.setdefault("caches", []).append(row)


def check_attributes(line: Line) -> None:
    """What is said of nodes' memory so far is as a machine file may have it; ConfigError for the first that is not."""
    import json

    from vmrun.config import hmat
    from vmrun.config.load import load_bytes

    nodes = [line.nodes[id] for id in sorted(line.nodes)]
    section = load_bytes(json.dumps({"numa": nodes}).encode(), "numa.json").value["numa"]
    hmat.attributes(_Refused(), section, [{**node} for node in nodes])


class _Refused:
    def wrong(self, code: str, message: str, place: Any, path: str = "", *, remedy: str = "") -> None:
        raise ConfigError(message, code=code, remedy=remedy)


def finish(line: Line) -> None:
    """The nodes as a machine file has them, in the order of their ids."""
    option, on = line.run.pop("hmat", (None, False))
    if not line.nodes:
        if on:
            line.warn(option, "no effect without NUMA nodes: -numa node,…", "hmat")
        return
    for id, (option, backend) in line.memory_of.items():
        if backend not in line.backends:
            raise option.wrong(f"object '{backend}' is no memory backend of a size that is given here", backend)
        line.nodes[id]["memory"] = line.backends[backend]
    placed(line)
    ids = sorted(line.nodes)
    missing = [id for id in range(ids[-1]) if id not in line.nodes]
    if missing and not line.has("preconfig"):
        raise LineError(f"numa: Node ID missing: {missing[-1]}")
    if line.memory_of:
        if any("memory" in line.nodes[id] for id in ids if id not in line.memory_of):
            raise next(iter(line.memory_of.values()))[0].wrong(
                "numa configuration should use either mem= or memdev=, mixing both is not allowed"
            )
        line.run["memdevs"] = [line.memory_of[id][1] for id in ids if id in line.memory_of]  # the others have none
    total = parse_size(line.file.get("memory") or line.default("memory")) or 0
    if not any("memory" in node for node in line.nodes.values()):
        each = total // len(ids) // STEP * STEP
        for id in ids:
            line.nodes[id]["memory"] = each if id != ids[-1] else total - each * (len(ids) - 1)
    for id in ids:
        line.nodes[id]["memory"] = size_text(line.nodes[id].get("memory", 0))
        if line.distances:
            line.nodes[id]["distances"] = [_distance(line, id, other) for other in ids]
    line.file["numa"] = [line.nodes[id] for id in ids]
    if on and not any(key in node for node in line.file["numa"] for key in ("initiator", "access", "caches")):
        first = next((n for n, node in enumerate(line.file["numa"]) if node.get("cpus")), 0)
        line.file["numa"][first]["initiator"] = first  # which is so anyway; it makes the table


def _distance(line: Line, src: int, dst: int) -> int:
    """As given, else as the other way is given, else ACPI's."""
    found = line.distances.get((src, dst)) or line.distances.get((dst, src))
    return found or (10 if src == dst else 20)


OPTIONS = (Opt("numa", True, numa, "NUMA nodes: numa"),)
