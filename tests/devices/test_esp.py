"""AMD Am53C974: commands as firmware and as drivers give them have the same results on vmrun's and on QEMU's."""

from __future__ import annotations

import pathlib
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest
from accel.api import Action

from tests.board import Driven
from tests.devices.scsi import image
from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

PORTS, DATA = 0xC000, 0x30000
TCLO, TCMID, FIFO, CMD, STAT, INTR, SEQ, FLAGS, CFG1, TCHI = (PORTS + 4 * n for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 14))
DMA_CMD, DMA_STC, DMA_SPA, DMA_WBC, DMA_STAT = (PORTS + n for n in (0x40, 0x44, 0x48, 0x4C, 0x54))
NOP, FLUSH, RESET, BUS_RESET, TRANSFER, COMPLETE, ACCEPT, SELECT, SELECT_ATN = 0, 1, 2, 3, 0x10, 0x11, 0x12, 0x41, 0x42
DMA, INT, TC = 0x80, 0x80, 0x10
START_IN, START_OUT = 0x83, 0x03
DC, BS, FC, RST = 0x20, 0x10, 0x08, 0x80


def machine(side: str, path: pathlib.Path, driver: str = "am53c974") -> Any:
    if side == "vmrun":
        devices = [
            {"driver": driver, "id": "s", "addr": "05.0"},
            {"driver": "scsi-hd", "id": "u", "drive": "d0", "scsi-id": 3, "lun": 0},
        ]
        drives = {"d0": {"file": str(path), "format": "raw"}}
        return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": devices})
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    command += ["-drive", f"if=none,id=d0,file={path},format=raw", "-device", f"{driver},id=s,addr=5"]
    return QtestProgram([*command, "-device", "scsi-hd,drive=d0,scsi-id=3,lun=0"])


class Chip:
    def __init__(self, q: Any) -> None:
        self.q = q
        q.pci_write(5, 0, 0x10, PORTS)
        q.pci_write(5, 0, 4, 7, 2)
        q.outb(CMD, RESET)
        q.outb(CMD, NOP)

    def wait(self) -> tuple[int, int]:
        """(status, interrupt) once there is one."""
        for _ in range(3000):
            status = self.q.inb(STAT)
            if status & INT:
                return status, self.q.inb(INTR)
            if hasattr(self.q, "settle"):
                self.q.settle()
            else:
                time.sleep(0.001)
        raise AssertionError("no interrupt")

    def begin(self, cdb: bytes, target: int = 3) -> tuple[int, int]:
        self.q.outb(CMD, FLUSH)
        self.q.outb(STAT, target)
        for byte in b"\x80" + cdb:
            self.q.outb(FIFO, byte)
        self.q.outb(CMD, SELECT_ATN)
        return self.wait()

    def move(self, size: int, out: bool = False) -> tuple[int, int]:
        q = self.q
        for port, shift in ((TCLO, 0), (TCMID, 8), (TCHI, 16)):
            q.outb(port, size >> shift & 0xFF)
        q.outb(DMA_CMD, 0)
        q.outl(DMA_STC, size)
        q.outl(DMA_SPA, DATA)
        q.outb(CMD, DMA | TRANSFER)
        q.outb(DMA_CMD, START_OUT if out else START_IN)
        return self.wait()

    def end(self) -> tuple[int, int, int]:
        """(SCSI status, message, the last interrupt)"""
        self.q.outb(CMD, COMPLETE)
        assert self.wait()[1] & FC
        status, message = self.q.inb(FIFO), self.q.inb(FIFO)
        self.q.outb(CMD, ACCEPT)
        return status, message, self.wait()[1]

    def command(self, cdb: bytes, data: bytes | int = 0) -> tuple[int, bytes]:
        size = data if isinstance(data, int) else len(data)
        if isinstance(data, int):
            self.q.memset(DATA, max(size, 1), 0xDD)
        else:
            self.q.write(DATA, data)
        status, _ = self.begin(cdb)
        while status & 7 in (0, 1) and size:
            status, _ = self.move(size, out=not isinstance(data, int))
        assert status & 7 == 3
        ended = self.end()
        assert ended[1:] == (0, DC)
        return ended[0], self.q.read(DATA, size) if isinstance(data, int) and size else b""

    def ready(self) -> Chip:
        self.command(bytes(6))
        self.command(bytes((3, 0, 0, 0, 18, 0)), 18)
        return self


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def chip(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Chip]:
    with machine(request.param, image(tmp_path / "d.img")) as q:
        yield Chip(q)


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> Iterator[Chip]:
    with machine("vmrun", image(tmp_path / "d.img")) as q:
        yield Chip(q)


