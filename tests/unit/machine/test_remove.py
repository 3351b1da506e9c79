"""A machine without devices of its type's board: nothing of them is left for the guest."""

from __future__ import annotations

import pathlib

import pytest

from vmrun.config.resolve import resolve_file
from vmrun.config.write import yaml_text
from vmrun.machine.visible import visible
from vmrun.testing import QTest

HEAD = "schema: vmrun/machine/1\nname: box\nmachine: pc-i440fx-2.0\nmemory: 64MiB\n"


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "box.yaml"
    path.write_text(HEAD + "remove: [vmport, hpet]\n")
    return path


def test_nothing_of_a_removed_device_is_left(file: pathlib.Path) -> None:
    seen = visible(resolve_file(str(file)).data)
    whole = str(seen)
    assert "hpet" not in whole.lower()
    assert "vmport" not in whole
    assert "HPET" not in seen["acpi"]


def test_the_timers_drive_their_own_interrupts_without_the_hpet(file: pathlib.Path) -> None:
    with QTest(str(file)) as machine:
        machine.outb(0x43, 0x34)        # counter 0, mode 2
        machine.outb(0x40, 0x10)
        machine.outb(0x40, 0x00)
        machine.clock_step(1_000_000)
        machine.outb(0x20, 0x0A)        # OCW3: the next read is of IRR
        assert machine.inb(0x20) & 1


def test_what_is_removed_stays_so_when_it_is_resolved_again(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    first = resolve_file(str(file)).data
    again = tmp_path / "again.yaml"
    again.write_text(yaml_text(first))
    assert first["remove"] == ["hpet", "vmport"]
    assert resolve_file(str(again)).data == first
