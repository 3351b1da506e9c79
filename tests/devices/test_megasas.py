"""MegaRAID SAS: frames have the same results on vmrun's controller and on QEMU's; events of disks; nonsense."""

from __future__ import annotations

import pathlib
import random
import struct
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices.scsi import image
from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

PORTS, FRAME, QUEUE, INDEX, DATA, SENSE = 0xC000, 0x10000, 0x20000, 0x28000, 0x30000, 0x29000
OSTS, OMSK, IQP, ODCR0, OSP0, IDB = 0x30, 0x34, 0x40, 0xA0, 0xB0, 0x20
INIT, LD_READ, LD_WRITE, LD_SCSI, PD_SCSI, DCMD, ABORT = range(7)
TO_DRIVER, FROM_DRIVER = 0x10, 0x08
LD_LIST, LD_TARGETS, PD_LIST = 0x03010000, 0x03010100, 0x02010000
CONTROLLER, EVENTS, WAIT = 0x01010000, 0x01040100, 0x01040500
READY, OPERATIONAL = 0xB, 0xC


def machine(side: str, path: pathlib.Path, driver: str = "megasas", **props: Any) -> Any:
    if side == "vmrun":
        devices = [
            {"driver": driver, "id": "s", "addr": "05.0", **props},
            {"driver": "scsi-hd", "id": "u", "drive": "d0", "scsi-id": 3, "lun": 0},
        ]
        drives = {"d0": {"file": str(path), "format": "raw"}}
        return QTest({"machine": "pc-i440fx-7.2", "memory": "64MiB", "drives": drives, "devices": devices})
    command = [QEMU or "", "-M", "pc-i440fx-7.2", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    more = "".join(f",{key}={'on' if value is True else value}" for key, value in props.items())
    command += ["-drive", f"if=none,id=d0,file={path},format=raw", "-device", f"{driver},id=s,addr=5{more}"]
    return QtestProgram([*command, "-device", "scsi-hd,drive=d0,scsi-id=3,lun=0"])


class Card:
    def __init__(self, q: Any, bar: int = 2) -> None:
        self.q = q
        q.pci_write(5, 0, 0x10 + 4 * bar, PORTS)
        q.pci_write(5, 0, 4, 7, 2)

    def state(self) -> int:
        return int(self.q.inl(PORTS + OSP0)) >> 28

    def send(self, frame: bytes, wait: bool = True, at: int = FRAME) -> tuple[int, int]:
        """(status, SCSI status) of a frame; it is given with status FFh."""
        frame = bytearray(frame.ljust(128, b"\0"))
        frame[2] = 0xFF
        self.q.write(at, bytes(frame))
        self.q.outl(PORTS + IQP, at)
        for _ in range(3000 if wait else 1):
            status, scsi = self.q.read(at + 2, 2)
            if status != 0xFF:
                break
            if hasattr(self.q, "settle"):
                self.q.settle()
            else:
                time.sleep(0.001)
        return status, scsi

    def header(
        self, code: int, size: int, flags: int = TO_DRIVER, target: int = 3, cdb: int = 0, pieces: int = 1
    ) -> bytes:
        return struct.pack("<8BQHHI", code, 18, 0xFF, 0, target, 0, cdb, pieces, 0x1234, flags, 0, size)

    def start(self, entries: int = 16) -> tuple[int, int]:
        self.q.outl(PORTS + IDB, 2)  # as every driver does
        self.q.memset(QUEUE, 0x1000)
        self.q.memset(INDEX, 64)
        self.q.write(INDEX + 32, struct.pack("<IIQQQ", 0, entries, QUEUE, INDEX, INDEX + 8))
        return self.send(self.header(INIT, 32, 0, pieces=0) + struct.pack("<QQ", INDEX + 32, 0))

    def managed(self, opcode: int, size: int, mailbox: bytes = b"", **more: Any) -> tuple[int, bytes]:
        self.q.memset(DATA, max(size, 1), 0xDD)
        pieces = struct.pack("<II", DATA, size) if size else b""
        head = self.header(DCMD, size, target=0, pieces=1 if size else 0)
        status = self.send(head + struct.pack("<I12s", opcode, mailbox) + pieces, **more)[0]
        return status, self.q.read(DATA, size) if size else b""

    def scsi(self, cdb: bytes, size: int, code: int = LD_SCSI, target: int = 3) -> tuple[int, int, bytes, bytes]:
        """(status, SCSI status, sense, data)"""
        self.q.memset(DATA, max(size, 1), 0xDD)
        self.q.memset(SENSE, 18, 0)
        head = self.header(code, size or 8, target=target, cdb=len(cdb))  # QEMU wants room even where none is used
        ended = self.send(head + struct.pack("<Q16sII", SENSE, cdb, DATA, size or 8))
        return *ended, self.q.read(SENSE, 18), self.q.read(DATA, size) if size else b""

    def blocks(
        self, code: int, lba: int, count: int, pieces: list[tuple[int, int]], target: int = 3
    ) -> tuple[int, int]:
        flags = FROM_DRIVER if code == LD_WRITE else TO_DRIVER
        head = self.header(code, count, flags, target=target, pieces=len(pieces))
        rows = b"".join(struct.pack("<II", *piece) for piece in pieces)
        return self.send(head + struct.pack("<QII", SENSE, lba & 0xFFFFFFFF, lba >> 32) + rows)


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def card(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Card]:
    with machine(request.param, image(tmp_path / "d.img")) as q:
        yield Card(q)


@pytest.fixture
def ours(tmp_path: pathlib.Path) -> Iterator[Card]:
    with machine("vmrun", image(tmp_path / "d.img")) as q:
        yield Card(q)


@pytest.mark.peer
@pytest.mark.parametrize(("driver", "bar"), [("megasas", 2), ("megasas-gen2", 0)])
def test_configuration_and_registers_are_qemus(driver: str, bar: int, tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img"), driver) as q:
            words = [q.pci_read(5, 0, n) for n in range(0, 256, 4)]
            Card(q, bar)
            found.append((words, [q.inl(PORTS + n) for n in range(0, 256, 4)]))
    assert found[0] == found[1]


def test_a_driver_starts_it_and_moves_blocks(card: Card) -> None:
    assert card.state() == READY and card.start()[0] == 0 and card.state() == OPERATIONAL
    block = random.Random(2).randbytes(1024)
    card.q.write(DATA, block)
    assert card.blocks(LD_WRITE, 9, 2, [(DATA, 100), (DATA + 100, 924)]) == (0, 0)
    card.q.memset(DATA + 0x2000, 1024)
    assert card.blocks(LD_READ, 9, 2, [(DATA + 0x2000, 512), (DATA + 0x2200, 512)]) == (0, 0)
    assert card.q.read(DATA + 0x2000, 1024) == block


def test_what_is_wrong_has_its_status(card: Card) -> None:
    card.start()
    assert card.blocks(LD_READ, 9, 1, [(DATA, 512)], target=5)[0] == 0x0C
    assert card.scsi(bytes(6), 0, target=70)[0] == 0x0C
    assert card.send(card.header(9, 0))[0] == 0x01
    status, scsi, sense, _ = card.scsi(bytes((0xD9, *bytes(5))), 0)
    assert (status, scsi, sense[2], sense[12]) == (0x2D, 2, 5, 0x20)


def test_commands_reach_the_disk(card: Card) -> None:
    card.start()
    assert card.scsi(bytes(6), 0)[:2] == (0, 0)
    assert card.scsi(bytes((0x12, 0, 0, 0, 36, 0)), 36)[3][8:28] == b"QEMU    QEMU HARDDIS"
    assert card.scsi(struct.pack(">BBIBHB", 0x28, 0, 7, 0, 1, 0), 512)[3] == struct.pack("<I", 7) * 128


@pytest.mark.parametrize(("opcode", "size"), [(LD_LIST, 8 + 16 * 64), (EVENTS, 20)])
@pytest.mark.peer
def test_lists_are_qemus(opcode: int, size: int, tmp_path: pathlib.Path) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, image(tmp_path / f"{side}.img")) as q:
            card = Card(q)
            card.start()
            found.append(card.managed(opcode, size))
    assert found[0] == found[1]


def test_the_lists_name_the_disks(ours: Card) -> None:
    ours.start()
    count, _, target, state, sectors = struct.unpack_from("<IIB3xB3xQ", ours.managed(LD_LIST, 1032)[1])
    assert (count, target, state, sectors) == (1, 3, 3, 2048)
    assert struct.unpack_from("<II3xB", ours.managed(LD_TARGETS, 75)[1])[1:] == (1, 3)
    assert struct.unpack_from("<IIH", ours.managed(PD_LIST, 128)[1]) == (32, 1, 3)
    info = ours.managed(CONTROLLER, 2048)[1]
    assert info[1344:1364] == b"MegaRAID SAS 8708EM2" and struct.unpack_from("<H", info, 1472) == (1,)


def test_without_logical_disks_each_is_itself(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", image(tmp_path / "d.img"), use_jbod=True) as q:
        card = Card(q)
        card.start()
        assert card.managed(LD_LIST, 1032)[1][:4] == bytes(4)
        assert card.scsi(bytes((0x12, 0, 0, 0, 36, 0)), 36)[0] == 0x0C
        assert card.scsi(bytes((0x12, 0, 0, 0, 36, 0)), 36, code=PD_SCSI)[3][8:12] == b"QEMU"


def test_what_it_does_not_manage_it_says(ours: Card) -> None:
    ours.start()
    assert ours.managed(0x0FF00000, 8)[0] == 0x02


def test_the_reply_queue_goes_round(ours: Card) -> None:
    ours.start(entries=5)
    ours.q.outl(PORTS + OMSK, 0)
    found = []
    for _ in range(12):
        ours.scsi(bytes(6), 0)
        found.append(ours.q.readl(INDEX))
    assert found == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2]


def test_replies_come_by_queue_and_interrupt(card: Card) -> None:
    card.start(entries=1000)
    card.q.outl(PORTS + OMSK, 0)
    for n in range(1, 20):
        card.scsi(bytes(6), 0)
        assert card.q.readl(INDEX) == n and card.q.readl(QUEUE + 4 * (n - 1)) == 0x1234
        assert card.q.inl(PORTS + OSTS) == 0x80000001
        card.q.outl(PORTS + ODCR0, 1)
        assert card.q.inl(PORTS + OSTS) == 0


def test_a_disk_that_comes_and_goes_is_an_event(ours: Card, tmp_path: pathlib.Path) -> None:
    ours.start()
    q, head = ours.q, ours.header(DCMD, 256, target=0)
    wait = head + struct.pack("<I12sII", WAIT, bytes(12), DATA + 0x4000, 256)
    other = FRAME + 0x1000
    for code, act in (
        (0x8A, lambda: q.machine.plug({"id": "new", "driver": "scsi-cd", "scsi-id": 7, "bus": "s.0"})),
        (0x8B, lambda: q.machine.unplug(q.machine.devices["new"])),
    ):
        assert ours.send(wait, wait=False, at=other)[0] == 0xFF
        act()
        for _ in range(3):
            q.machine.loop.run_once(0)
        assert q.read(other + 2, 1) == b"\0"
        assert struct.unpack("<I", q.read(DATA + 0x4008, 4)) == (code,)
        assert struct.unpack_from("<I", ours.managed(LD_LIST, 1032)[1]) == (2 if code == 0x8A else 1,)
    assert ours.send(wait, wait=False, at=other)[0] == 0xFF
    assert ours.send(ours.header(ABORT, 0) + struct.pack("<QQ", 0, other))[0] == 0 and q.read(other + 2, 1) == b"\0"


def test_a_reset_starts_over(ours: Card) -> None:
    ours.start()
    ours.q.outl(PORTS + IDB, 2)
    assert ours.state() == READY and ours.start()[0] == 0 and ours.scsi(bytes(6), 0)[0] == 0


def test_garbage_harms_nobody(ours: Card) -> None:
    chosen, q = random.Random(3), ours.q
    ours.start()
    opcodes = [LD_LIST, LD_TARGETS, PD_LIST, CONTROLLER, EVENTS, WAIT, 0x02020000, 0x03020000, 0x01020200, 0x04010000]
    for n in range(1200):
        frame = bytearray(chosen.randbytes(128))
        frame[0] = chosen.choice([INIT, LD_READ, LD_WRITE, LD_SCSI, PD_SCSI, DCMD, ABORT, 9])
        if chosen.random() < 0.8:
            frame[4:8] = bytes((chosen.choice([3, 3, 5]), 0, chosen.choice([6, 10, 16]), chosen.randrange(4)))
            struct.pack_into("<HHI", frame, 16, chosen.getrandbits(6), 0, chosen.choice([0, 1, 8, 512, 2048, 1 << 31]))
            struct.pack_into("<I", frame, 24, chosen.choice(opcodes) if frame[0] == DCMD else SENSE)
            for at in range(40, 100, 8):
                where, size = chosen.choice([DATA, 0, 0xFFFFFFF0]), chosen.choice([0, 8, 512, 1 << 30])
                struct.pack_into("<II", frame, at, where, size)
            if frame[0] in (LD_SCSI, PD_SCSI):
                frame[32] = chosen.choice([0, 3, 8, 0x12, 0x1A, 0x25, 0x28, 0x2A, 0x42, 0x55, 0x88, 0xA0])
        ours.send(bytes(frame), wait=False, at=FRAME + 128 * (n % 16))
        q.outl(PORTS + chosen.choice([OMSK, ODCR0, 0xC4, 0xF8, 0xFC]), chosen.choice([0, 1, 4, 0xFFFFFFFF, 0xB, 2]))
        if n % 100 == 0:
            q.settle()
            device = q.machine.devices["s"]
            device.load(device.save())
            q.outl(PORTS + IDB, 2)
            ours.start()
    q.settle()
    assert q.machine.devices["s"].chip.in_flight == 0
    q.outl(PORTS + IDB, 2)
    q.outl(PORTS + 0xC4, 0)
    assert ours.start()[0] == 0 and ours.scsi(bytes(6), 0)[0] == 0
