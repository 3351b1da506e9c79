"""SCSI units behind virtio-scsi: commands have the same answers on vmrun's and on QEMU's, sense data included."""

from __future__ import annotations

import json
import pathlib
import random
import resource
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from tests.devices.scsi import (
    ANSWER,
    COMMANDS,
    CONTROL,
    DATA,
    EVENTS,
    HEAD,
    RINGS,
    UNIT,
    WRITE,
    Adapter,
    image,
    machine,
    unit,
)  # fmt: skip
from vmrun.testing import QTest

NEEDS_RESET = 0x40
BLOCK = b"\xab" * 512
HARD = {"id": "u", "driver": "scsi-hd", "drive": "d0"}
COMPACT = {"id": "u", "driver": "scsi-cd", "drive": "d0"}


def six(code: int, *rest: int) -> bytes:
    return bytes((code, *rest)).ljust(6, b"\0")


def ten(code: int, flags: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBIBHB", code, flags, lba, 0, count, 0)


def sixteen(code: int, flags: int, lba: int, count: int) -> bytes:
    return struct.pack(">BBQIH", code, flags, lba, count, 0)


def ranges(*spans: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(">QII", lba, count, 0) for lba, count in spans)
    return struct.pack(">HHI", len(body) + 6, len(body), 0) + body


CACHE = bytes((8, 0x12, 4)) + bytes(17)
PAGES = (0, 1, 4, 5, 8, 0xA, 0xE, 0x1C, 0x2A, 0x3F)
# (name, command, bytes written or room to read)
SAME: list[tuple[str, bytes, bytes | int]] = [
    ("test unit ready", six(0), 0),
    ("request sense", six(3, 0, 0, 0, 18), 18),
    ("request sense, descriptors", six(3, 1, 0, 0, 18), 18),
    *((f"inquiry of {n}", six(0x12, 0, 0, 0, n), n) for n in (5, 36, 40, 96, 255)),
    ("inquiry, a page without the bit", six(0x12, 0, 3, 0, 255), 255),
    *((f"vital page {page:x}", six(0x12, 1, page, 0, 255), 255) for page in (0, 0x80, 0x83, 0xB0, 0xB1, 0xB2, 0xB3, 1)),
    ("vital page, short", six(0x12, 1, 0x83, 0, 6), 6),
    ("capacity", ten(0x25, 0, 0, 0), 8),
    ("capacity behind a block", ten(0x25, 0, 9, 0), 8),
    ("capacity 16", sixteen(0x9E, 0x10, 0, 32), 32),
    ("capacity 16, short", sixteen(0x9E, 0x10, 0, 12), 12),
    ("another service", sixteen(0x9E, 0x12, 0, 32), 32),
    ("report luns", struct.pack(">B5xIxx", 0xA0, 64), 64),
    ("report luns, no room", struct.pack(">B5xIxx", 0xA0, 8), 8),
    ("report luns, selected", struct.pack(">BBB3xIxx", 0xA0, 0, 3, 64), 64),
    *((f"mode page {p:x}, control {c}", six(0x1A, 0, p | c << 6, 0, 255), 255) for p in PAGES for c in range(4)),
    ("mode pages without descriptor", six(0x1A, 8, 0x3F, 0, 255), 255),
    ("mode pages, short", six(0x1A, 0, 0x3F, 0, 10), 10),
    *((f"mode page {page:x} by ten", ten(0x5A, 0, page << 24, 256), 256) for page in PAGES),
    ("capacity, more room", ten(0x25, 0, 0, 0), 512),
    ("inquiry, more room", six(0x12, 0, 0, 0, 36), 512),
    ("vital page, more room", six(0x12, 1, 0xB0, 0, 64), 512),
    ("sense, more room", six(3, 0, 0, 0, 18), 256),
    ("mode pages, more room", six(0x1A, 0, 0x3F, 0, 192), 512),
    ("ready, with room", six(0), 512),
    ("read, too little room", ten(0x28, 0, 5, 4), 512),
    ("read nothing at the end", ten(0x28, 0, 2048, 0), 0),
    ("verify", ten(0x2F, 0, 0, 4), 0),
    ("synchronize", ten(0x35, 0, 0, 0), 0),
    ("seek", ten(0x2B, 0, 4, 0), 0),
    ("seek outside", ten(0x2B, 0, 1 << 28, 0), 0),
    ("reserve", six(0x16), 0),
    ("reserve an extent", six(0x16, 1), 0),
    ("release", six(0x17), 0),
    ("reserve 10", ten(0x56, 0, 0, 0), 0),
    ("prevent", six(0x1E, 0, 0, 0, 1), 0),
    ("eject", six(0x1B, 0, 0, 0, 2), 0),
    ("allow", six(0x1E), 0),
    ("stop", six(0x1B), 0),
    ("start", six(0x1B, 0, 0, 0, 1), 0),
    ("persistent reservations", ten(0x5E, 0, 0, 24), 24),
    ("supported codes", struct.pack(">BB4xIxx", 0xA3, 12, 24), 24),
    ("log", ten(0x4D, 0, 0, 24), 24),
    ("unknown", six(0xD9), 0),
    ("a reserved group", six(0x7F), 0),
]
# What only disks have.
DISK: list[tuple[str, bytes, bytes | int]] = [
    ("read outside", ten(0x28, 0, 2047, 2), 1024),
    ("read with protection", ten(0x28, 0x20, 5, 1), 512),
    ("read far outside", sixteen(0x88, 0, 1 << 60, 2), 1024),
    ("write", ten(0x2A, 0, 5, 1), BLOCK),
    ("write 6", six(0x0A, 0, 0, 6, 1), BLOCK),
    ("write 16", sixteen(0x8A, 8, 7, 1), BLOCK),
    ("write outside", ten(0x2A, 0, 5000, 1), BLOCK),
    ("write and verify", ten(0x2E, 0, 8, 1), BLOCK),
    ("write the same", ten(0x41, 0, 20, 4), BLOCK),
    ("write the same zeros", ten(0x41, 8, 30, 4), bytes(512)),
    ("write nothing the same", ten(0x41, 0, 20, 0), BLOCK),
    ("write an anchor", ten(0x41, 0x18, 20, 1), BLOCK),
    ("write much the same", sixteen(0x93, 0, 100, 1500), BLOCK),
    ("unmap", ten(0x42, 0, 0, 24), ranges((50, 4))),
    ("unmap two", ten(0x42, 0, 0, 40), ranges((60, 1), (70, 3))),
    ("unmap, a list that is too long", ten(0x42, 0, 0, 24), struct.pack(">HHIQII", 22, 17, 0, 50, 4, 0)),
    ("unmap outside", ten(0x42, 0, 0, 24), ranges((5000, 4))),
    ("unmap, no header", ten(0x42, 0, 0, 4), bytes(4)),
    ("unmap nothing", ten(0x42, 0, 0, 0), 0),
    ("read it all", ten(0x28, 0, 0, 256), 256 * 512),
    ("switch the cache off", six(0x15, 0x10, 0, 0, 24), bytes(4) + CACHE.replace(b"\4", b"\0")),
    ("mode page 8 then", six(0x1A, 0, 8, 0, 255), 255),
    ("switch the cache on", six(0x15, 0x10, 0, 0, 24), bytes(4) + CACHE),
    ("switch what cannot be", six(0x15, 0x10, 0, 0, 24), bytes(4) + CACHE.replace(b"\4", b"\5")),
    ("select, no page format", six(0x15, 0, 0, 0, 24), bytes(4) + CACHE),
    ("select, no header", six(0x15, 0x10, 0, 0, 2), bytes(2)),
    ("select, half a page", six(0x15, 0x10, 0, 0, 10), bytes(4) + CACHE[:6]),
    ("select an unknown page", six(0x15, 0x10, 0, 0, 8), bytes((0, 0, 0, 0, 3, 2, 0, 0))),
    ("select by ten", ten(0x55, 0x10, 0, 28), bytes(8) + CACHE),
    ("select nothing", six(0x15, 0x10), 0),
]
ROM: list[tuple[str, bytes, bytes | int]] = [
    ("contents", ten(0x43, 0, 0, 64), 64),
    ("contents, in minutes", ten(0x43, 2, 0, 64), 64),
    ("sessions", ten(0x43, 0, 1 << 24, 64), 64),
    ("all points", ten(0x43, 0, 2 << 24, 64), 64),
    ("configuration", ten(0x46, 0, 0, 64), 64),
    ("event status", struct.pack(">BB2xB2xHx", 0x4A, 1, 0x10, 8), 8),
    ("event status, no class", struct.pack(">BB2xB2xHx", 0x4A, 1, 2, 8), 8),
    ("disc", ten(0x51, 0, 0, 64), 64),
    ("mechanism", struct.pack(">B7xHxx", 0xBD, 8), 8),
    ("dvd structure of a CD", struct.pack(">B7xHxx", 0xAD, 64), 64),
    ("read blocks", ten(0x28, 0, 5, 3), 3 * 2048),
    ("read outside", ten(0x28, 0, 511, 2), 2 * 2048),
    ("lock it", six(0x1E, 0, 0, 0, 1), 0),
    ("eject while it is held", six(0x1B, 0, 0, 0, 2), 0),
    ("capabilities, held", six(0x1A, 0, 0x2A, 0, 255), 255),
    ("let it go", six(0x1E), 0),
    ("eject", six(0x1B, 0, 0, 0, 2), 0),
    ("is it there", six(0), 0),
    ("event status, open", struct.pack(">BB2xB2xHx", 0x4A, 1, 0x10, 8), 8),
    ("capacity, open", ten(0x25, 0, 0, 0), 8),
    ("load", six(0x1B, 0, 0, 0, 3), 0),
    ("event status, loaded", struct.pack(">BB2xB2xHx", 0x4A, 1, 0x10, 8), 8),
    ("is it there again", six(0), 0),
    ("capacity again", ten(0x25, 0, 0, 0), 8),
]
# What a disc, and a disk that may only be read, does not do.
WRITES: list[tuple[str, bytes, bytes | int]] = [
    ("write", ten(0x2A, 0, 5, 1), bytes(2048)),
    ("write outside", ten(0x2A, 0, 5000, 1), bytes(2048)),
    ("write nothing", ten(0x2A, 0, 5, 0), 0),
    ("write 6", six(0x0A, 0, 0, 6, 1), bytes(2048)),
    ("write 12", struct.pack(">BBIIBB", 0xAA, 0, 5, 1, 0, 0), bytes(2048)),
    ("write 16", sixteen(0x8A, 0, 5, 1), bytes(2048)),
    ("write and verify", ten(0x2E, 0, 8, 1), bytes(2048)),
    ("write and verify 16", sixteen(0x8E, 0, 8, 1), bytes(2048)),
    ("write the same", ten(0x41, 0, 20, 4), bytes(2048)),
    ("write much the same", sixteen(0x93, 0, 20, 4), bytes(2048)),
    ("write nothing the same", ten(0x41, 0, 20, 0), bytes(2048)),
    ("unmap", ten(0x42, 0, 0, 24), ranges((50, 4))),
    ("unmap nothing", ten(0x42, 0, 0, 0), 0),
    ("rezero", six(0x01), 0),
    ("format", six(0x04), 0),
]
FULL = {
    "serial": "SER-123456789012345678", "wwn": 0x5000123456789ABC, "port_wwn": 0x5000123456789ABD, "port_index": 3,
    "rotation_rate": 7200, "removable": True, "physical_block_size": 4096, "min_io_size": 4096, "opt_io_size": 65536,
    "dpofua": True, "vendor": "ACME", "product": "Disk", "ver": "9.9", "discard_granularity": 0,
}  # fmt: skip
KINDS = {
    "disk": ({"driver": "scsi-hd", "drive": "d0"}, [*SAME, *DISK]),
    "disk-with-all": ({"driver": "scsi-hd", "drive": "d0", **FULL}, [*SAME, *DISK]),
    "disk-to-read": ({"driver": "scsi-hd", "drive": "d0"}, [*SAME, *WRITES]),
    "cd": ({"driver": "scsi-cd", "drive": "d0"}, [*SAME, *WRITES, *ROM]),
    "cd-of-a-disk": ({"driver": "scsi-cd", "drive": "d0"}, [*SAME, *WRITES, *ROM]),
    "empty-cd": ({"driver": "scsi-cd", "drive": "d0"}, [*SAME[:30], *WRITES, *ROM[:12]]),
}


def drives(kind: str, path: pathlib.Path) -> dict[str, dict[str, Any]]:
    if kind == "empty-cd":
        return {"d0": {"media": "cdrom"}}
    more = {"media": "cdrom", "readonly": True} if kind == "cd" else {"readonly": kind == "disk-to-read"}
    return {"d0": {"file": str(path), "format": "raw", **more}}


@pytest.mark.peer
@pytest.mark.parametrize("kind", KINDS)
def test_commands_have_the_same_answers(kind: str, tmp_path: pathlib.Path) -> None:
    device, commands = KINDS[kind]
    answers = []
    for side in ("vmrun", "qemu"):
        path = image(tmp_path / f"{side}.img")
        with machine(side, drives(kind, path), [{**device, "scsi-id": 0, "lun": 0}]) as q:
            adapter = Adapter(q)
            found = {name: adapter.command(cdb, data) for name, cdb, data in commands}
            found |= {f"task {n}": (adapter.manage(n),) for n in range(9)}
            found["after the resets"] = adapter.command(six(0))
            found["no such target"] = (adapter.manage(5, unit(3)), adapter.command(six(0), where=unit(3)))
            found["no such unit"] = (adapter.manage(5, unit(0, 2)), adapter.command(six(0), where=unit(0, 2)))
            found["its inquiry"] = adapter.command(six(0x12, 0, 0, 0, 36), 36, unit(0, 300))
            found["its sense"] = adapter.command(six(3, 0, 0, 0, 18), 18, unit(0, 5))
            answers.append((found, path.read_bytes()))
    mine, other = answers
    assert {name: (mine[0][name], other[0][name]) for name in mine[0] if mine[0][name] != other[0][name]} == {}
    assert mine[1] == other[1]


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Adapter]:
    path = image(tmp_path / "disk.img")
    with machine("vmrun", drives("disk", path), [{"id": "u", "driver": "scsi-hd", "drive": "d0"}]) as q:
        yield Adapter(q).ready()


