"""The ATA channel on a real image: PIO, multiple, DMA, addresses, errors, reset.

Constants are those of ATA/ATAPI-6 and of the PIIX3 data sheet.
"""

from __future__ import annotations

import pathlib
import random
import struct
from collections.abc import Iterator

import pytest
from accel.ram import DirtyLog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.board import Driven

SECTORS = 4096
BSY, DRDY, DRQ, ERR = 0x80, 0x40, 0x08, 0x01
ABRT = 0x04
BM = 0xC000


def content(sector: int) -> bytes:
    return struct.pack("<I", sector) * 128


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    (tmp_path / "disk.img").write_bytes(b"".join(content(n) for n in range(SECTORS)))
    with Driven(tmp_path, machine="rhel6.3.0", memory="64MiB", disks=["disk.img"]) as machine:
        machine.config(1, 1, 0x20, BM | 1)
        machine.config(1, 1, 4, 5)  # I/O and bus mastering
        yield machine


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "disk.img"


def status(pc: Driven) -> int:
    pc.settle()
    return pc.inb(0x3F6)


def command(pc: Driven, code: int, lba: int, count: int, *, ext: bool = False) -> None:
    if ext:
        for port, value in ((0x1F2, count >> 8), (0x1F3, lba >> 24), (0x1F4, lba >> 32), (0x1F5, lba >> 40)):
            pc.outb(port, value & 0xFF)
    pc.outb(0x1F2, count & 0xFF)
    for n in range(3):
        pc.outb(0x1F3 + n, lba >> (8 * n) & 0xFF)
    pc.outb(0x1F6, 0xE0 | (0 if ext else lba >> 24 & 15))
    pc.outb(0x1F7, code)


def read_block(pc: Driven, words: int) -> bytes:
    return b"".join(struct.pack("<H", pc.inw(0x1F0)) for _ in range(words))


def dma(pc: Driven, code: int, lba: int, count: int, table: list[tuple[int, int]], to_memory: bool) -> int:
    """Run a DMA command through descriptors [(address, bytes)]; the bus-master status."""
    entries = b"".join(
        struct.pack("<II", address, (size & 0xFFFF) | (0x80000000 if n == len(table) - 1 else 0))
        for n, (address, size) in enumerate(table)
    )
    pc.write(0x8000, entries)
    pc.outl(BM + 4, 0x8000)
    pc.outb(BM + 2, 0x06)
    pc.outb(BM, 8 if to_memory else 0)
    command(pc, code, lba, count)
    pc.outb(BM, (8 if to_memory else 0) | 1)
    pc.settle()
    done = pc.inb(BM + 2)
    pc.outb(BM, 0)
    return done


@pytest.mark.parametrize(("code", "ext"), [(0x20, False), (0x24, True)])
def test_read_sectors_gives_the_image(pc: Driven, code: int, ext: bool) -> None:
    command(pc, code, 77, 3, ext=ext)
    for sector in (77, 78, 79):
        assert status(pc) & (BSY | DRQ | ERR) == DRQ
        assert read_block(pc, 256) == content(sector)
    assert status(pc) & (BSY | DRQ | ERR) == 0


def test_read_of_256_sectors_is_asked_for_with_0(pc: Driven) -> None:
    command(pc, 0x20, 0, 0)
    for sector in range(256):
        assert status(pc) & DRQ
        assert read_block(pc, 256) == content(sector)
    assert not status(pc) & DRQ


def test_read_multiple_moves_blocks_of_the_set_size(pc: Driven) -> None:
    pc.outb(0x1F2, 4)
    pc.outb(0x1F7, 0xC6)
    command(pc, 0xC4, 100, 6)
    assert status(pc) & DRQ
    assert read_block(pc, 1024) == b"".join(content(n) for n in range(100, 104))
    assert status(pc) & DRQ
    assert read_block(pc, 512) == content(104) + content(105)
    assert not status(pc) & DRQ


def test_write_sectors_reaches_the_image(pc: Driven, image: pathlib.Path) -> None:
    command(pc, 0x30, 9, 2)
    for n in range(2):
        assert status(pc) & DRQ
        for word in range(256):
            pc.outw(0x1F0, (word + n) & 0xFFFF)
    assert status(pc) & (BSY | DRQ | ERR) == 0
    pc.outb(0x1F7, 0xE7)
    status(pc)
    data = image.read_bytes()
    assert data[9 * 512 : 10 * 512] == struct.pack("<256H", *range(256))
    assert data[10 * 512 : 11 * 512] == struct.pack("<256H", *range(1, 257))
    assert data[8 * 512 : 9 * 512] == content(8) and data[11 * 512 : 12 * 512] == content(11)


