"""IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data, and disk geometry.

Ref: ATA/ATAPI-6 8.15. The values are those that qemu-kvm's disks show, so that a guest finds the same disk.
"""

from __future__ import annotations

import struct

SECTOR = 512


def words(text: str, length: int) -> bytes:
    """ATA text: padded with blanks, the two characters of a word swapped."""
    data = text.encode("ascii", "replace")[:length].ljust(length)
    return b"".join(data[n + 1 : n + 2] + data[n : n + 1] for n in range(0, length, 2))


def guess_geometry(first_sector: bytes, total: int) -> tuple[int, int, int]:
    """(cylinders, heads, sectors): from the partition table's CHS ends where it has one, else 16 x 63."""
    if len(first_sector) >= SECTOR and first_sector[510:512] == b"\x55\xaa":
        for n in range(4):
            entry = first_sector[446 + 16 * n : 462 + 16 * n]
            count = struct.unpack_from("<I", entry, 12)[0]
            heads, sectors = entry[5] + 1, entry[6] & 63
            if count and entry[5] and sectors:
                cylinders = total // (heads * sectors)
                if 1 <= cylinders <= 16383 and heads <= 16:
                    return cylinders, heads, sectors
    return max(2, min(16383, total // (16 * 63))), 16, 63


def identify(
    total: int,
    geometry: tuple[int, int, int],
    *,
    serial: str,
    model: str,
    firmware: str,
    multiple: int = 16,
    physical_exponent: int = 0,
    discard: bool = False,
    wwn: int = 0,
    rotation_rate: int = 0,
) -> bytes:
    """512 bytes for a disk of `total` sectors."""
    cylinders, heads, sectors = geometry
    data = bytearray(SECTOR)

    def put(word: int, value: int) -> None:
        struct.pack_into("<H", data, 2 * word, value & 0xFFFF)

    old = min(cylinders * heads * sectors, 0xFFFFFFFF)
    lba28 = min(total, 0xFFFFFFF)
    for word, value in {
        0: 0x0040,
        1: cylinders,
        3: heads,
        4: SECTOR * sectors,
        5: SECTOR,
        6: sectors,
        20: 3,
        21: 512,
        22: 4,
        47: 0x8000 | multiple,
        48: 1,
        49: 0x0B00,
        51: 0x0200,
        52: 0x0200,
        53: 7,
        54: cylinders,
        55: heads,
        56: sectors,
        57: old,
        58: old >> 16,
        59: 0x0100 | multiple,
        60: lba28,
        61: lba28 >> 16,
        62: 7,
        63: 7,
        64: 3,
        65: 120,
        66: 120,
        67: 120,
        68: 120,
        69: 1 << 14 if discard else 0,
        80: 0xF0,
        81: 0x16,
        82: 0x4021,
        83: 0x7400,
        84: 0x4100 if wwn else 0x4000,
        85: 0x4021,
        86: 0x3400,
        87: 0x4100 if wwn else 0x4000,
        88: 0x203F,
        93: 0x6001,
        100: total,
        101: total >> 16,
        102: total >> 32,
        103: total >> 48,
        106: 0x6000 | physical_exponent,
        108: wwn >> 48,
        109: wwn >> 32,
        110: wwn >> 16,
        111: wwn,
        169: 1 if discard else 0,
        217: rotation_rate,
    }.items():
        put(word, value)
    data[20:40] = words(serial, 20)
    data[46:54] = words(firmware, 8)
    data[54:94] = words(model, 40)
    return bytes(data)


def identify_packet(*, serial: str, model: str, firmware: str, wwn: int = 0) -> bytes:
    """512 bytes for a CD-ROM drive: ATA/ATAPI-6 8.16."""
    data = bytearray(SECTOR)
    for word, value in {
        0: 0x85C0,  # ATAPI, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes
        20: 3,
        21: 512,
        22: 4,
        48: 1,
        49: 0x0300,
        53: 7,
        62: 7,
        63: 7,
        64: 3,
        65: 0xB4,
        66: 0xB4,
        67: 0x12C,
        68: 0xB4,
        71: 30,
        72: 30,
        80: 0x1E,
        84: 0x0100 if wwn else 0,
        87: 0x0100 if wwn else 0,
        88: 0x203F,
        108: wwn >> 48,
        109: wwn >> 32,
        110: wwn >> 16,
        111: wwn,
    }.items():
        struct.pack_into("<H", data, 2 * word, value & 0xFFFF)
    data[20:40] = words(serial, 20)
    data[46:54] = words(firmware, 8)
    data[54:94] = words(model, 40)
    return bytes(data)
