"""The machine's state inside an image: what comes back, and what is refused without harm."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.errors import BuildError
from vmrun.machine import internal

KEYS: dict[str, Any] = {"machine": "pc-i440fx-7.2", "memory": "32MiB", "display": "std", "serial": "null"}
DISK = {"file": "disk.qcow2", "format": "qcow2"}


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    new_file(str(tmp_path / "disk.qcow2"), 0)
    create_qcow2(str(tmp_path / "disk.qcow2"), 8 << 20, {"size": 8 << 20})
    with Driven(tmp_path, disks=[DISK], **KEYS) as pc:
        yield pc


def node_of(pc: Driven) -> Any:
    (drive,) = (one for one in pc.machine.board.drives.values() if one.node is not None)
    return drive.node


def states(pc: Driven) -> dict[str, Any]:
    """All but the clock of the host's time."""
    return {id: device.save() for id, device in pc.machine.devices.items() if id != "rtc"}


def test_memory_devices_and_disk_come_back(pc: Driven, tmp_path: pathlib.Path) -> None:
    board, node = pc.machine.board, node_of(pc)
    node.write(1 << 20, b"then")
    board.ram.write(0x200000, b"something of the guest's")
    pc.outb(0x80, 0x12)
    before = states(pc)
    internal.save(pc.machine, "then")
    node.write(1 << 20, b"now!")
    board.ram.write(0x200000, bytes(64))
    board.ram.write(0x400000, b"not there then")
    pc.outb(0x80, 0x55)
    internal.load(pc.machine, "then")
    assert states(pc) == before
    assert board.ram.read(0x200000, 24) == b"something of the guest's" and board.ram.read(0x400000, 14) == bytes(14)
    assert node.read(1 << 20, 4) == b"then"
    pc.machine.close()
    told = subprocess.run(["qemu-img", "snapshot", "-l", tmp_path / "disk.qcow2"], capture_output=True, text=True)
    assert "then" in told.stdout
    subprocess.run(["qemu-img", "check", "-q", tmp_path / "disk.qcow2"], check=True)


def test_a_damaged_state_leaves_machine_and_disk_as_they_are(pc: Driven) -> None:
    from vmrun.backends.block.qcow2_snapshots import read_state

    internal.save(pc.machine, "s")
    node = node_of(pc)
    node.write(0, b"later")
    pc.machine.board.ram.write(0x300000, b"later")
    state = b"".join(read_state(node, node.snapshots[0]))
    at = next(n for n in range(0, node.file.size, 512) if node.file.read(n, 8) == state[:8])
    node.file.write(at + 40, b"\xff" * 8)
    with pytest.raises(BuildError, match="Error while loading VM state"):
        internal.load(pc.machine, "s")
    assert node.read(0, 5) == b"later" and pc.machine.board.ram.read(0x300000, 5) == b"later"


def test_deleted_snapshots_give_their_clusters_back(pc: Driven) -> None:
    node = node_of(pc)
    pc.machine.board.ram.write(0x100000, bytes(range(1, 251)) * 4000)
    internal.save(pc.machine, "a")
    size = node.file.size
    for _ in range(3):
        internal.delete(pc.machine, "a")
        internal.save(pc.machine, "a")
        node.sync()
    assert node.file.size <= size + 8 * 65536
    assert [one.name for one in node.snapshots] == ["a"]