@pytest.mark.parametrize(
    "cdb",
    [six(8, 0, 0, 7, 4), ten(0x28, 0, 7, 4), struct.pack(">BBIIxx", 0xA8, 0, 7, 4), sixteen(0x88, 0, 7, 4)],
    ids=["6", "10", "12", "16"],
)
@pytest.mark.parametrize("cut", [0, 100, 513])
def test_reads_of_every_form_reach_memory_in_pieces(disk: Adapter, cdb: bytes, cut: int) -> None:
    response, status, _, residual, data = disk.command(cdb, 2048, cut=cut)
    assert (response, status, residual) == (0, 0, 0)
    assert data == b"".join(struct.pack("<I", n) * 128 for n in range(7, 11))


def test_room_that_is_left_over_is_not_touched(disk: Adapter) -> None:
    _, _, _, left, data = disk.command(ten(0x28, 0, 5, 1), 2048)
    assert data == struct.pack("<I", 5) * 128 + b"\xdd" * 1536 and left == 1536
    assert disk.command(ten(0x2A, 0, 5, 1), bytes(2048))[3] == 1536


def test_zeros_without_data_are_written(disk: Adapter) -> None:
    assert disk.command(sixteen(0x93, 9, 40, 3))[:2] == (0, 0)
    assert disk.command(ten(0x28, 0, 40, 4), 2048)[4] == bytes(1536) + struct.pack("<I", 43) * 128


