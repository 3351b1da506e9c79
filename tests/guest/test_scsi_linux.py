"""SCSI adapters as stock Linux drives them on soft: ext4 on a disk, a disc in a CD-ROM drive, behind each adapter."""

from __future__ import annotations

import pathlib
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.test_virtio_linux import image, whole

pytestmark = [pytest.mark.guest, pytest.mark.slow]
PATIENCE = 600.0
CORE = (
    "crypto/crct10dif_common", "crypto/crct10dif_generic", "lib/crc-t10dif", "lib/crc64",
    "crypto/crc64_rocksoft_generic", "lib/crc64-rocksoft", "lib/crc16", "crypto/crc32c_generic",
    "lib/libcrc32c", "fs/mbcache", "fs/jbd2/jbd2",
    "fs/ext4/ext4", "block/t10-pi", "drivers/scsi/scsi_common", "drivers/scsi/scsi_mod", "drivers/scsi/sd_mod",
    "drivers/cdrom/cdrom", "drivers/scsi/sr_mod", "fs/isofs/isofs",
)  # fmt: skip
VIRTIO = tuple(
    f"drivers/{name}"
    for name in (
        "virtio/virtio_ring", "virtio/virtio", "virtio/virtio_pci_legacy_dev", "virtio/virtio_pci_modern_dev",
        "virtio/virtio_pci", "scsi/virtio_scsi",
    )
)  # fmt: skip
SPI = ("drivers/scsi/scsi_transport_spi",)
DRIVERS = {
    "virtio-scsi-pci": VIRTIO,
    "lsi53c895a": (*SPI, "drivers/scsi/sym53c8xx_2/sym53c8xx"),
    "am53c974": (*SPI, "drivers/scsi/esp_scsi", "drivers/scsi/am53c974"),
    "megasas": ("drivers/scsi/megaraid/megaraid_sas",),
    "megasas-gen2": ("drivers/scsi/megaraid/megaraid_sas",),
    "piix3-ide": ("drivers/ata/libata", "drivers/ata/ata_piix"),
}
WAIT = """
await() {{ n=0; while [ ! -e $1 ] && [ $n -lt 900 ]; do sleep 0.1; n=$((n + 1)); done; }}
for m in {names}; do busybox insmod /$m.ko || echo NO-MODULE $m; done
"""
DISK = """
await /dev/sda
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/sda /mnt || echo NOT-MOUNTED
echo READ $(cat /mnt/greeting)
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=48 2>/dev/null
busybox cp /tmp/data /mnt/data
echo from the guest > /mnt/answer
busybox sync
echo 3 > /proc/sys/vm/drop_caches
busybox cmp /tmp/data /mnt/data && echo SAME
busybox fstrim /mnt 2>&1 && echo TRIMMED
busybox umount /mnt
echo SCSI $(cat /sys/block/sda/device/vendor) $(cat /sys/block/sda/device/model) $(cat /sys/block/sda/device/rev)
"""


def extra(driver: str) -> tuple[str, dict[str, tuple[int, bytes]]]:
    """The script that loads the drivers, and the files it needs."""
    chosen = kernel(driver.startswith("virtio"))
    root = pathlib.Path("/lib/modules") / chosen.partition("vmlinuz-")[2] / "kernel"
    names, files = [], {}
    for name in (*CORE, *DRIVERS[driver]):
        found = root / f"{name}.ko"
        if found.exists():
            short = name.rpartition("/")[2]
            names.append(short)
            files[f"{short}.ko"] = (stat.S_IFREG | 0o644, found.read_bytes())
    return WAIT.format(names=" ".join(names)), files


def boot(
    directory: pathlib.Path, driver: str, script: str, act: Callable[[LinuxGuest], None] | None = None, **keys: Any
) -> tuple[str, list[str]]:
    """The console's text and what the kernel complained of. `act` is done first, while it runs."""
    load, files = extra(driver)
    initrd = initramfs(directory, load + script, files)
    chosen = kernel(driver.startswith("virtio"))
    with LinuxGuest(directory, "soft", "quiet", kernel=chosen, initrd=initrd, **keys) as guest:
        if act is not None:
            act(guest)
        guest.run_to_end(PATIENCE)
        return guest.console(), guest.complaints()


def adapter(driver: str, **props: Any) -> dict[str, Any]:
    return {"id": "s", "driver": driver, **props}


KINDS = [
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", {}, id="virtio"),
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", {"disable-legacy": "on", "packed": True}, id="virtio-packed"),
    pytest.param("rhel6.6.0", "virtio-scsi-pci", {}, id="virtio-rhel6"),
    pytest.param("pc-i440fx-2.0", "lsi53c895a", {}, id="lsi"),
    pytest.param("pc-i440fx-2.0", "megasas", {}, id="megasas"),
    pytest.param("pc-i440fx-7.2", "megasas-gen2", {}, id="megasas-gen2"),
    pytest.param("pc-i440fx-2.0", "am53c974", {}, id="am53c974"),
]


@pytest.mark.parametrize(("machine", "driver", "props"), KINDS)
def test_linux_keeps_a_file_system_on_a_scsi_disk(
    machine: str, driver: str, props: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    path = image(tmp_path)
    disk = {"id": "disk", "driver": "scsi-hd", "drive": "d0"}
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    text, wrong = boot(
        tmp_path, driver, DISK, machine=machine, devices=[adapter(driver, **props), disk], drives=drives,
        cpus={"count": 2},
    )  # fmt: skip
    assert "READ hello from the host" in text and "\nSAME\n" in text, text[-3000:]
    assert "SCSI QEMU QEMU HARDDISK" in text
    assert wrong == [], wrong
    found = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "cat answer", str(path)], capture_output=True, text=True, timeout=60
    )
    assert found.stdout == "from the guest\n" and whole(path)
