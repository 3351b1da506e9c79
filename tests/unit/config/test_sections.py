"""What mypy believes of a resolved machine is what resolving gives, for every type and section."""

from __future__ import annotations

import json
import pathlib
import types
import typing
from typing import Any

import pytest

from vmrun.config.machinetypes import type_names
from vmrun.config.resolve import resolve_file
from vmrun.config.sections import MachineData

MORE: list[dict[str, Any]] = [
    {},
    {"kernel": "k", "initrd": "i", "cmdline": "quiet", "boot": {"once": "d", "menu": True}},
    {"accel": ["soft"], "thread": "multi", "translate": "off", "keyboard": "fr", "vnc": {"listen": "127.0.0.1:1"}},
    {
        "memory-backing": {"prealloc": True},
        "objects": {"m": {"type": "memory-backend-ram", "size": "1MiB"}},
        "numa": [{"memory": "128MiB", "cpus": [0]}],
        "on": {"crash": "pause"},
        "remove": ["hpet"],
        "smbios": {"type1": {"manufacturer": "x"}},
        "uuid": "8e2c4b1e-0b7e-4c2d-9b2e-0a7b0b7c3f11",
    },
    {"memory-slots": {"count": 2, "maxmem": "1GiB"}, "clock": {"mode": "instructions"}, "accel": ["soft"]},
]


def wrong(value: Any, kind: Any, path: str = "") -> list[str]:
    """Where a value is not of its type."""
    if kind is Any:
        return []
    if typing.is_typeddict(kind):
        if not isinstance(value, dict):
            return [path]
        # __required_keys__ does not know of NotRequired in annotations that are not evaluated
        whole = typing.get_type_hints(kind, include_extras=True)
        needed = {key for key, hint in whole.items() if typing.get_origin(hint) is not typing.NotRequired}
        hints = typing.get_type_hints(kind)
        found = [f"{path}.{key} is not there" for key in needed - value.keys()]
        for key, inner in value.items():
            found += wrong(inner, hints[key], f"{path}.{key}") if key in hints else [f"{path}.{key} is unknown"]
        return found
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return [] if any(not wrong(value, one, path) for one in inner) else [path]
    if origin is list:
        return [bad for n, one in enumerate(value) for bad in wrong(one, inner[0], f"{path}[{n}]")]
    if origin is dict:
        return [bad for key, one in value.items() for bad in wrong(one, inner[1], f"{path}.{key}")]
    return [] if type(value) is kind else [f"{path}: {value!r}"]


@pytest.mark.parametrize("more", range(len(MORE)))
def test_a_resolved_machine_is_as_its_type_says(tmp_path: pathlib.Path, more: int) -> None:
    for name in "ki":
        (tmp_path / name).write_bytes(bytes(65536))
    path, resolved = tmp_path / "m.json", 0
    for name in type_names():
        given = {"schema": "vmrun/machine/1", "machine": name, "memory": "128MiB", **MORE[more]}
        path.write_text(json.dumps(given))
        try:
            data = resolve_file(str(path)).data
        except Exception:  # an older type may lack what is asked for
            continue
        resolved += 1
        assert wrong(data, MachineData, name) == []
    assert resolved > 3


def test_a_wrong_one_is_found() -> None:
    assert wrong({"base": 1, "size": "2", "more": 3}, typing.get_type_hints(MachineData)["memory-map"])
