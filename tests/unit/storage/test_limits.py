"""Limits of a drive: what they delay, and what they do not."""

from __future__ import annotations

import pathlib
import time

import pytest
from accel.api import DeviceLock
from vmrun.backends.block.caller import Caller

from vmrun.backends.block import open_drive
from vmrun.errors import BackendError, BuildError
from vmrun.machine import blocks
from vmrun.testing import QTest

READ, WRITE, FLUSH = 0, 1, 2
KIB = 1024


def drive(directory: pathlib.Path, **limits: int):
    path = directory / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return open_drive("d", {"file": str(path), "format": "raw", **limits}, DeviceLock())


def spent(found, op: int, count: int, size: int) -> float:
    """Seconds for so many requests, all at once."""
    caller = Caller(found)
    begin = time.monotonic()
    for n in range(count):
        if op == WRITE:
            caller.submit(op, n * size, data=bytes(size))
        else:
            caller.submit(op, n * size, size if op == READ else 0)
    for _ in range(count):
        assert caller.wait()[1] == 0
    return time.monotonic() - begin


@pytest.mark.parametrize("name", ["bps", "bps-wr"])
def test_bytes_beyond_a_tenth_of_a_second_wait(tmp_path: pathlib.Path, name: str) -> None:
    found = drive(tmp_path, **{name: 400 * KIB})
    # 120 KiB, of which 40 go at once
    assert spent(found, WRITE, 30, 4 * KIB) >= 0.15
    found.close()


def test_requests_wait_whatever_their_size(tmp_path: pathlib.Path) -> None:
    found = drive(tmp_path, iops=100)
    assert spent(found, READ, 30, 512) >= 0.15
    found.close()


def test_a_request_of_several_units_counts_as_several(tmp_path: pathlib.Path) -> None:
    found = drive(tmp_path, **{"iops-rd": 100, "iops-size": 4 * KIB})
    assert spent(found, READ, 2, 100 * KIB) >= 0.1
    found.close()


def test_a_limit_of_reads_lets_writes_and_flushes_pass(tmp_path: pathlib.Path) -> None:
    found = drive(tmp_path, **{"iops-rd": 1})
    caller = Caller(found)
    for n in range(3):
        caller.submit(READ, 4096 * n, 512)
    caller.submit(WRITE, 0, data=bytes(512))
    caller.submit(FLUSH)
    over = [caller.wait()[0] for _ in range(3)]
    assert {4, 5} <= set(over)  # before the second read
    found.join(None)  # the second waits no longer
    for _ in range(2):
        caller.wait()
    found.close()


def test_a_burst_goes_at_once(tmp_path: pathlib.Path) -> None:
    found = drive(tmp_path, **{"iops": 1, "iops-max": 40})
    begin = time.monotonic()
    spent(found, WRITE, 40, 512)
    assert time.monotonic() - begin < 35  # one by one they took 39 seconds
    found.close()


def test_what_is_given_up_before_its_turn_costs_nothing(tmp_path: pathlib.Path) -> None:
    """As after a SCSI bus reset: what a driver asks for next does not wait for what it has given up."""
    found = drive(tmp_path, iops=1, **{"iops-max": 2})
    caller = Caller(found)
    begin = time.monotonic()
    numbers = [caller.submit(READ, 4096 * n, 512) for n in range(30)]
    for number in numbers[3:]:
        caller.give_up(number)
    last = caller.submit(READ, 0, 512)
    ended = [caller.wait()[0] for _ in range(4)]
    assert last in ended
    assert time.monotonic() - begin < 25  # behind all of them it took 28 seconds
    found.close()


def test_a_total_and_its_parts_are_too_much(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BackendError, match="cannot be used at the same time"):
        drive(tmp_path, **{"bps": 1, "bps-rd": 1})


def test_the_monitor_sets_and_tells_them(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    config = {"machine": "pc-i440fx-7.2", "memory": "64MiB", "disks": [str(tmp_path / "a.img")]}
    with QTest(config) as q:
        (id,) = q.machine.config["drives"]
        blocks.limit(q.machine, id, "", {"bps": 1000, "iops-rd": 7, "iops-rd-max": 70})
        (row,) = blocks.blocks(q.machine).block_info()
        told = row["inserted"]
        assert (told["bps"], told["iops_rd"], told["iops_rd_max"], told["iops"]) == (1000, 7, 70, 0)
        with pytest.raises(BuildError, match="cannot be used at the same time"):
            blocks.limit(q.machine, id, "", {"bps": 1, "bps-wr": 1})
        with pytest.raises(BuildError, match="not found"):
            blocks.limit(q.machine, "nobody", "", {})


def test_drives_of_a_group_share_a_budget_that_changes_for_what_waits(tmp_path: pathlib.Path) -> None:
    groups: dict[str, object] = {}
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    spec = {"file": str(tmp_path / "disk.img"), "format": "raw", "locking": "off", "throttle-group": "g"}
    one = open_drive("a", {**spec, "iops": 1}, DeviceLock(), None, groups)
    two = open_drive("b", spec, DeviceLock(), None, groups)
    assert one.limits is two.limits
    callers = Caller(one), Caller(two)
    for caller in callers:
        for n in range(2):
            caller.submit(WRITE, 4096 * n, data=bytes(512))
    callers[0].wait()
    begin = time.monotonic()
    one.limits.set({"iops": 1000})
    for caller, count in ((callers[0], 1), (callers[1], 2)):
        for _ in range(count):
            caller.wait()
    assert time.monotonic() - begin < 2.5  # they had three seconds before them
    two.close()
    assert one.limits.members == [one]
    one.close()
    assert groups["g"].members == []


def test_who_waits_for_all_that_is_under_way_does_not_wait_for_limits(tmp_path: pathlib.Path) -> None:
    found = drive(tmp_path, **{"bps": 10})
    caller = Caller(found)
    for n in range(3):
        caller.submit(WRITE, 4096 * n, data=bytes(4096))  # twenty minutes
    begin = time.monotonic()
    found.pause()
    found.go_on()
    assert found.statistics()["write"][0] == 3
    for n in range(3):
        caller.submit(WRITE, 4096 * n, data=bytes(4096))
    found.close()
    assert time.monotonic() - begin < 60
