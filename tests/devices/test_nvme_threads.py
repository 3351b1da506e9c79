"""NVMe queues that the I/O thread serves, each pair with a lock of its own: who serves, and what a reset, an end, a
save or whoever holds the device lock do meanwhile.
"""

from __future__ import annotations

import os
import pathlib
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from accel.qtest import QtestAccelerator
from tests.devices.nvme import ADMIN, BAR, DATA, SLOT, Driver
from vmrun.testing import QTest

SHADOW, EVENTS = 0x104000, 0x105000
PAIRS = 0x400000  # submission and completion queue of pair n: from here on, 256 KiB each
SIZE = 8 << 20
READ, WRITE = 2, 1


class Threaded(Driver):
    """With shadow doorbells. `pairs` pairs of `entries` entries; vectors are the pin's."""

    def __init__(self, q: QTest, pairs: int = 2, entries: int = 16) -> None:
        super().__init__(q)
        self.pairs, self.entries = pairs, entries
        self.start()

    def start(self) -> None:
        self.enable()
        self.q.memset(SHADOW, 8192)
        self.tails = [0] * (self.pairs + 1)
        self.heads = [0] * (self.pairs + 1)
        for n in range(1, self.pairs + 1):
            self.q.memset(self.submissions(n), 0x80000)
            size = (self.entries - 1) << 16 | n
            assert self.admin(0x05, prp1=self.submissions(n) + 0x40000, cdw10=size, cdw11=3)[0] == 0
            assert self.admin(0x01, prp1=self.submissions(n), cdw10=size, cdw11=n << 16 | 1)[0] == 0
        assert self.admin(0x7C, prp1=SHADOW, prp2=EVENTS)[0] == 0

    def submissions(self, n: int) -> int:
        return PAIRS + n * 0x80000

    @property
    def device(self) -> Any:
        return self.q.machine.devices["n"]

    def put(self, n: int, count: int, opcode: int = READ, blocks: int = 1, at: int = DATA) -> None:
        """So many commands of the first blocks, and the shadow; nobody is told."""
        for _ in range(count):
            entry = struct.pack("<BBHI16xQQQI12x", opcode, 0, self.tails[n], 1, at, at + 4096, 0, blocks - 1)
            self.q.write(self.submissions(n) + 64 * self.tails[n], entry)
            self.tails[n] = (self.tails[n] + 1) % self.entries
        self.q.writel(SHADOW + 8 * n, self.tails[n])

    def signal(self, n: int) -> None:
        self.device.chip.bells[2 * n].notifier.notify()

    def answered(self, n: int) -> int:
        """How many answers there are, without a register or lock."""
        entries = self.q.machine.board.ram.read(self.submissions(n) + 0x40000, 16 * self.entries)
        return sum(entries[16 * k + 14] & 1 for k in range(self.entries))

    def wait(self, n: int, count: int) -> None:
        until(lambda: self.answered(n) >= count)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def q(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[QTest]:
    monkeypatch.setattr(QtestAccelerator, "doorbells", True)
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    drive = {"file": str(path), "format": "raw"}
    device = {"id": "n", "driver": "nvme", "drive": "d", "serial": "abc", "addr": f"{SLOT:02x}.0", "ioeventfd": True}
    with QTest(
        {"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": {"d": drive}, "devices": [device]}
    ) as machine:
        machine.machine.board.iothread.start()
        yield machine


def test_commands_are_served_while_another_has_the_device_lock(q: QTest) -> None:
    d = Threaded(q)
    d.put(1, 5)
    d.put(2, 3, WRITE, at=DATA + 0x10000)
    for pair, count in ((1, 5), (2, 3)):
        with q.machine.board.lock:
            d.signal(pair)
            d.wait(pair, count)
        until(lambda: d.device.chip.raised == 1)  # the thread itself waits for the lock, to raise the pin
        d.device.chip.raised = 0
    assert q.read(DATA, 512) == random.Random(7).randbytes(SIZE)[:512]


def test_the_pin_follows_when_the_lock_is_free(q: QTest) -> None:
    d = Threaded(q)
    chip = d.device.chip
    d.put(1, 1)
    with q.machine.board.lock:
        d.signal(1)
        d.wait(1, 1)
        assert not d.device.intx.level and chip.raised == 0
    until(lambda: d.device.intx.level == 1)
    q.writel(SHADOW + 8 + 4, 1)
    chip.bells[3].notifier.notify()  # the driver has taken it
    until(lambda: d.device.intx.level == 0)


def test_what_is_owed_is_paid_before_a_save(q: QTest) -> None:
    d = Threaded(q)
    d.put(1, 1)
    with q.machine.board.lock:
        d.signal(1)
        d.wait(1, 1)
        assert d.device.save()["chip"]["raised"] == 1


def test_a_long_queue_is_served_in_turns(q: QTest) -> None:
    d = Threaded(q, entries=512)
    before = d.device.chip.rung
    d.put(1, 500)
    d.signal(1)
    d.wait(1, 500)
    assert d.device.chip.rung >= before + 500 // 64


def test_what_finds_no_place_has_its_turn_later(q: QTest) -> None:
    d = Threaded(q, entries=2048)
    chip = d.device.chip
    d.device.space.backend.pause()
    d.put(1, 1500)
    d.signal(1)
    until(lambda: chip.in_flight == 1024)
    d.put(2, 1)
    rung = chip.rung
    d.signal(2)
    until(lambda: chip.rung > rung)
    assert d.answered(2) == 0
    d.device.space.backend.go_on()
    d.wait(2, 1)
    d.wait(1, 1500)
    assert chip.in_flight == 0


def test_a_request_is_not_looked_at_when_it_is_over(tmp_path: pathlib.Path) -> None:
    """With so many under way some are freed at once, and what is freed is written over here: the process crashed."""
    one = f"{__file__}::{test_what_finds_no_place_has_its_turn_later.__name__}"
    words = ["-q", "--noconftest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", one]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        env={**os.environ, "MALLOC_PERTURB_": "165"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("opcode", [READ, WRITE])
def test_resets_in_the_middle_of_commands(q: QTest, opcode: int) -> None:
    d = Threaded(q, entries=64)
    for n in range(40):
        for pair in (1, 2):
            d.put(pair, 40, opcode, 16, DATA + 0x4000 * pair)
            d.signal(pair)
        if n % 3 == 0:
            assert d.admin(0x00, cdw10=1)[0] == 0  # one submission queue goes, with what it has under way
        elif n % 3 == 1:
            d.device.reset()
            q.pci_write(SLOT, 0, 0x10, BAR)
            q.pci_write(SLOT, 0, 4, 0x406, 2)
        d.start()
    d.put(1, 1, READ, 1, DATA + 0x20000)
    d.signal(1)
    d.wait(1, 1)
    q.settle()
    assert d.device.chip.in_flight == 0


def test_it_goes_with_commands_under_way(q: QTest) -> None:
    d = Threaded(q, entries=64)
    for pair in (1, 2):
        d.put(pair, 60, READ, 16, DATA)
        d.signal(pair)
    q.machine.unplug(q.machine.devices["n"])
    q.outl(0xAE10, 0)
    q.outl(0xAE08, 1 << SLOT)
    q.settle()
    assert "n" not in q.machine.devices


def test_a_doorbell_before_a_save_is_not_lost(q: QTest) -> None:
    d = Threaded(q)
    thread = q.machine.board.iothread
    thread.pause()
    d.put(1, 4)
    d.signal(1)
    state = d.device.save()
    d.device.reset()
    d.device.load(state)
    assert d.device.save() == state and d.answered(1) == 0
    thread.resume()
    d.wait(1, 4)


def test_what_a_burst_left_is_not_lost_by_a_save(q: QTest) -> None:
    """Without signals: the processor that rings has the rest done by the thread."""
    d = Threaded(q, entries=512)
    d.enable()  # no shadows
    d.begin(ADMIN)
    d.enable()
    size = 511 << 16 | 1
    assert d.admin(0x05, prp1=d.submissions(1) + 0x40000, cdw10=size, cdw11=3)[0] == 0
    assert d.admin(0x01, prp1=d.submissions(1), cdw10=size, cdw11=1 << 16 | 1)[0] == 0
    q.memset(d.submissions(1), 0x80000)
    d.tails[1] = 0
    thread = q.machine.board.iothread
    thread.pause()
    d.put(1, 300)
    q.writel(BAR + 0x1008, 300)
    state = d.device.save()
    assert 64 <= state["chip"]["submission"][1]["head"] < 300
    d.device.reset()
    d.device.load(state)
    thread.resume()
    d.wait(1, 300)
