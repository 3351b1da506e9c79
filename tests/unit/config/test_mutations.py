"""Good files with pieces replaced, removed and added: errors with places, or a sound machine."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.catalogue import Catalogue
from vmrun.config.files import check_files
from vmrun.config.load import load_file
from vmrun.config.node import plain
from vmrun.config.resolve import check_file, check_type_file
from vmrun.config.write import yaml_text

EXAMPLES = Path(__file__).parents[3] / "examples"
ROUNDS = 150

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1, 70000, 1 << 60, "", "a", "x y", "512MiB", "on", "kvm", "\n", "é"),
    *("c" * 200, "pci.0", "ide.0", "pm", "host", "default", "stdio", "..", "/", "\x7f", "05.0", "mine"),
    *("rhel6.3.0", "none", [], {}, ["a"], ["kvm"], [5], [{}], {"a": 1}, {"type": "pty"}, {"chardev": "x"}),
    *({"file": "x"}, {"id": "pm"}, {"from": "a", "to": "b"}, {"id": "x", "driver": "VGA"}),
    [{"id": "x", "driver": "isa-serial"}],
]  # fmt: skip
KEYS = [
    "id",
    "driver",
    "bus",
    "addr",
    "provides",
    "type",
    "path",
    "host",
    "port",
    "file",
    "x",
    "unit",
    "irq",
    "iobase",
    "index",
    "chardev",
    "drive",
    "in-kernel",
]

FULL = {
    "schema": "vmrun/machine/1",
    "machine": "rhel6.3.0",
    "serial": ["pty", {"type": "file", "path": "l"}],
    "debugcon": {"chardev": "null", "iobase": 5},
    "disks": ["a", {"file": "b", "bootindex": 1}],
    "globals": {"VGA": {"mmio": True}},
    "firmware": {"bios": "x", "dirs": ["a"], "smbios": {"type1": {"serial": "b"}}, "cmos": {"floppy": 1}},
    "wires": [{"from": "pm.x[0..3]", "to": "gsi[0..3]"}],
    "memory-map": {"low-ram-limit": "1GiB", "bios": {"end": 5}},
    "memory": "4GiB",
    "cpus": {"count": 4, "cores": 2, "features": {"avx": True}, "model": "Penryn", "compat": {"a": 1}},
    "devices": [
        {"id": "pm", "disable_s3": 1},
        {"id": "n", "driver": "test-nic", "addr": "05.0", "bus": "b.0"},
        {"id": "b", "driver": "test-bridge"},
    ],
    "uuid": "5e0b1f4c-51c9-4fb5-9ca2-8d7f50e6fd2b",
    "smbios": {"type1": {"serial": "b"}},
    "boot": {"order": "c"},
    "kernel": "k",
    "cmdline": "c",
}
TYPE = {
    "schema": "vmrun/machine-type/1",
    "name": "mine",
    "extends": "rhel6.3.0",
    "remove": ["port92"],
    "devices": [{"id": "pm", "smb_io_base": 5}],
    "wires": [{"from": "pm.x", "to": "gsi[0]"}],
    "limits": {"cpus": 3, "memory-min": "1MiB", "memory-step": "4KiB"},
    "defaults": {
        "memory": "1GiB",
        "displays": {"a": "VGA"},
        "display": "a",
        "accel": ["kvm"],
        "disk": "ide-hd",
    },
    "compat": {"VGA": {"mmio": True}},
    "cpu-compat": {"*": {"a": 1}},
    "cpus": {"family": "qemu", "topology-fill": "cores"},
    "gaps": [{"driver": "x"}],
    "memory-map": {"low-ram-split": 5},
    "pci-routing": {"first-slot": 1},
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        found += paths(child, (*path, key))
    return found


def mutate(value: Any, chance: random.Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.randint(1, 3)):
        choices = paths(value)
        if not choices:
            break
        path = chance.choice(choices)
        parent = value
        for step in path[:-1]:
            parent = parent[step]
        junk = copy.deepcopy(chance.choice(JUNK))
        what = chance.random()
        if what < 0.5:
            parent[path[-1]] = junk
        elif what < 0.7:
            del parent[path[-1]]
        elif isinstance(parent, dict):
            parent[chance.choice(KEYS)] = junk
        else:
            parent.insert(0, junk)
    return value


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_have_a_defined_outcome(
    seed: int, catalogue: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chance = random.Random(seed)
    machines = [
        FULL,
        *(plain(load_file(str(EXAMPLES / name))) for name in ("desktop.yaml", "two-disks.yaml")),
    ]
    for _ in range(ROUNDS):
        machine = mutate(chance.choice(machines), chance)
        if chance.random() < 0.3:
            machine["machine"] = "mine"
        Path("m.json").write_text(json.dumps(machine))
        Path("mine.json").write_text(json.dumps(mutate(TYPE, chance)))
        outcome(catalogue)


def outcome(catalogue: Catalogue) -> None:
    machine, problems = check_file("m.json", catalogue=catalogue)
    for problem in [*problems, *check_type_file("mine.json", catalogue=catalogue)]:
        assert problem.text()
        assert problem.place is not None
    assert (machine is None) == any(problem.severity == "error" for problem in problems)
    if machine is None:
        return
    check_files(machine)
    Path("again.yaml").write_text(yaml_text(machine.to_dict()), encoding="utf-8")
    again, problems = check_file("again.yaml", catalogue=catalogue)
    assert again is not None, "\n".join(map(str, problems))
    assert {**again.to_dict(), "name": ""} == {**machine.to_dict(), "name": ""}
