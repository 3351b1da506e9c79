"""Resolved machines for tests, made from the types' own data (machines/*.yaml) without resolving a user's
file.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from vmrun.config.data import data_dir
from vmrun.config.machinetypes import load_type
from vmrun.config.node import plain
from vmrun.config.scalar import parse_size

OWN_KEYS = ("id", "driver", "bus", "addr", "provides", "in-kernel", "multifunction")


def board(
    type_name: str, *, memory: int = 256 << 20, devices: tuple[dict[str, Any], ...] = (), **more: Any
) -> dict[str, Any]:
    """The board of a type, with `devices` behind it; cpus={…} and other sections are put over the type's."""
    data: Any = plain(load_type(type_name, "", None).root)
    layout = {
        key: parse_size(value) if isinstance(value, str) else value
        for key, value in data["memory-map"].items()
    }
    below = layout["low-ram-split"] if memory >= layout["low-ram-limit"] else memory
    cpus = {
        "count": 1,
        "sockets": 1,
        "cores": 1,
        "threads": 1,
        **data.get("cpus", {}),
        **more.pop("cpus", {}),
    }
    cpus.setdefault("maxcpus", cpus["count"])
    compat = data.get("compat", {})
    settings = data["firmware"].get("acpi-settings", {})
    settings |= {key: parse_size(settings[key]) for key in ("data-size",) if key in settings}
    machine: dict[str, Any] = {
        "machine": data["name"],
        "family": data.get("family", ""),
        "hw-version": data.get("hw-version", ""),
        "memory": memory,
        "memory-map": {**layout, "below-4g": below, "above-4g": memory - below},
        "cpus": cpus,
        "boot": {"order": data.get("defaults", {}).get("boot-order", "cad"), "menu": False, "strict": False},
        "firmware": data["firmware"],
        "devices": [device(row, compat) for row in (*data["devices"], *devices)],
        "drives": {},
        "uuid": None,
        "smbios": {},
    }
    for key, value in more.items():
        machine[key] = {**machine[key], **value} if isinstance(machine.get(key), dict) else value
    return machine


@functools.cache
def defaults() -> dict[str, dict[str, Any]]:
    """Driver → property → its default, for the drivers that vmrun has."""
    with open(f"{data_dir('schema')}/devices.json", "rb") as file:
        rows = json.load(file)
    return {driver: {prop["name"]: prop["default"] for prop in row["props"]} for driver, row in rows.items()}


def device(row: dict[str, Any], compat: dict[str, Any]) -> dict[str, Any]:
    props = {
        **defaults().get(row["driver"], {}),
        **compat.get(row["driver"], {}),
        **{key: value for key, value in row.items() if key not in OWN_KEYS},
    }
    found = {key: row.get(key) for key in ("id", "driver", "bus", "addr")}
    return {**found, "provides": row.get("provides") or {}, "props": props}
