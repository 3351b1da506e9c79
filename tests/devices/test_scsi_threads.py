"""virtio-scsi queues that an iothread serves with a lock of the bus's: who serves, and what a reset, an end, a moved
tray, a task or whoever holds the device lock do meanwhile.
"""

from __future__ import annotations

import contextlib
import pathlib
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from accel.aio import PyCompletion

from tests.devices.scsi import ANSWER, COMMANDS, CONTROL, DATA, HEAD, UNIT, WRITE, Adapter, image, unit
from vmrun.machine import media
from vmrun.testing import QTest

LUN_RESET = 5
BLOCKS = 256  # of a command: 128 KiB


class Threaded(Adapter):
    """An adapter with two disks and a CD-ROM drive; commands are put in, several at a time, and nobody waits."""

    @property
    def chip(self) -> Any:
        return self.q.machine.devices["s"].chip

    @property
    def thread(self) -> Any:
        return self.q.machine.board.user_object("t0").thread

    def put_transfers(self, code: int, count: int, where: bytes = UNIT, blocks: int = BLOCKS) -> None:
        for n in range(count):
            head = HEAD + 64 * n
            cdb = struct.pack(">BxIxHx", code, n * blocks, blocks).ljust(32, b"\0")
            self.q.write(head, where + struct.pack("<Q", n) + bytes(3) + cdb)
            data = (DATA + n * 0x20000, blocks * 512, WRITE if code == 0x28 else 0)
            answer = (ANSWER + 128 * n, 108, WRITE)
            order = [(head, 51, 0), answer, data] if code == 0x28 else [(head, 51, 0), data, answer]
            self.put(COMMANDS, order, first=3 * n)

    def signal(self, queue: int = COMMANDS) -> None:
        """The kick alone, as the kernel makes it: without a register or lock."""
        self.chip.kicks[queue].notifier.notify()

    def used(self, queue: int = COMMANDS) -> int:
        """How many answers there have been, likewise."""
        return int.from_bytes(self.q.machine.board.ram.read(self.ring(queue, 2) + 2, 2), "little")

    @contextlib.contextmanager
    def device_lock(self) -> Iterator[None]:
        """With the device lock held, for which the thread itself does not wait: it has paid what it owed."""
        paid = threading.Event()
        completion = PyCompletion(paid.set)
        with self.chip.units:  # what was served has told the thread of its debt
            self.thread.submit(completion)
        assert paid.wait(20)
        with self.q.machine.board.lock:
            yield

    def wait(self, count: int, queue: int = COMMANDS) -> None:
        until(lambda: self.used(queue) >= count)
        self.seen[queue] = count


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def a(tmp_path: pathlib.Path) -> Iterator[Threaded]:
    drives = {
        f"d{n}": {"file": str(image(tmp_path / f"{n}.img", 4 << 20)), "format": "raw", "media": kind}
        for n, kind in enumerate(("disk", "disk", "cdrom"))
    }
    devices: list[dict[str, Any]] = [
        {"id": "s", "driver": "virtio-scsi-pci", "addr": "05.0", "num_queues": 1, "iothread": "t0"},
        {"id": "u0", "driver": "scsi-hd", "drive": "d0", "scsi-id": 0},
        {"id": "u1", "driver": "scsi-hd", "drive": "d1", "scsi-id": 1},
        {"id": "cd", "driver": "scsi-cd", "drive": "d2", "scsi-id": 2},
    ]
    board = {"machine": "pc-i440fx-7.2", "memory": "64MiB", "objects": {"t0": {"type": "iothread"}}}
    with QTest({**board, "drives": drives, "devices": devices}) as q:
        adapter = Threaded(q)
        for target in range(3):
            adapter.ready(unit(target))
        yield adapter


