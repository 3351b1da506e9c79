"""SCSI adapters as stock Linux drives them on soft: ext4 on a disk, a disc in a CD-ROM drive, behind each adapter."""

from __future__ import annotations

import pathlib
import stat
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.guest.linux import LinuxGuest, initramfs, kernel
from tests.guest.test_snapshot import go_on
from tests.guest.test_virtio_linux import image, whole
from vmrun.machine import snapshot

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
    "dc390": (*SPI, "drivers/scsi/esp_scsi", "drivers/scsi/am53c974"),
    "pvscsi": ("drivers/scsi/vmw_pvscsi",),
    "megasas": ("drivers/scsi/megaraid/megaraid_sas",),
    "megasas-gen2": ("drivers/scsi/megaraid/megaraid_sas",),
    "piix3-ide": ("drivers/ata/libata", "drivers/ata/ata_piix"),
    "virtio-blk-pci": (*VIRTIO[:-1], "drivers/block/virtio_blk"),
    "nvme": ("drivers/nvme/common/nvme-common", "drivers/nvme/host/nvme-core", "drivers/nvme/host/nvme"),
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


PACKED = {"disable-legacy": "on", "packed": True}
KINDS = [
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", {}, id="virtio"),
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", PACKED, id="virtio-packed", marks=pytest.mark.long),
    pytest.param("rhel6.6.0", "virtio-scsi-pci", {}, id="virtio-rhel6", marks=pytest.mark.long),
    pytest.param("pc-i440fx-2.0", "lsi53c895a", {}, id="lsi"),
    pytest.param("pc-i440fx-2.0", "megasas", {}, id="megasas"),
    pytest.param("pc-i440fx-7.2", "megasas-gen2", {}, id="megasas-gen2", marks=pytest.mark.long),
    pytest.param("pc-i440fx-2.0", "am53c974", {}, id="am53c974"),
    pytest.param("pc-i440fx-2.0", "dc390", {}, id="dc390", marks=pytest.mark.long),
    pytest.param("pc-i440fx-7.2", "pvscsi", {}, id="pvscsi"),
    pytest.param("pc-i440fx-2.0", "pvscsi", {}, id="pvscsi-old", marks=pytest.mark.long),
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


COMES_AND_GOES = """
[ -e /sys/class/scsi_host/host0 ] && echo READY
n=0
while [ ! -e /dev/sda ] && [ $n -lt 300 ]; do
  {scan}
  sleep 0.2
  n=$((n + 1))
done
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/sda /mnt && echo READ $(cat /mnt/greeting) && echo from the guest > /mnt/answer
busybox umount /mnt
{forget}
echo USED
n=0
while [ -e /dev/sda ] && [ $n -lt 300 ]; do sleep 0.2; n=$((n + 1)); done
[ -e /dev/sda ] || echo GONE
sleep 1
"""
BY_HAND = {"scan": "echo - - - > /sys/class/scsi_host/host0/scan", "forget": "echo 1 > /sys/block/sda/device/delete"}
BY_ITSELF = {"scan": ":", "forget": ":"}


@pytest.mark.parametrize(
    ("driver", "how"),
    [
        ("virtio-scsi-pci", BY_ITSELF),
        pytest.param("megasas", BY_ITSELF, marks=pytest.mark.long),
        pytest.param("pvscsi", BY_ITSELF, marks=pytest.mark.long),
        pytest.param("lsi53c895a", BY_HAND, marks=pytest.mark.long),
        pytest.param("am53c974", BY_HAND, marks=pytest.mark.long),
    ],
)
def test_a_disk_comes_and_goes(driver: str, how: dict[str, str], tmp_path: pathlib.Path) -> None:
    path = image(tmp_path)
    told: list[str] = []

    def act(guest: LinuxGuest) -> None:
        guest.machine.listen(lambda name, **data: told.append(name))
        guest.run_until(lambda: "READY" in guest.console(), PATIENCE)
        disk = guest.machine.plug({"id": "disk", "driver": "scsi-hd", "drive": "d0", "bus": "s.0", "scsi-id": 2})
        guest.run_until(lambda: "USED" in guest.console(), PATIENCE)
        guest.machine.unplug(disk)

    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    text, wrong = boot(
        tmp_path, driver, COMES_AND_GOES.format(**how), act, machine="pc-i440fx-7.2", devices=[adapter(driver)],
        drives=drives,
    )  # fmt: skip
    assert "READ hello from the host" in text and "\nGONE\n" in text, text[-3000:]
    assert "DEVICE_DELETED" in told and wrong == [] and whole(path)


DISCS = """
await /dev/sr0
first() {{ busybox dd if=/dev/sr0 bs=2048 count=1 2>/dev/null | busybox head -c 12; }}
echo DISC $(first)
echo READY
n=0
while [ "$(first)" != "second disc!" ] && [ $n -lt 300 ]; do sleep 0.2; n=$((n + 1)); done
echo DISC $(first)
"""


@pytest.mark.parametrize("driver", ["virtio-scsi-pci", "piix3-ide"])
def test_a_disc_is_changed_while_it_runs(driver: str, tmp_path: pathlib.Path) -> None:
    from vmrun.machine import media

    for name in ("first", "second"):
        (tmp_path / name).write_bytes(f"{name} disc!".ljust(2048).encode() * 64)
    moved: list[Any] = []

    def act(guest: LinuxGuest) -> None:
        guest.machine.listen(lambda name, **data: moved.append(data.get("tray-open")))
        guest.run_until(lambda: "READY" in guest.console(), PATIENCE)
        media.change(guest.machine, media.find(guest.machine, "", "cd"), str(tmp_path / "second"), "raw", True)

    drives = {"d0": {"file": str(tmp_path / "first"), "media": "cdrom", "readonly": True, "format": "raw"}}
    if driver == "piix3-ide":
        devices = [{"id": "cd", "driver": "ide-cd", "bus": "ide.1", "unit": 0, "drive": "d0"}]
    else:
        devices = [adapter(driver), {"id": "cd", "driver": "scsi-cd", "drive": "d0"}]
    text, wrong = boot(tmp_path, driver, DISCS.format(), act, machine="pc-i440fx-7.2", devices=devices, drives=drives)
    assert "DISC first disc!" in text and "DISC second disc!" in text, text[-2000:]
    assert [way for way in moved if way is not None] == [True, False] and wrong == []


SAVED = ("virtio-scsi-pci", "megasas", "am53c974")
BUSY = """
await /dev/sda
busybox mkdir -p /mnt
busybox mount -t ext4 /dev/sda /mnt && echo MOUNTED
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


@pytest.mark.parametrize("driver", ["lsi53c895a", *(pytest.param(name, marks=pytest.mark.long) for name in SAVED)])
def test_a_machine_is_saved_while_its_disk_works(driver: str, tmp_path: pathlib.Path) -> None:
    path = image(tmp_path)
    load, files = extra(driver)
    initrd = initramfs(tmp_path, load + BUSY, files)
    disk = {"id": "disk", "driver": "scsi-hd", "drive": "d0"}
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    chosen = kernel(driver.startswith("virtio"))
    with LinuxGuest(
        tmp_path, "soft", "quiet", machine="pc-i440fx-2.0", kernel=chosen, initrd=initrd,
        devices=[adapter(driver), disk], drives=drives,
    ) as guest:  # fmt: skip
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


SLEEPS = """
disk={disk}
await $disk
busybox mkdir -p /mnt
busybox mount -t ext4 $disk /mnt && echo MOUNTED
busybox dd if=/dev/urandom of=/tmp/data bs=64k count=16 2>/dev/null
(n=0; while [ $n -lt 8 ]; do
  busybox cp /tmp/data /mnt/data && busybox sync
  echo 3 > /proc/sys/vm/drop_caches
  busybox cmp /tmp/data /mnt/data && echo SAME $n
  n=$((n + 1))
done) &
echo +4 > /sys/class/rtc/rtc0/wakealarm
echo deep > /sys/power/mem_sleep
echo mem > /sys/power/state && echo BACK-AGAIN
wait
busybox umount /mnt && echo UNMOUNTED
"""


@pytest.mark.long
@pytest.mark.parametrize("driver", ["piix3-ide", "virtio-blk-pci", "virtio-scsi-pci", "megasas", "am53c974", "nvme"])
def test_linux_sleeps_while_its_disk_works(driver: str, tmp_path: pathlib.Path) -> None:
    """Behind lsi53c895a and pvscsi the disk is lost in QEMU, too."""
    path = image(tmp_path)
    drives = {"d0": {"file": str(path), "format": "raw", "cache": "writeback"}}
    name, devices = "/dev/sda", [adapter(driver), {"id": "disk", "driver": "scsi-hd", "drive": "d0"}]
    if driver == "piix3-ide":
        devices = [{"id": "disk", "driver": "ide-hd", "bus": "ide.0", "unit": 0, "drive": "d0"}]
    elif driver == "virtio-blk-pci":
        name, devices = "/dev/vda", [{"id": "disk", "driver": driver, "drive": "d0"}]
    elif driver == "nvme":
        name, devices = "/dev/nvme0n1", [{"id": "disk", "driver": driver, "drive": "d0", "serial": "a"}]
    text, _ = boot(tmp_path, driver, SLEEPS.format(disk=name), machine="pc-i440fx-7.2", devices=devices, drives=drives)
    assert "BACK-AGAIN" in text and "UNMOUNTED" in text, text[-3000:]
    assert [f"SAME {n}" in text for n in range(8)] == [True] * 8 and "VERIFY failed" not in text
    assert whole(path)
