"""What a machine names of its own is there: every property that names a drive, a chardev, a netdev, a device or an
object, of every driver, object and backend, with its line and both names.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.api import examine_file
from vmrun.config.catalogue import load_catalogue
from vmrun.config.objects import fits
from vmrun.core.props import NAMING

CATALOGUE = load_catalogue()
DEVICES = [
    (driver, prop["name"], prop["type"])
    for driver in CATALOGUE.modelled_names()
    for prop in CATALOGUE.modelled(driver).props.values()  # type: ignore[union-attr]
    if prop["type"] in NAMING and CATALOGUE.modelled(driver).user_creatable  # type: ignore[union-attr]
]
OBJECTS = [
    (kind, prop["name"], prop["type"])
    for kind, props in CATALOGUE.objects.items()
    for prop in props
    if prop["type"] in NAMING
]
BACKENDS = [
    (section, kind, prop["name"], prop["type"])
    for section, kinds in (("chardevs", CATALOGUE.chardevs), ("netdevs", CATALOGUE.netdevs))
    for kind, entry in kinds.items()
    for prop in entry["props"]
    if prop["type"] in NAMING
]


def problems(tmp_path: Path, **sections: Any) -> list[str]:
    """As text, with line and column, of a machine whose every value stands on a line of its own."""
    file = tmp_path / "m.json"
    file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "pc-i440fx-7.2", **sections}, indent=1))
    line = file.read_text()[: file.read_text().find('"nosuch"')].count("\n") + 1
    found = examine_file(str(file))[1]
    return [problem.message for problem in found if problem.place is not None and problem.place.line == line]


@pytest.mark.parametrize(("driver", "name", "kind"), DEVICES)
def test_a_device_names_what_is_there(tmp_path: Path, driver: str, name: str, kind: str) -> None:
    what = {"link": "device"}.get(kind, kind)
    found = problems(tmp_path, devices=[{"driver": driver, "id": "x", name: "nosuch"}])
    assert found == [f"{driver} 'x' names {what} 'nosuch', which does not exist"]


@pytest.mark.parametrize(("kind", "name", "what"), OBJECTS)
def test_an_object_names_what_is_there(tmp_path: Path, kind: str, name: str, what: str) -> None:
    found = problems(tmp_path, objects={"x": {"type": kind, name: "nosuch"}})
    assert found == [f"{kind} 'x' names {what} 'nosuch', which does not exist"]


@pytest.mark.parametrize(("section", "kind", "name", "what"), BACKENDS)
def test_a_backend_names_what_is_there(tmp_path: Path, section: str, kind: str, name: str, what: str) -> None:
    found = problems(tmp_path, **{section: {"x": {"type": kind, name: "nosuch"}}})
    assert [text for text in found if text.endswith(f"names {what} 'nosuch', which does not exist")]


def test_the_server_for_viewers_names_what_is_there(tmp_path: Path) -> None:
    found = problems(tmp_path, vnc={"listen": ":1", "tls-creds": "nosuch"})
    assert found == ["vnc names object 'nosuch', which does not exist"]


def test_an_object_of_another_kind_serves_nobody(tmp_path: Path) -> None:
    objects = {"nosuch": {"type": "iothread"}}
    file = tmp_path / "m.json"
    device = {"driver": "virtio-rng-pci", "id": "x", "rng": "nosuch"}
    file.write_text(json.dumps({"schema": "vmrun/machine/1", "machine": "pc", "objects": objects, "devices": [device]}))
    (found,) = (problem for problem in examine_file(str(file))[1] if problem.code == "VR0613")
    assert found.message == (
        "virtio-rng-pci 'x' names object 'nosuch' of kind iothread; 'rng' takes one of kind rng-builtin or rng-random"
    )


@pytest.mark.parametrize(
    ("kind", "wanted", "serves"),
    [
        ("rng-random", "rng-backend", True), ("memory-backend-ram", "memory-backend", True),
        ("iothread", "iothread", True), ("tls-creds-x509", "tls-creds", True), ("tpm-emulator", "tpm-backend", True),
        ("iothread", "rng-backend", False), ("memory-backend-ram", "rng-backend", False),
    ],
)  # fmt: skip
def test_kinds_are_grouped_as_in_qom(kind: str, wanted: str, serves: bool) -> None:
    assert fits(kind, [wanted]) is serves


def test_the_tables_are_not_empty() -> None:
    assert len(DEVICES) > 60 and len(OBJECTS) >= 8 and len(BACKENDS) >= 2