def test_chs_addresses_follow_the_translation(pc: Driven) -> None:
    pc.outb(0x1F6, 0xA0 | 3)  # 4 heads
    pc.outb(0x1F2, 17)  # 17 sectors
    pc.outb(0x1F7, 0x91)
    for port, value in ((0x1F2, 1), (0x1F3, 5), (0x1F4, 2), (0x1F5, 0), (0x1F6, 0xA0 | 1)):
        pc.outb(port, value)
    pc.outb(0x1F7, 0x20)
    assert status(pc) & DRQ
    assert read_block(pc, 256) == content((2 * 4 + 1) * 17 + 5 - 1)


@pytest.mark.parametrize(("lba", "count"), [(SECTORS, 1), (0xFFFFFFF, 1)])
def test_a_range_past_the_end_is_refused_before_any_data(pc: Driven, lba: int, count: int) -> None:
    command(pc, 0x20, lba, count)
    assert status(pc) & (ERR | DRQ) == ERR
    assert pc.inb(0x1F1) == ABRT


def test_a_range_over_the_end_gives_what_the_disk_has(pc: Driven) -> None:
    command(pc, 0x20, SECTORS - 1, 2)
    assert status(pc) & (ERR | DRQ) == DRQ
    assert read_block(pc, 256) == content(SECTORS - 1)
    assert status(pc) & (ERR | DRQ) == ERR
    assert pc.inb(0x1F1) == ABRT


def test_dma_reads_into_split_descriptors(pc: Driven) -> None:
    done = dma(pc, 0xC8, 50, 4, [(0x10000, 512), (0x20000, 1022), (0x30000, 514)], True)
    whole = b"".join(content(n) for n in range(50, 54))
    assert done & 0x07 == 0x04
    assert pc.read(0x10000, 512) == whole[:512]
    assert pc.read(0x20000, 1022) == whole[512:1534]
    assert pc.read(0x30000, 514) == whole[1534:]


def test_dma_writes_to_the_image(pc: Driven, image: pathlib.Path) -> None:
    data = random.Random(1).randbytes(65536)
    pc.write(0x100000, data)
    assert dma(pc, 0xCA, 200, 128, [(0x100000, 0)], False) & 0x07 == 0x04  # a count of 0 is 64 KiB
    pc.outb(0x1F7, 0xE7)
    status(pc)
    assert image.read_bytes()[200 * 512 : 328 * 512] == data


def test_descriptors_that_lead_nowhere_end_in_an_error(pc: Driven) -> None:
    done = dma(pc, 0xC8, 50, 2, [(0xF0000000, 1024)], True)
    assert not done & 1
    assert status(pc) & ERR


def test_descriptors_that_are_too_short_end_the_command_without_an_interrupt(pc: Driven) -> None:
    assert dma(pc, 0xC8, 50, 2, [(0x10000, 512)], True) & 0x07 == 0
    assert not status(pc) & (ERR | DRQ | BSY)


def test_without_bus_mastering_nothing_is_moved(pc: Driven) -> None:
    pc.config(1, 1, 4, 1)
    pc.write(0x10000, bytes(512))
    assert dma(pc, 0xC8, 50, 1, [(0x10000, 512)], True) & 0x07 == 0x05
    assert pc.read(0x10000, 512) == bytes(512)


def test_the_interrupt_is_raised_and_the_status_register_takes_it_back(pc: Driven) -> None:
    isa = pc.machine.devices["piix3"].buses["isa.0"]
    command(pc, 0x20, 1, 1)
    pc.settle()
    assert isa.irqs.level(14) == 1
    assert pc.inb(0x3F6) & DRQ and isa.irqs.level(14) == 1  # the alternate status leaves it
    pc.inb(0x1F7)
    assert isa.irqs.level(14) == 0


def test_nien_keeps_the_interrupt_low(pc: Driven) -> None:
    isa = pc.machine.devices["piix3"].buses["isa.0"]
    pc.outb(0x3F6, 2)
    command(pc, 0x20, 1, 1)
    pc.settle()
    assert isa.irqs.level(14) == 0


def test_software_reset_in_mid_transfer_shows_the_signature(pc: Driven) -> None:
    command(pc, 0x30, 5, 4)
    pc.outw(0x1F0, 0x1234)
    pc.outb(0x3F6, 4)
    assert pc.inb(0x3F6) & BSY
    pc.outb(0x3F6, 0)
    assert [pc.inb(0x1F1 + n) for n in range(5)] == [1, 1, 1, 0, 0]
    assert status(pc) & (BSY | DRQ) == 0


def test_an_absent_slave_is_silent(pc: Driven) -> None:
    pc.outb(0x1F6, 0xB0)
    assert pc.inb(0x1F7) == 0
    pc.outb(0x1F7, 0xEC)
    assert pc.inb(0x1F7) == 0


