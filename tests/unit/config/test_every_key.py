"""No key of a machine file's schema is taken without effect: something behind the configuration reads it, or the
resolver makes another machine of it.

What the schema leaves open (drivers' properties, options of back ends) has tests of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.api import examine_file
from vmrun.config.data import data_dir

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads(Path(data_dir("schema"), "machine.schema.json").read_text())
BEHIND = ("cli", "core", "devices", "firmware", "machine", "monitor", "backends", "ui", "bus")
# of the resolver alone: (what the key needs, two values that make two machines)
RESOLVED: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "schema": ({}, "vmrun/machine/1", "vmrun/machine/2"),
    "cpus.topology-fill": ({"cpus": {"count": 4}}, "sockets", "cores"),
    "cdrom": ({}, "one.json", "two.json"),
    "disks": ({}, ["one.json"], ["two.json"]),
    "floppies": ({}, ["one.json"], ["two.json"]),
    "nics": ({}, [{"type": "user", "model": "e1000"}], [{"type": "user", "model": "rtl8139"}]),
    "pflash": ({}, "one.json", "two.json"),
    "parallel": ({}, "null", "stdio"),
    "debugcon": ({}, "null", "stdio"),
    "debugcon.chardev": ({"debugcon": {"iobase": 0xE9}}, "null", "stdio"),
    "debugcon.iobase": ({"debugcon": {"chardev": "null"}}, 0xE9, 0x402),
    "globals": ({"display": "std"}, {"VGA": {"vgamem_mb": 8}}, {"VGA": {"vgamem_mb": 16}}),
    "memory-map.low-ram-limit": ({"memory": "4GiB", "memory-map": {"low-ram-split": "1GiB"}}, "2GiB", "3GiB"),
    "memory-map.low-ram-split": ({"memory": "4GiB", "memory-map": {"low-ram-limit": "3GiB"}}, "1GiB", "2GiB"),
    "cpus.versions": ({"cpus": {"model": "Haswell"}}, "legacy", "latest"),
    "cpus.add-x2apic": ({"cpus": {"model": "qemu64"}}, True, False),
    "cpus.add-kvm-pv-eoi": ({"cpus": {"model": "qemu64"}}, True, False),
}
TOLD = {  # what a run is told instead, by the code of the message
    "spice": "VR0805", "include": "VR0805", "sound": "VR0805", "usb": "VR0805", "cpus.smm": "VR0805",
    "pci-routing.first-slot": "VR0204", "memory-map.pci-hole.base": "VR0717", "memory-map.pci-hole.size": "VR0717",
}  # fmt: skip
VALUES = {
    "include": ["x"], "spice": {"port": 5900}, "sound": ["ac97"], "usb": True, "cpus.smm": True,
    "pci-routing.first-slot": 2, "memory-map.pci-hole.base": "3GiB", "memory-map.pci-hole.size": "1GiB",
}  # fmt: skip


def keys(node: dict[str, Any], path: str = "") -> Iterator[str]:
    """The path of every key; spice's options are one thing that is not there yet."""
    while "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for name, child in node.get("properties", {}).items():
        yield path + name
        if path + name != "spice":
            yield from keys(child, f"{path}{name}.")
    for child in [kind for word in ("anyOf", "oneOf", "allOf") for kind in node.get(word, ())]:
        yield from keys(child, path)
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield from keys(node[word], path)


ALL = sorted(set(keys(SCHEMA)))


@pytest.fixture(scope="module")
def code() -> str:
    files = [path for room in BEHIND for kind in ("*.py", "*.pyx") for path in (ROOT / "vmrun" / room).rglob(kind)]
    return "\n".join(path.read_text() for path in files)


def machine(path: str, value: Any, more: dict[str, Any]) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(json.dumps({"schema": "vmrun/machine/1", "machine": "pc-i440fx-2.0", **more}))
    inside = whole
    *steps, last = path.split(".")
    for step in steps:
        inside = inside.setdefault(step, {})
    inside[last] = value
    return whole


def outcome(whole: dict[str, Any]) -> tuple[Any, list[str]]:
    Path("m.json").write_text(json.dumps(whole))
    resolved, problems = examine_file("m.json")
    return resolved and resolved.to_dict(), [problem.code for problem in problems]


def test_every_key_is_read_behind_the_configuration_or_listed_here(code: str) -> None:
    leaves = [key for key in ALL if not any(other.startswith(f"{key}.") for other in ALL)]
    idle = [key for key in leaves if f'"{key.rpartition(".")[2]}"' not in code]
    assert sorted(set(idle) - RESOLVED.keys() - TOLD.keys()) == []


@pytest.mark.parametrize("key", RESOLVED)
def test_the_resolver_makes_another_machine_of_it(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, size in (("one.json", 1), ("two.json", 2)):
        Path(name).write_text(json.dumps({"memory": f"{size}GiB"}))
    more, *values = RESOLVED[key]
    first, second = (outcome(machine(key, value, more)) for value in values)
    assert key in ALL and first != second and (first[0] or second[0]) is not None


@pytest.mark.parametrize("key", TOLD)
def test_what_is_not_acted_on_is_told(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert key in ALL and TOLD[key] in outcome(machine(key, VALUES[key], {}))[1]
