"""Digests of machine types: a released type never changes, and a test fails when its digest moves."""

from __future__ import annotations

import os

from vmrun.config.catalogue import read_json
from vmrun.config.data import data_dir
from vmrun.config.machinetypes import load_type, type_names
from vmrun.errors import BuildError, Place, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.config.machinetypes import TypeSpec


def digest(value: Any) -> str:
    """SHA-256 (hex) of a plain value, whatever the order of its keys."""
    import json
    from hashlib import sha256

    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return sha256(text.encode()).hexdigest()


def type_digests() -> dict[str, str]:
    """Name → digest of the flattened form (all that it extends put in) of each of vmrun's own types."""
    return {name: type_digest(load_type(name)) for name in type_names()}


def type_digest(spec: TypeSpec) -> str:
    """Descriptions and gaps do not count: they say nothing about the machine."""
    value = spec.to_dict()
    for key in ("description", "gaps"):
        value.pop(key, None)
    return digest(value)


def digests_path() -> str:
    return os.path.join(data_dir("machines"), "digests.json")


def released() -> dict[str, str]:
    """Name → digest of each type as it was released; empty when the installation has no list of them."""
    try:
        found: dict[str, str] = read_json(digests_path())
    except BuildError:
        return {}
    return found


def changed_since_release(name: str, directory: str = "") -> Problem | None:
    """The problem of a machine whose type, or the one of vmrun's that its type extends, is not what was released.

    directory: where a user's own types may be. Raises ConfigError when there is no such type.
    """
    known = released()
    for layer in load_type(name, directory).chain:
        if layer not in known:
            continue
        spec = load_type(layer)
        if type_digest(spec) == known[layer]:
            return None
        files = ", ".join(f"{part}.yaml" for part in spec.chain[:3]) + (", …" if len(spec.chain) > 3 else "")
        return Problem(
            "VR0304",
            f"machine type '{layer}' is not as it was released: a file of it ({files}) was changed",
            Place(f"machines/{layer}.yaml"),
            path="machine",
            remedy="reinstall vmrun; what you need different goes into a type of your own (`extends:`)",
        )
    return None


def changed_types() -> list[Problem]:
    """What of vmrun's own types is not as it was released: a changed meaning, a new type, a missing one."""
    known, now = released(), type_digests()
    found = []
    for name in sorted({*now, *known}):
        if now.get(name) == known.get(name):
            continue
        if name not in now:
            said, remedy = f"the released machine type {name} is gone", "reinstall vmrun"
        elif name not in known:
            said = f"machine type {name} is none of those that were released with this vmrun"
            remedy = "keep types of your own beside your machine files"
        else:
            said = f"the meaning of the released machine type {name} has changed"
            remedy = "undo the change in it or in what it extends, or reinstall vmrun"
        found.append(Problem("VR0304", said, Place(f"machines/{name}.yaml"), remedy=remedy))
    return found
