"""The object tree and the types in it."""

from __future__ import annotations

from vmrun.monitor import qom, typetree
from vmrun.monitor.errors import QmpError
from vmrun.monitor.table import command, struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

struct("ObjectPropertyInfo", name="str", type="str", description_="str", default_value_="any")
struct("ObjectTypeInfo", name="str", abstract_="bool", parent_="str")


@command("qom-list", {"path": "str"}, "[ObjectPropertyInfo]")
def qom_list(monitor: Any, path: str) -> list[dict[str, Any]]:
    """Properties and children of an object. The path may be the end of one that fits a single object."""
    return qom.Tree(monitor.machine).properties(path)


@command("qom-get", {"path": "str", "property": "str"}, "any")
def qom_get(monitor: Any, path: str, property: str) -> Any:
    """The value of a property; of a child, its path."""
    return qom.Tree(monitor.machine).get(path, property)


@command("qom-set", {"path": "str", "property": "str", "value": "any"})
def qom_set(monitor: Any, path: str, property: str, value: Any) -> None:
    """Change a property that may change while the machine is there."""
    qom.Tree(monitor.machine).set(path, property, value)


@command("qom-list-types", {"implements?": "str", "abstract?": "bool"}, "[ObjectTypeInfo]")
def qom_list_types(monitor: Any, implements: str = "", abstract: bool = False) -> list[dict[str, Any]]:
    """The types, or those that are an `implements`."""
    return typetree.types(implements, abstract)


@command("qom-list-properties", {"typename": "str"}, "[ObjectPropertyInfo]")
def qom_list_properties(monitor: Any, typename: str) -> list[dict[str, Any]]:
    """All properties of a type."""
    return qom.all_properties(typename)


@command("device-list-properties", {"typename": "str"}, "[ObjectPropertyInfo]")
def device_list_properties(monitor: Any, typename: str) -> list[dict[str, Any]]:
    """Properties of a driver that -device may set."""
    if typename in typetree.ABSTRACT:
        raise QmpError("Parameter 'typename' expects a non-abstract device type")
    return qom.type_properties(typename)
