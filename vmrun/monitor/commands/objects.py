"""Objects of the host's side: those that -object and object-add make, and the machine's memory."""

from __future__ import annotations

from vmrun.backends.objects import KINDS, kind_class
from vmrun.core.props import props_of
from vmrun.core.userobject import UserObject
from vmrun.errors import BuildError
from vmrun.monitor.errors import QmpError, identifier
from vmrun.monitor.table import command, enums, struct, structs, union

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

enums["QAuthZListPolicy"], enums["QAuthZListFormat"] = ("deny", "allow"), ("exact", "glob")
enums["HostMemPolicy"] = ("default", "preferred", "bind", "interleave")
struct(
    "IOThreadInfo",
    {
        **{"id": "str", "thread-id": "int", "poll-max-ns": "int", "poll-grow": "int", "poll-shrink": "int"},
        **{"aio-max-batch": "int"},
    },
)
struct(
    "Memdev",
    {
        **{"id?": "str", "size": "int", "merge": "bool", "dump": "bool", "prealloc": "bool", "share": "bool"},
        **{"reserve?": "bool", "host-nodes": "[int]", "policy": "HostMemPolicy"},
    },
)
struct("MemoryInfo", {"base-memory": "int", "plugged-memory?": "int"})
# A union by type.
struct("MemoryDeviceInfo", {"type": "str", "data": "any"})


def _object_options() -> None:
    """The union of all kinds, made of their properties."""
    struct("QAuthZListRule", {"match": "str", "policy": "QAuthZListPolicy", "format?": "QAuthZListFormat"})
    kinds = {"bool": "bool", "rules": "[QAuthZListRule]"}
    kinds |= dict.fromkeys(("str", "enum", "object", "netdev", "chardev", "drive", "link"), "str")
    for kind in KINDS:
        members = {}
        for name, prop in props_of(kind_class(kind)).items():
            members[f"{name}?"] = kinds.get(prop.type, "int")
        structs[f"ObjectOptions-{kind}"] = members
    enums["ObjectType"] = tuple(KINDS)
    union(
        "ObjectOptions", "qom-type", {"qom-type": "ObjectType", "id": "str"}, {k: f"ObjectOptions-{k}" for k in KINDS}
    )


_object_options()


@command("object-add", {"qom-type": "str", "id": "str"}, gen=False, shape="ObjectOptions")
def object_add(monitor: Any, qom_type: str, id: str, **props: Any) -> None:
    """Make an object of the host's side. Its properties are further arguments."""
    try:
        monitor.machine.board.add_object({"qom-type": qom_type, "id": identifier(id), **props}, typed=True)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


@command("object-del", {"id": "str"})
def object_del(monitor: Any, id: str) -> None:
    """Give it back; not while something uses it."""
    try:
        monitor.machine.board.delete_object(id)
    except BuildError as error:
        raise QmpError(error.problems[0].message) from None


def made(machine: Any, prefix: str) -> list[UserObject]:
    return [one for one in machine.board.objects.children.values() if one.driver.startswith(prefix)]


@command("query-iothreads", returns="[IOThreadInfo]")
def query_iothreads(monitor: Any) -> list[dict[str, Any]]:
    """The iothread objects."""
    told = ("thread-id", "poll-max-ns", "poll-grow", "poll-shrink", "aio-max-batch")
    return [
        {"id": one.name, **{name: one.shown()[name] for name in told}} for one in made(monitor.machine, "iothread")
    ]


@command("query-memdev", returns="[Memdev]")
def query_memdev(monitor: Any) -> list[dict[str, Any]]:
    """The memory backends, the machine's own memory with them."""
    machine = monitor.machine
    rows = []
    for one in made(machine, "memory-backend-"):
        values = one.shown()
        row = {name: values[name] for name in ("size", "merge", "dump", "prealloc", "share", "reserve", "policy")}
        rows.append({"id": one.name, **row, "host-nodes": list(values.get("host-nodes") or ())})
    of_objects = (machine.config.get("memory-backing") or {}).get("memdevs")
    own = machine.board.ram.name if machine.whole and machine.board.ram_size else ""
    if own and not of_objects and all(row["id"] != own for row in rows):
        rows.append(
            {
                **{"id": own, "size": machine.board.ram_size, "merge": True, "dump": True, "prealloc": False},
                **{"share": False, "reserve": True, "policy": "default", "host-nodes": []},
            }
        )
    return rows


@command("query-memory-size-summary", returns="MemoryInfo")
def query_memory_size_summary(monitor: Any) -> dict[str, int]:
    """Bytes of memory that the machine has from its start, and that were plugged in."""
    plugged = sum(row["data"]["size"] for row in memory_devices(monitor.machine))
    return {"base-memory": monitor.machine.board.ram_size, "plugged-memory": plugged}


@command("query-memory-devices", returns="[MemoryDeviceInfo]")
def query_memory_devices(monitor: Any) -> list[dict[str, Any]]:
    """The memory modules that were plugged in."""
    return memory_devices(monitor.machine)


def memory_devices(machine: Any) -> list[dict[str, Any]]:
    """Devices that say what they are by a `memory_info()`."""
    found = (getattr(device, "memory_info", None) for device in machine.devices.values())
    return [info() for info in found if info is not None]
