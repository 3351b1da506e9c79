"""What is said of a machine before it is built (`-preconfig`)."""

from __future__ import annotations

from vmrun.errors import ConfigError
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, enums, struct, union
from vmrun.monitor.work import Promise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["HmatLBMemoryHierarchy"] = ("memory", "first-level", "second-level", "third-level")
enums["HmatLBDataType"] = (
    *("access-latency", "read-latency", "write-latency", "access-bandwidth", "read-bandwidth", "write-bandwidth"),
)
enums["HmatCacheAssociativity"] = ("none", "direct", "complex")
enums["HmatCacheWritePolicy"] = ("none", "write-back", "write-through")
enums["NumaOptionsType"] = ("node", "dist", "cpu", "hmat-lb", "hmat-cache")
struct(
    "NumaNodeOptions", {"nodeid?": "int", "cpus?": "[int]", "mem?": "int", "memdev?": "str", "initiator?": "int"}
)
struct("NumaDistOptions", {"src": "int", "dst": "int", "val": "int"})
struct("NumaCpuOptions", {f"{name}-id?": "int" for name in ("node", "socket", "die", "cluster", "core", "thread")})
struct(
    "NumaHmatLBOptions",
    {
        **{"initiator": "int", "target": "int", "hierarchy": "HmatLBMemoryHierarchy", "data-type": "HmatLBDataType"},
        **{"latency?": "int", "bandwidth?": "int"},
    },
)
struct(
    "NumaHmatCacheOptions",
    {
        **{"node-id": "int", "size": "int", "level": "int", "associativity": "HmatCacheAssociativity"},
        **{"policy": "HmatCacheWritePolicy", "line": "int"},
    },
)
union(
    "NumaOptions",
    "type",
    {"type": "NumaOptionsType"},
    {
        **{"node": "NumaNodeOptions", "dist": "NumaDistOptions", "cpu": "NumaCpuOptions"},
        **{"hmat-lb": "NumaHmatLBOptions", "hmat-cache": "NumaHmatCacheOptions"},
    },
)
_BYTES = ("mem", "size", "bandwidth")


@command("set-numa-node", {"type": "NumaOptionsType"}, gen=False, shape="NumaOptions")
def set_numa_node(monitor: Any, **given: Any) -> None:
    """As -numa: a node, where processors are, or how far it is between nodes; only before x-exit-preconfig."""
    from vmrun.monitor.table import check

    machine = monitor.machine
    given = check(given, "NumaOptions", "")
    if machine.whole:
        raise QmpError("The command is permitted only before the machine has been created")
    memory = given.get("memdev")
    if memory is not None:
        found = machine.board.objects.children.get(memory)
        if found is None or not found.driver.startswith("memory-backend-"):
            raise QmpError(f"memdev={memory} is ambiguous")
    text = given.pop("type")
    for key, value in given.items():
        for one in value if isinstance(value, list) else [value]:
            text += f",{key}={str(one).replace(',', ',,')}{'b' if key in _BYTES else ''}"
    try:
        machine.say("-numa", text)
    except ConfigError as error:
        raise QmpError(error.problems[0].message.removeprefix(f"-numa {text}: ")) from None


@command("x-exit-preconfig")
def exit_preconfig(monitor: Any) -> Any:
    """Build the machine, after -preconfig."""
    machine = monitor.machine
    if machine.whole or machine.left is not None:
        raise QmpError("The command is permitted only before machine initialization")
    machine.left = Promise(machine)
    return machine.left
