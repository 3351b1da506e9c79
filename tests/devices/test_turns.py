"""What a guest makes long is done in turns: while somebody holds the device lock, only a part of it. How long those
parts take is not looked at here (python -m tests.devices.holds prints it).
"""

from __future__ import annotations

import pathlib
import struct
import time
from collections.abc import Callable
from typing import Any

from tests.devices import test_esp, test_lsi, test_pvscsi
from tests.devices.rows import DATA, MIB, RINGS, Ring, image
from vmrun.testing import QTest

BALLOON = {"id": "b", "driver": "virtio-balloon-pci", "addr": "05.0", "free-page-reporting": True}
PAGES = 20000


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_SCSI_chip_reads_a_MiB_while_it_has_the_lock(tmp_path: pathlib.Path) -> None:
    with test_esp.machine("vmrun", image(tmp_path, 4 * MIB)) as q:
        chip = test_esp.Chip(q).ready()
        chip.begin(struct.pack(">BxIxHx", 0x28, 0, 8192))
        part = 4 * MIB - 512
        with q.machine.board.lock:
            for port, shift in ((test_esp.TCLO, 0), (test_esp.TCMID, 8), (test_esp.TCHI, 16)):
                q.outb(port, part >> shift & 0xFF)
            q.outb(test_esp.DMA_CMD, 0)
            q.outl(test_esp.DMA_STC, part)
            q.outl(test_esp.DMA_SPA, 16 * MIB)
            q.outb(test_esp.CMD, test_esp.DMA | test_esp.TRANSFER)
            q.outb(test_esp.DMA_CMD, test_esp.START_IN)
            moved = part - q.inl(test_esp.DMA_WBC)
            assert 0 < moved <= MIB + 131072  # with a piece that had been read before
        assert chip.wait()[0] & 7 == 1
        with open(tmp_path / "disk.img", "rb") as file:
            assert q.machine.board.ram.read(16 * MIB, part) == file.read(part)


def test_a_long_ring_of_requests(tmp_path: pathlib.Path) -> None:
    with test_pvscsi.machine("vmrun", image(tmp_path, 4 * MIB)) as q:
        q.machine.board.iothread.start()
        card = test_pvscsi.Card(q)
        card.start(4)
        card.run(bytes(6))
        for n in range(100):
            row = struct.pack(
                "<QQQQII16sB8sBBB", n, DATA + 512 * n, 512, 0, 0, 8, test_pvscsi.read_10(n, 1).ljust(16, b"\0"), 10,
                bytes(8), 0x20, 0, 3,
            )  # fmt: skip
            q.write(test_pvscsi.REQUESTS + (1 + n) * 128, row.ljust(128, b"\0"))
        q.writel(test_pvscsi.INDICES, 101)
        with q.machine.board.lock:
            q.writel(test_pvscsi.BAR + test_pvscsi.KICK, 0)
            assert q.readl(test_pvscsi.INDICES + 4) == 1 + 64
        until(lambda: q.readl(test_pvscsi.INDICES + 12) == 101)
        with open(tmp_path / "disk.img", "rb") as file:
            assert q.read(DATA, 51200) == file.read(51200)


