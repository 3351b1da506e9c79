"""IDE: the task file and PIO (ATA/ATAPI-4), bus mastering (Intel's Programming Interface for Bus Master IDE)."""

from __future__ import annotations

import struct

import pytest

from tests.devices.conftest import SECTORS, pattern
from tests.devices.differences import DIFFERENCES

BASE, CONTROL, BM = 0x1F0, 0x3F6, 0xC000
ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = 1, 2, 3, 4, 5, 6, 7
BSY, DRDY, DF, DRQ, ERR = 0x80, 0x40, 0x20, 0x08, 0x01
ABRT = 0x04


def wait(q):
    for _ in range(5000):
        status = q.inb(BASE + STATUS)
        if not status & BSY:
            return status
        if hasattr(q, "settle"):
            q.settle()
    raise AssertionError("the drive stays busy")


def command(q, code, lba=0, count=1, device=0):
    q.outb(BASE + DEVICE, 0xE0 | device << 4 | lba >> 24 & 0x0F)
    q.outb(BASE + COUNT, count)
    q.outb(BASE + LOW, lba & 0xFF)
    q.outb(BASE + MID, lba >> 8 & 0xFF)
    q.outb(BASE + HIGH, lba >> 16 & 0xFF)
    q.outb(BASE + STATUS, code)
    return wait(q)


def words(q, count=256):
    answers = q.ask_all([f"inw {BASE:#x}"] * count)
    return b"".join(struct.pack("<H", int(answer, 16) & 0xFFFF) for answer in answers)


def test_the_signature_after_reset_is_a_disk_s(q):
    assert q.inb(BASE + STATUS) & ~0x10 == DRDY
    assert [q.inb(BASE + n) for n in (COUNT, LOW, MID, HIGH)] == [1, 1, 0, 0]


def test_while_software_reset_is_on_a_drive_is_busy(q, side):
    expected = DIFFERENCES["ide-srst"].of(side)
    q.outb(CONTROL, 0x04)
    for _ in range(1000):
        if q.inb(CONTROL) & BSY == expected:
            break
    assert q.inb(CONTROL) & BSY == expected


def test_software_reset_brings_the_signature_back(q):
    for register in (COUNT, LOW, MID, HIGH):
        q.outb(BASE + register, 0x5A)
    q.outb(CONTROL, 0x04)
    q.outb(CONTROL, 0x00)
    wait(q)
    assert [q.inb(BASE + n) for n in (ERROR, COUNT, LOW, MID, HIGH)] == [1, 1, 1, 0, 0]


@pytest.mark.parametrize("register", [COUNT, LOW, MID, HIGH])
def test_the_task_file_keeps_what_is_written(q, register):
    q.outb(BASE + register, 0xA5)
    assert q.inb(BASE + register) == 0xA5


def test_alternate_status_is_the_status(q):
    assert q.inb(CONTROL) == q.inb(BASE + STATUS)


def test_where_no_drive_is_the_status_is_0(q):
    q.outb(BASE + DEVICE, 0xF0)
    assert q.inb(BASE + STATUS) == 0


def test_a_channel_without_drives_does_not_ask_for_patience(q):
    assert q.inb(0x177) & (BSY | DRQ) == 0


def test_identify_tells_the_size(q):
    assert command(q, 0xEC) & (DRDY | DRQ | ERR) == DRDY | DRQ
    data = struct.unpack("<256H", words(q))
    assert data[60] | data[61] << 16 == SECTORS
    assert q.inb(BASE + STATUS) & DRQ == 0


def test_an_unknown_command_is_aborted(q):
    assert command(q, 0x84) & ERR
    assert q.inb(BASE + ERROR) == ABRT


def test_the_upper_codes_of_seek(q, side):
    assert command(q, 0x79) & ERR == DIFFERENCES["ide-seek"].of(side)


@pytest.mark.parametrize("lba", [0, 1, 77, SECTORS - 1])
def test_a_sector_is_read_by_pio(q, lba):
    assert command(q, 0x20, lba) & (DRQ | ERR) == DRQ
    assert words(q) == pattern(lba)


