"""virtio-blk through rings of each kind: requests, errors, what a broken ring does, state."""

from __future__ import annotations

import os
import pathlib
import random
import struct
from collections.abc import Iterator

import pytest

from tests.unit.virtio.driver import (
    COMMON,
    CONFIG,
    DATA,
    DISCARD,
    EVENT_IDX,
    FLUSH,
    GET_ID,
    IN,
    INDIRECT,
    NEXT,
    OUT,
    PACKED,
    RINGS,
    TABLE,
    VERSION_1,
    WRITE,
    ZEROES,
    Disk,
)  # fmt: skip

SECTORS = 512
OK, ERROR, UNSUPPORTED = 0, 1, 2
NEEDS_RESET = 0x40
KINDS = [
    pytest.param((VERSION_1, ""), id="split"),
    pytest.param((VERSION_1 | EVENT_IDX | INDIRECT, ""), id="split-event"),
    pytest.param((VERSION_1 | PACKED | INDIRECT, ""), id="packed"),
    pytest.param((VERSION_1 | PACKED | EVENT_IDX | INDIRECT, ""), id="packed-event"),
    pytest.param((VERSION_1, "t0"), id="thread"),
    pytest.param((VERSION_1 | PACKED | EVENT_IDX | INDIRECT, "t0"), id="thread-packed-event"),
]


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(bytes([n & 0xFF]) * 512 for n in range(SECTORS)))
    return path


@pytest.fixture(params=KINDS)
def disk(request: pytest.FixtureRequest, image: pathlib.Path) -> Iterator[Disk]:
    features, thread = request.param
    with Disk(image, features, serial="SN-42", **({"iothread": thread} if thread else {})) as made:
        yield made


def test_reads_are_the_images(disk: Disk) -> None:
    for sector in range(0, 40):
        status, data = disk.request(IN, sector, 512)
        assert status == OK and data == bytes([sector]) * 512


def test_pieces_of_any_length_make_one_transfer(disk: Disk) -> None:
    status, data = disk.request(IN, 3, 1024, cut=100)
    assert status == OK and data == bytes([3]) * 512 + bytes([4]) * 512


def test_writes_reach_the_image(disk: Disk, image: pathlib.Path) -> None:
    block = os.urandom(1536)
    assert disk.request(OUT, 7, block, cut=700)[0] == OK
    assert disk.request(FLUSH, 0)[0] == OK
    assert image.read_bytes()[7 * 512 : 10 * 512] == block


def test_indirect_tables(disk: Disk) -> None:
    if disk.features & INDIRECT:
        for _ in range(40):
            assert disk.request(IN, 5, 512, cut=64, indirect=True) == (OK, bytes([5]) * 512)


@pytest.mark.parametrize(
    ("type", "sector", "size", "status"),
    [
        (IN, SECTORS, 512, ERROR),
        (IN, SECTORS - 1, 1024, ERROR),
        (IN, 2**64 - 1, 512, ERROR),
        (IN, 2**55, 512, ERROR),
        (IN, 0, 100, ERROR),
        (2, 0, 512, UNSUPPORTED),
        (99, 0, 512, UNSUPPORTED),
    ],
)
def test_wrong_requests_get_their_status(disk: Disk, type: int, sector: int, size: int, status: int) -> None:
    assert disk.request(type, sector, size)[0] == status
    assert disk.request(IN, 1, 512) == (OK, b"\1" * 512)


def test_the_serial_number_is_told(disk: Disk) -> None:
    assert disk.request(GET_ID, 0, 20) == (OK, b"SN-42".ljust(20, b"\0"))
    assert disk.request(GET_ID, 0, 3) == (OK, b"SN-")


def span(sector: int, count: int, flags: int = 0) -> bytes:
    return struct.pack("<QII", sector, count, flags)


def test_zeroes_are_written(disk: Disk, image: pathlib.Path) -> None:
    assert disk.request(ZEROES, 0, span(8, 2, 1))[0] == OK
    data = image.read_bytes()
    assert data[8 * 512 : 10 * 512] == bytes(1024) and data[10 * 512] == 10 and data[8 * 512 - 1] == 7


@pytest.mark.parametrize(
    ("type", "data", "status"),
    [
        (DISCARD, span(8, 2), OK),
        (DISCARD, span(8, 2, 1), UNSUPPORTED),
        (DISCARD, span(8, 2) * 2, UNSUPPORTED),
        (DISCARD, span(SECTORS, 1), ERROR),
        (DISCARD, span(0, 0xFFFFFFFF), ERROR),
        (ZEROES, span(2**64 - 1, 2), ERROR),
        (ZEROES, span(8, 2, 2), UNSUPPORTED),
    ],
)
def test_ranges_are_checked(disk: Disk, type: int, data: bytes, status: int) -> None:
    assert disk.request(type, 0, data)[0] == status


def test_the_cache_can_be_switched(disk: Disk) -> None:
    backend = disk.q.machine.board.drives["d0"]
    assert disk.q.readb(CONFIG + 32) == 0 and not backend.write_cache  # a driver that cannot flush
    disk.features |= 1 << 11
    disk.start()
    assert disk.q.readb(CONFIG + 32) == 1 and backend.write_cache
    disk.q.writeb(CONFIG + 32, 0)
    assert disk.q.readb(CONFIG + 32) == 0 and not backend.write_cache
    disk.q.writel(CONFIG, 0)
    assert disk.q.readl(CONFIG) == SECTORS


