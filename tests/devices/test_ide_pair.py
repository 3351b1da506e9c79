"""A disk and a CD-ROM drive on one IDE cable: who selects one in the middle of the other's command harms nobody."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.devices.scsi import image
from vmrun.testing import QTest

BASE, CONTROL, BUSMASTER = 0x1F0, 0x3F6, 0xC000
ERROR, COUNT, SECTOR, MID, HIGH, DEVICE, STATUS = range(1, 8)
DISK, DISC = 0xE0, 0xB0
PACKET, IDENTIFY, READ, WRITE = 0xA0, 0xEC, 0x20, 0x30
INQUIRY = bytes((0x12, 0, 0, 0, 36))
READ_10, READ_CD = struct.pack(">BxIxHx", 0x28, 0, 16), bytes((0xBE, 0, 0, 0, 0, 0, 0, 0, 16, 0xF8))
SELECT_10 = bytes((0x55, 0x10, 0, 0, 0, 0, 0, 0, 28))


@pytest.fixture
def q(tmp_path: pathlib.Path) -> Iterator[QTest]:
    iso = tmp_path / "disc.iso"
    iso.write_bytes(bytes(range(256)) * 8 * 64)
    drives = {
        "d": {"file": str(image(tmp_path / "disk.img")), "format": "raw"},
        "c": {"file": str(iso), "media": "cdrom", "readonly": True, "format": "raw"},
    }
    devices = [
        {"driver": driver, "id": driver, "drive": drive, "bus": "ide.0", "unit": unit}
        for unit, (driver, drive) in enumerate((("ide-hd", "d"), ("ide-cd", "c")))
    ]
    with QTest({"machine": "pc-i440fx-2.0", "memory": "64MiB", "drives": drives, "devices": devices}) as found:
        found.pci_write(1, 1, 0x20, BUSMASTER)
        found.pci_write(1, 1, 4, 5, 2)
        yield found


def command(q: QTest, device: int, code: int, feature: int = 0, count: int = 0, limit: int = 0) -> None:
    for register, value in (
        (DEVICE, device), (ERROR, feature), (COUNT, count), (SECTOR, 0), (MID, limit & 0xFF), (HIGH, limit >> 8),
        (STATUS, code),
    ):  # fmt: skip
        q.outb(BASE + register, value)


def give(q: QTest, packet: bytes) -> None:
    q.ask_all([f"outw {BASE:#x} {word:#x}" for word in struct.unpack("<6H", packet.ljust(12, b"\0"))])


def take(q: QTest, words: int) -> bytes:
    return struct.pack(f"<{words}H", *(int(word, 16) for word in q.ask_all([f"inw {BASE:#x}"] * words)))


def packet(q: QTest, cdb: bytes, limit: int = 0xFFFE, feature: int = 0) -> None:
    command(q, DISC, PACKET, feature, limit=limit)
    q.settle()
    give(q, cdb)


def before_the_packet(q: QTest) -> None:
    command(q, DISC, PACKET, limit=0xFFFE)
    q.outb(BASE + DEVICE, DISK)
    give(q, READ_10)


def before_its_data(q: QTest) -> None:
    packet(q, READ_10, limit=2048)
    q.outb(BASE + DEVICE, DISK)
    take(q, 20000)


def before_raw_data(q: QTest) -> None:
    packet(q, READ_CD, limit=2352)
    q.outb(BASE + DEVICE, DISK)
    take(q, 20000)


def before_the_bus_master(q: QTest) -> None:
    packet(q, READ_10, feature=1)
    q.outb(BASE + DEVICE, DISK)
    q.write(0x100000, struct.pack("<IHH", 0x200000, 0, 0x8000))
    q.outl(BUSMASTER + 4, 0x100000)
    q.outb(BUSMASTER, 9)
    q.settle()
    q.outb(BUSMASTER, 0)


def after_a_table_too_short(q: QTest) -> None:
    """The packet ends in an error; the disk's own command is no packet."""
    packet(q, READ_10, feature=1)
    q.write(0x100000, struct.pack("<IHH", 0x200000, 512, 0x8000))
    q.outl(BUSMASTER + 4, 0x100000)
    q.outb(BUSMASTER, 9)
    q.settle()
    q.outb(BUSMASTER, 0)
    assert q.inb(BASE + STATUS) & 1
    command(q, DISK, READ, count=8)
    q.settle()
    assert take(q, 2048) == b"".join(struct.pack("<I", n) * 128 for n in range(8))


def before_a_parameter_list(q: QTest) -> None:
    packet(q, SELECT_10)
    q.outb(BASE + DEVICE, DISK)
    q.ask_all([f"outw {BASE:#x} 0"] * 40)


def before_a_disks_data(q: QTest) -> None:
    command(q, DISK, READ, count=8)
    q.outb(BASE + DEVICE, DISC)
    q.settle()
    take(q, 3000)


def before_what_a_disk_is_given(q: QTest) -> None:
    command(q, DISK, WRITE, count=8)
    q.outb(BASE + DEVICE, DISC)
    q.settle()
    q.ask_all([f"outw {BASE:#x} 0"] * 3000)


WAYS = (
    before_the_packet, before_its_data, before_raw_data, before_the_bus_master, after_a_table_too_short,
    before_a_parameter_list, before_a_disks_data, before_what_a_disk_is_given,
)  # fmt: skip


@pytest.mark.parametrize("turn_to_the_other", WAYS)
def test_the_other_drive_is_selected_in_the_middle(q: QTest, turn_to_the_other: Callable[[QTest], None]) -> None:
    turn_to_the_other(q)
    q.settle()
    for value in (4, 0):
        q.outb(CONTROL, value)
    q.settle()
    command(q, DISK, IDENTIFY)
    q.settle()
    assert take(q, 256)[120:124] == struct.pack("<I", 2048)
    packet(q, INQUIRY)
    q.settle()
    assert take(q, 18)[8:24] == b"QEMU    QEMU DVD"
