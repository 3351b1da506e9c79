"""The object tree as QOM clients see it: paths, types, properties."""

from __future__ import annotations

from vmrun.core.object import Device, Object
from vmrun.core.props import props_of
from vmrun.machine.processor import Processor
from vmrun.monitor.errors import QmpError, no_device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# vmrun's property types in QOM's words
TYPES = {"size": "size", "enum": "str", "pci-addr": "int32", "mac": "str", "drive": "str", "chardev": "str"}
TYPES |= {"netdev": "str", "link": "str"}
ABSTRACT = {"device": "object", "bus": "object", "pci-device": "device", "isa-device": "device"}
ABSTRACT |= {"ide-device": "device", "sys-bus-device": "device"}
_PARENTS = {"PCI": "pci-device", "ISA": "isa-device", "IDE": "ide-device", None: "sys-bus-device"}


class Tree:
    """The tree of one machine: /machine is its root object; /chardevs and /objects stand beside it."""

    def __init__(self, machine: Any) -> None:
        self.machine = machine

    def resolve(self, path: str) -> Object | None:
        """An absolute path, or the end of one that fits exactly one object. None for the root. DeviceNotFound."""
        parts = [part for part in path.split("/") if part]
        if path.startswith("/"):
            if not parts:
                return None
            found = [self._follow(self.machine.root, parts[1:])] if parts[0] == "machine" else [None]
        else:
            found = [self._follow(node, parts) for node in self.machine.root.walk()] if parts else []
        hits = {id(node): node for node in found if node is not None}
        if len(hits) != 1:
            raise no_device(path)
        return hits.popitem()[1]

    def _follow(self, node: Object, parts: list[str]) -> Object | None:
        for part in parts:
            below = node.children.get(part)
            if below is None:
                return None
            node = below
        return node

    # --- properties -----------------------------------------------------------------------------------------

    def properties(self, path: str) -> list[dict[str, Any]]:
        node = self.resolve(path)
        if node is None:
            return [
                {"name": "type", "type": "string"},
                {"name": "machine", "type": f"child<{self.machine.config['machine']}-machine>"},
            ]
        found = [{"name": "type", "type": "string"}]
        if isinstance(node, Device):
            found += [
                {"name": "parent_bus", "type": "link<bus>"},
                {"name": "realized", "type": "bool"},
                {"name": "hotplugged", "type": "bool"},
                {"name": "hotpluggable", "type": "bool"},
            ]
            found += [describe(prop) for prop in declared(type(node))]
        if isinstance(node, Processor):
            types = {bool: "bool", int: "int"}
            found += [{"name": name, "type": types[type(value)]} for name, value in node.values.items()]
        found += [{"name": child.name, "type": f"child<{self.type_of(child)}>"} for child in node.children.values()]
        return found

    def type_of(self, node: Object | None) -> str:
        if node is None:
            return "container"
        if node is self.machine.root:
            return f"{self.machine.config['machine']}-machine"
        return node.driver if isinstance(node, Device | Processor) else "container"

    def get(self, path: str, name: str) -> Any:
        node = self.resolve(path)
        if name == "type":
            return self.type_of(node)
        if node is None and name == "machine":
            return "/machine"
        if node is not None and name in node.children:
            return node.children[name].path
        if isinstance(node, Processor) and name in node.values:
            return node.values[name]
        if isinstance(node, Device):
            known = props_of(type(node))
            if name in known and name != "id":
                value = node.get_props()[name]
                return "" if value is None else value
            bus = node.parent_bus
            fixed = {
                "parent_bus": "" if bus is None else f"{bus_owner(self.machine, bus)}/{bus.name}",
                "realized": node.realized,
                "hotplugged": node.hotplugged,
                "hotpluggable": node.hotpluggable,
            }
            if name in fixed:
                return fixed[name]
        raise QmpError(f"Property '{self.type_of(node)}.{name}' not found")

    def set(self, path: str, name: str, value: Any) -> None:
        """No property of a device that the guest sees may change; what can is set by commands of its own."""
        node = self.resolve(path)
        self.get(path, name)
        if isinstance(node, Device) and name in props_of(type(node)):
            raise QmpError(
                f"Attempt to set property '{name}' on {_label(node)} (type '{node.driver}') after it was realized"
            )
        raise QmpError("Insufficient permission to perform this operation")


def _label(node: Device) -> str:
    anonymous = node.parent is None or node.parent.name != "peripheral"
    return "anonymous device" if anonymous else f"device '{node.name}'"


def bus_owner(machine: Any, bus: Any) -> str:
    return next((d.path for d in machine.devices.values() if bus in d.buses.values()), "")


def declared(cls: type) -> list[Any]:
    return [prop for name, prop in props_of(cls).items() if name != "id"]


def describe(prop: Any) -> dict[str, Any]:
    """ObjectPropertyInfo of a Prop."""
    row = {"name": prop.name, "type": TYPES.get(prop.type, prop.type)}
    if prop.doc:
        row["description"] = prop.doc
    if prop.default is not None and prop.type not in ("drive", "chardev", "netdev", "link"):
        row["default-value"] = prop.default
    return row


# --- types -------------------------------------------------------------------------------------------------


def drivers() -> dict[str, Any]:
    """The rows of the catalogue: what vmrun models."""
    from vmrun.config.cache import read_own
    from vmrun.config.data import data_dir

    rows: dict[str, Any] = read_own(f"{data_dir('schema')}/devices.json")
    return rows


def parent_of(name: str) -> str:
    if name in ABSTRACT:
        return ABSTRACT[name]
    return _PARENTS.get(drivers()[name]["bus"], "device")


def types(implements: str = "", abstract: bool = False) -> list[dict[str, Any]]:
    """ObjectTypeInfo of drivers and, if wanted, the classes above them; those below `implements` only."""
    found: list[dict[str, Any]] = []
    for name in [*drivers(), *(ABSTRACT if abstract else ())]:
        line = [name]
        while line[-1] != "object":
            line.append(parent_of(line[-1]))
        if not implements or implements in line:
            row: dict[str, Any] = {"name": name, "parent": line[1]}
            if name in ABSTRACT:
                row["abstract"] = True
            found.append(row)
    return found


def type_properties(name: str) -> list[dict[str, Any]]:
    """Properties of a driver that a machine file or a command line may set. DeviceNotFound."""
    from vmrun.core import registry

    row = drivers().get(name)
    if row is None:
        raise no_device(name)
    return [describe(prop) for prop in declared(registry.find(name, row["module"]))]