def test_several_sectors_come_one_by_one(q):
    command(q, 0x20, 5, 3)
    for lba in (5, 6, 7):
        assert wait(q) & DRQ
        assert words(q) == pattern(lba)
    assert wait(q) & (DRQ | ERR) == 0


def test_read_multiple_gives_its_block_at_once(q):
    command(q, 0xC6, count=4)
    command(q, 0xC4, 9, 4)
    assert words(q, 1024) == b"".join(pattern(9 + n) for n in range(4))


def test_a_sector_is_written_by_pio(q):
    assert command(q, 0x30, 12) & (DRQ | ERR) == DRQ
    q.ask_all([f"outw {BASE:#x} {n * 3 & 0xFFFF:#x}" for n in range(256)])
    assert wait(q) & (DRQ | ERR) == 0
    command(q, 0x20, 12)
    assert words(q) == b"".join(struct.pack("<H", n * 3 & 0xFFFF) for n in range(256))


def test_48_bit_addresses(q):
    for register, values in ((COUNT, (0, 1)), (LOW, (0, 33)), (MID, (0, 0)), (HIGH, (0, 0))):
        for value in values:
            q.outb(BASE + register, value)
    q.outb(BASE + DEVICE, 0xE0)
    q.outb(BASE + STATUS, 0x24)
    assert wait(q) & DRQ
    assert words(q) == pattern(33)


def test_past_the_end_is_an_error(q):
    assert command(q, 0x20, SECTORS) & ERR
    assert q.inb(BASE + STATUS) & DRQ == 0


def test_read_native_max_address(q):
    command(q, 0xF8)
    low, mid, high, device = (q.inb(BASE + n) for n in (LOW, MID, HIGH, DEVICE))
    assert low | mid << 8 | high << 16 | (device & 0x0F) << 24 == SECTORS - 1


@pytest.mark.parametrize("code", [0xE7, 0xEA, 0x91, 0x10, 0x40, 0xE1, 0xE3])
def test_commands_without_data_end_well(q, code):
    assert command(q, code) & (DRQ | ERR | BSY) == 0


def test_the_power_mode_is_active(q):
    command(q, 0xE5)
    assert q.inb(BASE + COUNT) == 0xFF


# --- bus mastering ----------------------------------------------------------------------------------------------


def transfer(q, code, lba, entries, write=False, enabled=True):
    """Run a DMA command; (bus master status, drive status). enabled: the function may be a bus master."""
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 5 if enabled else 1, 2)
    q.write(0x8000, b"".join(struct.pack("<II", addr, size) for addr, size in entries))
    q.outl(BM + 4, 0x8000)
    q.outb(BM + 2, 0x06)
    q.outb(BASE + DEVICE, 0xE0)
    q.outb(BASE + COUNT, 2)
    for register, value in ((LOW, lba), (MID, 0), (HIGH, 0)):
        q.outb(BASE + register, value)
    q.outb(BM, 0x00 if write else 0x08)
    q.outb(BASE + STATUS, code)
    q.outb(BM, 0x01 if write else 0x09)
    for _ in range(5000):
        status = q.inb(BM + 2)
        if not status & 1 or status & 4:
            break
        if hasattr(q, "settle"):
            q.settle()
    drive = q.inb(CONTROL)
    q.outb(BM, 0)
    return status, drive


END = 0x80000000


def test_dma_reads_into_the_places_of_the_table(q):
    status, drive = transfer(q, 0xC8, 40, [(0x10000, 512), (0x20000, END | 512)])
    assert status & 0x07 == 0x04
    assert drive & (BSY | DRQ | ERR) == 0
    assert q.read(0x10000, 512) == pattern(40)
    assert q.read(0x20000, 512) == pattern(41)


def test_dma_writes_from_the_places_of_the_table(q):
    q.write(0x10000, bytes(range(256)) * 4)
    status, _ = transfer(q, 0xCA, 50, [(0x10000, END | 1024)], write=True)
    assert status & 0x07 == 0x04
    command(q, 0x20, 51)
    assert words(q) == bytes(range(256)) * 2