def test_a_reset_of_the_unit_is_told_once(disk: Adapter) -> None:
    assert disk.manage(5) == 0
    assert disk.command(six(0))[2][2:14:10] == bytes((6, 0x29))
    assert disk.command(six(0))[1] == 0


def test_both_ways_at_once_is_refused(disk: Adapter) -> None:
    q = disk.q
    q.write(HEAD, UNIT + bytes(11) + ten(0x28, 0, 0, 1).ljust(32, b"\0"))
    disk.put(COMMANDS, [(HEAD, 51, 0), (DATA, 512, 0), (ANSWER, 108, WRITE), (DATA, 512, WRITE)])
    disk.kick(COMMANDS)
    assert disk.answered(COMMANDS) and q.readb(ANSWER + 11) == 9


def test_a_response_is_written_whatever_its_pieces(disk: Adapter) -> None:
    q = disk.q
    q.write(HEAD, UNIT + bytes(11) + ten(0x28, 0, 5000, 1).ljust(32, b"\0"))
    q.memset(ANSWER, 200, 0xEE)
    pieces = [(ANSWER + n, 3, WRITE) for n in range(0, 36, 3)] + [(ANSWER + 36, 72, WRITE), (DATA, 512, WRITE)]
    disk.put(COMMANDS, [(HEAD, 51, 0), *pieces])
    disk.kick(COMMANDS)
    assert disk.answered(COMMANDS)
    sense = bytes((0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x21)).ljust(18, b"\0")
    assert q.read(ANSWER, 30) == struct.pack("<IIHBB", 18, 0, 0, 2, 0) + sense


