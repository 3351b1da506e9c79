"""A hundred machines one after the other, and ten at once: nothing of them is left."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.long]
PATIENCE = 120.0


class Place:
    """A user's own runtime directory; `vmrun(…)` runs the command there."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.runtime = directory / "run"
        self.runtime.mkdir(mode=0o700)
        self.env = {**os.environ, "XDG_RUNTIME_DIR": str(self.runtime), "XDG_CACHE_HOME": str(directory / "cache")}

    def vmrun(self, *words: str) -> str:
        command = [sys.executable, "-m", "vmrun", *words]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        return done.stdout

    def file(self, name: str) -> str:
        path = self.directory / f"{name}.json"
        keys = {"accel": "soft", "memory": "32MiB", "serial": "pty"}
        path.write_text(json.dumps({"schema": "vmrun/machine/1", "name": name, "machine": "pc-i440fx-2.0", **keys}))
        return str(path)

    def names(self) -> list[str]:
        return sorted(row["name"] for row in json.loads(self.vmrun("ps", "--json")))

    def left(self) -> list[str]:
        """Sockets, locks and other files of machines, once the logs that they kept are cleared away."""
        self.vmrun("gc")
        return sorted(str(path.relative_to(self.runtime)) for path in self.runtime.rglob("*") if not path.is_dir())

    def nothing_left(self) -> bool:
        """Processes that are listed no more may still be on their way out."""
        deadline = time.monotonic() + PATIENCE
        while self.left():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for name in made.names():
        made.vmrun("kill", name)


def gone(place: Place) -> bool:
    """Wait until no machine is listed."""
    deadline = time.monotonic() + PATIENCE
    while place.names():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def test_a_hundred_machines_in_turn_leave_nothing(place: Place) -> None:
    path = place.file("again")
    ptys = set(os.listdir("/dev/pts"))
    for _ in range(100):
        place.vmrun("up", "--detach", path)
        assert place.names() == ["again"]
        place.vmrun("kill", "again")
        assert gone(place)
    assert place.nothing_left(), place.left()
    assert set(os.listdir("/dev/pts")) <= ptys


def test_ten_machines_at_once_are_listed_and_stopped(place: Place) -> None:
    names = [f"one-of-ten-{n}" for n in range(10)]
    for name in names:
        place.vmrun("up", "--detach", place.file(name))
    assert place.names() == names
    for name in names:
        place.vmrun("kill", name)
    assert gone(place)
    assert place.nothing_left(), place.left()


def test_a_process_that_makes_a_hundred_machines_does_not_grow(tmp_path: pathlib.Path) -> None:
    """Descriptors, threads and memory, after the first ten have warmed everything up; what the allocator keeps for
    later is given back before it is counted.
    """
    code = """
import ctypes, gc, os
from vmrun.testing import QTest
def counts():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task")), int(status["VmRSS"].split()[0])
for n in range(110):
    if n == 10:
        before = counts()
    with QTest({"machine": "pc-i440fx-7.2", "memory": "32MiB", "display": "std", "serial": "null"}) as q:
        q.inb(0x3FD)
after = counts()
print(*before, *after)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True, cwd=tmp_path
    )
    fds, threads, kib, fds_after, threads_after, kib_after = map(int, done.stdout.split())
    assert (fds_after, threads_after) == (fds, threads)
    assert kib_after - kib < 20_000, f"{kib} KiB grew to {kib_after} KiB"
