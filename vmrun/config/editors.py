"""The JSON Schema of machine files for editors: with the drivers' names and, under each driver, its properties.

The plain one (schema/machine.schema.json) leaves these to the catalogue of drivers, which changes with every device.
"""

from __future__ import annotations

from vmrun.config.catalogue import load_catalogue
from vmrun.config.check import load_schema
from vmrun.config.load import SUFFIXES
from vmrun.config.machinetypes import aliases, load_type, type_names
from vmrun.core.values import RANGES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Catalogue, Driver

PLACE = ("id", "driver", "bus", "addr", "in-kernel", "provides")
TEXT = {"type": "string"}
RULE = {  # of an authz-list
    "type": "object", "required": ["match", "policy"], "additionalProperties": False,
    "properties": {"match": TEXT, "policy": {"enum": ["deny", "allow"]}, "format": {"enum": ["exact", "glob"]}},
}  # fmt: skip
NUMBERS = tuple(kind for kind in RANGES if kind != "size")


def editor_schema(name: str, directory: str | None = None) -> dict[str, Any]:
    """The schema 'machine' or 'machine-type'. The former knows every type, display, driver, backend and their
    properties, and the machine types of one's own that lie in directory, so that what is none of them is wrong.
    """
    schema: dict[str, Any] = load_schema(name)
    if name != "machine":
        return schema
    catalogue = load_catalogue()
    properties = dict(schema["properties"])
    types = [*type_names(), *sorted(aliases()), *own_types(directory)]
    properties["machine"] = {**properties["machine"], "enum": types}
    properties["display"] = {**properties["display"], "enum": _displays()}
    drive = _backend(catalogue.drives["props"])
    objects = {kind: {"props": rows} for kind, rows in catalogue.objects.items()}
    drive["properties"]["format"]["enum"] = list(catalogue.drives["formats"])
    drive["properties"]["media"]["enum"] = list(catalogue.drives["media"])
    for section, entry in (
        ("drives", {**_inner(properties, "drives"), **drive}),
        ("chardevs", _by_type(_inner(properties, "chardevs"), catalogue.chardevs)),
        ("netdevs", _by_type(_inner(properties, "netdevs"), catalogue.netdevs)),
        ("objects", _by_type(_inner(properties, "objects"), objects)),
    ):
        properties[section] = {**properties[section], "additionalProperties": entry}
    text, whole = properties["disks"]["items"]["anyOf"]
    disk = {**drive["properties"], **_disk_properties(catalogue)}
    whole = {**whole, "properties": {**whole["properties"], **disk}, "additionalProperties": False}
    disks = {**properties["disks"]["items"], "anyOf": [text, whole]}
    properties["disks"] = {**properties["disks"], "items": disks}
    defs = dict(schema["$defs"])
    defs["device"] = _device(defs["device"], catalogue)
    # YAML takes the chardev `null` for nothing at all
    defs["backend"] = {**defs["backend"], "anyOf": [*defs["backend"]["anyOf"], {"type": "null"}]}
    return {**schema, "properties": properties, "$defs": defs}


def own_types(directory: str | None) -> list[str]:
    """Names of the machine types that lie in a directory; none without one."""
    import os

    found = []
    for file in sorted(os.listdir(directory)) if directory is not None else ():
        stem, suffix = os.path.splitext(file)
        if suffix not in SUFFIXES:
            continue
        try:
            with open(os.path.join(directory or "", file), encoding="utf-8") as text:
                if "vmrun/machine-type/" in text.read(MOST_LOOKED_AT):
                    found.append(stem)
        except (OSError, ValueError):
            continue
    return found


MOST_LOOKED_AT = 65536  # characters of a file in which its schema stands


def _displays() -> list[str]:
    found = {"default": None, "none": None}
    for name in type_names():
        found |= dict.fromkeys(load_type(name).displays())
    return list(found)


def _device(plain: dict[str, Any], catalogue: Catalogue) -> dict[str, Any]:
    """A device: its driver is one of those there are, and its properties are that driver's."""
    place = [name for name in (*PLACE, *plain["properties"])]
    rows: list[dict[str, Any]] = []
    names = []
    for name in catalogue.names():
        entry = catalogue.modelled(name) or catalogue.driver(name)
        if entry is None:
            continue
        names.append(name)
        then: dict[str, Any] = {"propertyNames": {"enum": list(dict.fromkeys((*place, *entry.props)))}}
        if not entry.planned:
            then["properties"] = _properties(entry)
        rows.append({"if": {"properties": {"driver": {"const": name}}, "required": ["driver"]}, "then": then})
    driver = {**plain["properties"]["driver"], "enum": names}
    addr = dict(plain["properties"]["addr"])
    addr["anyOf"] = [*addr["anyOf"], {"type": "number"}]  # what YAML takes 01.2 for
    return {**plain, "properties": {**plain["properties"], "driver": driver, "addr": addr}, "allOf": rows}


def _inner(properties: dict[str, Any], section: str) -> dict[str, Any]:
    inner: dict[str, Any] = properties[section]["additionalProperties"]
    return inner


def _backend(props: list[dict[str, Any]]) -> dict[str, Any]:
    return {"properties": {prop["name"]: _property(prop) for prop in props}, "additionalProperties": False}


def _by_type(plain: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    """One of some backends: its type is one of those there are, and its options are that type's."""
    rows = []
    for name, entry in types.items():
        known = _backend(entry["props"])["properties"]
        then = {"properties": known, "propertyNames": {"enum": ["type", *known]}}
        rows.append({"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": then})
    kinds = {**plain["properties"]["type"], "enum": list(types)}
    return {**plain, "properties": {**plain["properties"], "type": kinds}, "allOf": rows}


def _disk_properties(catalogue: Catalogue) -> dict[str, Any]:
    entry = catalogue.modelled("ide-hd")
    return {name: _property(prop) for name, prop in entry.props.items() if name != "drive"} if entry is not None else {}


def _properties(entry: Driver) -> dict[str, Any]:
    return {name: _property(prop) for name, prop in entry.props.items() if name not in PLACE}


def _property(prop: dict[str, Any]) -> dict[str, Any]:
    unit = f", in {prop['unit']}" if prop.get("unit") else ""
    row: dict[str, Any] = {"description": f"{prop.get('doc') or ''}{unit}"}
    kind = prop["type"]
    if prop.get("choices"):
        row["enum"] = list(prop["choices"])
    elif kind == "bool":
        row["type"] = "boolean"
    elif kind in NUMBERS:
        row["type"] = "integer"
        for n, (key, name) in enumerate((("minimum", "min"), ("maximum", "max"))):
            row[key] = prop[name] if prop.get(name) is not None else RANGES[kind][n]
    elif kind == "size":
        row["$ref"] = "#/$defs/size"
    elif kind == "rules":
        row |= {"type": "array", "items": RULE}
    else:
        row |= TEXT
    if prop.get("default") is not None:
        row["default"] = prop["default"]
    return row
