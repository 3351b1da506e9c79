"""Small writes into the host's page cache: done by who submits them, but never with the device lock held."""

from __future__ import annotations

import os
import pathlib

import pytest
from accel.api import DeviceLock, PyIoRegion
from accel.clock import HostClock, TimerQueue
from accel.errands import ErrandLock
from accel.qtest_lines import QtestLines
from accel.space import AddressSpace, Region
from vmrun.backends.block.bitmap import Bitmap
from vmrun.backends.block.caller import Caller
from vmrun.backends.block.debug import DebugNode
from vmrun.backends.block.drive import Drive
from vmrun.backends.block.file import FileNode
from vmrun.backends.block.tap import TapNode

from vmrun.backends.block import open_drive
from vmrun.backends.block.images import raw

READ, WRITE = 0, 1
SIZE = 4 << 20
PAGE = bytes(range(256)) * 16


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(SIZE))
    return path


def node(path: pathlib.Path) -> FileNode:
    return FileNode(os.open(path, os.O_RDWR), str(path))


def test_a_write_is_over_when_its_thread_has_let_the_lock_go(image: pathlib.Path) -> None:
    lock = ErrandLock()
    drive = Drive("d", node(image), lock)
    caller = Caller(drive)
    with lock:
        with lock:
            caller.submit(WRITE, 8192, data=PAGE)
        assert caller.waiting == (1 if caller.at_once else 0), "it was done with the lock held"
    assert caller.waiting == 1, "another thread does it"
    assert caller.wait()[1] == 0
    assert image.read_bytes()[8192:12288] == PAGE
    assert drive.statistics()["write"][:2] == (1, 4096)
    drive.close()


def test_as_many_as_one_likes(image: pathlib.Path) -> None:
    lock = ErrandLock()
    drive = Drive("d", node(image), lock)
    caller = Caller(drive)
    with lock:
        numbers = {caller.submit(WRITE, n * 4096, data=bytes([n & 255]) * 4096) for n in range(300)}
    assert {caller.wait()[0] for _ in range(300)} == numbers
    assert image.read_bytes()[: 300 * 4096] == b"".join(bytes([n & 255]) * 4096 for n in range(300))
    drive.close()


def test_one_that_is_given_up_before_the_lock_is_let_go_is_never_heard_of(image: pathlib.Path) -> None:
    lock = ErrandLock()
    drive = Drive("d", node(image), lock)
    caller = Caller(drive)
    with lock:
        number = caller.submit(WRITE, 0, data=PAGE)
        if not caller.at_once:
            caller.give_up(number)
            caller.submit(READ, 4096, 4096)
    assert caller.wait()[1] == 0
    assert caller.waiting == 0
    drive.close()


@pytest.mark.parametrize("lock", [DeviceLock, ErrandLock])
def test_nobody_who_watches_is_passed_by(image: pathlib.Path, lock: type[DeviceLock]) -> None:
    file = node(image)
    tap = TapNode(file)
    bitmap = Bitmap(SIZE, 65536)
    tap.add_bitmap(bitmap)
    drive = Drive("d", file, lock())
    drive.replace(file, tap)
    caller = Caller(drive)
    caller.submit(WRITE, 65536, data=PAGE)
    assert caller.wait()[1] == 0
    assert bitmap.count == 65536
    drive.close()


def test_injected_errors_are_met(image: pathlib.Path) -> None:
    debug = DebugNode(node(image))
    debug.inject("write_aio", 5, once=True)
    drive = Drive("d", raw(debug), ErrandLock())
    caller = Caller(drive)
    caller.submit(WRITE, 0, data=PAGE)
    assert caller.wait()[1] == 5
    drive.close()


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_overlays_and_formats_have_them(image: pathlib.Path, format: str, tmp_path: pathlib.Path) -> None:
    from vmrun.cli.img import run

    path = tmp_path / f"it.{format}"
    assert run(["convert", "-O", format, str(image), str(path)]) == 0
    for snapshot in (True, False):
        drive = open_drive("d", {"file": str(path), "format": format, "snapshot": snapshot}, ErrandLock())
        caller = Caller(drive)
        for n in (3, 9, 3):
            caller.submit(WRITE, n * 4096, data=bytes([n]) * 4096)
            assert caller.wait()[1] == 0
        caller.submit(READ, 0, 65536)
        assert caller.wait()[2] == b"".join(bytes([n if n in (3, 9) else 0]) * 4096 for n in range(16))
        drive.close()


def test_a_test_program_finds_it_done_after_the_access_as_a_processor_would(image: pathlib.Path) -> None:
    lock = ErrandLock()
    drive = Drive("d", node(image), lock)
    caller = Caller(drive)
    found: list[int] = []

    def access(offset: int, size: int, value: int) -> None:
        found.append(caller.waiting)
        caller.submit(WRITE, value, data=PAGE)

    root = Region.container("io", 0x10000)
    root.add(Region.device("door", PyIoRegion("door", lambda *_: caller.waiting, access), 4), 0x80)
    space = AddressSpace("io", root, ports=True)
    lines = QtestLines(space, space, lock, TimerQueue(HostClock()), None, lambda line: b"", lambda actions: None)
    assert lines.feed(b"outb 0x80 0\ninb 0x80\noutb 0x80 0\ninb 0x80\n") == b"OK\nOK 0x0001\nOK\nOK 0x0002\n"
    assert found == [0, 1]
    drive.close()