def test_a_long_program_of_a_SCSI_chip(tmp_path: pathlib.Path) -> None:
    with test_lsi.machine("vmrun", image(tmp_path, MIB)) as q:
        q.machine.board.iothread.start()
        test_lsi.Chip(q)
        ram = q.machine.board.ram
        ram.write(8 * MIB, bytes(range(256)) * (4 * MIB // 256))
        size, program = 4 * MIB - 1, struct.pack("<5I", 0xC0000000 | 4 * MIB - 1, 8 * MIB, 16 * MIB, test_lsi.INT, 7)
        for saved in (False, True):
            ram.write(16 * MIB, bytes(4 * MIB))
            q.write(test_lsi.SCRIPT, program)
            with q.machine.board.lock:
                q.outl(test_lsi.PORTS + test_lsi.DSP, test_lsi.SCRIPT)
                assert not q.inb(test_lsi.PORTS + test_lsi.ISTAT) & 3
                assert ram.read(16 * MIB, 4) != bytes(4) and ram.read(18 * MIB, 256) == bytes(256)
                if saved:
                    q.machine.devices["s"].save()
                    assert q.inb(test_lsi.PORTS + test_lsi.ISTAT) & 3
            until(lambda: q.inb(test_lsi.PORTS + test_lsi.ISTAT) & 3)
            assert q.inl(test_lsi.PORTS + test_lsi.DSPS) == 7 and q.inb(test_lsi.PORTS + test_lsi.DSTAT) & 4
            assert ram.read(16 * MIB, size) == ram.read(8 * MIB, size) and ram.read(20 * MIB - 1, 1) == b"\0"


def test_a_SCSI_chip_that_always_has_something_to_do_does_not_spin(tmp_path: pathlib.Path) -> None:
    """More instructions than a program that does nothing on the bus may have."""
    with test_lsi.machine("vmrun", image(tmp_path, MIB)) as q:
        q.machine.board.iothread.start()
        chip = test_lsi.Chip(q)
        q.write(test_lsi.MESSAGE, b"\x80")
        q.write(test_lsi.CDB, bytes((0x12, 0, 0, 0, 36, 0)))
        once = [
            (test_lsi.SELECT | 3 << 16, 0),
            test_lsi.move(test_lsi.MESSAGE_OUT, 1, test_lsi.MESSAGE),
            test_lsi.move(test_lsi.COMMAND, 6, test_lsi.CDB),
            test_lsi.move(test_lsi.DATA_IN, 36, test_lsi.DATA),
            test_lsi.move(test_lsi.STATUS_PHASE, 1, test_lsi.STATUS),
            test_lsi.move(test_lsi.MESSAGE_IN, 1, test_lsi.BACK),
            (test_lsi.WAIT_DISCONNECT, 0),
        ]
        assert chip.run(*(once * 3000), (test_lsi.INT, 0x600D), at=MIB) == test_lsi.GOOD


def test_a_SCSI_chip_that_found_nobody_does_not_run_on(tmp_path: pathlib.Path) -> None:
    """A selection times out where a turn ends: when that is told, the program stands where it looked at the bus."""
    with test_lsi.machine("vmrun", image(tmp_path, MIB)) as q:
        q.machine.board.iothread.start()
        test_lsi.Chip(q)
        program = [(0x80000000, 0)] * 499 + [(test_lsi.SELECT | 5 << 16, 0), (0x80000000, 0)]
        program.append(test_lsi.move(test_lsi.MESSAGE_OUT, 1, 0))
        q.write(MIB, b"".join(struct.pack("<II", *row) for row in program))
        with q.machine.board.lock:
            q.outl(test_lsi.PORTS + test_lsi.DSP, MIB)
            assert not q.inb(test_lsi.PORTS + test_lsi.ISTAT + 1) & 2
            assert q.inl(test_lsi.PORTS + test_lsi.DSP) == MIB + 8 * len(program)
            assert q.inb(test_lsi.PORTS + test_lsi.SIST1) == test_lsi.STO


def balloon(queue: int, features: int) -> tuple[QTest, Ring]:
    q = QTest({"machine": "pc-i440fx-7.2", "memory": "512MiB", "devices": [BALLOON]})
    q.machine.board.iothread.start()
    return q, Ring(q, queue, features)


def test_pages_that_the_guest_gives() -> None:
    q, ring = balloon(0, 0)
    with q:
        for n in range(0, PAGES, 10000):
            q.write(DATA + 4 * n, struct.pack("<10000I", *range(0x10000 + 2 * n, 0x10000 + 2 * (n + 10000), 2)))
        ring.put((DATA, 4 * PAGES, 0))
        chip = q.machine.devices["b"].chip
        with q.machine.board.lock:
            q.writew(RINGS + 0x4002, 1)
            q.writew(0xE0003000, 0)
            assert 0 < chip.given < PAGES // 10 and q.readw(RINGS + 0x8002) == 0
        ring.wait(1)
        assert chip.given == PAGES


def test_free_memory_that_the_guest_reports_and_a_save_meanwhile() -> None:
    q, ring = balloon(3, 1 << 5 | 1 << 1)
    with q:
        ring.put((64 * MIB, 128 * MIB, 2), (256 * MIB, 128 * MIB, 2))
        device = q.machine.devices["b"]
        with q.machine.board.lock:
            q.writew(RINGS + 0x4002, 1)
            q.writew(0xE0003000 + 12, 3)
            assert 0 < device.chip.given <= 8192 and q.readw(RINGS + 0x8002) == 0
            state = device.save()
            assert device.chip.queues[3].last_avail == 0
            device.reset()
            device.load(state)
        ring.wait(1)
        assert device.chip.given >= 256 * MIB // 4096
