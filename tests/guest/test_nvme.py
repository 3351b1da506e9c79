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


NAMESPACES = """
for d in /sys/block/nvme*; do
  echo DISK $(busybox basename $d) NSID $(cat $d/nsid) SIZE $(cat $d/size) BLOCK $(cat $d/queue/logical_block_size)
done
for d in /dev/nvme*n*; do
  busybox dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
  busybox dd if=/tmp/data of=$d bs=64k 2>/dev/null
  busybox sync
  echo 3 > /proc/sys/vm/drop_caches
  busybox dd if=$d bs=64k count=8 2>/dev/null | busybox cmp - /tmp/data && echo SAME $d
done
"""


@pytest.mark.slow
@pytest.mark.long
def test_linux_has_the_namespaces_of_a_subsystem(tmp_path: pathlib.Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.img").write_bytes(bytes(8 << 20))
    drives = {name: {"file": str(tmp_path / f"{name}.img"), "format": "raw"} for name in "abc"}
    block = {"logical_block_size": 4096, "physical_block_size": 4096}
    devices: list[dict[str, Any]] = [
        {"id": "sub", "driver": "nvme-subsys", "nqn": "pool"},
        {"id": "n0", "driver": "nvme", "serial": "VRM-0", "subsys": "sub"},
        {"driver": "nvme-ns", "bus": "n0", "drive": "a", "uuid": "7a6d1f1e-7f0a-4c43-8d0f-6f6a1b1d2c3e"},
        {"driver": "nvme-ns", "bus": "n0", "drive": "b", "nsid": 7, "eui64": 0x1122334455667788, **block},
        {"driver": "nvme-ns", "bus": "n0", "drive": "c", "nsid": 9, "detached": True},
    ]
    keys: dict[str, Any] = {"machine": "pc-i440fx-7.2", "kernel": kernel(), "drives": drives, "devices": devices}
    keys["initrd"] = initramfs(tmp_path, NAMESPACES)
    with LinuxGuest(tmp_path, "soft", "quiet", **keys) as guest:
        guest.run_to_end(PATIENCE)
        text, wrong = guest.console(), guest.complaints()
    assert "DISK nvme0n1 NSID 1 SIZE 16384 BLOCK 512" in text, text[-3000:]
    assert "DISK nvme0n2 NSID 7 SIZE 16384 BLOCK 4096" in text
    assert text.count("SAME /dev/nvme") == 2 and "NSID 9" not in text
    assert wrong == []
