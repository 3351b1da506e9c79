"""Queues that an iothread serves, with locks of their own: who serves, what a stop, a reset or an end do meanwhile."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator

import pytest

from tests.unit.virtio.driver import COMMON, DATA, IN, NOTIFY, PACKED, VERSION_1, WRITE, Disk
from vmrun.errors import BuildError, ConfigError

ISR = 0xE0001000
OK = 0


@pytest.fixture(params=[VERSION_1, VERSION_1 | PACKED], ids=["split", "packed"])
def disk(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Disk]:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([n & 0xFF]) * 512 for n in range(2048)))
    with Disk(path, request.param, iothread="t0") as made:
        yield made


def put_read(disk: Disk, sector: int, size: int) -> None:
    disk.q.write(DATA, struct.pack("<IIQ", IN, 0, sector))
    disk.q.writeb(DATA + 0xF0, 0xAA)
    disk.put([(DATA, 16, 0), (DATA + 0x1000, size, WRITE), (DATA + 0xF0, 1, WRITE)])


def test_the_thread_serves_every_kick(disk: Disk) -> None:
    before = disk.chip.served
    for sector in range(5):
        assert disk.request(IN, sector, 512) == (OK, bytes([sector]) * 512)
    assert disk.chip.served >= before + 5
    assert disk.chip.own_locks and disk.chip.thread is disk.q.machine.board.user_object("t0").thread


def test_an_answer_raises_the_pin_and_the_status_bit(disk: Disk) -> None:
    disk.request(IN, 0, 512)
    assert disk.q.pci_read(5, 0, 4) >> 16 & 8
    assert disk.q.readb(ISR) == 1
    assert not disk.q.pci_read(5, 0, 4) >> 16 & 8


def test_a_broken_ring_is_told(disk: Disk) -> None:
    disk.put([(DATA, 16, 0)])
    disk.kick()
    assert disk.status() & 0x40 and disk.q.readb(ISR) & 2


def test_nothing_is_served_while_the_machine_stands_still(disk: Disk) -> None:
    disk.pause()
    put_read(disk, 3, 512)
    disk.q.writew(NOTIFY, 0)
    assert disk.q.readb(DATA + 0xF0) == 0xAA
    disk.resume()
    disk.q.settle()
    assert disk.q.readb(DATA + 0xF0) == OK and disk.q.read(DATA + 0x1000, 512) == b"\3" * 512


def test_a_kick_that_a_save_came_before_is_not_lost(disk: Disk) -> None:
    device = disk.q.machine.devices["disk"]
    disk.pause()
    put_read(disk, 4, 512)
    state = device.save()
    device.reset()
    device.load(state)
    assert device.save() == state
    disk.resume()
    disk.q.settle()
    assert disk.q.readb(DATA + 0xF0) == OK and disk.q.read(DATA + 0x1000, 512) == b"\4" * 512


def test_resets_in_the_middle_of_requests(disk: Disk) -> None:
    for n in range(60):
        for _ in range(4):
            put_read(disk, n, 0x20000)
        disk.q.writew(NOTIFY, 0)
        if n & 1:
            disk.q.readb(ISR)
        disk.q.writeb(COMMON + 0x14, 0)
        disk.start()
    assert disk.request(IN, 9, 512) == (OK, b"\x09" * 512)
    disk.q.settle()
    assert disk.chip.in_flight == 0


def test_the_object_stays_as_long_as_the_disk(disk: Disk) -> None:
    machine = disk.q.machine
    with pytest.raises(BuildError, match="in use"):
        machine.board.delete_object("t0")
    put_read(disk, 1, 0x20000)
    disk.q.writew(NOTIFY, 0)
    machine.unplug(machine.devices["disk"])
    disk.q.outl(0xAE10, 0)
    disk.q.outl(0xAE08, 1 << 5)
    disk.q.settle()
    assert "disk" not in machine.devices
    machine.board.delete_object("t0")
    assert len(machine.board.iothreads) == 1


def test_an_object_of_another_kind_is_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    with pytest.raises(ConfigError, match="names object 'nobody'"):
        Disk(path, iothread="nobody")
