"""A CD-ROM drive: packet commands (SFF-8020i, MMC) by PIO and by bus master, the same on vmrun's and on QEMU's."""

from __future__ import annotations

import pathlib
import random
import struct
import types
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.oracle import QEMU
from vmrun.devices.storage.ide_cd import names
from vmrun.monitor import table
from vmrun.monitor.errors import QmpError
from vmrun.testing import QTest, QtestCommands, QtestProgram

BASE, CONTROL, BM, TABLE, DATA = 0x170, 0x376, 0xC000, 0x10000, 0x20000
ERROR, REASON, LOW, MID, HIGH, DEVICE, STATUS = 1, 2, 3, 4, 5, 6, 7
BSY, DRDY, DRQ, ERR = 0x80, 0x40, 0x08, 0x01
BLOCKS = 400


def block(number: int) -> bytes:
    return random.Random(number).randbytes(2048)


@pytest.fixture
def iso(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disc.iso"
    path.write_bytes(b"".join(block(n) for n in range(BLOCKS)))
    return path


def machine(side: str, iso: pathlib.Path | None) -> QTest | QtestProgram:
    if side == "vmrun":
        drive: dict[str, Any] = {"media": "cdrom"} | ({"file": str(iso), "format": "raw"} if iso else {})
        devices = [{"driver": "ide-cd", "id": "cd", "drive": "d", "bus": "ide.1", "unit": 0}]
        return QTest({"machine": "pc-i440fx-2.0", "memory": "64MiB", "drives": {"d": drive}, "devices": devices})
    command = [QEMU or "", "-M", "pc-i440fx-2.0", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    file = f",file={iso},format=raw" if iso else ""
    command += ["-drive", f"if=none,id=d,media=cdrom,readonly=on{file}", "-device", "ide-cd,drive=d,bus=ide.1,unit=0"]
    return QtestProgram(command)


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def q(request: pytest.FixtureRequest, iso: pathlib.Path) -> Iterator[QtestCommands]:
    with machine(request.param, iso) as found:
        yield found


@pytest.fixture(params=["vmrun", pytest.param("qemu", marks=pytest.mark.peer)])
def empty(request: pytest.FixtureRequest) -> Iterator[QtestCommands]:
    with machine(request.param, None) as found:
        yield found


@pytest.fixture
def pair(iso: pathlib.Path) -> Iterator[list[QtestCommands]]:
    with machine("vmrun", iso) as one, machine("qemu", iso) as other:
        yield [one, other]


def wait(q: Any) -> int:
    for _ in range(5000):
        status = int(q.inb(BASE + STATUS))
        if not status & BSY:
            return status
        if hasattr(q, "settle"):
            q.settle()
    raise AssertionError("the drive stays busy")


def words(q: Any, count: int) -> bytes:
    answers = q.ask_all([f"inw {BASE:#x}"] * count)
    return b"".join(struct.pack("<H", int(answer, 16) & 0xFFFF) for answer in answers)


def send(q: Any, cdb: bytes, limit: int = 0xFFFE, feature: int = 0) -> int:
    """Give a packet; the status behind it."""
    q.outb(BASE + DEVICE, 0xA0)
    q.outb(BASE + ERROR, feature)
    q.outb(BASE + MID, limit & 0xFF)
    q.outb(BASE + HIGH, limit >> 8)
    q.outb(BASE + STATUS, 0xA0)
    status = wait(q)
    if status & ERR:
        return status
    assert status & DRQ and q.inb(BASE + REASON) & 7 == 1
    packet = cdb.ljust(12, b"\0")
    q.ask_all([f"outw {BASE:#x} {packet[n] | packet[n + 1] << 8:#x}" for n in range(0, 12, 2)])
    return wait(q)


def packet(q: Any, cdb: bytes, limit: int = 0xFFFE) -> tuple[bytes, list[int], int, int]:
    """(data, size of each DRQ block, status, error register)"""
    status, data, sizes = send(q, cdb, limit), b"", []
    while status & DRQ:
        assert q.inb(BASE + REASON) & 7 == 2
        size = q.inb(BASE + MID) | q.inb(BASE + HIGH) << 8
        sizes.append(size)
        data += words(q, (size + 1) // 2)[:size]
        status = wait(q)
    assert q.inb(BASE + REASON) & 7 == 3
    return data, sizes, status & ~0x10, q.inb(BASE + ERROR)


def sense(q: Any) -> tuple[int, int, int]:
    data = packet(q, bytes((3, 0, 0, 0, 18)))[0]
    return data[2] & 15, data[12], data[13]


def read10(lba: int, count: int) -> bytes:
    return struct.pack(">BxIxHx", 0x28, lba, count)


def settled(q: Any) -> Any:
    """A unit attention may be the first answer: past it."""
    packet(q, bytes(12))
    packet(q, bytes((3, 0, 0, 0, 18)))
    return q


def test_the_signature_is_that_of_a_packet_device(q: Any) -> None:
    assert [q.inb(BASE + n) for n in (REASON, LOW, MID, HIGH)] == [1, 1, 0x14, 0xEB]


def test_identify_device_is_aborted_with_the_signature(q: Any) -> None:
    q.outb(BASE + DEVICE, 0xA0)
    q.outb(BASE + STATUS, 0xEC)
    assert wait(q) & ERR and q.inb(BASE + ERROR) == 4
    assert [q.inb(BASE + n) for n in (MID, HIGH)] == [0x14, 0xEB]


@pytest.mark.peer
def test_identify_packet_device_tells_the_same(pair: Any) -> None:
    found = []
    for q in pair:
        q.outb(BASE + DEVICE, 0xA0)
        q.outb(BASE + STATUS, 0xA1)
        assert wait(q) & DRQ
        data = bytearray(words(q, 256))
        found.append(bytes(data))
    wrong = {n: (found[0][2 * n : 2 * n + 2].hex(), found[1][2 * n : 2 * n + 2].hex()) for n in range(256)}
    assert {n: two for n, two in wrong.items() if two[0] != two[1]} == {}


SAME = {
    "test unit ready": bytes(12),
    "inquiry": bytes((0x12, 0, 0, 0, 96)),
    "inquiry, short": bytes((0x12, 0, 0, 0, 8)),
    "inquiry, the pages": bytes((0x12, 1, 0, 0, 255)),
    "inquiry, names": bytes((0x12, 1, 0x83, 0, 255)),
    "inquiry, no serial number": bytes((0x12, 1, 0x80, 0, 255)),
    "read capacity": bytes((0x25,)),
    "read toc": bytes((0x43, 0, 0, 0, 0, 0, 0, 1, 0)),
    "read toc, msf": bytes((0x43, 2, 0, 0, 0, 0, 0, 1, 0)),
    "read toc, lead-out": bytes((0x43, 0, 0, 0, 0, 0, 0xAA, 1, 0)),
    "read toc, no such track": bytes((0x43, 0, 0, 0, 0, 0, 7, 1, 0)),
    "sessions": bytes((0x43, 0, 1, 0, 0, 0, 0, 1, 0)),
    "sessions, by the old field": bytes((0x43, 0, 0, 0, 0, 0, 0, 1, 0, 0x40)),
    "configuration": bytes((0x46, 0, 0, 0, 0, 0, 0, 1, 0)),
    "event status": bytes((0x4A, 1, 0, 0, 0x10, 0, 0, 1, 0)),
    "event status, no class": bytes((0x4A, 1, 0, 0, 0x02, 0, 0, 1, 0)),
    "event status, asynchronous": bytes((0x4A, 0, 0, 0, 0x10, 0, 0, 1, 0)),
    "disc information": bytes((0x51, 0, 0, 0, 0, 0, 0, 0, 64)),
    "mode sense, error recovery": bytes((0x5A, 0, 0x01, 0, 0, 0, 0, 0, 64)),
    "mode sense, audio": bytes((0x5A, 0, 0x0E, 0, 0, 0, 0, 0, 64)),
    "mode sense, capabilities": bytes((0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 64)),
    "mode sense, unknown page": bytes((0x5A, 0, 0x17, 0, 0, 0, 0, 0, 64)),
    "mode sense, saved": bytes((0x5A, 0, 0xEA, 0, 0, 0, 0, 0, 64)),
    "mechanism status": bytes((0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8)),
    "prevent": bytes((0x1E, 0, 0, 0, 1)),
    "allow": bytes((0x1E, 0, 0, 0, 0)),
    "seek": bytes((0x2B, 0, 0, 0, 0, 9)),
    "seek outside": bytes((0x2B, 0, 1, 0, 0, 0)),
    "set speed": bytes((0xBB, 0, 0xFF, 0xFF)),
    "read cd, data": bytes((0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0x10)),
    "read cd, nothing": bytes((0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0)),
    "read cd, whole sectors": bytes((0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0xF8)),
    "read cd, half of it": bytes((0xBE, 0, 0, 0, 0, 3, 0, 0, 2, 0x20)),
    "read 10": read10(5, 3),
    "read 10, nothing": read10(5, 0),
    "read 10, the last": read10(BLOCKS - 1, 1),
    "read 10, over the end": read10(BLOCKS - 1, 2),
    "read 10, far outside": read10(0xFFFFFFFF, 1),
    "read 12": struct.pack(">BxIIxx", 0xA8, 7, 2),
    "dvd structure of a CD": bytes((0xAD, 0, 0, 0, 0, 0, 0, 0, 8, 4)),
    "unknown": bytes((0xD9,)),
    "write": bytes((0x2A, 0, 0, 0, 0, 0, 0, 0, 1)),
}


EMPTY = (
    "test unit ready", "read capacity", "read toc", "read 10", "configuration", "event status", "mechanism status",
    "mode sense, capabilities", "disc information",
)  # fmt: skip


@pytest.mark.peer
@pytest.mark.parametrize("name", list(SAME))
def test_a_packet_has_the_same_answer(pair: Any, name: str) -> None:
    found = []
    for q in pair:
        settled(q)
        data, sizes, status, error = packet(q, SAME[name])
        found.append((data.hex(), sizes, status, error, sense(q)))
    assert found[0] == found[1]


@pytest.mark.peer
@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_drive_has_the_same_answer(name: str) -> None:
    found = []
    for side in ("vmrun", "qemu"):
        with machine(side, None) as q:
            data, sizes, status, error = packet(q, SAME[name])
            found.append((data.hex(), sizes, status, error, sense(q)))
    assert found[0] == found[1]


@pytest.mark.parametrize("limit", [0xFFFF, 0xFFFE, 2048, 1000, 777, 2])
def test_data_comes_in_blocks_of_what_the_host_takes(q: Any, limit: int) -> None:
    settled(q)
    data, sizes, status, _ = packet(q, read10(2, 2), limit)
    assert status == DRDY and data == block(2) + block(3)
    assert max(sizes) <= min(limit, 0xFFFE) and all(size % 2 == 0 for size in sizes)


def test_a_long_read_is_whole(iso: pathlib.Path) -> None:
    with machine("vmrun", iso) as q:
        settled(q)
        data, _, status, _ = packet(q, read10(10, 150))  # more than the 64 that are read ahead
    assert status == DRDY and data == b"".join(block(n) for n in range(10, 160))


def bus_master(q: Any, cdb: bytes, pieces: list[int]) -> int:
    """By DMA to DATA, cut into `pieces`; the status."""
    q.outl(0xCF8, 0x80000920)
    q.outl(0xCFC, BM)
    q.outl(0xCF8, 0x80000904)
    q.outl(0xCFC, 5)
    at = DATA
    for n, size in enumerate(pieces):
        last = 0x80000000 if n == len(pieces) - 1 else 0
        q.write(TABLE + 8 * n, struct.pack("<II", at, size & 0xFFFF | last))
        at += size
    q.outb(BM + 8, 0)
    q.outl(BM + 12, TABLE)
    q.outb(BM + 10, 6)
    q.outb(BM + 8, 9)
    return send(q, cdb, feature=1)


def test_a_read_by_bus_master_lands_in_memory(q: Any) -> None:
    settled(q)
    status = bus_master(q, read10(100, 40), [4096, 2, 65536, 12286])
    for _ in range(1000):
        if not status & (BSY | DRQ):
            break
        if hasattr(q, "settle"):
            q.settle()
        status = q.inb(BASE + STATUS)
    assert status & ~0x10 == DRDY and q.inb(BASE + REASON) & 7 == 3
    assert q.inb(BM + 10) & 7 == 4
    assert q.read(DATA, 40 * 2048) == b"".join(block(n) for n in range(100, 140))


def test_an_answer_by_bus_master_lands_in_memory(q: Any) -> None:
    settled(q)
    status = bus_master(q, bytes((0x12, 0, 0, 0, 36)), [36])
    assert status & ~0x10 == DRDY
    assert q.read(DATA + 8, 8) == b"QEMU    "


def test_an_empty_drive_says_so(empty: Any) -> None:
    settled(empty)
    _, _, status, error = packet(empty, bytes(12))
    assert status & ERR and error >> 4 == 2
    assert sense(empty) == (2, 0x3A, 1) or sense(empty)[:2] == (2, 0x3A)


def test_device_reset_brings_the_signature_back(q: Any) -> None:
    settled(q)
    q.outb(BASE + STATUS, 0x08)
    assert [q.inb(BASE + n) for n in (REASON, LOW, MID, HIGH)] == [1, 1, 0x14, 0xEB]
    assert q.inb(BASE + STATUS) & (BSY | DRQ) == 0


def test_device_reset_ends_what_waits_for_the_host(q: Any) -> None:
    settled(q)
    assert send(q, bytes((0x12, 0, 0, 0, 36))) & DRQ
    q.outb(BASE + STATUS, 8)
    assert wait(q) & ~0x10 == 0
    assert [q.inb(BASE + n) for n in (REASON, LOW, MID, HIGH)] == [1, 1, 0x14, 0xEB]
    assert packet(q, read10(0, 1))[0] == block(0)


def test_the_guest_opens_and_closes_the_tray(q: Any) -> None:
    settled(q)
    assert packet(q, bytes((0x1B, 0, 0, 0, 2)))[2] == DRDY
    packet(q, bytes(12))
    assert sense(q)[:2] == (2, 0x3A)
    assert packet(q, bytes((0x1B, 0, 0, 0, 3)))[2] == DRDY
    assert packet(q, bytes((0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8)))[0][4:6] == b"\0\2"  # no event: a medium is there
    assert packet(q, read10(0, 1))[0] == block(0)  # no attention either: Linux closes the tray and reads at once


def test_its_names_have_the_world_wide_one_at_the_end() -> None:
    found = names("abc", "Foo bar", 0x5000C50012345678)
    assert found[:24] == b"\2\0\0\x14" + b"abc".ljust(20)
    assert found[24:96] == b"\2\1\0\x44ATA     " + b"Foo bar".ljust(40) + b"abc".ljust(20)
    assert found[96:] == bytes.fromhex("010300085000c50012345678")  # as QEMU's


def test_security_of_a_drive_for_discs_is_unknown(q: Any) -> None:
    q.outb(BASE + DEVICE, 0xA0)
    q.outb(BASE + STATUS, 0xF5)
    assert wait(q) & ERR and q.inb(BASE + ERROR) == 4


def test_a_locked_tray_stays_closed(q: Any) -> None:
    settled(q)
    packet(q, bytes((0x1E, 0, 0, 0, 1)))
    _, _, status, error = packet(q, bytes((0x1B, 0, 0, 0, 2)))
    assert status & ERR and sense(q)[:2] == (2, 0x53)
    assert packet(q, read10(0, 1))[0] == block(0)


@pytest.mark.parametrize("seed", range(6))
def test_random_packets_leave_the_drive_usable(iso: pathlib.Path, seed: int) -> None:
    rng = random.Random(seed)
    codes = [cdb[0] for cdb in SAME.values()]
    with machine("vmrun", iso) as q:
        for _ in range(150):
            code = rng.choice((*codes, rng.randrange(256)))
            cdb = bytes((code, *(rng.choice((0, 0, 1, 2, 0xFF, rng.randrange(256))) for _ in range(11))))
            try:
                status = send(q, cdb, rng.choice((0, 1, 2, 3, 255, 2048, 0xFFFE, 0xFFFF)), rng.choice((0,) * 20 + (1,)))
            except AssertionError:  # it waits for a bus master that nobody starts
                status = DRQ
            if status & DRQ:
                q.ask_all([f"{rng.choice(('inw', 'inl'))} {BASE:#x}"] * rng.randrange(40))
                if rng.random() < 0.3:
                    q.ask_all([f"outw {BASE:#x} {rng.randrange(65536):#x}"] * rng.randrange(600))
                q.outb(CONTROL, 4)
                q.outb(CONTROL, 0)
        q.outb(CONTROL, 4)
        q.outb(CONTROL, 0)
        packet(q, bytes((0x1E,)))
        packet(q, bytes((0x1B, 0, 0, 0, 3)))
        settled(q), settled(q)
        assert packet(q, read10(1, 1))[0] == block(1)


# --- media that come and go ---------------------------------------------------------------------------------------


@pytest.fixture
def two(iso: pathlib.Path, tmp_path: pathlib.Path) -> Iterator[tuple[QTest, pathlib.Path]]:
    other = tmp_path / "other.iso"
    other.write_bytes(b"".join(block(1000 + n) for n in range(50)))
    with machine("vmrun", iso) as q:
        settled(q)
        yield q, other


def qmp(q: Any, name: str, **arguments: Any) -> Any:
    command = table.load()[name]
    return command.handler(types.SimpleNamespace(machine=q.machine), **command.arguments(arguments))


def test_another_medium_is_told_once_and_read(two: Any) -> None:
    q, other = two
    qmp(q, "blockdev-change-medium", id="cd", filename=str(other))
    assert packet(q, bytes((0x4A, 1, 0, 0, 0x10, 0, 0, 1, 0)))[0][4] == 2  # new medium
    assert packet(q, bytes(12))[2] & ERR
    assert sense(q) == (6, 0x28, 0)
    assert packet(q, read10(0, 1))[0] == block(1000)
    assert packet(q, bytes((0x25,)))[0] == struct.pack(">II", 49, 2048)


def test_an_ejected_medium_is_gone(two: Any) -> None:
    q, _ = two
    qmp(q, "eject", device="d")
    assert packet(q, read10(0, 1))[2] & ERR
    assert sense(q)[:2] == (2, 0x3A)
    assert packet(q, bytes((0x4A, 1, 0, 0, 0x10, 0, 0, 1, 0)))[0][5] == 1  # open, no medium


def test_a_locked_drive_asks_the_guest(two: Any) -> None:
    q, _ = two
    packet(q, bytes((0x1E, 0, 0, 0, 1)))
    with pytest.raises(QmpError, match="is locked and force was not specified"):
        qmp(q, "eject", id="cd")
    assert packet(q, bytes((0x4A, 1, 0, 0, 0x10, 0, 0, 1, 0)))[0][4] == 1  # eject request
    assert packet(q, read10(0, 1))[0] == block(0)
    qmp(q, "eject", id="cd", force=True)
    assert packet(q, read10(0, 1))[2] & ERR


def test_an_image_that_is_not_there_leaves_the_old_one(two: Any) -> None:
    q, other = two
    with pytest.raises(QmpError, match="nothere"):
        qmp(q, "blockdev-change-medium", id="cd", filename=str(other.with_name("nothere.iso")))
    assert packet(q, read10(0, 1))[0] == block(0)


@pytest.mark.parametrize("arguments", [{}, {"id": "cd", "device": "d"}, {"id": "nobody"}, {"device": "nobody"}])
def test_a_drive_that_is_none_is_named(two: Any, arguments: dict[str, str]) -> None:
    with pytest.raises(QmpError):
        qmp(two[0], "eject", **arguments)


def test_the_guest_moves_the_tray_and_the_machine_is_told(iso: pathlib.Path) -> None:
    with machine("vmrun", iso) as made:
        q: Any = made
        told: list[Any] = []
        q.machine.listen(lambda name, **data: told.append((name, data.get("tray-open"))))
        settled(q)
        for how in (2, 2, 3):  # open, once more, close
            packet(q, bytes((0x1B, 0, 0, 0, how)))
        q.machine.loop.run_once(0)
        assert told == [("DEVICE_TRAY_MOVED", True), ("DEVICE_TRAY_MOVED", False)]