BROKEN = [
    [(HEAD, 50, 0), (ANSWER, 108, WRITE)],
    [(HEAD, 51, 0), (ANSWER, 107, WRITE)],
    [(HEAD, 51, 0)],
    [(0xFFFFFFFFFFFFFFF0, 51, 0), (ANSWER, 108, WRITE)],
]


@pytest.mark.parametrize("pieces", BROKEN)
def test_a_request_cut_short_asks_for_a_reset(disk: Adapter, pieces: list[tuple[int, int, int]]) -> None:
    disk.put(COMMANDS, pieces)
    disk.kick(COMMANDS)
    assert disk.status() & NEEDS_RESET
    disk.start()
    assert disk.ready().command(six(0))[1] == 0


def test_the_guest_is_told_of_disks_that_come_and_go(tmp_path: pathlib.Path) -> None:
    spare = image(tmp_path / "spare.img")
    found = {**drives("disk", image(tmp_path / "d.img")), "d1": {"file": str(spare), "format": "raw"}}
    with machine("vmrun", found, [{"id": "u", "driver": "scsi-hd", "drive": "d0"}]) as q:
        adapter = Adapter(q).ready()
        adapter.offer_event(0)
        new = q.machine.plug({"id": "new", "driver": "scsi-hd", "drive": "d1", "scsi-id": 4, "lun": 300})
        assert adapter.answered(EVENTS, 1) and adapter.event(0) == (1, unit(4, 300), 1)
        assert adapter.command(six(0))[2][2:14] == bytes((6, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x3F, 0x0E))
        assert adapter.ready(unit(4, 300)).command(ten(0x28, 0, 3, 1), 512, unit(4, 300))[1] == 0
        q.machine.unplug(new)                                   # no buffer for this event
        q.machine.loop.run_once(0)
        assert "new" not in q.machine.devices and not adapter.answered(EVENTS, 1)
        adapter.offer_event(1)
        assert adapter.answered(EVENTS, 1) and adapter.event(1)[0] == 0x80000000
        assert adapter.command(six(0), where=unit(4, 300))[0] == 3
        q.machine.plug({"id": "new", "driver": "scsi-hd", "drive": "d1", "scsi-id": 4, "lun": 300})


