"""Disks that boot through IDE: a boot sector of our own that writes, and GRUB to its prompt."""

from __future__ import annotations

import importlib.util
import pathlib
import re
import shutil
import struct
import subprocess
from typing import Any

import pytest

from tests.guest.machines import Guest

pytestmark = pytest.mark.guest
ROOT = pathlib.Path(__file__).resolve().parents[2]
BOOT_IMAGE = pathlib.Path("/usr/lib/grub/i386-pc/boot.img")
TYPES = ["rhel6.3.0", "pc-i440fx-2.0"]


def demo() -> Any:
    spec = importlib.util.spec_from_file_location("demo", ROOT / "tools" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_boot_sector_prints_writes_its_disk_and_powers_off(accel: str, tmp_path: pathlib.Path) -> None:
    tool = demo()
    before = tool.boot_sector() + bytes((1 << 20) - 512)
    (tmp_path / "disk.img").write_bytes(before)
    serial = {"serial": {"type": "ringbuf"}}
    devices = [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}]
    with Guest(
        tmp_path, accel, machine="rhel6.3.0", memory="64MiB", disks=["disk.img"], chardevs=serial, devices=devices
    ) as guest:
        assert guest.run_to_end() == "shutdown", guest.output()[-400:]
        assert tool.GREETING.decode() in guest.output("serial")
    after = (tmp_path / "disk.img").read_bytes()
    assert after[512 : 512 + len(tool.PROOF)] == tool.PROOF
    assert after[:512] == before[:512]
    assert after[1024:] == before[1024:]


def test_what_a_guest_writes_to_a_snapshot_is_gone_with_it(accel: str, tmp_path: pathlib.Path) -> None:
    tool = demo()
    before = tool.boot_sector() + bytes((1 << 20) - 512)
    (tmp_path / "disk.img").write_bytes(before)
    disks = [{"file": "disk.img", "snapshot": True}]
    with Guest(tmp_path, accel, machine="rhel6.3.0", memory="64MiB", disks=disks) as guest:
        assert guest.run_to_end() == "shutdown", guest.output()[-400:]
        found = guest.machine.board.drives["drive-ide0-0-0"].read_bytes(512, len(tool.PROOF))
        assert found == tool.PROOF
    assert (tmp_path / "disk.img").read_bytes() == before


def grub_disk(path: pathlib.Path) -> None:
    """boot.img, then the core image from sector 1, as grub-install lays them out; no file system."""
    early = path.with_suffix(".cfg")
    early.write_text(
        "serial --unit=0 --speed=115200\nterminal_output serial\nterminal_input serial\necho GRUB-IS-UP\n"
    )
    core_path = path.with_suffix(".core")
    modules = ["biosdisk", "part_msdos", "normal", "serial", "terminal", "echo", "ls", "halt"]
    subprocess.run(
        ["grub-mkimage", "-O", "i386-pc", "-o", core_path, "-p", "(hd0)/grub", "-c", early, *modules], check=True
    )
    core = bytearray(core_path.read_bytes())
    core += bytes(-len(core) % 512)
    # the block list of the first core sector: start, length and load segment of the rest
    struct.pack_into("<QHH", core, 500, 2, len(core) // 512 - 1, 0x820)
    image = bytearray(4 << 20)
    image[:440] = BOOT_IMAGE.read_bytes()[:440]
    image[510:512] = b"\x55\xaa"
    image[512 : 512 + len(core)] = core
    path.write_bytes(image)


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("grub-mkimage") is None or not BOOT_IMAGE.exists(), reason="grub-pc-bin is not installed"
)
@pytest.mark.parametrize("machine", TYPES)
def test_grub_boots_to_its_prompt(accel: str, machine: str, tmp_path: pathlib.Path) -> None:
    grub_disk(tmp_path / "grub.img")
    serial = {"serial": {"type": "ringbuf"}}
    devices = [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}]
    with Guest(
        tmp_path, accel, machine=machine, memory="64MiB", disks=["grub.img"], chardevs=serial, devices=devices
    ) as guest:
        up = re.compile(r"GRUB-IS-UP[\s\S]*grub>|grub>[\s\S]*GRUB-IS-UP")
        assert guest.run_until(lambda: up.search(guest.output("serial")), 240), guest.output("serial")[-400:]
