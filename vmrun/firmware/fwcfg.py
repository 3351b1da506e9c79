"""The contents of the firmware configuration device: numbered items and the directory of files.

Ref: QEMU docs/specs/fw_cfg.txt. All functions but own_files, which reads what the user names, are pure: a resolved
machine in, bytes out.
"""

from __future__ import annotations

import os
import struct

from vmrun.errors import BuildError, about
from vmrun.firmware import parts, smbios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from vmrun.config.sections import MachineData
    from vmrun.firmware.parts import Processor

ID, UUID, RAM_SIZE, NOGRAPHIC, CPUS = 0x01, 0x02, 0x03, 0x04, 0x05
NUMA, BOOT_MENU, MAX_CPUS = 0x0D, 0x0E, 0x0F
ACPI_TABLES, SMBIOS_ENTRIES, IRQ0_OVERRIDE, HPET = 0x8000, 0x8001, 0x8002, 0x8004
RAM, RESERVED = 1, 2
MOST_OF_A_FILE = 64 << 20  # bytes
KVM_PAGES = 0x4000  # identity map and TSS, side by side
AMD_HOLE, AMD_HOLE_SIZE, AMD_HOLE_BITS = 0xFD_0000_0000, 0x3_0000_0000, 40  # HyperTransport's; width that reaches it

# Where a file stands in the directory of types that order it by kind. Devices' own files come at 110.
PRIORITY = {
    "etc/boot-menu-wait": 10,
    "bootsplash.jpg": 11,
    "bootsplash.bmp": 12,
    "etc/boot-fail-wait": 15,
    "etc/smbios/smbios-tables": 20,
    "etc/smbios/smbios-anchor": 30,
    "etc/e820": 40,
    "etc/reserved-memory-end": 50,
    "genroms/kvmvapic.bin": 55,
    "genroms/vapic.bin": 55,
    "genroms/linuxboot.bin": 60,
    "genroms/multiboot.bin": 200,  # the directory's order never knew it: last
    "etc/system-states": 90,
    "etc/extra-pci-roots": 120,
    "etc/acpi/tables": 130,
    "etc/table-loader": 140,
    "etc/tpm/log": 150,
    "etc/acpi/rsdp": 160,
    "bootorder": 170,
    "etc/msr_feature_control": 180,
}
VGA_ROM, NIC_ROM, USER_FILE, DEVICE_FILE, USER_ROM = 70, 80, 100, 110, 200


def items(machine: MachineData) -> dict[int, bytes]:
    """Key → value of what is no file. Key 0, the signature, and 0x19, the directory, are the device's own."""
    wanted = machine["firmware"].get("fw_cfg", {})
    limit = parts.apic_limit(machine)
    found = {
        ID: struct.pack("<I", wanted.get("id", 1 | 2 * has_dma(machine))),
        UUID: smbios.uuid_bytes(smbios.uuid(machine)),
        RAM_SIZE: struct.pack("<Q", machine["memory"]),
        NOGRAPHIC: struct.pack("<H", bool(machine["firmware"].get("nographic"))),
        CPUS: struct.pack("<H", len(parts.present(machine["cpus"]))),
        BOOT_MENU: struct.pack("<H", bool(machine.get("boot", {}).get("menu"))),
        MAX_CPUS: struct.pack("<H", limit),
        ACPI_TABLES: struct.pack("<H", 0),
    }
    if wanted.get("numa", True):
        found[NUMA] = _numa(machine, limit)
    if wanted.get("irq0-override", True):
        found[IRQ0_OVERRIDE] = struct.pack("<I", 1)
    fields = smbios.fields(machine)
    if fields is not None:
        found[SMBIOS_ENTRIES] = fields
    if wanted.get("hpet"):
        hpet = parts.first(machine, "hpet")
        blocks = b"\xff"  # number of blocks: unknown
        if hpet is not None:
            base = int(hpet["props"].get("base", 0xFED00000))
            blocks = b"\x01" + struct.pack("<IQHB", 0x8086A201, base, 0, 0)
        found[HPET] = blocks.ljust(1 + 8 * 15, b"\0")
    return found


def _numa(machine: MachineData, limit: int) -> bytes:
    """Number of nodes, the node of each APIC id, the bytes of each node."""
    nodes, of = parts.numa(machine), parts.nodes_of_processors(machine)
    by_id = dict.fromkeys(range(limit), 0) | {id: of.get(n, 0) for n, id in enumerate(parts.apic_ids(machine))}
    sizes = [int(node["memory"]) for node in nodes]
    return struct.pack(f"<{1 + limit + len(nodes)}Q", len(nodes), *by_id.values(), *sizes)


