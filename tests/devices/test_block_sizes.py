"""Block sizes that QEMU refuses are refused on every controller, in its words; what it takes is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vmrun.config.resolve import resolve_file
from vmrun.errors import VmrunError
from vmrun.machine.builder import build

DISKS = ("virtio-blk-pci", "ide-hd", "scsi-hd", "nvme", "ide-cd", "scsi-cd", "floppy")


def said(directory: Path, driver: str, **props: Any) -> str:
    (directory / "d.img").write_bytes(bytes(1 << 20))
    drive = {"file": "d.img", "media": "cdrom"} if driver.endswith("cd") else {"file": "d.img"}
    device = {"driver": driver, "id": "x", "drive": "d", **({"serial": "a"} if driver == "nvme" else {}), **props}
    devices = [{"driver": "virtio-scsi-pci", "id": "s"}, device] if driver.startswith("scsi") else [device]
    path = directory / "m.json"
    head = {"schema": "vmrun/machine/1", "machine": "pc-i440fx-7.2"}
    path.write_text(json.dumps({**head, "drives": {"d": drive}, "devices": devices}))
    try:
        build(resolve_file(str(path)).data, accel=["qtest"]).close()
    except VmrunError as error:
        return error.problems[0].message.rpartition(": ")[2]
    return ""


@pytest.mark.parametrize("driver", DISKS)
def test_hints_are_whole_blocks(driver: str, tmp_path: Path) -> None:
    assert said(tmp_path, driver, min_io_size=513) == "min_io_size must be a multiple of logical_block_size"
    assert said(tmp_path, driver, opt_io_size=0xFFFFFFFF) == "opt_io_size must be a multiple of logical_block_size"
    assert said(tmp_path, driver, min_io_size=1 << 25) == "min_io_size must not exceed 65535 logical blocks"
    assert said(tmp_path, driver, min_io_size=65535 * 512, opt_io_size=0xFFFFFE00) == ""
    grain = "must be 512 for ide" if driver.startswith("ide") else "must be a multiple of logical_block_size"
    assert said(tmp_path, driver, discard_granularity=1) == f"discard_granularity {grain}"
    assert said(tmp_path, driver, discard_granularity=0) == ""
    refused = f"discard_granularity {grain}" if driver.startswith("ide") else ""
    assert said(tmp_path, driver, discard_granularity=4096) == refused


@pytest.mark.parametrize("driver", ["virtio-blk-pci", "scsi-hd", "nvme"])
def test_a_block_is_a_power_of_two_and_no_larger_than_a_physical_one(driver: str, tmp_path: Path) -> None:
    large = "logical_block_size > physical_block_size not supported"
    assert said(tmp_path, driver, logical_block_size=4096) == large
    assert said(tmp_path, driver, logical_block_size=768) == "logical_block_size 768 is not a power of 2"
    assert said(tmp_path, driver, logical_block_size=4096, physical_block_size=2097152) == ""