@pytest.mark.parametrize("code", [0x28, 0x2A])
def test_commands_are_served_while_another_has_the_device_lock(a: Threaded, code: int) -> None:
    a.put_transfers(code, 5)
    before = a.used()
    with a.device_lock():
        a.signal()
        a.wait(before + 5)
        assert a.chip.in_flight == 0
    a.q.write(HEAD + 0x1000, struct.pack("<II", 0, LUN_RESET) + UNIT + bytes(8))
    a.put(CONTROL, [(HEAD + 0x1000, 24, 0), (ANSWER + 0x1000, 1, WRITE)])
    with a.device_lock():
        a.signal(CONTROL)
        a.wait(1, CONTROL)
    sector = struct.pack("<I", BLOCKS + 1) if code == 0x28 else bytes(4)
    drive = a.q.machine.board.drive("d0")
    assert a.q.read(DATA + 0x20000 + 512, 4) == sector == drive.read_bytes((BLOCKS + 1) * 512, 4)
    assert a.command(bytes(6))[2][2:14:10] == bytes((6, 0x29))  # the unit was reset


def test_the_pin_follows_when_the_lock_is_free(a: Threaded) -> None:
    pin = a.q.machine.devices["s"].intx
    a.q.readb(0xE0001000)
    a.put_transfers(0x28, 1)
    before = a.used()
    with a.device_lock():
        a.signal()
        a.wait(before + 1)
        assert not pin.level
    until(lambda: pin.level == 1)


def test_resets_in_the_middle_of_commands(a: Threaded) -> None:
    for n in range(40):
        a.put_transfers((0x28, 0x2A)[n & 1], 12, unit(n % 3 & 1))
        a.signal()
        if n % 4 == 0:
            a.manage(LUN_RESET, unit(n % 3 & 1))
        elif n % 4 == 1:
            a.q.machine.devices["u1"].reset()
        a.start()
        assert a.chip.in_flight == 0
    assert a.ready().command(bytes(6))[1] == 0
    a.q.settle()
    assert a.chip.units.in_flight == 0


def test_a_disk_goes_with_commands_under_way(a: Threaded) -> None:
    machine = a.q.machine
    for n in range(6):
        a.put_transfers(0x2A, 12, unit(1))
        before = a.used()
        a.signal()
        machine.unplug(machine.devices["u1"])
        machine.loop.run_once(0)
        a.wait(before + 12)
        until(lambda: a.chip.in_flight == 0)
        assert {a.q.readb(ANSWER + 128 * k + 11) for k in range(12)} <= {0, 2, 3}, n  # done, aborted, no such target
        machine.plug({"id": "u1", "driver": "scsi-hd", "drive": "d1", "scsi-id": 1})
        a.ready(unit(1))


def test_trays_move_while_commands_come(a: Threaded, tmp_path: pathlib.Path) -> None:
    machine = a.q.machine
    other = tmp_path / "other.iso"
    other.write_bytes(bytes(1 << 20))
    for _ in range(10):
        a.put_transfers(0x28, 12, unit(2), 32)
        before = a.used()
        a.signal()
        media.change(machine, media.find(machine, "", "cd"), str(other), "raw")
        a.wait(before + 12)
    assert a.ready(unit(2)).command(struct.pack(">BxIxHx", 0x28, 0, 1), 2048, unit(2))[4] == bytes(2048)


def test_the_adapter_goes_with_commands_under_way(a: Threaded) -> None:
    a.put_transfers(0x2A, 12)
    a.signal()
    machine = a.q.machine
    machine.unplug(machine.devices["s"])
    a.q.outl(0xAE10, 0)
    a.q.outl(0xAE08, 1 << 5)
    a.q.settle()
    assert "s" not in machine.devices and "u0" not in machine.devices


def test_a_kick_before_a_save_is_not_lost(a: Threaded) -> None:
    machine = a.q.machine
    a.thread.pause()
    a.put_transfers(0x28, 4)
    before = a.used()
    a.signal()
    state = machine.devices["s"].save()
    machine.devices["s"].reset()
    machine.devices["s"].load(state)
    assert machine.devices["s"].save() == state and a.used() == before
    a.thread.resume()
    a.wait(before + 4)
