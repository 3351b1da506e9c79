"""Virtio as stock Linux drives it on soft: ext4 on a disk of each kind (legacy, transitional, modern, packed rings),
random numbers, MSI-X or the pin.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.test_snapshot import go_on
from vmrun.machine import snapshot

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 400.0
MODULES = (
    "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev",
    "virtio/virtio_pci", "block/virtio_blk", "char/hw_random/virtio-rng",
)  # fmt: skip
LOAD = "for m in {names}; do busybox insmod /$m.ko || echo NO-MODULE $m; done\n"
DISK = """
busybox mkdir -p /mnt
for d in /sys/bus/virtio/devices/*; do echo FEATURES $(cat $d/device) $(cat $d/features); done
busybox mount -t ext4 /dev/vda /mnt || echo NOT-MOUNTED
echo READ $(cat /mnt/greeting)
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=48 2>/dev/null
busybox cp /tmp/data /mnt/data
echo from the guest > /mnt/answer
busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox cmp /tmp/data /mnt/data && echo SAME
busybox fstrim /mnt 2>&1 && echo TRIMMED
busybox umount /mnt
cd /sys/block/vda
echo SERIAL $(cat serial) CACHE $(cat queue/write_cache) QUEUES $(ls mq | busybox wc -l)
grep virtio /proc/interrupts
"""
RANDOM = """
echo RNG $(cat /sys/class/misc/hw_random/rng_current)
busybox dd if=/dev/hwrng bs=1k count=16 2>/dev/null | busybox od -A n -v -t x1 | busybox sort -u | busybox wc -l
grep virtio /proc/interrupts
"""


def image(directory: pathlib.Path) -> pathlib.Path:
    """An ext4 image with a file, made without mounting it."""
    mke2fs = shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin")
    if mke2fs is None:
        pytest.skip("no mke2fs: apt-get install e2fsprogs")
    tree = directory / "tree"
    tree.mkdir()
    (tree / "greeting").write_text("hello from the host\n")
    path = directory / "disk.img"
    subprocess.run([mke2fs, "-q", "-t", "ext4", "-d", str(tree), str(path), "32M"], check=True, timeout=60)
    return path


def whole(path: pathlib.Path) -> bool:
    e2fsck = shutil.which("e2fsck", path="/usr/sbin:/sbin:/usr/bin")
    return subprocess.run([str(e2fsck), "-fn", str(path)], timeout=60, capture_output=True).returncode == 0


def boot(
    directory: pathlib.Path, script: str, machine: str, act: Callable[[LinuxGuest], None] | None = None, **keys: Any
) -> tuple[str, list[str]]:
    """The console's text and what the kernel complained of. `act` is done first, while it runs."""
    chosen, initrd = kernel(), with_drivers(directory, script)
    with LinuxGuest(directory, "soft", "quiet", machine=machine, kernel=chosen, initrd=initrd, **keys) as guest:
        if act is not None:
            act(guest)
        guest.run_to_end(PATIENCE)
        return guest.console(), guest.complaints()


def with_drivers(directory: pathlib.Path, script: str) -> str:
    """An initramfs that loads virtio's drivers first."""
    drivers = pathlib.Path("/lib/modules") / kernel().partition("vmlinuz-")[2] / "kernel" / "drivers"
    extra = {}
    for name in MODULES:
        extra[f"{name.rpartition('/')[2]}.ko"] = (stat.S_IFREG | 0o644, (drivers / f"{name}.ko").read_bytes())
    names = " ".join(name.rpartition("/")[2] for name in MODULES)
    return initramfs(directory, LOAD.format(names=names) + script, extra)


KINDS = [
    pytest.param("rhel6.3.0", {}, "legacy", id="rhel6-legacy"),
    pytest.param("pc-i440fx-2.0", {"vectors": 0}, "legacy", id="legacy-pin"),
    pytest.param("pc-i440fx-7.2", {}, "modern", id="transitional"),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on", "num-queues": 2}, "modern", id="modern"),
    pytest.param("pc-i440fx-7.2", {"disable-legacy": "on", "packed": True}, "packed", id="packed"),
]


@pytest.mark.parametrize(("machine", "props", "kind"), KINDS)
def test_linux_keeps_a_file_system_on_a_virtio_disk(
    machine: str, props: dict[str, Any], kind: str, tmp_path: pathlib.Path
) -> None:
    path = image(tmp_path)
    disk = {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "serial": "VRM-1", **props}
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    text, wrong = boot(tmp_path, DISK, machine, devices=[disk], drives=drives, cpus={"count": 2})
    assert "READ hello from the host" in text and "\nSAME\n" in text, text[-3000:]
    assert "SERIAL VRM-1 CACHE write back" in text
    bits = re.search(r"FEATURES 0x\w+ (\d+)", text)
    assert bits is not None
    assert (bits[1][32] == "1") is (kind != "legacy") and (bits[1][34] == "1") is (kind == "packed")
    msix = re.search(r"virtio0-req\.0$", text, re.M) is not None
    assert msix is (props.get("vectors") != 0)
    assert wrong == []
    found = subprocess.run(
        [str(shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")), "-R", "cat answer", str(path)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert found.stdout == "from the guest\n" and whole(path)


@pytest.mark.parametrize("machine", ["pc-i440fx-2.0", "pc-i440fx-7.2"])
def test_linux_draws_random_numbers(machine: str, tmp_path: pathlib.Path) -> None:
    text, wrong = boot(tmp_path, RANDOM, machine, devices=[{"id": "rng", "driver": "virtio-rng-pci"}])
    assert re.search(r"^RNG virtio_rng", text, re.M), text[-3000:]
    assert re.search(r"^1024$", text, re.M)  # 1,024 rows of 16 bytes, no two alike
    assert (re.search(r"virtio0-input$", text, re.M) is not None) is (machine == "pc-i440fx-7.2")
    assert wrong == []


COMES_AND_GOES = """
echo READY
n=0
while [ ! -e /dev/vda ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/vda /mnt && echo READ $(cat /mnt/greeting) && echo from the guest > /mnt/answer
busybox umount /mnt && echo USED
while [ -e /dev/vda ] && [ $n -lt 1200 ]; do sleep 0.1; n=$((n + 1)); done
[ -e /dev/vda ] || echo GONE
sleep 1
"""


@pytest.mark.parametrize("machine", ["rhel6.3.0", "pc-i440fx-7.2"])
def test_a_disk_comes_and_goes(machine: str, tmp_path: pathlib.Path) -> None:
    path = image(tmp_path)
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    told: list[str] = []

    def act(guest: LinuxGuest) -> None:
        guest.machine.listen(lambda name, **data: told.append(name))
        guest.run_until(lambda: "READY" in guest.console(), PATIENCE)
        disk = guest.machine.plug({"id": "disk", "driver": "virtio-blk-pci", "drive": "d0"})
        guest.run_until(lambda: "USED" in guest.console(), PATIENCE)
        guest.machine.unplug(disk)

    text, wrong = boot(tmp_path, COMES_AND_GOES, machine, act, drives=drives)
    assert "READ hello from the host" in text and "\nGONE\n" in text, text[-3000:]
    assert "DEVICE_DELETED" in told and wrong == [] and whole(path)


BUSY = """
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/vda /mnt && echo MOUNTED
n=0
while [ $n -lt 12 ]; do
  busybox dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null
  busybox cp /tmp/data /mnt/data$n && busybox sync
  echo 3 > /proc/sys/vm/drop_caches
  busybox cmp /tmp/data /mnt/data$n && echo SAME $n
  n=$((n + 1))
done
busybox umount /mnt && echo UNMOUNTED
"""


@pytest.mark.parametrize("packed", [False, True])
def test_a_machine_is_saved_while_its_disk_works(packed: bool, tmp_path: pathlib.Path) -> None:
    path = image(tmp_path)
    disk = {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "packed": packed}
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    drawn = with_drivers(tmp_path, BUSY)
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-7.2", kernel=kernel(), initrd=drawn, devices=[disk], drives=drives
    ) as guest:
        guest.run_until(lambda: "SAME 1" in guest.console(), PATIENCE)
        guest.machine.pause()
        text = guest.console()
        saved = str(tmp_path / "0.vm")
        snapshot.save(guest.machine, saved, "running")
    for n, seconds in enumerate((0.4, 0.7, 0.0), 1):
        reason, more = go_on(saved, "soft", "serial", str(tmp_path / f"{n}.vm"), seconds)
        text += more
        saved = str(tmp_path / f"{n}.vm")
        if reason is not None:
            break
    assert [f"SAME {n}" in text for n in range(12)] == [True] * 12 and "UNMOUNTED" in text, text[-3000:]
    assert whole(path)