def test_a_disk_goes_with_commands_under_way(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", drives("disk", image(tmp_path / "d.img")), [HARD]) as q:
        adapter = Adapter(q).ready()
        q.write(HEAD, UNIT + bytes(11) + ten(0x2A, 0, 0, 600).ljust(32, b"\0"))
        adapter.put(COMMANDS, [(HEAD, 51, 0), (DATA, 600 * 512, 0), (ANSWER, 108, WRITE)])
        adapter.kick(COMMANDS)
        q.machine.unplug(q.machine.devices["u"])
        q.machine.loop.run_once(0)
        assert adapter.answered(COMMANDS) and q.machine.devices["s"].chip.in_flight == 0
        assert q.readb(ANSWER + 11) in (0, 2)


def test_another_size_is_told(tmp_path: pathlib.Path) -> None:
    path = image(tmp_path / "d.img")
    with machine("vmrun", drives("disk", path), [{"id": "u", "driver": "scsi-hd", "drive": "d0"}]) as q:
        adapter = Adapter(q).ready()
        adapter.offer_event()
        drive = q.machine.board.drive("d0")
        drive.node.truncate(2 << 20)
        drive.resized()
        with q.machine.board.lock:
            q.machine.devices["u"].resized()
        assert adapter.answered(EVENTS, 1) and adapter.event() == (3, UNIT, 0x2A | 9 << 8)
        assert adapter.command(six(0))[2][12:14] == bytes((0x2A, 9))
        assert adapter.command(ten(0x25, 0, 0, 0), 8)[4] == struct.pack(">II", 4095, 512)


def test_the_guest_moves_the_tray(tmp_path: pathlib.Path) -> None:
    with machine("vmrun", drives("cd", image(tmp_path / "d.iso")), [COMPACT]) as q:
        told: list[tuple[str, Any]] = []
        q.machine.listen(lambda name, **data: told.append((name, data.get("tray-open"))))
        adapter = Adapter(q).ready()
        adapter.command(six(0x1B, 0, 0, 0, 2))
        adapter.command(six(0x1B, 0, 0, 0, 2))                  # it is open already
        adapter.command(six(0x1B, 0, 0, 0, 3))
        q.machine.loop.run_once(0)
        assert told == [("DEVICE_TRAY_MOVED", True), ("DEVICE_TRAY_MOVED", False)]


def test_a_disc_is_changed_while_it_runs(tmp_path: pathlib.Path) -> None:
    from vmrun.machine import media

    other = tmp_path / "other.iso"
    other.write_bytes(b"other" * 4096)
    with machine("vmrun", drives("cd", image(tmp_path / "d.iso")), [COMPACT]) as q:
        adapter = Adapter(q).ready()
        media.change(q.machine, media.find(q.machine, "", "u"), str(other), "raw")
        senses = [adapter.command(six(0))[2][2:14:10] for _ in range(3)]
        assert senses == [bytes((6, 0x3A)), bytes((6, 0x28)), b""]
        assert adapter.command(struct.pack(">BB2xB2xHx", 0x4A, 1, 0x10, 8), 8)[4][4:6] == bytes((2, 2))
        assert adapter.command(ten(0x28, 0, 0, 1), 2048)[4] == (b"other" * 410)[:2048]


def test_a_disk_that_cannot_be_written_says_so(tmp_path: pathlib.Path) -> None:
    found = {"d0": {"file": str(image(tmp_path / "d.img")), "format": "raw", "readonly": True}}
    with machine("vmrun", found, [{"id": "u", "driver": "scsi-hd", "drive": "d0"}]) as q:
        adapter = Adapter(q).ready()
        writes = (ten(0x2A, 0, 5, 1), BLOCK), (ten(0x41, 0, 5, 1), BLOCK), (ten(0x42, 0, 0, 24), ranges((1, 1)))
        for cdb, data in writes:
            assert adapter.command(cdb, data)[2][2:14:10] == bytes((7, 0x27))


def test_garbage_harms_nobody(disk: Adapter) -> None:
    """Random commands, lists, units and rings: the machine answers afterwards, and holds nothing."""
    chosen = random.Random(11)
    codes = [cdb[0] for _, cdb, _ in [*SAME, *DISK, *ROM]]
    q = disk.q
    for n in range(700):
        cdb = bytearray(chosen.randbytes(16))
        cdb[0] = chosen.choice(codes) if n % 8 else chosen.getrandbits(8)
        if chosen.random() < 0.7:
            cdb[2:9] = bytes(7)
            cdb[1] &= 0x1B
        where = unit(chosen.choice([0, 0, 0, 1, 255]), chosen.choice([0, 0, 1, 300]))
        size = chosen.choice([0, 8, 24, 255, 512, 4096, 65536])
        data: bytes | int = size if chosen.random() < 0.5 else chosen.randbytes(min(size, 4096))
        disk.command(bytes(cdb), data, where, cut=chosen.choice([0, 0, size // 30 + 1]))
        if n % 10 == 0:
            disk.manage(chosen.randrange(10), where, tag=chosen.randrange(3))
        if n % 50 == 0:
            q.write(RINGS, chosen.randbytes(256))
            for queue in (CONTROL, EVENTS, COMMANDS):
                q.write(disk.ring(queue, 1), chosen.randbytes(64))
                disk.kick(queue)
            disk.start()
    disk.start()
    assert disk.ready().command(six(0))[1] == 0
    q.settle()
    assert q.machine.devices["s"].chip.in_flight == 0 and q.machine.devices["s"].units.in_flight == 0


def test_state_goes_round(disk: Adapter) -> None:
    devices = disk.q.machine.devices
    disk.command(six(0x1E, 0, 0, 0, 1))
    states = {id: devices[id].save() for id in ("s", "u")}
    json.dumps(states["u"])
    for id, state in states.items():
        devices[id].reset()
        devices[id].load(state)
        assert devices[id].save() == state
    assert disk.command(ten(0x28, 0, 1, 1), 512)[1] == 0


def test_a_place_is_found_and_told() -> None:
    config = {
        "machine": "pc-i440fx-7.2", "memory": "16MiB",
        "drives": {f"d{n}": {"media": "cdrom"} for n in range(4)},
        "devices": [
            {"id": "s", "driver": "virtio-scsi-pci"},
            {"id": "a", "driver": "scsi-cd", "drive": "d0"},
            {"id": "b", "driver": "scsi-cd", "drive": "d1", "scsi-id": 0},
            {"id": "c", "driver": "scsi-cd", "drive": "d2", "scsi-id": 0},
            {"id": "d", "driver": "scsi-cd", "drive": "d3"},
        ],
    }  # fmt: skip
    with QTest(config) as q:
        places = {
            entry["id"]: (entry["props"]["scsi-id"], entry["props"]["lun"])
            for entry in q.machine.config["devices"]
            if entry["driver"] == "scsi-cd"
        }
    assert places == {"b": (0, 0), "c": (0, 1), "a": (1, 0), "d": (2, 0)}


def test_a_write_of_gigabytes_to_a_disc_costs_the_host_nothing(tmp_path: pathlib.Path) -> None:
    disc = {"file": str(image(tmp_path / "disc.iso")), "media": "cdrom", "format": "raw"}
    q = machine("vmrun", {"d0": disc}, [COMPACT])
    with q:
        card = Adapter(q)
        card.start()
        card.ready()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for code in (0xAA, 0xAE):
            _, status, sense, _, _ = card.command(struct.pack(">BBIIBB", code, 0, 0, 0x60000, 0, 0), bytes(512))
            assert (status, sense[2], sense[12]) == (2, 7, 0x27)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB
