"""Debian's own tools on each controller, on soft: fio writes and verifies, badblocks and fsck find nothing.

The tools lie on the controller's first disk, so that running them reads it; the second one is written.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from typing import Any

import pytest

from tests.guest import test_scsi_linux as scsi

pytestmark = [pytest.mark.guest, pytest.mark.slow, pytest.mark.long]
TOOLS = ("/usr/bin/fio", "/usr/sbin/badblocks", "/usr/sbin/mke2fs", "/usr/sbin/e2fsck")
SCRATCH = 24 << 20
SCRIPT = """
await /dev/{first}
await /dev/{second}
busybox mkdir -p /tools
busybox mount -t ext4 -o ro /dev/{first} /tools || echo NOT-MOUNTED
busybox mount --bind /dev /tools/dev
busybox mount -t tmpfs tmpfs /tools/tmp
busybox mount -t proc proc /tools/proc
run() {{
  what=$1
  shift
  busybox chroot /tools "$@" > /tmp/out 2>&1 && echo DONE $what || {{ echo FAILED $what; busybox tail -n 20 /tmp/out; }}
}}
cd /
run fio /usr/bin/fio --name=v --filename=/dev/{second} --size=6m --bs=4k --rw=randwrite --direct=1 \\
    --ioengine={engine} --iodepth=32 --verify=crc32c --do_verify=1 --verify_fatal=1 --thread --output=/tmp/fio
busybox grep -E "err=|verify" /tools/tmp/fio | busybox head -n 3
run sequential /usr/bin/fio --name=s --filename=/dev/{second} --size=8m --bs=256k --rw=write --direct=1 \\
    --ioengine={engine} --iodepth=4 --verify=md5 --do_verify=1 --verify_fatal=1 --thread --output=/tmp/fio
run badblocks /usr/sbin/badblocks -w -t random -b 4096 -c 64 /dev/{second}
run mke2fs /usr/sbin/mke2fs -q -t ext4 /dev/{second}
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/{second} /mnt && busybox cp /tools/usr/bin/fio /mnt/ && busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox cmp /mnt/fio /tools/usr/bin/fio && echo DONE copy
busybox umount /mnt
run fsck /usr/sbin/e2fsck -f -n /dev/{second}
echo OVER
"""
NAMES = {"virtio-blk-pci": ("vda", "vdb"), "nvme": ("nvme0n1", "nvme1n1")}
KINDS = [
    pytest.param("pc-i440fx-2.0", "piix3-ide", {}, "raw", id="ide"),
    pytest.param("pc-i440fx-2.0", "virtio-blk-pci", {}, "raw", id="virtio-legacy"),
    pytest.param("pc-i440fx-7.2", "virtio-blk-pci", {"disable-legacy": "on"}, "raw", id="virtio-modern"),
    pytest.param(
        "pc-i440fx-7.2", "virtio-blk-pci", {"disable-legacy": "on", "packed": True}, "raw", id="virtio-packed"
    ),
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", {}, "raw", id="virtio-scsi"),
    pytest.param("pc-i440fx-2.0", "lsi53c895a", {}, "raw", id="lsi"),
    pytest.param("pc-i440fx-2.0", "megasas", {}, "raw", id="megasas"),
    pytest.param("pc-i440fx-7.2", "pvscsi", {}, "raw", id="pvscsi"),
    pytest.param("pc-i440fx-2.0", "am53c974", {}, "raw", id="am53c974"),
    pytest.param("pc-i440fx-7.2", "nvme", {}, "raw", id="nvme"),
    # one of each way to the block layer
    pytest.param("pc-i440fx-2.0", "piix3-ide", {}, "qcow2", id="ide-qcow2"),
    pytest.param("pc-i440fx-7.2", "virtio-blk-pci", {}, "qcow2", id="virtio-qcow2"),
    pytest.param("pc-i440fx-7.2", "nvme", {}, "qcow2", id="nvme-qcow2"),
]


def tools(directory: pathlib.Path) -> pathlib.Path:
    """A disk with the programs and the libraries that they are linked with."""
    if not all(pathlib.Path(tool).exists() for tool in TOOLS):
        pytest.fail("fio or e2fsprogs is not installed: tools/need-packages.sh guests")
    root = directory / "tools"
    for name in ("dev", "tmp", "proc", "etc"):
        (root / name).mkdir(parents=True)
    wanted = list(TOOLS)
    for tool in TOOLS:
        linked = subprocess.run(["ldd", tool], capture_output=True, text=True, check=True).stdout
        wanted += [word for line in linked.splitlines() for word in line.split() if word.startswith("/")]
    for file in dict.fromkeys(wanted):
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(file, target)
    (root / "etc" / "ld.so.conf").write_text("/usr/lib/x86_64-linux-gnu/ceph\n")
    subprocess.run(["/sbin/ldconfig", "-r", root], check=False, capture_output=True)
    path = directory / "tools.img"
    subprocess.run(["truncate", "-s", "160M", path], check=True)
    subprocess.run(["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-d", root, path], check=True)
    shutil.rmtree(root)
    return path


@pytest.mark.parametrize(("machine", "driver", "props", "format"), KINDS)
def test_fio_badblocks_and_fsck_find_nothing_wrong(
    machine: str, driver: str, props: dict[str, Any], format: str, tmp_path: pathlib.Path
) -> None:
    first, scratch = tools(tmp_path), tmp_path / f"scratch.{format}"
    subprocess.run(["qemu-img", "create", "-q", "-f", format, scratch, str(SCRATCH)], check=True)
    drives = {
        "d0": {"file": str(first), "format": "raw", "cache": "writeback"},
        "d1": {"file": str(scratch), "format": format, "cache": "writeback"},
    }
    if driver in NAMES:
        devices = [
            {"id": f"disk{n}", "driver": driver, "drive": f"d{n}", "addr": f"0{5 + n}.0", **props} for n in range(2)
        ]
        if driver == "nvme":
            devices = [{**one, "serial": f"s{n}"} for n, one in enumerate(devices)]
    elif driver == "piix3-ide":
        devices = [
            {"id": f"disk{n}", "driver": "ide-hd", "drive": f"d{n}", "bus": "ide.0", "unit": n} for n in range(2)
        ]
    else:
        devices = [scsi.adapter(driver, **props)]
        devices += [{"id": f"disk{n}", "driver": "scsi-hd", "drive": f"d{n}", "scsi-id": n, "lun": 0} for n in range(2)]
    names = NAMES.get(driver, ("sda", "sdb"))
    script = SCRIPT.format(first=names[0], second=names[1], engine="libaio")
    text, wrong = scsi.boot(
        tmp_path, driver, script, machine=machine, devices=devices, drives=drives, cpus={"count": 2}, memory="384MiB"
    )
    for what in ("fio", "sequential", "badblocks", "mke2fs", "copy", "fsck"):
        assert f"DONE {what}" in text, text[-4000:]
    assert wrong == []
    if format == "qcow2":
        subprocess.run(["qemu-img", "check", "-q", scratch], check=True)
