"""Digests of machine types: a released type never changes, and a test fails when its digest moves."""

from __future__ import annotations

import hashlib
import json

from vmrun.config.machinetypes import load_type, type_names

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
