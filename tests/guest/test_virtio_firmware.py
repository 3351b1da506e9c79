"""SeaBIOS starts a boot sector from a virtio disk, legacy and modern, on the root bus and behind a bridge; on KVM the
kicks of its driver leave the guest, or do not (`ioeventfd`).
"""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.guest.machines import Guest
from tests.guest.test_disk import demo

pytestmark = pytest.mark.guest
BRIDGE = {"id": "bridge", "driver": "pci-bridge", "chassis_nr": 1, "addr": "06.0"}


@pytest.mark.parametrize(
    ("machine", "more", "props"),
    [
        pytest.param("rhel6.3.0", [], {}, id="rhel6"),
        pytest.param("pc-i440fx-2.0", [], {}, id="legacy"),
        pytest.param("pc-i440fx-7.2", [], {"disable-legacy": "on"}, id="modern"),
        pytest.param("pc-i440fx-2.0", [BRIDGE], {"bus": "bridge", "addr": "03.0"}, id="behind-a-bridge"),
    ],
)
def test_a_boot_sector_starts_from_a_virtio_disk(
    machine: str, more: list[dict[str, Any]], props: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    boot(tmp_path, "soft", machine, more, props)


@pytest.mark.kvm
@pytest.mark.parametrize("doorbells", [True, False], ids=["doorbells", "exits"])
@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
def test_kicks_on_kvm_leave_the_guest_when_they_must(modern: bool, doorbells: bool, tmp_path: pathlib.Path) -> None:
    props = {"disable-legacy": "on" if modern else "off", "disable-modern": not modern}
    device = boot(tmp_path, "kvm", "pc-i440fx-7.2", [], {**props, "ioeventfd": doorbells})
    assert (device.chip.exits == 0) is doorbells and (device.chip.served > 0) is doorbells


def boot(
    tmp_path: pathlib.Path, accel: str, machine: str, more: list[dict[str, Any]], props: dict[str, Any]
) -> Any:
    """The disk's device, when its guest has ended."""
    tool = demo()
    before = tool.boot_sector() + bytes((1 << 20) - 512)
    (tmp_path / "disk.img").write_bytes(before)
    devices = [
        {"id": "com1", "driver": "isa-serial", "chardev": "serial"},
        *more,
        {"id": "disk", "driver": "virtio-blk-pci", "drive": "d0", "bootindex": 0, **props},
    ]
    with Guest(
        tmp_path,
        accel,
        machine=machine,
        memory="64MiB",
        drives={"d0": {"file": "disk.img", "format": "raw"}},
        chardevs={"serial": {"type": "ringbuf"}},
        devices=devices,
    ) as guest:
        guest.run_until(lambda: tool.GREETING.decode() in guest.output("serial"))
        assert tool.GREETING.decode() in guest.output("serial"), guest.output()[-1500:]
        device: Any = guest.machine.devices["disk"]
    after = (tmp_path / "disk.img").read_bytes()
    assert after[512 : 512 + len(tool.PROOF)] == tool.PROOF and after[1024:] == before[1024:]
    return device
