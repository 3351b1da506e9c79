"""A virtio disk that is taken out while it works, and put in again."""

from __future__ import annotations

import gc
import pathlib
import struct
import weakref

import pytest

from tests.unit.virtio.driver import DATA, IN, PACKED, VERSION_1, WRITE, Disk
from vmrun.errors import BuildError

EJECT, SELECT = 0xAE08, 0xAE10


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def eject(disk: Disk, slot: int) -> None:
    disk.q.outl(SELECT, 0)
    disk.q.outl(EJECT, 1 << slot)
    disk.q.settle()


@pytest.mark.parametrize("features", [VERSION_1, VERSION_1 | PACKED])
def test_a_disk_goes_with_requests_in_flight(image: pathlib.Path, features: int) -> None:
    with Disk(image, features) as disk:
        machine = disk.q.machine
        told: list[str] = []
        machine.listen(lambda name, **data: told.append(name))
        disk.q.write(DATA, struct.pack("<IIQ", IN, 0, 0))
        for n in range(4):
            disk.put([(DATA, 16, 0), (DATA + 0x10000 * (n + 1), 0x8000, WRITE), (DATA + 0xF0 + n, 1, WRITE)])
        disk.q.writew(0xE0003000, 0)
        machine.unplug(machine.devices["disk"])
        eject(disk, 5)
        assert "DEVICE_DELETED" in told and "disk" not in machine.devices
        assert disk.q.pci_read(5, 0, 0) == 0xFFFFFFFF and disk.q.readl(0xE0000000) == 0xFFFFFFFF


def test_nothing_of_it_stays_behind(image: pathlib.Path) -> None:
    with Disk(image) as disk:
        machine = disk.q.machine
        before = [str(piece.region) for piece in machine.board.memory.flat]
        gone = weakref.ref(machine.devices["disk"])
        for _ in range(3):
            device = machine.plug({"id": "again", "driver": "virtio-rng-pci"})
            machine.unplug(device)
            eject(disk, int(device.addr[:2], 16))
            gone = weakref.ref(device)
            del device
        gc.collect()
        assert gone() is None
        assert [str(piece.region) for piece in machine.board.memory.flat] == before
        assert [entry["id"] for entry in machine.config["devices"]].count("again") == 0


def test_a_disk_that_was_taken_out_can_be_put_in_again(image: pathlib.Path) -> None:
    with Disk(image) as disk:
        machine = disk.q.machine
        machine.unplug(machine.devices["disk"])
        eject(disk, 5)
        machine.plug(
            {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "addr": "05.0", "num-queues": 1, "packed": True}
        )
        disk.q.pci_write(5, 0, 0x20, 0xE0000000)
        disk.q.pci_write(5, 0, 0x24, 0)
        disk.q.pci_write(5, 0, 4, 6, 2)
        disk.start()
        assert disk.request(IN, 0, 512) == (0, bytes(512))


def test_a_card_that_is_refused_leaves_nothing(image: pathlib.Path) -> None:
    with Disk(image) as disk:
        machine = disk.q.machine
        with pytest.raises(BuildError, match="at least 1"):
            machine.plug({"id": "bad", "driver": "virtio-rng-pci", "addr": "09.0", "max-bytes": 0})
        assert "bad" not in machine.devices and "bad" not in machine.root.children["peripheral"].children
        machine.plug({"id": "bad", "driver": "virtio-rng-pci", "addr": "09.0"})
        assert disk.q.pci_read(9, 0, 0) == 0x10051AF4
