"""Digests of machine types: a released type never changes, and a test fails when its digest moves."""

from __future__ import annotations

import hashlib
import json
import os

from vmrun.config.data import data_dir
from vmrun.config.machinetypes import load_type, type_names
from vmrun.errors import Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def digest(value: Any) -> str:
    """SHA-256 (hex) of a plain value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def type_digests() -> dict[str, str]:
    """Name → digest of the flattened form (all that it extends put in) of each of vmrun's own types.

    Descriptions and gaps do not count: they say nothing about the machine.
    """
    result = {}
    for name in type_names():
        value = load_type(name).to_dict()
        for key in ("description", "gaps"):
            value.pop(key, None)
        result[name] = digest(value)
    return result


def changed_types() -> list[Problem]:
    """What of vmrun's own types is not as it was released: a changed meaning, a new type, a missing one."""
    with open(os.path.join(data_dir("machines"), "digests.json"), encoding="utf-8") as file:
        released: dict[str, str] = json.load(file)
    now = type_digests()
    found = []
    for name in sorted({*now, *released}):
        if now.get(name) == released.get(name):
            continue
        if name not in now:
            said, remedy = f"the released machine type {name} is gone", "reinstall vmrun"
        elif name not in released:
            said = f"machine type {name} is none of those that were released with this vmrun"
            remedy = "keep types of your own beside your machine files"
        else:
            said = f"the meaning of the released machine type {name} has changed"
            remedy = "undo the change in it or in what it extends, or reinstall vmrun"
        found.append(Problem("VR0304", said, Place(f"machines/{name}.yaml"), remedy=remedy))
    return found
