"""Disks in their short form on buses other than IDE."""

from __future__ import annotations

import pathlib

import pytest

from vmrun.config.resolve import check_file, resolve_file
from vmrun.machine.examine import examine

HEAD = "schema: vmrun/machine/1\nname: m\nmachine: pc-i440fx-2.0\n"
ADAPTER = "devices: [{id: s, driver: virtio-scsi-pci}]\n"


def written(directory: pathlib.Path, body: str) -> str:
    for name in ("a", "b", "c", "d"):
        (directory / name).write_bytes(bytes(1 << 20))
    path = directory / "m.yaml"
    path.write_text(HEAD + body)
    return str(path)


def test_each_bus_counts_for_itself(tmp_path: pathlib.Path) -> None:
    body = "disks: [{file: a, bus: scsi}, b, {file: c, bus: virtio}, {file: d, bus: scsi, scsi-id: 5}]\n"
    found = resolve_file(written(tmp_path, body + ADAPTER)).data["devices"]
    disks = {entry["id"]: entry for entry in found if entry["props"].get("drive")}
    assert {id: entry["driver"] for id, entry in disks.items()} == {
        "scsi0-0-0": "scsi-hd", "ide0-0-0": "ide-hd", "virtio-disk0": "virtio-blk-pci", "scsi0-0-1": "scsi-hd",
    }  # fmt: skip
    assert [disks[f"scsi0-0-{n}"]["props"]["scsi-id"] for n in (0, 1)] == [0, 5]
    assert disks["scsi0-0-0"]["bus"] == "s.0" and disks["ide0-0-0"]["props"]["unit"] == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("disks: [{file: a, bus: sata}]\n", "a disk is on no bus 'sata'"),
        ("disks: [{file: a, bus: scsi}]\n", "needs a SCSI bus, and this machine has none"),
    ],
)
def test_a_bus_that_is_not_there_is_told(body: str, said: str, tmp_path: pathlib.Path) -> None:
    problems = check_file(written(tmp_path, body))[1]
    assert any(said in problem.message for problem in problems), problems


def test_disks_of_every_bus_are_fine_without_being_opened(tmp_path: pathlib.Path) -> None:
    body = "disks: [{file: a, bus: scsi}, b, {file: c, bus: virtio}]\n"
    problems = examine(resolve_file(written(tmp_path, body + ADAPTER)))
    assert [problem for problem in problems if problem.severity == "error"] == []
