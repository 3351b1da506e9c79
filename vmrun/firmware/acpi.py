"""The ACPI tables of types whose machine publishes them (`firmware.acpi: tables`), and the script that
loads them.

One file holds FACS, DSDT, FADT, MADT, ERST, HPET, SRAT, SLIT, HMAT, NFIT, WAET and RSDT one after another; a second the
RSDP; the third tells the firmware where to put them, which pointers to set and what to sum up. Tables are headed with
the type's OEM names; what differs between versions stands in the type (`firmware.acpi-settings`) and in its devices.
Ref: ACPI specification 1.0b (RSDP, FADT revision 1), 6.4 (MADT, SRAT, SLIT, DSDT); IA-PC HPET specification 1.0a;
Microsoft WAET.
The user's own (`user_tables`) come before the RSDT.
"""

from __future__ import annotations

import struct

from vmrun.firmware import erst, generation, hmat, nvdimm, parts, srat, tpm
from vmrun.firmware.dsdt import GPE0, Window, dsdt
from vmrun.firmware.dsdt_cpus import LOCAL_APIC_IDS, madt_entry
from vmrun.firmware.linker import FSEG, HIGH, Linker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from vmrun.config.sections import MachineData

TABLES, RSDP, LOADER = "etc/acpi/tables", "etc/acpi/rsdp", "etc/table-loader"
HEADER = struct.Struct("<4sIBB6s8sI4sI")

# FADT flags: WBINVD works, C1 on all processors, sleep button by method, RTC wakes from S4, platform timer
FADT_FLAGS = 1 << 0 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 15
CLUSTER_MODEL = 1 << 18  # logical APIC ids must be clusters: more than eight processors
LEGACY_CPU_AML = 97  # bytes per APIC id that the old size of the tables counted with


class AcpiFiles:
    """Contents of the three fw_cfg files."""

    __slots__ = ("loader", "rsdp", "tables")

    def __init__(self, tables: bytes, rsdp: bytes, loader: bytes) -> None:
        self.tables, self.rsdp, self.loader = tables, rsdp, loader

    def files(self) -> dict[str, bytes]:
        return {TABLES: self.tables, RSDP: self.rsdp, LOADER: self.loader}


