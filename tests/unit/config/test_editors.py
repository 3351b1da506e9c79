"""The schema for editors: the examples fit it, and it knows each driver's properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from vmrun.config.catalogue import load_catalogue
from vmrun.config.editors import editor_schema
from vmrun.config.load import load_file
from vmrun.config.node import plain

EXAMPLES = Path(__file__).parents[3] / "examples"
HEAD = {"schema": "vmrun/machine/1", "machine": "rhel6.3.0"}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = editor_schema("machine", str(EXAMPLES))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def faults(validator: Draft202012Validator, device: dict[str, Any]) -> list[str]:
    return [str(list(fault.absolute_path)) for fault in validator.iter_errors({**HEAD, "devices": [device]})]


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".toml")))
def test_examples_fit(validator: Draft202012Validator, name: str) -> None:
    value = plain(load_file(str(EXAMPLES / name)))
    if value["schema"] == "vmrun/machine/1":
        assert [fault.message for fault in validator.iter_errors(value)] == []


@pytest.mark.parametrize(
    ("device", "wrong"),
    [
        ({"driver": "isa-serial", "irq": 4}, []),
        ({"driver": "isa-serial", "irq": 16}, ["['devices', 0, 'irq']"]),
        ({"driver": "isa-serial", "wakeup": "on"}, ["['devices', 0, 'wakeup']"]),
        ({"driver": "mc146818rtc", "lost_tick_policy": "catch"}, ["['devices', 0, 'lost_tick_policy']"]),
        ({"driver": "usb-tablet", "port": "1"}, []),
    ],
)
def test_properties_are_checked_by_driver(
    validator: Draft202012Validator, device: dict[str, Any], wrong: list[str]
) -> None:
    assert faults(validator, device) == wrong


def test_defaults_of_every_driver_fit(validator: Draft202012Validator) -> None:
    catalogue = load_catalogue()
    for name in catalogue.modelled_names():
        entry = catalogue.modelled(name)
        assert entry is not None
        values = {key: prop["default"] for key, prop in entry.props.items() if prop.get("default") is not None}
        assert faults(validator, {**values, "driver": name}) == [], name
