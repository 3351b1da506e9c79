"""The schema checker: it and the full validator give the same verdict on everything."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from vmrun.config.check import PLAIN, check_schema, load_schema
from vmrun.config.data import data_dir
from vmrun.config.load import load_bytes, load_file
from vmrun.config.machinetypes import without_nulls
from vmrun.config.node import plain
from vmrun.errors import Problem

NAMES = ("machine", "machine-type")
MACHINES = Path(data_dir("machines"))
TYPE_FILES = sorted([*MACHINES.glob("*.yaml"), *MACHINES.glob("_parts/*.yaml")])
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def validators() -> dict[str, Draft202012Validator]:
    resources = [(f"{name}.schema.json", Resource.from_contents(load_schema(name))) for name in NAMES]
    registry: Any = Registry().with_resources(resources)
    return {name: Draft202012Validator(load_schema(name), registry=registry) for name in NAMES}


def accepts(value: Any, name: str) -> bool:
    problems: list[Problem] = []
    check_schema(load_bytes(json.dumps(value).encode(), "m.json"), name, problems)
    return not problems


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_a_valid_schema(name: str) -> None:
    Draft202012Validator.check_schema(load_schema(name))


@pytest.mark.parametrize("name", NAMES)
def test_schema_uses_only_keywords_the_checker_knows(name: str) -> None:
    known = {
        "$schema",
        "$id",
        "$ref",
        "$defs",
        "title",
        "description",
        "default",
        "examples",
        "type",
        "enum",
        "const",
        "properties",
        "additionalProperties",
        "propertyNames",
        "required",
        "items",
        "minItems",
        "maxItems",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "pattern",
        "anyOf",
    }

    def walk(schema: Any) -> None:
        assert set(schema) <= known
        assert isinstance(schema.get("type", ""), str)  # several are an anyOf
        for key in ("additionalProperties", "propertyNames", "items"):
            if isinstance(schema.get(key), dict):
                walk(schema[key])
        for key in ("properties", "$defs"):
            for child in schema.get(key, {}).values():
                walk(child)
        for child in schema.get("anyOf", ()):
            walk(child)

    walk(load_schema(name))


def test_every_key_a_person_can_write_is_described() -> None:
    schema = load_schema("machine")
    for name, entry in schema["properties"].items():
        target = schema["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
        assert entry.get("description") or target.get("description"), name


@pytest.mark.parametrize("path", TYPE_FILES, ids=lambda path: path.stem)
def test_released_types_satisfy_their_schema(path: Path, validators: dict[str, Draft202012Validator]) -> None:
    problems: list[Problem] = []
    node = without_nulls(load_file(str(path)))
    check_schema(node, "machine-type", problems)
    assert problems == []
    assert validators["machine-type"].is_valid(plain(node))


def test_editors_take_a_tilde_for_a_frozen_value(validators: dict[str, Draft202012Validator]) -> None:
    mine = {"schema": "vmrun/machine-type/1", "name": "mine", "extends": "pc"}
    assert validators["machine-type"].is_valid({**mine, "compat": {"VGA": {"edid": None}}})
    assert not validators["machine-type"].is_valid({**mine, "compat": {"VGA": {"edid": [1]}}})


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_satisfy_the_schema(path: Path, validators: dict[str, Draft202012Validator]) -> None:
    problems: list[Problem] = []
    node = load_file(str(path))
    name = "machine-type" if path.stem == "old-pc" else "machine"
    check_schema(node, name, problems)
    assert problems == []
    assert validators[name].is_valid(plain(node))


JUNK = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        70000,
        1 << 60,
        "",
        "a",
        "x y",
        "512MiB",
        "512MB",
        "1.5G",
        "on",
        "kvm",
        [],
        {},
        ["a"],
        ["kvm"],
        {"type": "pty"},
        {"a": 1},
        [{}],
        "\n",
        "a\n",
        "é",
        "c" * 200,
        {"chardev": "x"},
        {"file": "x"},
        [5],
        {"from": "a", "to": "b"},
    ]
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, dict):
        for key, child in value.items():
            found += paths_of(child, (*path, key))
    if isinstance(value, list):
        for index, child in enumerate(value):
            found += paths_of(child, (*path, index))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = copy.deepcopy(new)


SEEDS = {
    "machine": [
        {
            "schema": "vmrun/machine/1",
            "machine": "x",
            "accel": ["kvm"],
            "memory": 5,
            "cpus": {"count": 1, "features": {"a": True}},
            "rtc": {"base": "utc"},
            "boot": {"order": "c"},
            "drives": {"d": {"file": "x"}},
            "chardevs": {"c": {"type": "pty"}},
            "devices": [{"id": "a", "driver": "b", "addr": 5, "provides": {"a": "b"}}],
            "disks": ["a", {"file": "b"}],
            "serial": ["pty", {"type": "pty"}],
            "debugcon": {"chardev": "x"},
            "globals": {"a": {"b": 1}},
            "firmware": {"bios": "x", "dirs": ["a"], "smbios": {"type1": {"serial": "b"}}},
            "wires": [{"from": "a", "to": "b"}],
            "memory-map": {"bios": {"end": 5}},
            "uuid": "5e0b1f4c-51c9-4fb5-9ca2-8d7f50e6fd2b",
            "monitors": {"m": {"chardev": "c"}},
        }
    ],
    "machine-type": [
        {
            "schema": "vmrun/machine-type/1",
            "name": "x",
            "extends": "y",
            "compat": {"a": {"b": 1}},
            "defaults": {"memory": 1, "displays": {"a": "b"}},
            "limits": {"cpus": 1},
            "devices": [{"id": "a"}],
            "gaps": [{"driver": "x"}],
            "remove": ["a"],
            "firmware": {"cmos": {"floppy": 1}},
        }
    ],
}


@settings(max_examples=400)
@given(st.sampled_from(NAMES), st.data())
def test_verdict_is_that_of_the_full_validator(
    validators: dict[str, Draft202012Validator], name: str, data: st.DataObject
) -> None:
    value = copy.deepcopy(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        paths = [path for path in paths_of(value) if path]
        path = data.draw(st.sampled_from(paths))
        if data.draw(st.booleans()):
            put(value, path, data.draw(JUNK))
        elif isinstance(path[-1], str):
            put(
                value,
                (*path[:-1], data.draw(st.sampled_from(["extra", "a b", "id", "type", "x"]))),
                data.draw(JUNK),
            )
    assert accepts(value, name) == validators[name].is_valid(value)


@pytest.mark.parametrize("name", NAMES)
def test_removing_a_required_key_is_seen_by_both(
    name: str, validators: dict[str, Draft202012Validator]
) -> None:
    for key in load_schema(name)["required"]:
        value = copy.deepcopy(SEEDS[name][0])
        del value[key]
        assert not accepts(value, name)
        assert not validators[name].is_valid(value)


@pytest.mark.parametrize("pattern", PLAIN)
def test_what_is_plain_meets_its_pattern(pattern: str) -> None:
    import re

    assert json.dumps(pattern) in (Path(data_dir("schema")) / "machine.schema.json").read_text()
    plain = PLAIN[pattern]
    assert any(map(plain, ("512MiB", "disk-0"))), "nothing is quick here"

    @given(st.one_of(st.from_regex(r"[0-9 .~_k\n-]{0,26}(MiB|GiB|iB|G)?\n?"), st.text("aZ0_-.~ \n²٣é", max_size=9)))
    def sure(text: str) -> None:
        assert not plain(text) or re.search(pattern, text)

    sure()


def test_faulty_parts_are_taken_out_and_the_rest_stays() -> None:
    head = b"schema: vmrun/machine/1\nmachine: x\nmemory: []\nbogus: 1\n"
    text = head + b"devices:\n  - 5\n  - {id: a, driver: b, bus: 7}\n"
    good = check_schema(load_bytes(text, "m.yaml"), "machine", [])
    assert plain(good) == {
        "schema": "vmrun/machine/1",
        "machine": "x",
        "devices": [{"id": "a", "driver": "b"}],
    }