class _Blob:
    """The file of tables while it grows."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.data = bytearray()
        self.linker = Linker()
        self.oem_id = _padded(settings, "oem-id", "BOCHS ", 6)
        self.oem_table_id = _padded(settings, "oem-table-id", "BXPC    ", 8)
        self.creator = _padded(settings, "creator-id", "BXPC", 4)
        self.creator_revision = int(settings.get("creator-revision", 1))

    def add(
        self,
        signature: bytes,
        revision: int,
        body: bytes,
        pointers: tuple[int, ...] = (),
        *,
        name: bytes = b"",
        oem: bytes = b"",
        between: Callable[[int], None] = lambda start: None,
    ) -> int:
        """Append a table; its offset. `pointers`: offsets in the body of addresses within this file. `name`, `oem`:
        its own, instead of the type's. `between(offset of the body)`: what else the loader does before it sums up.
        """
        start = len(self.data)
        size = HEADER.size + len(body)
        head = (
            signature,
            size,
            revision,
            0,
            oem or self.oem_id,
            name or self.oem_table_id,
            1,
            self.creator,
            self.creator_revision,
        )
        self.data += HEADER.pack(*head) + body
        for offset in pointers:
            self.linker.add_pointer(TABLES, start + HEADER.size + offset, 4, TABLES)
        between(start + HEADER.size)
        self.linker.add_checksum(TABLES, start + 9, start, size)
        return start


def build(
    machine: MachineData,
    pm_base: int = 0x600,
    placed: Window | None = None,
    records: int = erst.NOWHERE,
    persistent: srat.Persistent = (b"", ()),
) -> AcpiFiles:
    """The tables of a resolved machine. `pm_base`: where the power management registers are now. `placed`: the
    first and last address above 4 GiB that PCI devices have been given, if any. `records`: where the registers of
    the error records' store are. `persistent`: what the NFIT says of non-volatile modules, and where they are.
    """
    settings: dict[str, Any] = {**machine["firmware"].get("acpi-settings", {})}
    blob = _Blob(settings)
    linker = blob.linker
    linker.allocate(RSDP, 16, FSEG)
    counter = generation.ssdt(machine)
    if counter is not None:
        linker.allocate(generation.GUID_FILE, 4096, HIGH)
    methods = nvdimm.ssdt(machine)
    if methods is not None:
        linker.allocate(parts.NVDIMM_FILE, parts.NVDIMM_PAGE, HIGH)
    module = tpm.table(machine)
    if module is not None:
        linker.allocate(tpm.LOG_FILE, 1, HIGH)
    linker.allocate(TABLES, 64, HIGH)
    facs = len(blob.data)
    blob.data += struct.pack("<4sI", b"FACS", 64).ljust(64, b"\0")
    described = blob.add(b"DSDT", 1, dsdt(machine, pci_window(machine, placed)))
    own_tables: Any = machine.get("own-tables", ())
    # an SLIC counts where FADT and RSDT have its OEM's names
    oem, name = next(((table[10:16], table[16:24]) for table in own_tables if table[:4] == b"SLIC"), (b"", b""))
    listed = [blob.add(b"FACP", 1, _fadt(machine, pm_base, facs, described), (0, 4), name=name, oem=oem)]
    fixed = len(blob.data) - described  # what the old types' size counts with a number of its own
    listed.append(blob.add(b"APIC", 1, _madt(machine)))
    store = erst.table(machine, records)
    if store is not None:
        listed.append(blob.add(b"ERST", 1, store))
    if counter is not None:

        def point(body: int) -> None:
            linker.write_pointer(generation.ADDRESS_FILE, 0, 8, generation.GUID_FILE, generation.GUID_OFFSET)
            linker.add_pointer(TABLES, body + generation.ADDRESS_AT, 4, generation.GUID_FILE)

        listed.append(blob.add(b"SSDT", 1, counter, name=generation.OEM_TABLE_ID, between=point))
    hpet = parts.first(machine, "hpet")
    if hpet is not None:
        listed.append(blob.add(b"HPET", 1, _hpet(int(hpet["props"].get("base", 0xFED00000)))))
    if module is not None:
        signature, revision, body, at = module

        def log(start: int) -> None:
            linker.add_pointer(TABLES, start + at, 8, tpm.LOG_FILE)

        listed.append(blob.add(signature, revision, body, between=log))
    listed += [blob.add(signature, 1, body) for signature, body in srat.tables(machine, persistent[1])]
    attributes = hmat.table(machine)
    if attributes is not None:
        listed.append(blob.add(b"HMAT", 2, attributes))
    if methods is not None:
        asked, page_at = methods

        def page(start: int) -> None:
            linker.add_pointer(TABLES, start + page_at, 4, parts.NVDIMM_FILE)

        listed.append(blob.add(b"SSDT", 1, asked, name=nvdimm.OEM_TABLE_ID, between=page))
        if persistent[1]:
            listed.append(blob.add(b"NFIT", 1, nvdimm.table(persistent[0])))
    listed.append(blob.add(b"WAET", 1, struct.pack("<I", 2)))  # the PM timer needs to be read but once
    for table in own_tables:
        listed.append(len(blob.data))
        blob.data += table
    pointers = tuple(4 * n for n in range(len(listed)))
    root = blob.add(b"RSDT", 1, struct.pack(f"<{len(listed)}I", *listed), pointers, name=name, oem=oem)
    rsdp = _rsdp(blob.oem_id, root, bool(settings.get("rsdp-in-ram", False)))
    linker.add_pointer(RSDP, 16, 4, TABLES)
    linker.add_checksum(RSDP, 8, 0, 20)
    size = _file_size(machine, settings, len(blob.data), fixed)
    return AcpiFiles(
        bytes(blob.data).ljust(size, b"\0"), rsdp, linker.to_bytes(int(settings.get("loader-align", 4096)))
    )


def pci_window(machine: MachineData, placed: Window | None = None) -> Window | None:
    """64-bit memory that the host bridge hands on: what devices have been given, and with `x-pci-hole64-fix`
    always a window of `pci-hole64-size` above all RAM.
    """
    host = parts.first(machine, "i440FX-pcihost")
    props = host["props"] if host is not None else {}
    if not props.get("x-pci-hole64-fix", True):
        return placed
    first = placed[0] if placed is not None else _whole_gib(parts.reserved_end(machine))
    end = _whole_gib(first + int(props.get("pci-hole64-size", 2 << 30)))
    last = max(end - 1, placed[1] if placed is not None else 0)
    return (first, last) if last > first else None


def _whole_gib(value: int) -> int:
    return -(-value >> 30) << 30


def _padded(settings: dict[str, Any], key: str, default: str, size: int) -> bytes:
    return str(settings.get(key, default)).encode("ascii").ljust(size)[:size]


def _fadt(machine: MachineData, pm_base: int, facs: int, described: int) -> bytes:
    """Revision 1: 116 bytes with the header."""
    flags = FADT_FLAGS
    if len(parts.apic_ids(machine)) > 8:
        flags |= CLUSTER_MODEL
    body = struct.pack("<IIBBH", facs, described, 1, 0, 9)  # dual PIC, SCI is IRQ 9
    # APMC: ACPI on and off. A PIIX4 without system management mode is in ACPI mode all the time.
    command = (0, 0, 0) if parts.always_acpi(machine) else (0xB2, 0xF1, 0xF0)
    body += struct.pack("<IBBBB", *command, 0, 0)
    body += struct.pack("<8I", pm_base, 0, pm_base + 4, 0, 0, pm_base + 8, GPE0, 0)
    body += struct.pack("<8B", 4, 2, 0, 4, 4, 0, 0, 0)  # lengths of these blocks
    body += struct.pack("<HHHHBBBBBHB", 0xFFF, 0xFFF, 0, 0, 0, 0, 0, 0, 0x32, 0, 0)  # no C2, C3; century byte
    return body + struct.pack("<I", flags)


def _madt(machine: MachineData) -> bytes:
    """Processors by APIC id, the IOAPIC, where ISA interrupts differ from the identity, and NMI on LINT1."""
    there = parts.present(machine["cpus"])
    body = struct.pack("<II", 0xFEE00000, 1)  # and two 8259s
    ids = parts.apic_ids(machine)
    for index, id in enumerate(ids):
        body += madt_entry(index, id, index in there)
    ioapic = parts.first(machine, "ioapic")
    base = int(ioapic["props"].get("base", 0xFEC00000)) if ioapic is not None else 0xFEC00000
    body += struct.pack("<BBBBII", 1, 12, 0, 0, base, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    for irq in (5, 9, 10, 11):
        body += struct.pack("<BBBBIH", 2, 10, 0, irq, irq, 0x000D)  # level, active high
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    if max(ids) >= LOCAL_APIC_IDS:
        body += struct.pack("<BBHIB3x", 0x0A, 12, 0, 0xFFFFFFFF, 1)
    return body


def _hpet(base: int) -> bytes:
    address = struct.pack("<BBBBQ", 0, 0, 0, 0, base)
    return struct.pack("<I", 0x8086A201) + address + struct.pack("<BHB", 0, 0, 0)


def _rsdp(oem_id: bytes, root: int, short: bool) -> bytes:
    """Revision 0: what counts is the first 20 bytes; older files have room for the later form."""
    return struct.pack("<8sB6sBI", b"RSD PTR ", 0, oem_id, 0, root).ljust(20 if short else 36, b"\0")


def _file_size(machine: MachineData, settings: dict[str, Any], used: int, fixed: int) -> int:
    """Old types have a size that followed from fixed sizes of DSDT and FADT, `fixed` bytes now; the others a
    multiple of a fixed one. Never less than is used.
    """
    legacy = settings.get("legacy-table-size")
    if legacy is None:
        step = int(settings.get("tables-align", 0x20000))
        return -(-used // step) * step
    counted = used - fixed + int(legacy) + LEGACY_CPU_AML * parts.apic_limit(machine)
    return -(-max(counted, used) // 4096) * 4096
