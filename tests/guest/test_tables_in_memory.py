"""What SeaBIOS leaves in a guest's memory: ACPI tables that it made or loaded, and SMBIOS. On soft, beside QEMU's."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable

import pytest

from tests.guest.machines import PATIENCE, Guest
from tests.peers.asl import disassemble, needs_iasl, recompile
from tests.peers.oracle import Running, needs_qemu, wait_for

pytestmark = [pytest.mark.guest]
Read = Callable[[int, int], bytes]
DONE = "No bootable device"


class Memory:
    """acpi: tables by signature, RSDP first. smbios: the structures, as one."""

    def __init__(self, read: Read) -> None:
        low = read(0xE0000, 0x20000)
        self.acpi: dict[str, bytes] = {}
        self.smbios = b""
        rsdp = low.find(b"RSD PTR ")
        if rsdp >= 0:
            self.acpi["RSDP"] = low[rsdp : rsdp + 20]
            self._follow(read, struct.unpack_from("<I", low, rsdp + 16)[0])
        entry = low.find(b"_SM_")
        if entry >= 0:
            size, address = struct.unpack_from("<HI", low, entry + 0x16)
            self.smbios = read(address, size)

    def _follow(self, read: Read, address: int) -> None:
        name, size = struct.unpack("<4sI", read(address, 8))
        table = read(address, size)
        self.acpi[name.decode()] = table
        if name == b"RSDT":
            for (other,) in struct.iter_unpack("<I", table[36:]):
                self._follow(read, other)
        elif name == b"FACP":
            for other in struct.unpack_from("<II", table, 36):
                self._follow(read, other)


def ours(type_name: str, directory: pathlib.Path) -> Memory:
    settings = {"machine": type_name, "memory": "256MiB", "display": "none", "cpus": {"count": 2}}
    with Guest(directory, "soft", **settings) as guest:
        assert guest.run_until(lambda: DONE in guest.output()), guest.output()[-400:]
        return Memory(guest.machine.board.ram.read)


def theirs(type_name: str, directory: pathlib.Path) -> Memory:
    log = directory / "log"
    args = ["-m", "256", "-smp", "2", "-debugcon", f"file:{log}", "-global", "isa-debugcon.iobase=0x402"]
    with Running(f"{type_name},smm=off", *args) as qemu:
        assert wait_for(lambda: log.exists() and DONE in log.read_text(errors="replace"), PATIENCE)
        return Memory(lambda address, count: qemu.memory(address, count, str(directory)))


@needs_qemu
@pytest.mark.peer
@pytest.mark.parametrize("type_name", ["pc-i440fx-1.4", "pc-i440fx-1.6"])
def test_tables_that_the_firmware_makes_are_those_it_makes_in_qemu(type_name: str, tmp_path: pathlib.Path) -> None:
    mine, qemus = ours(type_name, tmp_path), theirs(type_name, tmp_path)
    assert list(mine.acpi) == ["RSDP", "RSDT", "FACP", "FACS", "DSDT", "SSDT", "APIC", "HPET"]
    assert mine.acpi == qemus.acpi
    assert mine.smbios == qemus.smbios != b""


@needs_qemu
@pytest.mark.peer
@pytest.mark.parametrize("type_name", ["pc-i440fx-1.7", "pc-i440fx-2.0", "pc-i440fx-2.6", "pc-i440fx-7.2"])
def test_tables_that_the_firmware_loads_arrive_as_in_qemu(type_name: str, tmp_path: pathlib.Path) -> None:
    mine, qemus = ours(type_name, tmp_path), theirs(type_name, tmp_path)
    assert list(mine.acpi) == list(qemus.acpi)
    assert {"RSDP", "RSDT", "FACP", "FACS", "DSDT", "APIC", "HPET", "WAET"} == mine.acpi.keys()
    for name, table in mine.acpi.items():
        assert name == "FACS" or sum(table) & 0xFF == 0, name
        if name not in ("DSDT", "RSDT", "RSDP"):  # their addresses follow from the DSDT's length
            assert table == qemus.acpi[name], name
    # The processor's id is the accelerator's; all else is the machine's and the firmware's.
    assert without_processor_id(mine.smbios) == without_processor_id(qemus.smbios) != b""


def without_processor_id(structures: bytes) -> bytes:
    found, at = bytearray(structures), 0
    while at < len(found):
        kind, size = found[at], found[at + 1]
        if kind == 4:
            found[at + 8 : at + 16] = bytes(8)
        at = found.index(b"\0\0", at + size) + 2
    return bytes(found)


@needs_iasl
@pytest.mark.parametrize("type_name", ["rhel6.0.0", "rhel6.6.0", "pc-0.10", "pc-1.3"])
def test_iasl_reads_what_the_firmware_makes_for_types_that_qemu_has_no_more(
    type_name: str, tmp_path: pathlib.Path
) -> None:
    tables = ours(type_name, tmp_path).acpi
    hpet = [] if type_name.startswith("rhel6") else ["HPET"]
    assert list(tables) == ["RSDP", "RSDT", "FACP", "FACS", "DSDT", "SSDT", "APIC", *hpet]
    errors = {}
    for name in tables.keys() - {"RSDP", "FACS"}:
        disassemble(tables[name], tmp_path, name)
        # SeaBIOS's own AML, the same in QEMU, iasl writes in ways that it does not read again.
        if name not in ("DSDT", "SSDT"):
            errors[name] = [line for line in recompile(tmp_path, name) if line.startswith("Error")]
    assert errors == dict.fromkeys(["RSDT", "FACP", "APIC", *hpet], [])
