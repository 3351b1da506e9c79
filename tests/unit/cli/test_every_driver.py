"""What validate calls fine is built, for machines of every driver there is, with odd values: no crash, no other answer,
and each fault with its line.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.api import examine_file
from vmrun.config.catalogue import load_catalogue
from vmrun.errors import ERROR, VmrunError
from vmrun.machine.builder import build
from vmrun.machine.examine import examine

CATALOGUE = load_catalogue()
TYPES = ("rhel6.6.0", "pc-i440fx-2.0", "pc-i440fx-7.2", "pc-i440fx-7.2")
NUMBERS = (0, 1, 2, 3, 4, 7, 8, 15, 16, 64, 255, 256, 1000, 4096, 65535, 65536, 1 << 20, 0xE0000000, 0xFFFFFFFF, -1)
TEXTS = ("", "x", "none", "auto", "07.0", "1f.7", "52:54:00:12:34:56", "d0", "de305d54-75b4-431b-adb2-eb6b9e546014")
HOST = {
    "drives": {"d0": {"file": "d0.img"}, "d1": {"file": "d1.img"}},
    "chardevs": {"c0": {"type": "null"}, "c1": {"type": "null"}},
    "netdevs": {"n0": {"type": "user"}, "n1": {"type": "user"}},
    "objects": {
        "t0": {"type": "iothread"}, "m0": {"type": "memory-backend-ram", "size": "1MiB"}, "r0": {"type": "rng-builtin"},
    },
}  # fmt: skip
NAMED = {"drive": ("d0", "d1"), "chardev": ("c0", "c1"), "netdev": ("n0", "n1")}
OBJECTS = {"iothread": "t0", "memory-backend": "m0", "rng-backend": "r0"}


def odd(draw: random.Random, prop: dict[str, Any]) -> Any:
    if prop.get("choices"):
        return draw.choice(prop["choices"])
    if prop["type"] == "bool":
        return draw.random() < 0.5
    return draw.choice(TEXTS if prop["type"] in ("str", "mac", "pci-addr", "link") else NUMBERS)


def machine(seed: int) -> dict[str, Any]:
    draw = random.Random(seed)
    found: dict[str, Any] = {"schema": "vmrun/machine/1", "machine": draw.choice(TYPES), **HOST}
    if draw.random() < 0.3:
        found |= {"memory": "64MiB", "memory-slots": {"count": 2, "maxmem": "1GiB"}}
    found["devices"] = []
    names = [name for name in CATALOGUE.modelled_names() if _entry(name).user_creatable]
    for n in range(draw.choice((1, 2, 3))):
        entry = _entry(draw.choice(names))
        device: dict[str, Any] = {"driver": entry.name, "id": f"x{n}"}
        props = list(entry.props.values())
        for prop in props:
            if draw.random() < 0.8 and prop["type"] in NAMED:
                device[prop["name"]] = NAMED[prop["type"]][n % 2]
            elif draw.random() < 0.8 and prop["type"] == "object":
                device[prop["name"]] = OBJECTS.get(prop["of"][0], "t0")
        for prop in draw.sample(props, min(len(props), draw.choice((0, 1, 1, 2)))):
            if prop["type"] not in NAMED and prop["type"] != "object":
                device[prop["name"]] = odd(draw, prop)
        found["devices"].append(device)
    return found


def _entry(name: str) -> Any:
    return CATALOGUE.modelled(name)


def answer() -> tuple[bool, str]:
    """(whether it was built, what is wrong with what was said)."""
    resolved, _ = examine_file("m.json")
    if resolved is None:
        return False, ""
    said = [problem for problem in examine(resolved) if problem.severity == ERROR]
    if any(problem.place is None or not problem.place.line for problem in said):
        return False, f"no line: {said}"
    try:
        build(resolved.data, accel=["qtest"]).close()
    except VmrunError as error:
        return False, "" if said else f"not found: {error}"
    others = [problem for problem in said if problem.code != "VR0411"]  # what only KVM refuses
    return True, f"built: {others}" if others else ""


@pytest.mark.parametrize("part", range(2))
def test_validate_and_build_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d0.img", "d1.img"):
        Path(name).write_bytes(bytes(1 << 20))
    wrong, fine = [], 0
    for seed in range(part * 60, part * 60 + 60):
        text = json.dumps(machine(seed))
        Path("m.json").write_text(text)
        built, fault = answer()
        fine += built
        if fault:
            wrong.append((seed, fault, text))
    assert wrong == []
    assert fine > 5  # else the machines are too odd to say anything


def test_vectors_beyond_the_capability_are_a_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for count, fault in ((2048, False), (2049, True), (65535, True)):
        device = {"driver": "virtio-rng-pci", "id": "x", "vectors": count}
        Path("m.json").write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "pc", "devices": [device]}))
        resolved, _ = examine_file("m.json")
        assert resolved is not None
        said = [problem.message for problem in examine(resolved) if problem.severity == ERROR]
        assert said == ([f"{count} MSI-X vectors; a function has 1 to 2048"] if fault else [])