def test_machine_reset_during_disk_io_leaves_a_working_disk(pc: Driven) -> None:
    command(pc, 0x25, 0, 2048, ext=True)
    pc.machine.cold_reset()
    command(pc, 0x20, 3, 1)
    assert status(pc) & DRQ
    assert read_block(pc, 256) == content(3)


def test_a_reset_with_a_transfer_under_way_stays_busy_until_that_is_over(pc: Driven) -> None:
    pc.write(0x8000, struct.pack("<II", 0x100000, 0x80000000 | 512))
    pc.outl(BM + 4, 0x8000)
    with pc.board.lock:  # what the image did is told with this lock held
        command(pc, 0xCA, 9, 1)
        pc.outb(BM, 1)
        pc.outb(0x3F6, 4)
        pc.outb(0x3F6, 0)
        pc.outb(0x1F7, 0x20)  # not heard
        assert pc.inb(0x3F6) & BSY
        assert pc.board.ram.pins == 1
    assert status(pc) & (BSY | DRQ | ERR | DRDY) == DRDY
    assert [pc.inb(0x1F1 + n) for n in range(5)] == [1, 1, 1, 0, 0]
    assert pc.board.ram.pins == 0
    command(pc, 0x20, 3, 1)
    assert status(pc) & DRQ
    assert read_block(pc, 256) == content(3)


def test_memory_is_marked_when_the_sectors_are_there_and_nowhere_else(pc: Driven) -> None:
    log = DirtyLog(pc.board.ram)
    pc.write(0x8000, bytes(16))
    log.take()
    dma(pc, 0xC8, 0, 16, [(0x10000, 4096), (0x13000, 4096)], True)
    assert log.take() == [(0x8000, 0x1000), (0x10000, 0x1000), (0x13000, 0x1000)]
    pc.config(1, 1, 4, 1)
    dma(pc, 0xC8, 0, 16, [(0x10000, 4096), (0x13000, 4096)], True)
    assert log.take() == [(0x8000, 0x1000)]


@pytest.mark.parametrize("address", [0xFEC00000, 0xFEE00000, 0xFFFFF000])
def test_descriptors_that_name_registers_or_rom_end_in_an_error(pc: Driven, address: int) -> None:
    assert dma(pc, 0xC8, 50, 2, [(0x10000, 512), (address, 512)], True) & 0x03 == 0x02
    assert status(pc) & ERR


def test_garbage_in_every_register_touches_only_what_was_commanded(pc: Driven, image: pathlib.Path) -> None:
    rng = random.Random(7)
    before = image.read_bytes()
    written = {0x30, 0x31, 0x34, 0x39, 0x3C, 0xC5, 0xCA, 0xCB, 0x35}
    for _ in range(20000):
        port = rng.choice([*range(0x1F0, 0x1F8), 0x3F6, *range(0x170, 0x178), *range(BM, BM + 16)])
        value = rng.randrange(256)
        if port & 7 == 7 and value in written:
            continue
        pc.port(port, rng.choice([1, 2, 4]) if port & 7 == 0 else 1, value)
        pc.port(port, rng.choice([1, 2, 4]))
    pc.settle()
    assert image.read_bytes() == before


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 63), st.integers(1, 8), st.booleans()), min_size=1, max_size=12
    )
)
def test_any_mix_of_reads_and_writes_is_what_a_plain_file_would_give(
    pc: Driven, image: pathlib.Path, steps: list[tuple[bool, int, int, bool]]
) -> None:
    model = bytearray(image.read_bytes())
    for number, (write, lba, count, by_dma) in enumerate(steps):
        at, size = lba * 512, count * 512
        data = bytes((number + n) & 0xFF for n in range(size))
        if write and by_dma:
            pc.write(0x100000, data)
            assert dma(pc, 0xCA, lba, count, [(0x100000, size)], False) & 7 == 4
        elif write:
            command(pc, 0x30, lba, count)
            for n in range(0, size, 4):
                if n % 512 == 0:
                    assert status(pc) & DRQ
                pc.outl(0x1F0, int.from_bytes(data[n : n + 4], "little"))
            assert not status(pc) & (BSY | ERR)
        elif by_dma:
            assert dma(pc, 0xC8, lba, count, [(0x200000, size)], True) & 7 == 4
            assert pc.read(0x200000, size) == model[at : at + size]
        else:
            command(pc, 0x20, lba, count)
            for n in range(count):
                assert status(pc) & DRQ
                assert read_block(pc, 256) == model[at + 512 * n : at + 512 * (n + 1)]
        if write:
            model[at : at + size] = data
    assert image.read_bytes() == model
