"""What names cards: MAC addresses and ACPI indexes, used twice."""

from __future__ import annotations

import pathlib

import pytest

from vmrun.cli.main import main
from vmrun.config.api import validate

HEAD = "schema: vmrun/machine/1\nmachine: pc-i440fx-7.2\ndevices:\n"
MAC = '"52:54:00:00:00:01"'


def found(*cards: str) -> list[tuple[str, str, str]]:
    problems = validate(HEAD + "".join(f"  - {{{card}}}\n" for card in cards))
    return [(problem.code, problem.severity, problem.message) for problem in problems if problem.code < "VR10"]


def test_a_mac_address_used_twice_is_told_and_starts() -> None:
    rows = found(f"id: a, driver: e1000, mac: {MAC}", f"id: b, driver: rtl8139, mac: {MAC}")
    assert rows == [
        ("VR0517", "warning", "rtl8139 'b' and e1000 'a' both have MAC address 52:54:00:00:00:01"),
    ]


def test_an_acpi_index_is_one_card_s() -> None:
    rows = found(
        f"id: a, driver: e1000, acpi-index: 5, mac: {MAC}",
        "id: b, driver: pci-testdev, acpi-index: 5",
        "id: c, driver: pci-testdev, acpi-index: 6",
        "id: d, driver: pci-testdev, acpi-index: 0",
        "id: e, driver: pci-testdev, acpi-index: 0",
    )
    assert rows == [("VR0524", "error", "pci-testdev 'b' and e1000 'a' both have acpi-index 5")]


def test_an_acpi_index_that_no_guest_takes_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index, code in ((16383, 0), (16384, 1)):
        file = tmp_path / f"{index}.yaml"
        file.write_text(f"{HEAD}  - {{driver: pci-testdev, acpi-index: {index}}}\n")
        assert main(["validate", str(file)]) == code
    assert "acpi-index should be less or equal to 16383" in capsys.readouterr().out