@pytest.mark.peer
def test_configuration_and_registers_are_qemus(tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img")) as q:
            words = [q.pci_read(5, 0, n) for n in range(0, 256, 4)]
            q.pci_write(5, 0, 0x10, PORTS)
            q.pci_write(5, 0, 4, 7, 2)
            found.append((words, [q.inb(PORTS + n) for n in range(128)]))
    assert found[0] == found[1]


def test_a_command_from_selection_to_acceptance(chip: Chip) -> None:
    status, cause = chip.begin(bytes(6))
    assert (status & 7, cause, chip.q.inb(SEQ)) == (3, BS | FC, 4)
    assert chip.end() == (2, 0, DC)
    status, data = chip.command(bytes((3, 0, 0, 0, 18, 0)), 18)
    assert (status, data[2], data[12]) == (0, 6, 0x29)


def test_nobody_at_a_target_is_a_disconnection(chip: Chip) -> None:
    assert chip.begin(bytes(6), target=5)[1] == DC


def test_data_both_ways(chip: Chip) -> None:
    chip.ready()
    block = random.Random(3).randbytes(3072)
    assert chip.command(struct.pack(">BBIBHB", 0x2A, 0, 9, 0, 6, 0), block)[0] == 0
    assert chip.command(struct.pack(">BBIBHB", 0x28, 0, 9, 0, 6, 0), 3072) == (0, block)


def test_data_in_several_transfers(chip: Chip) -> None:
    chip.ready()
    assert chip.begin(struct.pack(">BBIBHB", 0x28, 0, 7, 0, 2, 0))[0] & 7 == 1
    for n in range(4):
        status, cause = chip.move(256)
        assert status & TC and cause & BS and status & 7 == (3 if n == 3 else 1)
        assert chip.q.read(DATA, 256) == struct.pack("<I", 7 + n // 2) * 64
        assert chip.q.inl(DMA_WBC) & 0xFFFF == 0
    assert chip.end()[0] == 0


def test_a_bus_reset_interrupts_unless_it_must_not(chip: Chip) -> None:
    chip.q.outb(CMD, BUS_RESET)
    assert chip.wait()[1] == RST
    chip.q.outb(CFG1, 0x47)
    chip.q.outb(CMD, BUS_RESET)
    assert not chip.q.inb(STAT) & INT


def test_bytes_by_hand(ours: Chip) -> None:
    ours.ready()
    assert ours.begin(bytes((0x25, *bytes(9))))[0] & 7 == 1
    found = bytearray()
    for n in range(8):
        ours.q.outb(CMD, TRANSFER)
        assert ours.wait()[0] & 7 == (3 if n == 7 else 1) and ours.q.inb(FLAGS) & 31 == 1
        found.append(ours.q.inb(FIFO))
    assert bytes(found) == struct.pack(">II", 2047, 512) and ours.end()[0] == 0


def test_a_long_write_waits_for_the_disk(ours: Chip) -> None:
    ours.ready()
    q, count = ours.q, 600
    assert ours.begin(struct.pack(">BBIBHB", 0x2A, 0, 0, 0, count, 0))[0] & 7 == 0
    for n in range(count // 10):
        q.memset(DATA, 5120, n + 1)
        status = ours.move(5120, out=True)[0]
    assert status & 7 == 3 and ours.end()[0] == 0
    assert ours.command(struct.pack(">BBIBHB", 0x28, 0, 590, 0, 10, 0), 5120)[1] == bytes([60]) * 5120


def test_a_command_under_way_is_repeated_after_a_restore(ours: Chip) -> None:
    ours.ready()
    ours.begin(struct.pack(">BBIBHB", 0x28, 0, 7, 0, 2, 0))
    ours.move(256)
    device = ours.q.machine.devices["s"]
    device.load(device.save())
    assert ours.q.inb(STAT) & 7 == 3 and ours.end()[0] == 8
    assert ours.command(struct.pack(">BBIBHB", 0x28, 0, 7, 0, 1, 0), 512)[0] == 0


def test_garbage_harms_nobody(ours: Chip) -> None:
    chosen, q = random.Random(9), ours.q
    codes = [NOP, FLUSH, TRANSFER, COMPLETE, ACCEPT, SELECT, SELECT_ATN, 0x43, 0x46, 0x18, 0x1A, 0x1B, 0x44, 0x45]
    for n in range(4000):
        what = chosen.random()
        if what < 0.35:
            q.outb(CMD, chosen.choice(codes) | chosen.choice([0, DMA]))
        elif what < 0.6:
            q.outb(FIFO, chosen.choice([0x80, 0x12, 0x28, 0x2A, 0, 1, 0x20, 0xC0, 0x0C, chosen.getrandbits(8)]))
        elif what < 0.75:
            value = chosen.choice([0x83, 3, 0, 512, DATA, chosen.getrandbits(32)])
            q.outl(PORTS + chosen.randrange(0x40, 0x80, 4), value)
        elif what < 0.9:
            q.outb(PORTS + chosen.randrange(128), chosen.getrandbits(8))
        else:
            q.inb(PORTS + chosen.randrange(128))
        if n % 100 == 0:
            q.settle()
            device = q.machine.devices["s"]
            device.load(device.save())
    q.settle()
    again = Chip(q)
    q.outb(DMA_CMD, 0)
    q.outl(PORTS + 0x70, 0)
    assert again.ready().command(bytes(6))[0] == 0


# --- the EEPROM of a DC-390 -------------------------------------------------------------------------------------


def eeprom(q: Any) -> list[int]:
    """All words, bit by bit through configuration space, as its driver reads them."""

    def bit(value: int) -> None:
        for clock in (0, 0x80):
            q.pci_write(5, 0, 0x80, clock | value << 6, 1)

    words = []
    for address in range(64):
        q.pci_write(5, 0, 0xC0, 0, 1)
        for value in (1, 1, 0, *(address >> n & 1 for n in range(5, -1, -1))):
            bit(value)
        word = 0
        for _ in range(16):
            bit(0)
            word = word << 1 | (q.pci_read(5, 0, 0, 1) != 0)
        words.append(word)
    q.pci_write(5, 0, 0xC0, 0, 1)
    return words


@pytest.mark.peer
def test_the_settings_and_registers_of_a_dc390_are_qemus(tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img"), "dc390") as q:
            found.append((eeprom(q), [q.pci_read(5, 0, n) for n in range(0, 256, 4)]))
    assert found[0] == found[1]


def test_the_settings_of_a_dc390_have_their_check_sum(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", image(tmp_path / "d.img"), "dc390") as q:
        assert sum(eeprom(q)) & 0xFFFF == 0x1234
        assert q.pci_read(5, 0, 0) == 0x20201022  # a wider read shows the vendor whatever the wire says


def test_a_driver_that_wakes_still_has_its_interrupts(tmp_path: pathlib.Path) -> None:
    """It sets the core up when it begins, not when the machine wakes. Behind a reset firmware polls first."""
    devices = [{"driver": "am53c974", "id": "s", "addr": "05.0"}]
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="64MiB", devices=devices) as pc:
        machine, chip = pc.machine, pc.board.devices["s"].chip  # type: ignore[attr-defined]
        machine.resume()
        machine.ask(Action.SUSPEND, "guest")
        chip.configured = True
        machine.loop.run_once(0)
        assert machine.asleep and machine.wake()
        assert chip.configured
        machine.reset()
        assert not chip.configured