def has_dma(machine: MachineData) -> bool:
    """The fw_cfg device moves data by itself, which some option ROMs need."""
    device = parts.first(machine, "fw_cfg_io")
    return bool(device is not None and device["props"].get("dma_enabled", True))


def files(
    machine: MachineData, kvm: bool = False, processor: Processor | None = None
) -> dict[str, bytes]:
    """The small files that follow from the machine alone (not ROMs, ACPI tables or the boot order)."""
    processor = processor or parts.Processor()
    wanted = machine["firmware"].get("fw_cfg", {})
    boot = machine.get("boot", {})
    found: dict[str, bytes] = {}
    if boot.get("splash-time") is not None:
        found["etc/boot-menu-wait"] = struct.pack("<H", int(boot["splash-time"]) & 0xFFFF)
    if wanted.get("boot-fail-wait", True):
        found["etc/boot-fail-wait"] = struct.pack("<i", int(boot.get("reboot-timeout", -1)))
    if wanted.get("e820"):
        found["etc/e820"] = e820(machine, kvm, processor)
    if parts.memory_slots(machine):
        found["etc/reserved-memory-end"] = struct.pack("<Q", parts.reserved_end(machine))
    if wanted.get("system-states", True) and parts.first(machine, "PIIX4_PM") is not None:
        found["etc/system-states"] = system_states(machine)
    if (machine["firmware"].get("smbios") or {}).get("form") == "tables":
        from vmrun.firmware import smbios_tables

        found |= smbios_tables.files(machine, processor)
    return found


def e820(machine: MachineData, kvm: bool, processor: Processor) -> bytes:
    """(address, length, type) of what is not where the firmware would expect it: KVM's own pages, what AMD's
    processors keep for HyperTransport, then RAM.
    """
    layout = machine["memory-map"]
    rows = []
    if kvm:
        rows.append(kvm_pages(machine))
    reaches = processor.vendor == parts.AMD and processor.phys_bits >= AMD_HOLE_BITS
    if layout.get("amd-1tb-hole") and reaches:
        rows.append((AMD_HOLE, AMD_HOLE_SIZE, RESERVED))
    rows += [(first, last + 1 - first, RAM) for first, last in parts.memory_ranges(machine)]
    return b"".join(struct.pack("<QQI", *row) for row in rows)


def kvm_pages(machine: MachineData) -> tuple[int, int, int]:
    """(address, length, type) of the pages that KVM takes: an identity map and a task state, for real mode."""
    return int(machine["memory-map"].get("kvm", {}).get("identity-map", 0xFEFFC000)), KVM_PAGES, RESERVED


def system_states(machine: MachineData) -> bytes:
    """A byte per sleep state S0 to S5: bit 7 offered, below it the sleep type."""
    s3, s4, s4_type = parts.sleep_states(machine)
    return bytes([0x80, 0, 0, 1 | s3 << 7, s4_type | s4 << 7, 0x80])


def own_files(machine: MachineData) -> dict[str, bytes]:
    """What the user adds (`firmware.files`). BuildError for a file that cannot be read, or is too large."""
    found = {}
    for name, given in machine["firmware"].get("files", {}).items():
        with about(f"firmware.files.{name}", "VR0632"):
            found[name] = _content(str(given["file"])) if "file" in given else given["string"].encode()
    return found


def _content(path: str) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            data = file.read(MOST_OF_A_FILE + 1)
    except OSError as error:
        raise BuildError(f"can't load {path}: {error.strerror}") from None
    if len(data) > MOST_OF_A_FILE:
        raise BuildError(f"{path} has more than {MOST_OF_A_FILE >> 20} MiB, too much for fw_cfg")
    return data


def rom_name(rom: dict[str, object]) -> str:
    """What fw_cfg calls an option ROM of the user's."""
    return f"genroms/{os.path.basename(str(rom['file']))}"


def in_order(found: Mapping[str, bytes], order: str, own: Mapping[str, int] | None = None) -> list[tuple[str, bytes]]:
    """The files as the directory lists them: `name`, or `priority` as older types do. own: priorities of the user's."""
    if order == "name":
        return sorted(found.items())
    return sorted(found.items(), key=lambda file: priority(file[0], own))  # stable: equal ones keep their order


def priority(name: str, own: Mapping[str, int] | None = None) -> int:
    if own and name in own:
        return own[name]
    known = PRIORITY.get(name)
    if known is not None:
        return known
    if name.startswith("vgaroms/"):
        return VGA_ROM
    if name.startswith("genroms/"):
        return NIC_ROM
    return USER_FILE if name.startswith("opt/") else DEVICE_FILE
