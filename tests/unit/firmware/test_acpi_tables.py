"""ACPI tables and the loader's script, carried out as a firmware does."""

from __future__ import annotations

import struct

import pytest

from tests.unit.firmware.board import board
from vmrun.errors import BuildError
from vmrun.firmware import acpi, parts
from vmrun.firmware.linker import Linker, run

GIB = 1 << 30
PLACES = {acpi.TABLES: 0x0FFE0000, acpi.RSDP: 0xF5A00}


@pytest.fixture(scope="module")
def loaded() -> dict[str, bytes]:
    built = acpi.build(board("pc-i440fx-2.0"))
    return run(built.loader, {acpi.TABLES: built.tables, acpi.RSDP: built.rsdp}, PLACES)


def tables(data: bytes) -> dict[str, bytes]:
    found, offset = {}, 0
    while data[offset]:
        (size,) = struct.unpack_from("<I", data, offset + 4)
        found[data[offset : offset + 4].decode()] = data[offset : offset + size]
        offset += size
    return found


def at(loaded: dict[str, bytes], address: int, count: int) -> bytes:
    offset = address - PLACES[acpi.TABLES]
    return loaded[acpi.TABLES][offset : offset + count]


def test_every_table_sums_to_zero_once_loaded(loaded: dict[str, bytes]) -> None:
    sums = {name: sum(table) & 0xFF for name, table in tables(loaded[acpi.TABLES]).items() if name != "FACS"}
    assert sums == dict.fromkeys(sums, 0)


def test_rsdp_leads_to_the_rsdt(loaded: dict[str, bytes]) -> None:
    rsdp = loaded[acpi.RSDP]
    assert rsdp[:8] == b"RSD PTR " and sum(rsdp[:20]) & 0xFF == 0
    (address,) = struct.unpack_from("<I", rsdp, 16)
    assert at(loaded, address, 4) == b"RSDT"


def test_rsdt_lists_the_tables(loaded: dict[str, bytes]) -> None:
    found = tables(loaded[acpi.TABLES])["RSDT"]
    listed = [at(loaded, address, 4) for (address,) in struct.iter_unpack("<I", found[36:])]
    assert listed == [b"FACP", b"APIC", b"HPET", b"WAET"]


def test_fadt_points_to_facs_and_dsdt(loaded: dict[str, bytes]) -> None:
    fadt = tables(loaded[acpi.TABLES])["FACP"]
    facs, dsdt = struct.unpack_from("<II", fadt, 36)
    assert (at(loaded, facs, 4), at(loaded, dsdt, 4)) == (b"FACS", b"DSDT")
    assert facs % 64 == 0


def test_fadt_follows_the_power_management_registers() -> None:
    fadt = tables(acpi.build(board("pc-i440fx-2.0"), 0xB000).tables)["FACP"]
    assert struct.unpack_from("<I", fadt, 56)[0] == 0xB000  # PM1a event block
    assert struct.unpack_from("<I", fadt, 76)[0] == 0xB008  # PM timer


def test_without_an_hpet_there_is_no_hpet_table() -> None:
    machine = board("pc-i440fx-2.0")
    machine["devices"] = [device for device in machine["devices"] if device["driver"] != "hpet"]
    assert "HPET" not in tables(acpi.build(machine).tables)


def test_absent_processors_are_disabled_in_the_madt() -> None:
    machine = board("pc-i440fx-2.0", cpus={"count": 1, "sockets": 2, "maxcpus": 2})
    madt = tables(acpi.build(machine).tables)["APIC"]
    assert madt[44:60] == bytes([0, 8, 0, 0, 1, 0, 0, 0, 0, 8, 1, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("count", [1, 9, 64, 255])
def test_files_are_whole_pages_however_many_processors(count: int) -> None:
    built = acpi.build(board("pc-i440fx-2.0", cpus={"count": count, "sockets": count}))
    assert len(built.tables) % 4096 == 0 and len(built.loader) % 4096 == 0


def test_tables_are_the_same_every_time() -> None:
    first, second = (acpi.build(board("pc-i440fx-2.0")).files() for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("name", "memory", "placed", "window"),
    [
        ("pc-i440fx-2.10", 256 << 20, None, None),
        ("pc-i440fx-2.10", 256 << 20, (6 * GIB, 6 * GIB + 0xFFFF), (6 * GIB, 6 * GIB + 0xFFFF)),
        ("pc-i440fx-2.11", 256 << 20, None, (4 * GIB, 6 * GIB - 1)),
        ("pc-i440fx-2.11", 5 * GIB + (1 << 20), None, (7 * GIB, 9 * GIB - 1)),
        ("pc-i440fx-2.11", 256 << 20, (8 * GIB, 8 * GIB + 0xFFFF), (8 * GIB, 10 * GIB - 1)),
        ("pc-i440fx-2.11", 256 << 20, (5 * GIB, 12 * GIB - 1), (5 * GIB, 12 * GIB - 1)),
    ],
)
def test_window_above_4_gib(name: str, memory: int, placed: acpi.Window, window: acpi.Window) -> None:
    assert acpi.pci_window(board(name, memory=memory), placed) == window


def test_more_apic_ids_than_the_bitmap_has_are_refused() -> None:
    cpus = {"count": 200, "sockets": 8, "cores": 5, "threads": 5}
    with pytest.raises(BuildError, match="the highest APIC id is 484"):
        acpi.build(board("pc-i440fx-2.6", cpus=cpus))
    assert b"ACPI0007" in acpi.build(board("pc-i440fx-2.7", cpus=cpus)).tables


def test_script_pointers_add_to_what_is_there() -> None:
    linker = Linker()
    linker.add_pointer("a", 4, 4, "b")
    linker.add_checksum("a", 0, 0, 8)
    done = run(linker.to_bytes(256), {"a": bytes([0, 0, 0, 0, 5, 0, 0, 0]), "b": b""}, {"b": 0x100})
    assert done["a"] == bytes([0xFA, 0, 0, 0, 5, 1, 0, 0])


@pytest.mark.parametrize(
    ("cpus", "ids"),
    [
        ({"sockets": 4}, [0, 1, 2, 3]),
        ({"sockets": 2, "cores": 3}, [0, 1, 2, 4, 5, 6]),
        ({"sockets": 2, "cores": 3, "threads": 2}, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13]),
        ({"sockets": 2, "cores": 3, "apic-ids": "contiguous"}, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_apic_ids_pack_the_topology(cpus: dict[str, object], ids: list[int]) -> None:
    assert [parts.apic_id(n, cpus) for n in range(len(ids))] == ids