def test_a_table_longer_than_the_transfer_leaves_it_active_with_its_interrupt(q):
    for rest in ([(0x10000, END | 4096)], [(0x10000, 1024), (0x20000, END | 2)], [(0x10000, END)], [(0x10000, 1024)]):
        status, drive = transfer(q, 0xC8, 40, rest)
        assert (status & 0x07, drive & (BSY | DRQ | ERR)) == (0x05, 0), rest
        assert q.read(0x10000, 512) == pattern(40)


def test_a_table_shorter_than_the_transfer_ends_it_without_an_interrupt(q):
    status, drive = transfer(q, 0xC8, 40, [(0x10000, 512), (0x20000, END | 256)])
    assert (status & 0x07, drive & (BSY | DRQ | ERR)) == (0, 0)


def test_a_transfer_without_bus_mastering_moves_nothing_and_stays_active(q):
    q.write(0x10000, b"\x11" * 512)
    status, drive = transfer(q, 0xC8, 40, [(0x10000, END | 1024)], enabled=False)
    assert (status & 0x07, drive & (BSY | DRQ | ERR)) == (0x05, 0)
    assert q.read(0x10000, 512) == b"\x11" * 512


def test_without_bus_mastering_enabled_the_registers_still_answer(q):
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 1, 2)
    q.outl(BM + 4, 0x12345678)
    assert q.inl(BM + 4) == 0x12345678


def test_interrupt_and_error_are_cleared_by_ones_and_the_drive_bits_kept(q):
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 1, 2)
    q.outb(BM + 2, 0x66)
    assert q.inb(BM + 2) & 0x66 == 0x60


def test_the_end_of_a_read_interrupts_and_the_status_is_the_answer(timed):
    q = timed
    q.intercept_in("pic1")
    q.outb(BASE + DEVICE, 0xE0)
    command(q, 0xEC)
    assert (6, 1) in q.irq_log
    q.inb(BASE + STATUS)
    assert q.irqs[6] == 0


def test_nien_keeps_the_interrupt_back(timed):
    q = timed
    q.intercept_in("pic1")
    q.outb(CONTROL, 0x02)
    command(q, 0xEC)
    assert (6, 1) not in q.irq_log


@pytest.mark.parametrize("letter", "bwl")
def test_the_bus_master_s_ports_decode_accesses_of_every_size_alike(pair, letter):
    ones = {"b": "0x5a", "w": "0x5a5a", "l": "0x5a5a5a5a"}[letter]
    for offset in range(16):
        answers = []
        for q in pair:
            q.outl(0xCF8, 0x80000920)
            q.outl(0xCFC, BM | 1)
            q.outl(0xCF8, 0x80000904)
            q.outw(0xCFC, 5)
            q.outl(BM + 4, 0x12345678)
            q.outb(BM + 2, 0x66)
            reads = [q.ask(f"in{letter} {BM + n:#x}") for n in range(16 if letter == "b" else 13)]
            q.ask(f"out{letter} {BM + min(offset, 12):#x} {ones}")
            answers.append((reads, [q.inb(BM + n) for n in range(16)]))
            q.outb(BM, 0)
            q.outb(BM + 8, 0)
        assert answers[0] == answers[1], offset


# --- TRIM -----------------------------------------------------------------------------------------------------


def trim(q, ranges, sectors=1, high=True):
    """DATA SET MANAGEMENT by DMA; the drive's status. high: the high bytes of registers are written first."""
    rows = b"".join(struct.pack("<Q", lba | count << 48) for lba, count in ranges)
    q.write(0x10000, rows.ljust(512 * sectors, b"\0"))
    q.pci_write(1, 1, 0x20, BM)
    q.pci_write(1, 1, 4, 5, 2)
    q.write(0x8000, struct.pack("<II", 0x10000, END | 512 * sectors))
    q.outl(BM + 4, 0x8000)
    q.outb(BM + 2, 0x06)
    q.outb(BASE + DEVICE, 0xE0)
    for register, value in ((COUNT, sectors), (ERROR, 1), (LOW, 0), (MID, 0), (HIGH, 0)):
        if high:
            q.outb(BASE + register, 0)
        q.outb(BASE + register, value)
    q.outb(BM, 0)
    q.outb(BASE + STATUS, 0x06)
    q.outb(BM, 1)
    for _ in range(5000):
        status = wait(q)
        if not status & DRQ:
            break
    return status


