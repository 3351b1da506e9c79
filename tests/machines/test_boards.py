"""Boards that no QEMU of today has, built and read: pc-0.10 to pc-1.3 and RHEL 6.

Values are from QEMU 2.12's and qemu-kvm-0.12.1.2's published tables, typed here.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.board import Driven
from vmrun.config.machinetypes import type_names

FUNCTIONS = [(0, 0), (1, 0), (1, 1), (1, 3)]
OLDEST = [name for name in type_names() if name.startswith("pc-") and "i440fx" not in name]
RHEL6 = [f"rhel6.{minor}.0" for minor in range(7)]
Board = Callable[..., Driven]


@pytest.fixture
def board(tmp_path: pathlib.Path) -> Iterator[Board]:
    with ExitStack() as stack:

        def build(name: str, **keys: Any) -> Driven:
            return stack.enter_context(Driven(tmp_path, machine=name, **keys))

        yield build


def fw_cfg(pc: Driven, key: int, count: int) -> bytes:
    pc.outw(0x510, key)
    return bytes(pc.inb(0x511) for _ in range(count))


def files(pc: Driven) -> dict[str, tuple[int, int]]:
    """Name → (key, size), in the directory's order."""
    found = {}
    for n in range(int.from_bytes(fw_cfg(pc, 0x19, 4), "big")):
        row = fw_cfg(pc, 0x19, 4 + 64 * (n + 1))[-64:]
        found[row[8:].split(b"\0")[0].decode()] = (int.from_bytes(row[4:6], "big"), int.from_bytes(row[:4], "big"))
    return found


def cmos(pc: Driven, *cells: int) -> list[int]:
    found = []
    for cell in cells:
        pc.outb(0x70, cell)
        found.append(pc.inb(0x71))
    return found


def bar_size(pc: Driven, offset: int) -> int:
    """Bytes of the VGA's BAR at that offset; 0 when there is none."""
    pc.config(2, 0, offset, 0xFFFFFFFF)
    value = pc.config(2, 0, offset) & (0xFFFFF800 if offset == 0x30 else 0xFFFFFFF0)
    return -value & 0xFFFFFFFF


# --- pc-0.10 to pc-1.3 ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "settable"), [("pc-0.13", False), ("pc-0.10", False), ("pc-0.14", True)])
def test_serr_enable_cannot_be_set_until_0_13(board: Board, name: str, settable: bool) -> None:
    pc = board(name)
    for slot, function in FUNCTIONS:
        pc.config(slot, function, 4, 0xFFFF)
        assert bool(pc.config(slot, function, 4) & 0x100) is settable


@pytest.mark.parametrize(
    ("name", "memory", "mmio"),
    [
        ("pc-1.3", 16 << 20, 4096),
        ("pc-1.2", 16 << 20, 0),
        ("pc-1.1", 8 << 20, 0),
        ("pc-0.10", 8 << 20, 0),
    ],
)
def test_memory_of_the_vga(board: Board, name: str, memory: int, mmio: int) -> None:
    pc = board(name, display="std")
    assert pc.config(2, 0, 0) == 0x11111234
    assert (bar_size(pc, 0x10), bar_size(pc, 0x18)) == (memory, mmio)


@pytest.mark.parametrize(("name", "in_bar"), [("pc-0.14", True), ("pc-0.13", False), ("pc-0.11", False)])
def test_video_bios_comes_through_fw_cfg_until_0_13(board: Board, name: str, in_bar: bool) -> None:
    pc = board(name, display="std")
    assert (bar_size(pc, 0x30) != 0) is in_bar
    assert ("vgaroms/vgabios-stdvga.bin" not in files(pc)) is in_bar


