"""What a firmware would leave in memory for a kernel, when there is none: the memory map, tables of the processor, BIOS
data, ACPI and MP tables, and 64 KiB of ROM.

    90000 boot parameters   91000 texts    98000 descriptors   98800 PVH start info    99000 page tables
    9fc00 extended BIOS data (a copy of the RSDP)    f0000 ROM: RSDP, MP table, reset vector
    top of RAM below 4 GiB: ACPI tables

Ref: ACPI 6.4, 5.2.5.1 and 15.1 (INT 15h, E820H); Intel SDM volume 3, chapters 3 and 4; IBM PC/AT Technical Reference.
"""

from __future__ import annotations

import struct

from vmrun.errors import BuildError
from vmrun.firmware import acpi, fwcfg, generation, linker, mptable, parts, tpm
from vmrun.firmware.elf import Piece

TYPE_CHECKING = False
if TYPE_CHECKING:

    from vmrun.config.sections import MachineData

    Row = tuple[int, int, int]

PARAMS_AT, TEXTS_AT, GDT_AT, INFO_AT, PAGES_AT = 0x90000, 0x91000, 0x98000, 0x98800, 0x99000
TEXTS_ROOM = GDT_AT - TEXTS_AT
TSS_AT, TSS_SIZE = GDT_AT + 0x100, 104
LOW_END, EBDA_AT, MEBIBYTE = 0x90000, 0x9FC00, 1 << 20
ROM_AT, ROM_SIZE, ROM_HIGH = 0xF0000, 0x10000, 0xFFFC0000
RAM, RESERVED, ACPI_DATA = 1, 2, 3
RSDP_AT, MP_AT = 0x40, 0x80  # in the ROM

CODE, DATA, TASK = 0x10, 0x18, 0x20  # selectors
FLAT_32 = {"code": 0x00CF9B000000FFFF, "data": 0x00CF93000000FFFF}
FLAT_64 = {"code": 0x00AF9B000000FFFF, "data": 0x00CF93000000FFFF}

# mov dx, cf9h; mov al, 6; out dx, al; mov al, feh; out 64h, al; cli; hlt; jmp $-1
RESET_CODE = bytes.fromhex("baf90cb006eeb0fee664faf4ebfd")
RESET_AT = 0xE05B

PM_WITH_TABLES, PM_WITHOUT = 0x600, 0xB000  # where firmwares of these types have the power management registers


# files that the tables' script names beside the tables: their bytes, which are the devices'
OTHERS = {generation.GUID_FILE: 4096, parts.NVDIMM_FILE: parts.NVDIMM_PAGE, tpm.LOG_FILE: parts.TPM_LOG}


