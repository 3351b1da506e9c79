"""SeaBIOS starts a boot sector from a disk behind each SCSI adapter, and a disc in a SCSI CD-ROM drive."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.machines import Guest
from tests.guest.test_cdrom import IPXE
from tests.guest.test_disk import demo

pytestmark = pytest.mark.guest
ADAPTERS = [
    pytest.param("rhel6.6.0", "virtio-scsi-pci", {}, id="virtio-rhel6"),
    pytest.param("pc-i440fx-7.2", "virtio-scsi-pci", {"disable-legacy": "on"}, id="virtio-modern"),
    pytest.param("pc-i440fx-2.0", "lsi53c895a", {}, id="lsi"),
    pytest.param("pc-i440fx-2.0", "megasas", {}, id="megasas"),
    pytest.param("pc-i440fx-2.0", "am53c974", {}, id="am53c974"),
    pytest.param("pc-i440fx-2.0", "dc390", {}, id="dc390", marks=pytest.mark.long),
    pytest.param("pc-i440fx-7.2", "pvscsi", {}, id="pvscsi"),
]


@pytest.mark.parametrize(("machine", "driver", "props"), ADAPTERS)
def test_a_boot_sector_starts_from_a_scsi_disk(
    machine: str, driver: str, props: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    tool = demo()
    before = tool.boot_sector() + bytes((1 << 20) - 512)
    (tmp_path / "disk.img").write_bytes(before)
    devices = [
        {"id": "com1", "driver": "isa-serial", "chardev": "serial"},
        {"id": "s", "driver": driver, **props},
        {"id": "other", "driver": "scsi-cd", "bus": "s.0", "scsi-id": 0},
        {"id": "disk", "driver": "scsi-hd", "bus": "s.0", "drive": "d0", "bootindex": 0, "scsi-id": 1},
    ]
    with Guest(
        tmp_path,
        "soft",
        machine=machine,
        memory="64MiB",
        drives={"d0": {"file": "disk.img", "format": "raw"}},
        chardevs={"serial": {"type": "ringbuf"}},
        devices=devices,
    ) as guest:
        guest.run_until(lambda: tool.GREETING.decode() in guest.output("serial"))
        assert tool.GREETING.decode() in guest.output("serial"), guest.output()[-1500:]
    after = (tmp_path / "disk.img").read_bytes()
    assert after[512 : 512 + len(tool.PROOF)] == tool.PROOF and after[1024:] == before[1024:]


@pytest.mark.parametrize(("machine", "driver", "props"), ADAPTERS[1:])
def test_a_disc_boots_from_a_scsi_drive(
    machine: str, driver: str, props: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    devices = [
        {"id": "s", "driver": driver, **props},
        {"id": "cd", "driver": "scsi-cd", "drive": "d0", "bootindex": 0},
    ]
    drives = {"d0": {"file": IPXE, "media": "cdrom", "readonly": True, "format": "raw"}}
    with Guest(
        tmp_path, "soft", machine=machine, memory="128MiB", display="std", drives=drives, devices=devices
    ) as guest:
        assert guest.run_until(lambda: "Open Source Network Boot Firmware" in guest.screen(), 60), guest.screen()
