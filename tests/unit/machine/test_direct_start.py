"""A processor that begins in a kernel, and the bus as firmware would leave it."""

from __future__ import annotations

import pathlib
import uuid
from typing import Any

import pytest

from tests.unit.firmware import kernels
from vmrun.config.resolve import resolve_file
from vmrun.firmware import pcisetup
from vmrun.firmware.direct import Start
from vmrun.machine.builder import build
from vmrun.machine.direct import DirectBoot, begin

MIB = 1 << 20


def config(tmp_path: pathlib.Path, **keys: Any) -> Any:
    import json

    (tmp_path / "kernel").write_bytes(kernels.elf([(MIB, b"code", 4096)], pvh=MIB))
    whole = {"schema": "vmrun/machine/1", "name": "m", "machine": "pc-i440fx-2.0", "memory": "64MiB"}
    (tmp_path / "m.json").write_text(json.dumps({**whole, "kernel": "kernel", "firmware": "none", **keys}))
    return resolve_file(str(tmp_path / "m.json")).data


def covered(mtrrs: dict[int, int], addr: int) -> bool:
    return addr & mtrrs[0x201] & ~0xFFF == mtrrs[0x200] & mtrrs[0x201] & ~0xFFF


@pytest.mark.parametrize(("memory", "hole"), [("64MiB", 0xC0000000), ("3500MiB", 0xE0000000)])
def test_the_hole_below_4_gib_and_nothing_else_is_uncached(memory: str, hole: int, tmp_path: pathlib.Path) -> None:
    made = DirectBoot(config(tmp_path, memory=memory), False)
    made.phys_bits = 40
    found = made.mtrrs()
    assert found[0x201] & 0x800 and found[0x2FF] == 0xC06
    assert all(covered(found, addr) for addr in (hole, 0xFEE00000, 0xFFFFF000))
    assert not any(covered(found, addr) for addr in (0, hole - 4096, 1 << 32, hole - 0x40000000, 0x1_C000_0000))


@pytest.mark.parametrize("long_mode", [True, False])
def test_state_of_the_first_processor_is_flat_with_interrupts_off(long_mode: bool) -> None:
    state = begin(Start(0x1234, long_mode, rsi=7), {"sregs": {"cr2": 5, "cr0": 0x60000010, "efer": 0}})
    sregs, regs = state["sregs"], state["regs"]
    assert (regs["rip"], regs["rsi"], regs["rflags"], regs["rsp"]) == (0x1234, 7, 2, 0)
    assert all(sregs[name]["base"] == 0 and sregs[name]["limit"] == 0xFFFFFFFF for name in ("cs", "ds", "ss", "gs"))
    assert (sregs["cs"]["l"], sregs["cs"]["db"]) == (int(long_mode), int(not long_mode))
    assert sregs["cr0"] & 1 and bool(sregs["cr0"] >> 31) == long_mode
    assert sregs["efer"] == (0x500 if long_mode else 0)
    assert sregs["idt"]["limit"] == 0 and sregs["tr"]["limit"] == 103


def test_bus_has_addresses_interrupt_lines_and_decoding_after_each_reset(tmp_path: pathlib.Path) -> None:
    (tmp_path / "d.img").write_bytes(bytes(1 << 20))
    machine = build(config(tmp_path, display="std", disks=["d.img"]), accel=["qtest"])
    try:
        for _ in range(2):
            devices = {d.driver: d for d in machine.devices.values() if hasattr(d, "devfn")}
            vga, ide, pm, isa = (devices[name].config for name in ("VGA", "piix3-ide", "PIIX4_PM", "PIIX3"))
            assert vga.get(0x10, 4) & ~15 == 0xE0000000 and vga.get(4, 2) & 3 == 3
            assert ide.get(0x20, 4) & ~3 == 0xC000 and ide.get(0x40, 2) & ide.get(0x42, 2) & 0x8000
            assert pm.get(0x40, 4) & 0xFFC0 == 0x600 and pm.get(0x80, 1) & 1 and pm.get(0x3C, 1) == 9
            assert [isa.get(0x60 + n, 1) for n in range(4)] == [10, 10, 11, 11]
            assert machine.board.io.read(0x4D1, 1) == 0x0C
            assert machine.direct.warnings == []
            machine.cold_reset()
    finally:
        machine.close()


def test_bar_that_finds_no_room_is_named() -> None:
    """One function with a BAR of 1 GiB."""
    space = {0x00: 0x12348086, 0x0C: 0, 0x10: 0}
    selected = [0]

    def read(port: int, size: int) -> int:
        if selected[0] >> 8 & 0xFFFF:
            return (1 << 8 * size) - 1
        return space.get(selected[0] & 0xFC, 0) >> (8 * (port & 3)) & ((1 << 8 * size) - 1)

    def write(port: int, size: int, value: int) -> None:
        if port == 0xCF8:
            selected[0] = value
        elif selected[0] & 0xFC == 0x10:
            space[0x10] = value & 0xC0000000

    assert pcisetup.set_up(read, write, MIB, 0x600) == ["BAR 0x10 of 00.0 found no room"]


def test_pieces_are_in_memory_after_each_reset(tmp_path: pathlib.Path) -> None:
    machine = build(config(tmp_path), accel=["qtest"])
    try:
        for _ in range(2):
            assert machine.board.memory.read_bytes(MIB, 8) == b"code" + bytes(4)
            assert machine.board.memory.read_bytes(0xF0040, 8) == b"RSD PTR "
            machine.board.memory.write_bytes(MIB, b"XXXXYYYY")
            machine.cold_reset()
    finally:
        machine.close()


def test_devices_have_their_files_in_memory_as_from_a_firmware(tmp_path: pathlib.Path) -> None:
    number = uuid.UUID("de305d54-75b4-431b-adb2-eb6b9e546014")
    slots = {"count": 1, "maxmem": "1GiB", "nvdimm": True}
    devices = [{"driver": "vmgenid", "guid": str(number)}]
    given = config(tmp_path, machine="pc-i440fx-7.2", **{"memory-slots": slots}, devices=devices)
    machine = build(given, accel=["qtest"])
    try:
        board = machine.board
        for _ in range(2):
            where = int.from_bytes(board.fw_cfg_files["etc/vmgenid_addr"], "little")
            assert MIB < where < 64 * MIB
            assert board.ram.read(where, 16) == number.bytes_le
            tables = board.ram.read(machine.direct.low.top, 64 * MIB - machine.direct.low.top)
            assert b"VGIA\x0c" + (where - 40).to_bytes(4, "little") in tables  # the page's address
            board.ram.write(where, bytes(16))
            machine.cold_reset()
    finally:
        machine.close()
