"""A drive's queue: errors and what they lead to, requests that are given up, what is done on the caller's thread."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from accel.api import DeviceLock
from vmrun.backends.block.caller import Caller
from vmrun.backends.block.debug import DebugNode
from vmrun.backends.block.drive import Drive
from vmrun.backends.block.file import FileNode

from vmrun.backends.block import open_drive
from vmrun.backends.block.images import raw
from vmrun.errors import BackendError

READ, WRITE, FLUSH, DISCARD, ZERO = range(5)
MIB = 1 << 20


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * (4 * MIB // 256))
    return path


class Rig:
    def __init__(self, path: pathlib.Path) -> None:
        self.debug = DebugNode(FileNode(os.open(path, os.O_RDWR), str(path)))
        self.drive = Drive("d", raw(self.debug), DeviceLock())
        self.caller = Caller(self.drive)
        self.told: list[tuple[int, int, int]] = []
        self.drive.on_error = lambda drive, op, error, policy: self.told.append((op, error, policy))


@pytest.fixture
def rig(image: pathlib.Path) -> Any:
    rig = Rig(image)
    yield rig
    rig.debug.clear()
    rig.debug.resume()
    rig.drive.close()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def test_many_requests_each_end_once(rig: Rig, image: pathlib.Path) -> None:
    writes = {rig.caller.submit(WRITE, n * 4096, data=bytes([n]) * 4096) for n in range(200)}
    ended = [rig.caller.wait() for _ in range(200)]
    assert {number for number, _, _ in ended} == writes
    assert {error for _, error, _ in ended} == {0}
    assert image.read_bytes()[: 200 * 4096] == b"".join(bytes([n]) * 4096 for n in range(200))


def test_a_cached_read_is_over_at_once_up_to_256_kib(image: pathlib.Path) -> None:
    image.read_bytes()
    drive = open_drive("d", {"file": str(image)}, DeviceLock())
    caller = Caller(drive)
    caller.submit(READ, 0, 256 << 10)
    assert caller.at_once
    caller.submit(READ, 0, (256 << 10) + 512)
    assert not caller.at_once
    assert sorted(len(data) for _, _, data in (caller.wait(), caller.wait())) == [256 << 10, (256 << 10) + 512]
    drive.close()


OUTSIDE = [(4 * MIB, 512), (4 * MIB - 512, 1024), (1 << 63, 512), (2**64 - 512, 1024)]


@pytest.mark.parametrize(("offset", "count"), OUTSIDE)
def test_what_lies_outside_is_refused(rig: Rig, offset: int, count: int) -> None:
    rig.caller.submit(READ, offset, count)
    assert rig.caller.wait()[1] == 22


def test_report_tells_the_device(rig: Rig) -> None:
    rig.debug.inject(error=5, kinds=["write"])
    rig.caller.submit(WRITE, 0, data=bytes(512))
    assert rig.caller.wait()[1] == 5
    assert rig.told == [(WRITE, 5, 0)]


def test_ignore_tells_the_device_nothing(rig: Rig) -> None:
    rig.drive.set_errors("ignore", "ignore")
    rig.debug.inject(error=5)
    rig.caller.submit(READ, 0, 512)
    assert rig.caller.wait()[1] == 0
    assert rig.told == [(READ, 5, 1)]


@pytest.mark.parametrize(("policy", "error"), [("stop", 5), ("stop", 28), ("enospc", 28)])
def test_a_stopped_request_waits_for_retry(rig: Rig, image: pathlib.Path, policy: str, error: int) -> None:
    rig.drive.set_errors("report", policy)
    rig.debug.inject(error=error, kinds=["write"])
    rig.caller.submit(WRITE, 0, data=b"x" * 512)
    rig.drive.drain()
    assert rig.told == [(WRITE, error, 2)]
    assert not rig.caller.waiting
    rig.debug.clear()
    assert rig.drive.retry()
    assert rig.caller.wait()[1] == 0
    assert image.read_bytes()[:512] == b"x" * 512
    assert not rig.drive.retry()


def test_enospc_reports_other_errors(rig: Rig) -> None:
    rig.debug.inject(error=5, kinds=["write"])
    rig.caller.submit(WRITE, 0, data=bytes(512))
    assert rig.caller.wait()[1] == 5


def test_giving_up_waits_for_nothing_and_keeps_the_order(rig: Rig, image: pathlib.Path) -> None:
    rig.debug.suspend("write_aio")
    first = rig.caller.submit(WRITE, 0, data=b"a" * 512)
    until(lambda: rig.debug.suspended)
    before = time.monotonic()
    rig.caller.give_up(first)
    assert time.monotonic() - before < 5
    second = rig.caller.submit(WRITE, 0, data=b"b" * 512)
    read = rig.caller.submit(READ, 0, 512)
    time.sleep(0.05)
    assert rig.debug.suspended == 1  # the second is held
    rig.debug.resume()
    ended = dict((number, data) for number, _, data in (rig.caller.wait(), rig.caller.wait()))
    assert set(ended) == {second, read}
    assert image.read_bytes()[:512] == b"b" * 512


def test_what_is_parked_or_held_can_be_given_up(rig: Rig, image: pathlib.Path) -> None:
    rig.drive.set_errors("report", "stop")
    rig.debug.inject(error=5, kinds=["write"], once=True)
    parked = rig.caller.submit(WRITE, 0, data=b"a" * 512)
    rig.drive.drain()
    rig.caller.give_up(parked)
    assert not rig.drive.retry()
    rig.debug.suspend("write_aio")
    under_way = rig.caller.submit(WRITE, 1024, data=b"c" * 512)
    until(lambda: rig.debug.suspended)
    rig.caller.give_up(under_way)
    held = rig.caller.submit(WRITE, 512, data=b"b" * 512)
    rig.caller.give_up(held)
    rig.debug.resume()
    rig.drive.drain()
    data = image.read_bytes()
    assert (data[0], data[512], data[1024]) == (0, 0, ord("c"))


def test_writethrough_asks_for_stable_storage(tmp_path: pathlib.Path, image: pathlib.Path) -> None:
    drive = open_drive("d", {"file": str(image), "cache": "writethrough"}, DeviceLock())
    assert not drive.write_cache
    drive.close()


def test_cache_none_takes_what_is_not_aligned(tmp_path: pathlib.Path, image: pathlib.Path) -> None:
    expected = bytearray(image.read_bytes())
    try:
        drive = open_drive("d", {"file": str(image), "cache": "none"}, DeviceLock())
    except BackendError:
        pytest.skip("no O_DIRECT here")
    assert drive.node.file.align >= 512
    caller = Caller(drive)
    for offset, count in ((512, 512), (1536, 3072), (4 * MIB - 512, 512), (8192, 65536)):
        caller.submit(WRITE, offset, data=bytes([count & 0xFF ^ 0x5A]) * count)
        assert caller.wait()[1] == 0
        expected[offset : offset + count] = bytes([count & 0xFF ^ 0x5A]) * count
    assert drive.read_bytes(100, 70000) == expected[100:70100]
    drive.close()
    assert image.read_bytes() == expected


def test_a_drive_that_cannot_be_opened_leaves_nothing_behind(image: pathlib.Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TMPDIR", str(image.parent / "nowhere"))

    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before, tasks = held(), len(os.listdir("/proc/self/task"))
    for _ in range(20):
        with pytest.raises(BackendError):
            open_drive("d", {"file": str(image), "snapshot": True}, DeviceLock())
    assert held() == before
    assert len(os.listdir("/proc/self/task")) <= tasks


def test_an_overlay_without_memory_leaves_nothing_behind(tmp_path: pathlib.Path) -> None:
    huge = tmp_path / "huge.img"
    huge.touch()
    os.truncate(huge, 1 << 43)
    before = len(os.listdir("/proc/self/fd"))
    import resource

    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, limits[1]))
    try:
        with pytest.raises((BackendError, MemoryError)):
            open_drive("d", {"file": str(huge), "snapshot": True}, DeviceLock())
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert len(os.listdir("/proc/self/fd")) == before


def test_another_medium(rig: Rig, tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"o" * 8192)
    rig.drive.change(None)
    rig.caller.submit(READ, 0, 512)
    assert rig.caller.wait()[1] == 123
    rig.drive.change(FileNode(os.open(other, os.O_RDONLY), str(other), True))
    assert (rig.drive.size, rig.drive.readonly) == (8192, True)
    rig.caller.submit(READ, 0, 512)
    assert rig.caller.wait()[2] == b"o" * 512
    rig.caller.submit(WRITE, 0, data=bytes(512))
    assert rig.caller.wait()[1] == 30


POOL = """
import os
import time

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # who is woken waits until both are there
from accel.api import DeviceLock
from vmrun.backends.block.caller import Caller
from vmrun.backends.block.debug import DebugNode
from vmrun.backends.block.drive import Drive
from vmrun.backends.block.file import FileNode
from vmrun.backends.block.images import raw

READ = 0
node = DebugNode(FileNode(os.open(IMAGE, os.O_RDWR), IMAGE))
drive = Drive("disk", raw(node), DeviceLock())
caller = Caller(drive)
caller.submit(READ, 0, 512)
caller.wait()
time.sleep(0.3)  # there is one thread now, and it is idle
for turn in range(20):
    drive.pause()
    node.add_break("read_aio", "first")
    numbers = {caller.submit(READ, 0, 512) for _ in range(2)}
    drive.go_on()  # both at once: one waits at the breakpoint, the other is over
    number, error, data = caller.wait()
    numbers.remove(number)
    node.resume_tag("first")
    assert caller.wait()[0] in numbers
drive.close()
print("all")
"""


def test_two_requests_at_once_do_not_wait_for_each_other(image: pathlib.Path) -> None:
    """Both found the same thread idle: where the first waited for long, so did the other, of another disk too."""
    code = POOL.replace("IMAGE", repr(str(image)))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("all\n", "")
