"""The types and examples against the catalogue that is generated from the devices' own code."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmrun.config.catalogue import Catalogue, load_catalogue
from vmrun.config.gaps import gaps
from vmrun.config.machinetypes import load_type, type_names
from vmrun.config.resolve import check_file, resolve_type
from vmrun.config.write import yaml_text

EXAMPLES = Path(__file__).parents[2] / "examples"
NOT_MACHINES = {"old-pc.yaml"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load_catalogue()


@pytest.mark.parametrize("name", type_names())
def test_every_driver_of_the_board_is_modelled(name: str, catalogue: Catalogue) -> None:
    drivers = {str(node.value["driver"].value) for node in load_type(name).items("devices")}
    assert sorted(driver for driver in drivers if catalogue.modelled(driver) is None) == []


@pytest.mark.parametrize("name", type_names())
def test_compat_values_of_modelled_drivers_are_understood(name: str, catalogue: Catalogue) -> None:
    """A frozen value that a modelled driver does not look at makes another machine of it."""
    express = ("pci-device.x-pcie-extcap-init", "pci-device.x-pcie-lnksta-dllla", "virtio-pci.x-pcie-flr-init",
               "virtio-pci.x-pcie-deverr-init", "virtio-pci.x-pcie-lnkctl-init", "virtio-pci.x-pcie-pm-init",
               "virtio-pci.x-disable-pcie", "virtio-pci.x-ats-page-aligned")  # fmt: skip
    inside = ("virtio-device.x-disable-legacy-check", "virtio-device.use-disabled-flag", "virtio-device.use-started",
              "virtio-pci.x-ignore-backend-features", "virtio-pci.migrate-extra",
              "virtio-pci.virtio-pci-bus-master-bug-migration")  # fmt: skip
    to_come = ("virtio-pci.page-per-vq",)  # seen only by who turns modern registers on in a type before 2.7
    known_gaps = {*express, *inside, *to_come}  # PCI Express only; QEMU's own book-keeping; named by types --gaps
    found = [
        what for what, why in gaps(load_type(name), catalogue) if why == "the driver has no such property yet"
    ]
    assert set(found) - known_gaps == set()


@pytest.mark.parametrize("name", type_names())
def test_board_resolves(name: str, catalogue: Catalogue) -> None:
    machine = resolve_type(name, catalogue)
    assert [entry["id"] for entry in machine["devices"]][:4] == ["ioapic", "i440fx", "pmc", "piix3"]


@pytest.mark.parametrize("name", type_names())
def test_board_resolves_to_itself(name: str, catalogue: Catalogue, tmp_path: Path) -> None:
    machine = resolve_type(name, catalogue)
    path = tmp_path / "again.yaml"
    path.write_text(yaml_text(machine.to_dict()), encoding="utf-8")
    again, problems = check_file(str(path), catalogue=catalogue)
    assert problems == []
    assert again is not None
    assert again.to_dict() == machine.to_dict()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("rhel6.3.0", {"version": 0x11}), ("pc-i440fx-2.0", {"version": 0x11}), ("pc-i440fx-2.1", None)],
)
def test_frozen_values_of_local_apics_are_with_the_processors(
    name: str, expected: dict[str, int] | None, catalogue: Catalogue
) -> None:
    assert resolve_type(name, catalogue)["cpus"].get("apic") == expected


@pytest.mark.parametrize(
    "path",
    sorted(p for p in EXAMPLES.iterdir() if p.suffix in (".yaml", ".toml") and p.name not in NOT_MACHINES),
    ids=lambda path: path.name,
)
def test_example_says_nothing_wrong(path: Path, catalogue: Catalogue) -> None:
    _, problems = check_file(str(path), catalogue=catalogue)
    assert [problem for problem in problems if not problem.code.startswith("VR08")] == []