def test_a_reset_starts_over(disk: Disk) -> None:
    disk.request(IN, 0, 512)
    disk.start()
    assert disk.request(IN, 2, 512) == (OK, b"\2" * 512)


def test_state_goes_round(disk: Disk) -> None:
    disk.request(IN, 0, 512)
    device = disk.q.machine.devices["disk"]
    disk.pause()
    state = device.save()
    device.reset()
    device.load(state)
    assert device.save() == state
    disk.resume()
    assert disk.request(IN, 2, 512) == (OK, b"\2" * 512)


BROKEN = [
    pytest.param([(DATA, 16, 0)], id="no-status"),
    pytest.param([(DATA, 8, 0), (DATA + 0xF0, 1, WRITE)], id="short-header"),
    pytest.param([(DATA, 16, 0), (DATA + 0xF0, 1, WRITE), (DATA, 16, 0)], id="read-after-write"),
    pytest.param([(DATA, 0, 0), (DATA + 0xF0, 1, WRITE)], id="empty-piece"),
    pytest.param([(DATA, 24, TABLE)], id="table-of-odd-size"),
    pytest.param([(DATA, 0, TABLE)], id="empty-table"),
    pytest.param([(DATA, 16 * 2000, TABLE)], id="huge-table"),
    pytest.param([(0xFFFFFFFFFFFFFFF8, 16, 0), (DATA + 0xF0, 1, WRITE)], id="wraps"),
    pytest.param([(COMMON, 16, 0), (DATA + 0xF0, 1, WRITE)], id="registers"),
]


@pytest.mark.parametrize("pieces", BROKEN)
def test_a_broken_request_asks_for_a_reset_and_gets_one(disk: Disk, pieces: list[tuple[int, int, int]]) -> None:
    disk.q.write(DATA, struct.pack("<IIQ", IN, 0, 0))
    disk.put(pieces)
    disk.kick()
    assert disk.status() & NEEDS_RESET
    assert disk.request(IN, 0, 512)[0] is None
    disk.start()
    assert disk.status() == 15 and disk.request(IN, 2, 512) == (OK, b"\2" * 512)


def test_a_split_ring_that_goes_in_a_circle_is_broken(image: pathlib.Path) -> None:
    with Disk(image) as disk:
        disk.q.write(RINGS, struct.pack("<QIHH", DATA, 16, NEXT, 1) + struct.pack("<QIHH", DATA, 16, NEXT, 0))
        disk.q.writew(disk.avail + 4, 0)
        disk.q.writew(disk.avail + 2, 1)
        disk.kick()
        assert disk.status() & NEEDS_RESET


@pytest.mark.parametrize("index", [17, 0x8000, 0xFFFF])
def test_an_index_too_far_ahead_is_broken(image: pathlib.Path, index: int) -> None:
    with Disk(image) as disk:
        disk.q.writew(disk.avail + 2, index)
        disk.kick()
        assert disk.status() & NEEDS_RESET


def test_garbage_in_the_rings_harms_nobody(disk: Disk) -> None:
    """Random descriptors and indexes, thousands of them: the machine answers afterwards."""
    chosen = random.Random(disk.features)
    q = disk.q
    for _ in range(150):
        rows = []
        for _ in range(disk.size):
            addr = chosen.choice([DATA, DATA + 16, RINGS, COMMON, chosen.getrandbits(64), 0xFFFFF0, 0])
            length = chosen.choice([0, 1, 16, 17, 512, 4096, 0xFFFFFFFF, chosen.getrandbits(32)])
            rows.append(struct.pack("<QIHH", addr, length, chosen.getrandbits(16), chosen.getrandbits(16)))
        q.write(RINGS, b"".join(rows))
        q.write(DATA, struct.pack("<IIQ", chosen.choice([0, 1, 4, 8, 11, 13, 5]), 0, chosen.randrange(600)))
        q.write(disk.avail, struct.pack("<HH", chosen.getrandbits(1), chosen.randrange(20)))
        q.write(disk.avail + 4, bytes(chosen.randrange(disk.size) if n & 1 == 0 else 0 for n in range(2 * disk.size)))
        disk.kick()
        if chosen.random() < 0.5 or disk.status() & NEEDS_RESET:
            disk.start()
    disk.start()
    assert disk.request(IN, 300, 512)[0] == OK


def test_queue_registers_of_any_value_harm_nobody(disk: Disk) -> None:
    chosen = random.Random(3)
    for _ in range(1500):
        offset = chosen.choice([0, 8, 0xC, 0x10, 0x14, 0x16, 0x18, 0x1A, 0x1C, *range(0x20, 0x3C, 2)])
        value = chosen.choice([0, 1, 4, 15, 0xFFFF, chosen.getrandbits(32)])
        disk.q.ask(f"write{chosen.choice('bwl')} {COMMON + offset:#x} {value:#x}")
        if chosen.random() < 0.1:
            disk.kick()
    disk.start()
    assert disk.request(IN, 300, 512)[0] == OK
