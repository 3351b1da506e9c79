"""Jobs on a disk that is written all the time: no write is lost, and a backup has the moment it began."""

from __future__ import annotations

import os
import pathlib
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from vmrun.backends.block.caller import Caller

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node
from vmrun.machine import blockops, chainops
from vmrun.machine.jobs import jobs

MIB = 1 << 20
SIZE, SECTOR, GRAIN = 4 * MIB, 512, 4096
WRITE, ZERO = 1, 4
SEED = int(os.environ.get("VMRUN_TEST_SEED", "1"))


class Writer(threading.Thread):
    """Writes, zeroes and discards at random, some of them at once; `model` is what the disk has."""

    def __init__(self, drive: Any, model: bytearray, seed: int) -> None:
        super().__init__(daemon=True)
        self.caller, self.model, self.rng = Caller(drive), model, random.Random(seed)
        self.wanted, self.allowed, self.idle = True, threading.Event(), threading.Event()
        self.rounds = 0

    def run(self) -> None:
        while self.wanted:
            self.idle.set()
            if not self.allowed.wait(0.01):
                continue
            self.idle.clear()
            if not self.allowed.is_set():
                continue
            spots = self.rng.sample(range(SIZE // 65536), 6)
            for spot in spots:
                at = spot * 65536 + self.rng.randrange(14) * GRAIN + self.rng.choice((0, 512))
                length = self.rng.choice((512, 4096, 7168))
                if self.rng.random() < 0.15:
                    self.caller.submit(ZERO, at, length, None, self.rng.choice((0, 2)))
                    self.model[at : at + length] = bytes(length)
                else:
                    data = self.rng.randbytes(16) * (length // 16)
                    self.caller.submit(WRITE, at, 0, data)
                    self.model[at : at + length] = data
            for _ in spots:
                assert self.caller.wait()[1] == 0
            self.rounds += 1
        self.idle.set()

    def hold(self) -> bytes:
        """What the disk has now, with nothing under way."""
        self.allowed.clear()
        while True:
            self.idle.clear()
            assert self.idle.wait(60)
            rounds = self.rounds
            time.sleep(0.02)
            if self.idle.is_set() and rounds == self.rounds:
                return bytes(self.model)


class Rig:
    def __init__(self, pc: Driven, directory: pathlib.Path) -> None:
        self.machine, self.directory = pc.machine, directory
        ((self.name, self.drive),) = [(id, d) for id, d in pc.machine.board.drives.items() if d.node is not None]
        model = bytearray(self.drive.node.read(0, SIZE))
        self.writer = Writer(self.drive, model, SEED)
        self.writer.start()
        self.writer.allowed.set()

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < end
            self.machine.loop.run_once(0.01)

    def written(self, rounds: int) -> None:
        """Some more writes."""
        before = self.writer.rounds
        self.until(lambda: self.writer.rounds >= before + rounds)

    def over(self) -> None:
        self.until(lambda: not jobs(self.machine).all)

    def end(self, *images: str) -> None:
        """The disk has what was written, and so has its image."""
        then = self.writer.hold()
        self.writer.wanted = False
        self.writer.join(60)
        assert self.drive.node.read(0, SIZE) == then
        top = str(self.directory / images[0])
        self.machine.close()
        for image in images:
            subprocess.run(["qemu-img", "check", "-q", self.directory / image], check=True)
        node = open_node(top, "qcow2", Access(readonly=True))
        assert node.read(0, SIZE) == then
        node.close()


@pytest.fixture
def rig(tmp_path: pathlib.Path) -> Iterator[Rig]:
    for name, below in (("base.qcow2", ""), ("disk.qcow2", str(tmp_path / "base.qcow2"))):
        new_file(str(tmp_path / name), 0)
        options = {"size": SIZE, "backing_file": below, "backing_fmt": "qcow2" if below else ""}
        create_qcow2(str(tmp_path / name), SIZE, options)
        node = open_node(str(tmp_path / name), "qcow2", Access())
        for at in range(0, SIZE, 3 * 65536):
            node.write(at + (65536 if below else 0), random.Random(at).randbytes(50000)[: SIZE - at - 65536])
        node.close()
    disk = {"file": "disk.qcow2", "format": "qcow2"}
    with Driven(tmp_path, disks=[disk], machine="pc-i440fx-7.2", memory="16MiB") as pc:
        rig = Rig(pc, tmp_path)
        yield rig
        rig.writer.wanted = False


@pytest.mark.parametrize("mode", ("background", "write-blocking"))
def test_a_mirror_gets_every_write(rig: Rig, mode: str) -> None:
    target = str(rig.directory / "m.qcow2")
    job = blockops.drive_mirror(rig.machine, rig.name, target, "full", format="qcow2", copy_mode=mode)
    rig.written(3)
    rig.until(lambda: job.status == "ready")
    rig.written(5)
    job.complete()
    rig.over()
    rig.written(5)
    rig.end("m.qcow2", "disk.qcow2")


def test_a_backup_has_the_moment_it_began(rig: Rig) -> None:
    rig.written(3)
    then = rig.writer.hold()
    target = str(rig.directory / "b.qcow2")
    blockops.drive_backup(rig.machine, rig.name, target, "full", format="qcow2", speed=8 * MIB)
    rig.writer.allowed.set()
    rig.written(5)
    rig.over()
    node = open_node(target, "qcow2", Access(readonly=True))
    assert node.read(0, SIZE) == then
    node.close()
    rig.end("disk.qcow2", "b.qcow2")


def test_a_snapshot_is_committed_under_the_guest(rig: Rig) -> None:
    for number in range(3):
        new = str(rig.directory / f"s{number}.qcow2")
        blockops.SnapshotSync(rig.machine, rig.name, "", new, "", "qcow2", "absolute-paths").commit()
        rig.written(3)
        job = chainops.block_commit(rig.machine, rig.name, base=str(rig.directory / "disk.qcow2"))
        rig.until(lambda: job.status == "ready")  # noqa: B023
        rig.written(2)
        job.complete()
        rig.over()
    rig.end("disk.qcow2", "s0.qcow2", "s2.qcow2")


def test_a_stream_keeps_what_is_written_meanwhile(rig: Rig) -> None:
    chainops.block_stream(rig.machine, rig.name)
    rig.written(2)
    rig.over()
    rig.written(3)
    assert rig.drive.node.backing is None
    rig.end("disk.qcow2")
