"""The JSON Schema of machine files for editors: with the drivers' names and, under each driver, its properties.

The plain one (schema/machine.schema.json) leaves these to the catalogue of drivers, which changes with every device.
"""

from __future__ import annotations

from vmrun.config.catalogue import load_catalogue
from vmrun.config.check import load_schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.catalogue import Driver

PLACE = ("id", "driver", "bus", "addr", "in-kernel", "provides")
TEXT = {"type": "string"}
NUMBERS = ("uint8", "uint16", "uint32", "uint64", "int32")


def editor_schema(name: str) -> dict[str, Any]:
    """The schema 'machine' or 'machine-type'; the former with every driver that vmrun models."""
    schema: dict[str, Any] = load_schema(name)
    if name != "machine":
        return schema
    catalogue = load_catalogue()
    drivers = [entry for known in catalogue.modelled_names() if (entry := catalogue.modelled(known)) is not None]
    device = dict(schema["$defs"]["device"])
    names = {"enum": [entry.name for entry in drivers], "title": "a driver that is modelled"}
    device["properties"] = {
        **device["properties"],
        "driver": {**device["properties"]["driver"], "anyOf": [names, {"type": "string", "title": "another driver"}]},
    }
    device["allOf"] = [
        {
            "if": {"properties": {"driver": {"const": entry.name}}, "required": ["driver"]},
            "then": {"properties": _properties(entry)},
        }
        for entry in drivers
    ]
    return {**schema, "$defs": {**schema["$defs"], "device": device}}


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
        row |= {key: prop[name] for key, name in (("minimum", "min"), ("maximum", "max")) if prop.get(name) is not None}
    elif kind == "size":
        row["$ref"] = "#/$defs/size"
    else:
        row |= TEXT
    if prop.get("default") is not None:
        row["default"] = prop["default"]
    return row