def test_trim_takes_ranges_on_the_disk(q):
    for high in (True, False):
        assert trim(q, [(0, 8), (100, 0), (SECTORS - 8, 8)], high=high) & (BSY | DRQ | ERR) == 0


def test_trim_behind_the_end_is_aborted(q):
    assert trim(q, [(0, 8), (SECTORS - 7, 8)]) & (BSY | ERR) == ERR
    assert q.inb(BASE + ERROR) & ABRT


def test_a_trimmed_sector_is_given_back(timed, disk):
    timed.machine.board.drives["d"].discards = True
    assert trim(timed, [(16, 16), (2000, 1)]) & ERR == 0
    data = disk.read_bytes()
    assert data[16 * 512 : 32 * 512] == bytes(16 * 512)
    assert data[15 * 512 : 16 * 512] == pattern(15) and data[32 * 512 : 33 * 512] == pattern(32)


# --- SMART ----------------------------------------------------------------------------------------------------


def smart(q, feature, sector=0, key=(0x4F, 0xC2)):
    for register, value in ((ERROR, feature), (COUNT, 1), (LOW, sector), (MID, key[0]), (HIGH, key[1])):
        q.outb(BASE + register, value)
    q.outb(BASE + STATUS, 0xB0)
    return wait(q)


def test_smart_answers_as_qemu_s(pair):
    found = []
    for q in pair:
        q.outb(BASE + DEVICE, 0xE0)
        answers = []
        for feature, sector in (
            *((0xD0, 0), (0xD1, 0), (0xD5, 0), (0xD5, 1), (0xD5, 6), (0xDA, 0), (0xD3, 0), (0xD4, 0), (0xD4, 1)),
            *((0xD4, 2), (0xD4, 3), (0xD5, 6), (0xD2, 0), (0xD0, 0), (0xD2, 0xF1), (0xD2, 1), (0xD0, 0)),
            *((0xD9, 0), (0xD0, 0)),
            *((0xDA, 0), (0xD8, 0), (0xDA, 0), (0xD6, 0), (0xDB, 0), (0x00, 0)),
        ):
            status = smart(q, feature, sector)
            answers.append((feature, sector, status, words(q).hex() if status & DRQ else ""))
            answers.append([q.inb(BASE + n) for n in (ERROR, COUNT, LOW, MID, HIGH, STATUS)])
        answers.append(smart(q, 0xDA, key=(0, 0)))
        found.append(answers)
    assert found[0] == found[1]


def test_smart_remembers_self_tests(q):
    q.outb(BASE + DEVICE, 0xE0)
    for _ in range(2):
        assert smart(q, 0xD4, 1) & ERR == 0
    assert smart(q, 0xD5, 6) & DRQ
    data = words(q)
    assert data[508] == 2 and data[2] == data[26] == 1
    assert sum(data) & 0xFF == 0


@pytest.mark.parametrize(("code", "error"), [(0xF5, 0), (0xF1, 4), (0xF6, 4)])
def test_security_can_be_frozen_and_that_is_all(q, code, error):
    status = command(q, code)
    assert (status & ERR, q.inb(BASE + ERROR)) == (1 if error else 0, error)


def test_diagnostics_leave_the_first_device_selected(q, side):
    q.outb(BASE + DEVICE, 0xE5)
    q.outb(BASE + STATUS, 0x90)
    wait(q)
    assert [q.inb(BASE + n) for n in (ERROR, COUNT, LOW, MID, HIGH, DEVICE)] == [1, 1, 1, 0, 0, 0xA0]
    if side == "vmrun":  # QEMU's absent device hears nothing
        q.outb(BASE + DEVICE, 0xF5)
        q.outb(BASE + STATUS, 0x90)
        wait(q)
        assert q.inb(BASE + DEVICE) == 0xA0
