"""What the machine writes into the CMOS memory of its clock for the firmware: memory, boot order, disks,
processors.

Ref: IBM PC/AT Technical Reference (0x10-0x2f); Bochs' and SeaBIOS's use of 0x30-0x5f.
The clock's own registers belong to the clock.
"""

from __future__ import annotations

import os

from vmrun.core.floppies import CODES
from vmrun.firmware import parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.sections import DeviceRow, MachineData

BOOT_CODES = {"a": 1, "b": 1, "c": 2, "d": 3, "n": 4}
NONE, LBA, LARGE, RECHS = 0, 1, 2, 3  # translation of a disk's geometry, as 0x39 counts
_TRANSLATIONS = {"none": NONE, "lba": LBA, "large": LARGE, "rechs": RECHS}


def cells(machine: MachineData, disk_size: Callable[[str], int] | None = None) -> dict[int, int]:
    """Index → value of every cell that is written. `disk_size` gives a drive's bytes; without it there are
    no disks.
    """
    found = {**memory(machine), **boot(_order(machine), machine["boot"].get("floppy-check", True))}
    equipment = 0x02 | 0x04 * (parts.first(machine, "i8042") is not None)
    floppies = parts.floppy_drives(machine, disk_size)
    if floppies:
        equipment |= (len(floppies) - 1) << 6 | 0x01
    kinds = sum(CODES[kind] << (4 if unit == 0 else 0) for unit, kind in floppies.items())
    found |= {0x10: kinds, 0x14: equipment, 0x5F: (len(parts.present(machine["cpus"])) - 1) & 0xFF}
    if disk_size is not None:
        found |= disks(machine, disk_size)
    return found


def memory(machine: MachineData) -> dict[int, int]:
    """Base and extended memory in KiB, then what is above 16 MiB and above 4 GiB in 64 KiB."""
    low, high = parts.memory_below_4g(machine), parts.memory_above_4g(machine)
    base = min(low // 1024, 640)
    extended = min(max(low // 1024 - 1024, 0), 0xFFFF)
    above_16m = min(max(low - (16 << 20), 0) >> 16, 0xFFFF)
    found = {0x15: base, 0x16: base >> 8}
    found |= {0x17: extended, 0x18: extended >> 8, 0x30: extended, 0x31: extended >> 8}
    found |= {0x34: above_16m, 0x35: above_16m >> 8}
    for n in range(int(machine["firmware"].get("cmos", {}).get("high-ram-bytes", 3))):
        found[0x5B + n] = high >> (16 + 8 * n)
    return {index: value & 0xFF for index, value in found.items()}


def boot(order: str, floppy_check: bool = True) -> dict[int, int]:
    """Boot letters: the first two in 0x3d, the third in 0x38."""
    codes = [BOOT_CODES.get(letter, 0) for letter in order[:3]] + [0, 0, 0]
    return {0x3D: codes[1] << 4 | codes[0], 0x38: codes[2] << 4 | (not floppy_check)}


def _order(machine: MachineData) -> str:
    boot = machine.get("boot", {})
    return str(boot.get("once") or boot.get("order", "cad"))


# --- disks ----------------------------------------------------------------------------------------


def disks(machine: MachineData, disk_size: Callable[[str], int]) -> dict[int, int]:
    """Type 47 with its geometry for the disks of the first channel, and the translation of all four."""
    by_unit = bool(machine["firmware"].get("cmos", {}).get("disk-geometry") == "unit")
    found = {0x12: 0, 0x39: 0}
    for device in parts.with_driver(machine, "ide-hd", "ide-drive"):
        place = _place(machine, device)
        drive = device["props"].get("drive")
        settings = machine.get("drives", {}).get(drive, {}) if drive else {}
        if place is None or not drive or settings.get("media") == "cdrom":
            continue
        if (
            not by_unit
            and drive != f"drive-ide0-{place // 2}-{place % 2}"
            and drive != f"ide{place // 2}-hd{place % 2}"
        ):
            continue
        cylinders, heads, sectors, translation = geometry(device["props"], settings, disk_size(drive))
        found[0x39] |= translation << (2 * place)
        if place < 2:
            found[0x12] |= 0xF0 if place == 0 else 0x0F
            found[0x19 + place] = 47
            first = 0x1B + 9 * place
            control = 0xC0 | (heads > 8) << 3
            row = (
                cylinders & 0xFF,
                cylinders >> 8,
                heads,
                0xFF,
                0xFF,
                control,
                cylinders & 0xFF,
                cylinders >> 8,
                sectors,
            )
            found |= {first + n: value for n, value in enumerate(row)}
    return {index: value & 0xFF for index, value in found.items()}


def _place(machine: MachineData, device: DeviceRow) -> int | None:
    """0 to 3: primary master … secondary slave."""
    for controller in parts.with_driver(machine, "piix3-ide"):
        buses = list(controller.get("provides") or {})
        if device.get("bus") in buses:
            return 2 * buses.index(device["bus"]) + int(device["props"].get("unit") or 0)
    return None


def geometry(props: dict[str, Any], drive: dict[str, Any], size: int) -> tuple[int, int, int, int]:
    """(cylinders, heads, sectors, translation): as given, as the partition table implies, else from the
    size.
    """
    given = [int(props.get(name) or 0) for name in ("cyls", "heads", "secs")]
    if all(given):
        cylinders, heads, sectors = given
        translation = NONE if cylinders <= 1024 else LBA
    else:
        cylinders, heads, sectors, translation = _guess(size // 512, _first_sector(drive))
    named = str(props.get("bios-chs-trans") or "auto")
    return cylinders, heads, sectors, _TRANSLATIONS.get(named, translation)


def _guess(total: int, sector: bytes) -> tuple[int, int, int, int]:
    logical = _logical(total, sector)
    if logical is not None and logical[1] <= 16:
        return (*logical, NONE)
    cylinders = min(max(total // (16 * 63), 2), 16383)
    if logical is not None:
        # More than 16 heads in the partition table: it was made under a translation.
        return cylinders, 16, 63, LARGE if cylinders * 16 <= 131072 else LBA
    return cylinders, 16, 63, NONE if cylinders <= 1024 else LBA


def _logical(total: int, sector: bytes) -> tuple[int, int, int] | None:
    """The geometry under which a partition table was made: a partition ends at the end of a cylinder."""
    if len(sector) < 512 or sector[510:512] != b"\x55\xaa":
        return None
    for entry in range(0x1BE, 0x1FE, 16):
        count = int.from_bytes(sector[entry + 12 : entry + 16], "little")
        heads, sectors = sector[entry + 5] + 1, sector[entry + 6] & 63
        if count and heads > 1 and sectors:
            cylinders = total // (heads * sectors)
            if 1 <= cylinders <= 16383:
                return cylinders, heads, sectors
    return None


def _first_sector(drive: dict[str, Any]) -> bytes:
    """The master boot record of a raw image, without a back end; b'' when there is none to be had."""
    path = drive.get("file")
    if not path or drive.get("format", "raw") != "raw" or not os.path.isfile(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(512)
    except OSError:
        return b""
