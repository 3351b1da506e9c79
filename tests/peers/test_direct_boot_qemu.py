"""The same kernel beside the same firmware in QEMU and in vmrun: it is told the same."""

from __future__ import annotations

import pathlib
import struct
import subprocess
from typing import Any

import pytest

from tests.guest import kernels
from tests.guest.test_direct_boot import boot
from tests.peers.oracle import QEMU, Qemu, needs_qemu
from tests.unit.firmware.board import board
from vmrun.firmware import kernel

pytestmark = [pytest.mark.peer, needs_qemu]


def in_qemu(directory: pathlib.Path, machine: str, *args: str) -> list[str]:
    command = [
        QEMU or "", "-M", machine, "-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-serial", "stdio",
        "-device", "isa-debug-exit", "-kernel", "kernel", "-append", "one two", *args,
    ]  # fmt: skip
    more: dict[str, Any] = {"capture_output": True, "timeout": 120, "stdin": subprocess.DEVNULL, "check": False}
    done = subprocess.run(command, cwd=directory, **more)
    return done.stdout.decode().replace("\r", "").splitlines()


def told(lines: list[str]) -> list[str]:
    """Without the loader's name, and what the first flags word says of optional parts."""
    return [line for line in lines if not line.startswith("loader")]


@pytest.mark.guest
@pytest.mark.parametrize("flags", [3, 0x10003])
def test_multiboot_kernel_is_told_what_qemu_tells_it(flags: int, tmp_path: pathlib.Path) -> None:
    initrd = "first words of its own,second"
    own = boot(tmp_path, "soft", kernels.multiboot1(flags), initrd=initrd)
    theirs = in_qemu(tmp_path, "pc-i440fx-2.0", "-initrd", initrd)
    assert told(own) == told(theirs)


@pytest.mark.guest
def test_pvh_kernel_is_told_what_qemu_tells_it(tmp_path: pathlib.Path) -> None:
    own = boot(tmp_path, "soft", kernels.pvh(64), initrd="first", machine="pc-i440fx-7.2", cpus={"model": "qemu64"})
    theirs = in_qemu(tmp_path, "pc-i440fx-7.2", "-initrd", f"{tmp_path}/first")
    far = [line for line in theirs if line.startswith("memory fd00000000")]  # kept from processors of AMD
    assert told(own) == [line for line in told(theirs) if line in own or line not in far]


def test_items_of_a_pvh_kernel_are_qemus(tmp_path: pathlib.Path) -> None:
    path, initrd = tmp_path / "kernel", tmp_path / "initrd"
    path.write_bytes(kernels.pvh(64))
    initrd.write_bytes(bytes(range(256)) * 11)
    config = board("pc-i440fx-7.2", memory=64 << 20, kernel=str(path), initrd=str(initrd), cmdline="one two")
    own = kernel.through_firmware(config, kernel.read(config))
    args = ["-m", "64", "-kernel", str(path), "-initrd", str(initrd), "-append", "one two"]
    with Qemu("pc-i440fx-7.2", *args) as qemu:
        for key, data in own.items.items():
            count = min(len(data), 1024)  # of the ELF file's head QEMU gives a little less than all
            assert qemu.fw_cfg(key, count) == data[:count], hex(key)
        assert f"genroms/{own.rom}" in qemu.files()
        (piece,) = own.images
        assert qemu.read(piece.addr, len(piece.data)) == bytes(piece.data)


def test_entry_and_extent_of_a_multiboot_kernel_are_qemus(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(kernels.multiboot1(3))
    config = board("pc-i440fx-2.0", memory=64 << 20, kernel=str(path), cmdline="one")
    own = kernel.through_firmware(config, kernel.read(config))
    with Qemu("pc-i440fx-2.0", "-m", "64", "-kernel", str(path), "-append", "one") as qemu:
        for key in (kernel.ENTRY, 0x07, 0x0A, 0x0B):
            assert qemu.fw_cfg(key, 4) == own.items[key], hex(key)
        info = qemu.fw_cfg(0x12, 88)
    mine = own.items[0x12]
    for offset in (4, 8, 12, 48):  # sizes, which the ROM fills in; boot device; where the map comes
        assert mine[offset : offset + 4] == info[offset : offset + 4], offset
    assert struct.unpack_from("<I", mine)[0] & 0x24F == struct.unpack_from("<I", info)[0]
