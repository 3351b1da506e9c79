"""Flash in a machine file."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from vmrun.config.load import load_bytes
from vmrun.config.resolve import resolve
from vmrun.errors import Problem

HEAD = "schema: vmrun/machine/1\nname: a\nmachine: {}\nmemory: 64MiB\n"


def found(directory: pathlib.Path, text: str, machine: str = "pc-i440fx-7.2") -> tuple[list[str], dict[str, Any]]:
    problems: list[Problem] = []
    result = resolve(load_bytes((HEAD.format(machine) + text).encode(), "a.yaml", problems), problems, str(directory))
    return [problem.code for problem in problems], result.data if result else {}


def test_two_images_are_two_devices(tmp_path: pathlib.Path) -> None:
    codes, machine = found(tmp_path, "pflash: [code.fd, {file: vars.fd, format: qcow2}]\n")
    assert codes == []
    assert machine["firmware"]["bios"] == "flash"
    assert {id: drive["format"] for id, drive in machine["drives"].items()} == {"pflash0": "raw", "pflash1": "qcow2"}
    flashes = [device["props"] for device in machine["devices"] if device["driver"] == "cfi.pflash01"]
    assert [(props["drive"], props.get("below")) for props in flashes] == [
        ("pflash0", None), ("pflash1", "system.flash0"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "machine"),
    [
        ("pflash: a.fd\nfirmware: {bios: bios.bin}\n", "pc-i440fx-7.2"),
        ("pflash: a.fd\nfirmware: none\nkernel: x\n", "pc-i440fx-7.2"),
        ("pflash: a.fd\n", "rhel6.3.0"),
        ("pflash: a.fd\ndrives: {b: {file: b}}\ndevices: [{driver: cfi.pflash01, drive: b}]\n", "pc-i440fx-7.2"),
    ],
)
def test_there_is_one_firmware(tmp_path: pathlib.Path, text: str, machine: str) -> None:
    assert "VR0718" in found(tmp_path, text, machine)[0]