@pytest.mark.parametrize("name", OLDEST)
def test_firmware_finds_what_pc_i440fx_1_4_has(board: Board, name: str) -> None:
    memory = {"memory": "5GiB", "cpus": {"count": 3, "maxcpus": 4}}
    pc, newer = board(name, **memory), board("pc-i440fx-1.4", **memory)
    assert files(pc) == files(newer)
    assert "etc/acpi/tables" not in files(pc)
    for key in (*range(0x19), *range(0x8000, 0x8008)):
        assert fw_cfg(pc, key, 200) == fw_cfg(newer, key, 200), hex(key)
    cells = range(0x0E, 0x80)
    assert cmos(pc, *cells) == cmos(newer, *cells)


@pytest.mark.parametrize(("name", "limit"), [("pc-i440fx-1.4", 7), ("pc-1.3", 6), ("pc-0.10", 6)])
def test_apic_ids_are_processor_numbers_until_1_3(board: Board, name: str, limit: int) -> None:
    pc = board(name, cpus={"count": 6, "sockets": 2, "cores": 3, "threads": 1})
    assert fw_cfg(pc, 0x0F, 2) == limit.to_bytes(2, "little")


# --- RHEL 6 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RHEL6)
def test_sleep_states_of_rhel_6(board: Board, name: str) -> None:
    """S3 and S4 are offered up to 6.1.0; S4 has type 2."""
    pc = board(name)
    key, size = files(pc)["etc/system-states"]
    offered = 0x80 if name in ("rhel6.0.0", "rhel6.1.0") else 0
    assert fw_cfg(pc, key, size) == bytes([0x80, 0, 0, 1 | offered, 2 | offered, 0x80])


@pytest.mark.parametrize("name", RHEL6)
def test_fw_cfg_of_rhel_6(board: Board, name: str) -> None:
    pc = board(name)
    found = [file for file in files(pc) if file != "genroms/vapic.bin"]  # RHEL's own; hardly a host has it
    assert found == ["etc/boot-fail-wait", "etc/system-states", "bootorder"]
    assert fw_cfg(pc, 1, 4) == b"\1\0\0\0"
    assert pc.inl(0x514) == pc.inl(0x518) == 0xFFFFFFFF  # no DMA
    assert fw_cfg(pc, 0x8003, 8) == fw_cfg(pc, 0x8004, 8) == bytes(8)  # no e820, no HPET
    assert fw_cfg(pc, 0x8002, 4) == b"\1\0\0\0"
    fields = fw_cfg(pc, 0x8001, 300)
    assert all(text in fields for text in (b"Red Hat\0", b"KVM\0", f"RHEL 6.{name[6]}.0 PC\0".encode()))


@pytest.mark.parametrize("name", RHEL6)
def test_memory_of_rhel_6_is_cut_where_the_hole_begins(board: Board, name: str) -> None:
    pc = board(name, memory="5GiB")
    assert cmos(pc, 0x34, 0x35) == [0x00, 0xDF]
    assert cmos(pc, 0x5B, 0x5C, 0x5D, 0x5E) == [0x00, 0x60, 0, 0]


@pytest.mark.parametrize("name", RHEL6)
def test_chips_of_rhel_6(board: Board, name: str) -> None:
    pc = board(name, display="std")
    assert pc.config(1, 3, 0x58) >> 24 == 0x02  # no system management mode
    assert pc.config(0, 0, 0x54) >> 24 == 0  # no hint of the RAM's size
    assert pc.inb(0xCF9) == 0xFF
    assert pc.config(2, 0, 8) & 0xFF == 0  # the VGA's revision
    assert (bar_size(pc, 0x10), bar_size(pc, 0x18)) == (16 << 20, 0)
    assert (bar_size(pc, 0x30) == 0) is (name == "rhel6.0.0")


# --- all of them ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", type_names())
def test_a_machine_of_every_type_is_built(board: Board, name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    pc = board(name, display="std", serial="null", disks=["disk.img"], cpus={"count": 2})
    assert [pc.config(*where, 0) for where in FUNCTIONS] == [0x12378086, 0x70008086, 0x70108086, 0x71138086]
    assert pc.read(0xFFFFFFF0, 1) == b"\xea"  # the firmware's first instruction: a far jump