class LowMemory:
    """rows: the memory map. rsdp, facs: addresses. rom: 64 KiB below 1 MiB and 4 GiB. pieces: what goes into RAM.
    others: where files of the devices lie; told: what is written to such files, as a firmware would.
    """

    __slots__ = ("facs", "others", "pieces", "pm_base", "rom", "rows", "rsdp", "rsdp_bytes", "told", "top")

    def __init__(self, machine: MachineData, kvm: bool) -> None:
        settled = machine["firmware"].get("acpi") == "tables"
        self.pm_base = PM_WITH_TABLES if settled else PM_WITHOUT
        files = acpi.build(machine, self.pm_base).files()
        script = files.pop(acpi.LOADER)
        others = [name for name in linker.allocated(script) if name not in files]
        files |= {name: bytes(OTHERS[name]) for name in others}
        self.rsdp = ROM_AT + RSDP_AT
        self.top, places = parts.memory_below_4g(machine), {acpi.RSDP: self.rsdp}
        for name, data in files.items():
            if name != acpi.RSDP:
                places[name] = self.top = (self.top - len(data)) & ~0xFFF
        if self.top <= MEBIBYTE:
            raise BuildError(
                "there is no room above 1 MiB for a kernel",
                code="VR0715",
                path="memory",
                remedy="give the machine more memory",
            )
        self.facs = places[acpi.TABLES]  # the first of them
        made = linker.run(script, files, places)
        self.others = {name: places[name] for name in others}
        self.told = linker.addresses(script, places)
        self.rsdp_bytes = made[acpi.RSDP]
        self.rom = _rom(self.rsdp_bytes, mptable.build(machine, ROM_AT + MP_AT))
        bios_data = bytearray(0x100)
        struct.pack_into("<H", bios_data, 0x0E, EBDA_AT >> 4)
        struct.pack_into("<H", bios_data, 0x13, EBDA_AT >> 10)
        self.pieces = [
            Piece(0x400, bytes(bios_data)),
            Piece(EBDA_AT, b"\x01" + bytes(15) + self.rsdp_bytes, MEBIBYTE - 0x60000 - EBDA_AT),
            *(Piece(places[name], data) for name, data in made.items() if name != acpi.RSDP),
        ]
        self.rows = self._map(machine, kvm)

    def _map(self, machine: MachineData, kvm: bool) -> list[Row]:
        below, above = parts.memory_below_4g(machine), parts.memory_above_4g(machine)
        rows = [
            (0, EBDA_AT, RAM),
            (EBDA_AT, 0xA0000 - EBDA_AT, RESERVED),
            (ROM_AT, ROM_SIZE, RESERVED),
            (MEBIBYTE, self.top - MEBIBYTE, RAM),
            (self.top, below - self.top, ACPI_DATA),
        ]
        layout = machine["memory-map"]
        if kvm:
            rows.append(fwcfg.kvm_pages(machine))
        rows.append((ROM_HIGH, (1 << 32) - ROM_HIGH, RESERVED))
        if above:
            rows.append((int(layout.get("high-ram", 1 << 32)), above, RAM))
        return rows

    @property
    def free(self) -> list[tuple[int, int]]:
        """Where a kernel may lie: [start, end)."""
        return [(0x1000, LOW_END), (MEBIBYTE, self.top)]


def _rom(rsdp: bytes, mp: bytes) -> bytes:
    """It holds the tables, and at the reset vector the code that resets the machine, which starts the kernel again."""
    image = bytearray(ROM_SIZE)
    image[RSDP_AT : RSDP_AT + len(rsdp)] = rsdp
    image[MP_AT : MP_AT + len(mp)] = mp
    image[RESET_AT : RESET_AT + len(RESET_CODE)] = RESET_CODE
    image[0xFFF0:0xFFF5] = b"\xea" + struct.pack("<HH", RESET_AT, 0xF000)
    image[0xFFF5:0xFFFD] = b"01/01/99"  # where the date of a PC's BIOS stands
    image[0xFFFE] = 0xFC  # a PC/AT
    return bytes(image)


def descriptors(long_mode: bool) -> Piece:
    """The GDT, selectors 0x10 (code), 0x18 (data) and 0x20 (a task state segment of 104 zeros)."""
    flat = FLAT_64 if long_mode else FLAT_32
    task = 0x8B << 40 | (TSS_AT & 0xFFFFFF) << 16 | TSS_SIZE - 1
    table = struct.pack("<5Q", 0, 0, flat["code"], flat["data"], task)
    if long_mode:
        table += struct.pack("<Q", 0)
    return Piece(GDT_AT, table, 0x200)


def page_tables() -> Piece:
    """The first 4 GiB, mapped one to one in pages of 2 MiB."""
    tables = [struct.pack("<Q", PAGES_AT + 0x1000 | 3).ljust(4096, b"\0")]
    tables.append(struct.pack("<4Q", *(PAGES_AT + 0x2000 + 0x1000 * n | 3 for n in range(4))).ljust(4096, b"\0"))
    tables.append(struct.pack("<2048Q", *(n << 21 | 0x83 for n in range(2048))))
    return Piece(PAGES_AT, b"".join(tables))
