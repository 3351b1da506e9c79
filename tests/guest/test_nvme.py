"""An NVMe disk: SeaBIOS boots from it, a stock Linux keeps a file system on it."""

from __future__ import annotations

import pathlib
import subprocess
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest
from tests.guest.test_virtio_firmware import demo
from tests.guest.test_virtio_linux import image, whole

pytestmark = pytest.mark.guest
PATIENCE = 400.0
SCRIPT = """
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/nvme0n1 /mnt || echo NOT-MOUNTED
echo READ $(cat /mnt/greeting)
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=48 2>/dev/null
busybox cp /tmp/data /mnt/data
echo from the guest > /mnt/answer
busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox cmp /tmp/data /mnt/data && echo SAME
busybox fstrim /mnt 2>&1 && echo TRIMMED
busybox umount /mnt
cd /sys/block/nvme0n1
echo SERIAL $(cat device/serial) CACHE $(cat queue/write_cache) MODEL $(cat device/model)
grep nvme /proc/interrupts
"""


@pytest.mark.parametrize("machine", ["pc-i440fx-2.0", "pc-i440fx-7.2"])
def test_a_boot_sector_starts_from_it(machine: str, tmp_path: pathlib.Path) -> None:
    tool = demo()
    before = tool.boot_sector() + bytes((1 << 20) - 512)
    (tmp_path / "disk.img").write_bytes(before)
    devices = [
        {"id": "com1", "driver": "isa-serial", "chardev": "serial"},
        {"id": "disk", "driver": "nvme", "drive": "d0", "serial": "1", "bootindex": 0},
    ]
    keys: dict[str, Any] = {"drives": {"d0": {"file": "disk.img", "format": "raw"}}, "memory": "64MiB"}
    with Guest(
        tmp_path, "soft", machine=machine, chardevs={"serial": {"type": "ringbuf"}}, devices=devices, **keys
    ) as guest:
        guest.run_until(lambda: tool.GREETING.decode() in guest.output("serial"))
        assert tool.GREETING.decode() in guest.output("serial"), guest.output()[-1500:]
    after = (tmp_path / "disk.img").read_bytes()
    assert after[512 : 512 + len(tool.PROOF)] == tool.PROOF and after[1024:] == before[1024:]


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["pc-i440fx-5.1", "pc-i440fx-7.2"])
def test_linux_keeps_a_file_system_on_it(machine: str, tmp_path: pathlib.Path) -> None:
    path = image(tmp_path)
    chosen, initrd = kernel(), initramfs(tmp_path, SCRIPT)
    keys: dict[str, Any] = {
        "machine": machine,
        "kernel": chosen,
        "initrd": initrd,
        "cpus": {"count": 2},
        "drives": {"d0": {"file": str(path), "format": "raw", "discard": "unmap"}},
        "devices": [{"id": "disk", "driver": "nvme", "drive": "d0", "serial": "VRM-7"}],
    }
    with LinuxGuest(tmp_path, "soft", "quiet", **keys) as guest:
        guest.run_to_end(PATIENCE)
        text, wrong = guest.console(), guest.complaints()
    assert "READ hello from the host" in text and "\nSAME\n" in text and "TRIMMED" in text, text[-3000:]
    assert "SERIAL VRM-7 CACHE write back MODEL QEMU NVMe Ctrl" in text
    assert "nvme0q1" in text
    assert wrong == []
    found = subprocess.run(["debugfs", "-R", "cat answer", str(path)], capture_output=True, text=True, timeout=60)
    assert found.stdout == "from the guest\n" and whole(path)
