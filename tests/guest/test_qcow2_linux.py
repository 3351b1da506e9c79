"""A stock Linux on soft with its file system in a qcow2 image on IDE, two backing images below it; GRUB from one."""

from __future__ import annotations

import pathlib
import shutil
import stat
import subprocess

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.machines import Guest
from tests.guest.test_disk import BOOT_IMAGE, grub_disk
from tests.guest.test_virtio_linux import image, whole

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 400.0
SCRIPT = """
for m in {names}; do busybox insmod /$m.ko || echo NO-MODULE $m; done
n=0; while [ ! -e /dev/sda ] && [ $n -lt 100 ]; do busybox sleep 0.1; n=$((n+1)); done
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/sda /mnt || echo NOT-MOUNTED
echo READ $(cat /mnt/greeting)
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=48 2>/dev/null
busybox cp /tmp/data /mnt/data
echo from the guest > /mnt/answer
busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox cmp /tmp/data /mnt/data && echo SAME
busybox umount /mnt
"""


def closure(release: str, wanted: str) -> list[pathlib.Path]:
    """A module and what it needs, in the order of loading."""
    top = pathlib.Path("/lib/modules") / release
    needs = {}
    for line in (top / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    found: list[pathlib.Path] = []
    for name in needs:
        if name.endswith(f"/{wanted}.ko"):
            found = [top / one for one in [*reversed(needs[name]), name]]
    return found


def chain(directory: pathlib.Path, below: pathlib.Path) -> pathlib.Path:
    """Three qcow2 images on a raw one; the first compressed, the second of small clusters."""
    def tool(*args: str) -> None:
        subprocess.run(["qemu-img", *args], check=True, cwd=directory, timeout=60, capture_output=True)

    tool("convert", "-c", "-f", "raw", "-O", "qcow2", str(below), "one.qcow2")
    tool("create", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "one.qcow2", "-F", "qcow2", "two.qcow2")
    tool("create", "-f", "qcow2", "-o", "extended_l2=on", "-b", "two.qcow2", "-F", "qcow2", "three.qcow2")
    return directory / "three.qcow2"


def test_linux_keeps_a_file_system_in_a_chain_of_images(tmp_path: pathlib.Path) -> None:
    raw = image(tmp_path)
    before = raw.read_bytes()
    top = chain(tmp_path, raw)
    modules: dict[str, pathlib.Path] = {}
    for wanted in ("ata_piix", "sd_mod", "ext4"):
        for path in closure(kernel().partition("vmlinuz-")[2], wanted):
            modules.setdefault(path.stem, path)
    extra = {f"{name}.ko": (stat.S_IFREG | 0o644, path.read_bytes()) for name, path in modules.items()}
    initrd = initramfs(tmp_path, SCRIPT.format(names=" ".join(modules)), extra)
    disks = [{"file": str(top), "format": "qcow2"}]
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-2.0", kernel=kernel(), initrd=initrd, disks=disks
    ) as guest:
        guest.run_to_end(PATIENCE)
        text, wrong = guest.console(), guest.complaints()
    assert "READ hello from the host" in text and "\nSAME\n" in text, text[-3000:]
    assert wrong == []
    subprocess.run(["qemu-img", "check", "-q", str(top)], check=True, timeout=60)
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(top), str(tmp_path / "after.img")], check=True, timeout=60)
    assert whole(tmp_path / "after.img")
    assert raw.read_bytes() == before


@pytest.mark.skipif(not BOOT_IMAGE.exists() or shutil.which("grub-mkimage") is None, reason="no grub-pc-bin")
def test_grub_comes_to_its_prompt_from_a_chain_of_images(accel: str, tmp_path: pathlib.Path) -> None:
    grub_disk(tmp_path / "disk.img")
    data = (tmp_path / "disk.img").read_bytes()
    (tmp_path / "disk.img").write_bytes(data + bytes(-len(data) % 65536))
    top = chain(tmp_path, tmp_path / "disk.img")
    serial = {"serial": {"type": "ringbuf"}}
    devices = [{"id": "com1", "driver": "isa-serial", "chardev": "serial"}]
    with Guest(
        tmp_path, accel, machine="rhel6.3.0", memory="64MiB", disks=[{"file": str(top), "format": "qcow2"}],
        chardevs=serial, devices=devices,
    ) as guest:  # fmt: skip
        assert guest.run_until(lambda: "grub>" in guest.output("serial"), 240), guest.output("serial")[-400:]
