"""IDE disks at their edges, vmrun's and QEMU's: the disk's end, registers written too early, modes and resets."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from tests.devices.conftest import SECTORS, pattern
from tests.devices.differences import DIFFERENCES
from tests.devices.test_ide import (
    ABRT,
    BASE,
    BM,
    BSY,
    CONTROL,
    COUNT,
    DEVICE,
    DRQ,
    END,
    ERR,
    ERROR,
    HIGH,
    LOW,
    MID,
    STATUS,
    command,
    transfer,
    wait,
    words,
)  # fmt: skip


def task_file(q: Any) -> list[int]:
    return [q.inb(BASE + n) for n in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)]


def give(q: Any, data: bytes) -> None:
    q.ask_all([f"outw {BASE:#x} {word:#x}" for word in struct.unpack(f"<{len(data) // 2}H", data)])


def over(q: Any) -> int:
    """The status when nothing is under way: QEMU shows DRQ without BSY while a bus master works."""
    for _ in range(100_000):
        status = int(q.inb(CONTROL))
        if not status & (BSY | DRQ):
            return status
        if hasattr(q, "settle"):
            q.settle()
    raise AssertionError("the command does not end")


def soft_reset(q: Any) -> None:
    q.outb(CONTROL, 0x06)
    q.outb(CONTROL, 0x02)
    wait(q)


def identify(q: Any) -> tuple[int, ...]:
    assert command(q, 0xEC) & DRQ
    return struct.unpack("<256H", words(q))


def test_a_read_over_the_end_gives_what_the_disk_has(q):
    assert command(q, 0x20, SECTORS - 2, 4) & DRQ
    assert words(q) == pattern(SECTORS - 2)
    assert wait(q) & DRQ
    assert words(q) == pattern(SECTORS - 1)
    assert wait(q) & (DRQ | ERR) == ERR
    assert task_file(q) == [ABRT, 2, SECTORS & 0xFF, SECTORS >> 8, 0, 0xE0]


def test_a_block_that_the_disk_s_end_cuts_is_not_read(q):
    assert command(q, 0xC6, 0, 4) & ERR == 0
    assert command(q, 0xC4, SECTORS - 6, 8) & DRQ
    assert words(q, 4 * 256) == b"".join(pattern(SECTORS - n) for n in (6, 5, 4, 3))
    assert wait(q) & (DRQ | ERR) == ERR
    assert q.inb(BASE + COUNT) == 4


def test_a_write_over_the_end_writes_what_the_disk_has(q):
    assert command(q, 0x30, SECTORS - 1, 2) & DRQ
    give(q, b"\x5a" * 512)
    assert wait(q) & (DRQ | ERR) == DRQ
    give(q, b"\xa5" * 512)
    assert wait(q) & (DRQ | ERR) == ERR
    assert task_file(q)[:2] == [ABRT, 1]
    command(q, 0x20, SECTORS - 1)
    assert words(q) == b"\x5a" * 512


@pytest.mark.parametrize("code", [0xC8, 0xCA])
def test_a_dma_over_the_end_waits_for_the_bus_master_and_tells_it(q, code):
    assert command(q, code, SECTORS - 1, 2) & (BSY | DRQ | ERR) == DRQ
    soft_reset(q)
    q.outb(CONTROL, 0)
    write = code == 0xCA
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 5, 2)
    q.write(0x8000, struct.pack("<II", 0x10000, END | 1024))
    q.outl(BM + 4, 0x8000)
    q.outb(BM + 2, 6)
    command(q, code, SECTORS - 1, 2)
    q.outb(BM, 1 if write else 9)
    assert over(q) & ERR
    assert (q.inb(BM + 2) & 7, q.inb(BASE + ERROR)) == (4, ABRT)
    assert transfer(q, code, 8, [(0x10000, END | 1024)], write)[0] & 7 == 4


def test_what_is_written_while_data_waits_is_not_heard(q):
    command(q, 0x20, 9, 2)
    before = task_file(q)
    for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE):
        q.outb(BASE + register, 0x5F)
    q.outb(BASE + STATUS, 0xE5)
    assert task_file(q) == before
    assert words(q) == pattern(9)


@pytest.mark.parametrize("mode", [0x10, 0x12, 0x22, 0x45, 0x0C, 0x30])
def test_a_transfer_mode_is_what_identify_says(pair, mode):
    found = []
    for q in pair:
        identify(q)  # QEMU keeps the first answer, and the modes in it
        q.outb(BASE + ERROR, 3)
        status = command(q, 0xEF, 0, mode)
        found.append((status & ERR, [identify(q)[n] for n in (62, 63, 88)]))
    assert found[0] == found[1]


def test_a_reset_brings_the_default_block_back(q):
    assert command(q, 0xC6, 0, 4) & ERR == 0
    soft_reset(q)
    assert command(q, 0xC4, 0, 8) & DRQ
    assert q.inb(BASE + COUNT) == 0
    assert words(q, 8 * 256) == b"".join(map(pattern, range(8)))
    assert wait(q) & (DRQ | ERR) == 0


@pytest.mark.parametrize(("code", "device"), [(0xF8, 0xA0), (0xF8, 0xE0), (0x27, 0xA0), (0x27, 0xE0)])
def test_the_last_address_is_told_as_the_device_register_asks(pair, code, device):
    found = []
    for q in pair:
        q.outb(BASE + DEVICE, device)
        q.outb(BASE + STATUS, code)
        wait(q)
        found.append(task_file(q))
    assert found[0] == found[1]


@pytest.mark.parametrize(("feature", "count"), [(1, 1), (1, 0), (3, 1), (0, 1)])
def test_what_a_trim_leaves_in_the_registers(pair, feature, count):
    found = []
    for q in pair:
        q.pci_write(1, 1, 0x20, BM)
        q.pci_write(1, 1, 4, 5, 2)
        q.write(0x8000, struct.pack("<II", 0x10000, END | 512))
        q.write(0x10000, struct.pack("<Q", 5 | 3 << 48).ljust(512, b"\0"))
        q.outl(BM + 4, 0x8000)
        q.outb(BM + 2, 6)
        q.outb(BASE + ERROR, feature)
        seen = [command(q, 0x06, 40, count)]
        q.outb(BM, 1)
        seen += [over(q), q.inb(BM + 2), *task_file(q)]
        found.append(seen)
    assert found[0] == found[1]


def test_a_track_without_sectors_is_refused(disk):
    from tests.devices.conftest import ours

    with ours(disk) as q:  # QEMU 7.2 divides by it
        q.outb(BASE + DEVICE, 0xA0)
        q.outb(BASE + COUNT, 0)
        q.outb(BASE + STATUS, 0x91)
        assert wait(q) & ERR
        assert [identify(q)[n] for n in (54, 55, 56)] == [identify(q)[n] for n in (1, 3, 6)]


def test_a_freeze_lock_leaves_no_count(q):
    command(q, 0xF5, 0, 7)
    assert q.inb(BASE + COUNT) == 0


def test_a_list_of_ranges_that_its_buffer_does_not_hold_is_refused(disk):
    from tests.devices.conftest import ours
    from vmrun.errors import StateError

    with ours(disk) as q:
        q.outb(BASE + ERROR, 1)
        assert command(q, 0x06, 0, 1) & DRQ
        channel = q.machine.board.devices["ide"].channels[0]
        state = channel.save()
        for left, good in ((255, True), (256, True), (257, False), (65536, False)):
            state["left"] = left
            if good:
                channel.load_state(state)
            else:
                with pytest.raises(StateError):
                    channel.load_state(state)


# --- what QEMU does otherwise ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "code", "lba", "count", "feature"),
    [
        (DIFFERENCES["ide-recalibrate"], 0x15, 0, 1, 0),
        (DIFFERENCES["ide-verify"], 0x40, SECTORS - 1, 2, 0),
        (DIFFERENCES["ide-mode"], 0xEF, 0, 0x23, 3),
    ],
)
def test_what_ends_otherwise(q, side, row, code, lba, count, feature):
    q.outb(BASE + ERROR, feature)
    assert command(q, code, lba, count) & ERR == row.of(side)


def test_a_sector_that_the_track_has_not(q, side):
    for register, value in ((DEVICE, 0xA0), (COUNT, 1), (LOW, 64), (MID, 0), (HIGH, 0), (STATUS, 0x20)):
        q.outb(BASE + register, value)
    assert wait(q) & ERR == DIFFERENCES["ide-track"].of(side)


def test_identify_tells_the_block_in_use(q, side):
    identify(q)
    command(q, 0xC6, 0, 4)
    assert identify(q)[59] == DIFFERENCES["ide-multiple"].of(side)


def test_identify_tells_the_geometry_in_use(q, side):
    identify(q)
    command(q, 0x91, 0, 9)
    assert identify(q)[56] == DIFFERENCES["ide-geometry"].of(side)


def test_a_reset_is_no_interrupt(q, side):
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 5, 2)
    q.outb(BM + 2, 6)
    q.outb(CONTROL, 4)
    q.outb(CONTROL, 0)
    wait(q)
    assert q.inb(BM + 2) & 4 == DIFFERENCES["ide-reset-interrupt"].of(side)


def test_bit_0_of_an_address_in_the_table(q, side):
    transfer(q, 0xC8, 40, [(0x10001, END | 1024)])
    assert q.read(0x10000, 513).find(pattern(40)[:16]) == DIFFERENCES["ide-odd"].of(side)
