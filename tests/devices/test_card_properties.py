"""Properties that every card has, or every virtio one, on both programs: what a guest sees of them."""

from __future__ import annotations

import pathlib

import pytest

from tests.devices.fromline import file, made
from tests.peers.oracle import needs_qemu

pytestmark = needs_qemu
TYPE = ("-M", "pc-i440fx-7.2")
SELECT, INDEX = 0xAE10, 0xAE14
CARDS = (
    "pci-bridge,chassis_nr=1,bus-reserve=3,io-reserve=4K,mem-reserve=2M,pref64-reserve=1G",
    "pci-bridge,chassis_nr=1,shpc=off,io-reserve=0",
    "virtio-balloon-pci,modern-pio-notify=on",
    "virtio-vga,modern-pio-notify=on",
    "virtio-rng-pci,disable-legacy=on,iommu_platform=on",
    "e1000,romsize=1048576",
    "virtio-balloon-pci,iothread=t,free-page-hint=on,free-page-reporting=on",
    "virtio-balloon-pci,iothread=t,free-page-hint=on,page-poison=off",
)


def configuration(side: str, card: str) -> tuple[list[int], list[int]]:
    """256 bytes of configuration space, and what BARs and the ROM's hold after ones were written to them."""
    q = made(side, *TYPE, "-object", "iothread,id=t", "-device", f"{card},addr=5")
    space = [q.pci_read(5, 0, offset, 4) for offset in range(0, 256, 4)]
    bars = []
    for offset in (*range(0x10, 0x28, 4), 0x30):
        q.pci_write(5, 0, offset, 0xFFFFFFFF, 4)
        bars.append(q.pci_read(5, 0, offset, 4))
    q.close()
    return space, bars


@pytest.mark.parametrize("card", CARDS)
def test_configuration_space_is_qemu_s(card: str) -> None:
    assert configuration("vmrun", card) == configuration("qemu", card)


def test_the_hot_plug_registers_tell_a_card_s_acpi_index_once() -> None:
    devices = ("e1000,addr=5,acpi-index=77,romfile=", "pci-testdev,addr=6", "pci-testdev,addr=7,acpi-index=3")
    told = {}
    for side in ("vmrun", "qemu"):
        q = made(side, *TYPE, *(word for device in devices for word in ("-device", device)))
        rows = []
        for slots in (1 << 5, 1 << 6, 1 << 7, 1 << 5 | 1 << 7, 1 << 9, 0):
            q.outl(SELECT, 0)
            q.outl(INDEX, slots)
            rows.append((q.inl(INDEX), q.inl(INDEX)))
        q.outl(INDEX, 1 << 5)
        q.outl(SELECT, 0)
        told[side] = (rows, q.inl(INDEX))
        q.close()
    assert told["vmrun"] == told["qemu"]
    assert told["vmrun"][0][0] == (77, 0)


def test_the_firmware_is_told_the_geometries_that_were_given(tmp_path: pathlib.Path) -> None:
    words = [*TYPE, "-device", "virtio-scsi-pci,id=s"]
    for id, device in (
        ("a", "ide-hd,bus=ide.1,lcyls=100"),
        ("b", "virtio-blk-pci,lsecs=3"),
        ("c", "scsi-hd,bus=s.0,lheads=300,lsecs=70,lcyls=100000"),
        ("d", "ide-hd,bus=ide.0"),
    ):
        (tmp_path / id).write_bytes(bytes(1 << 20))
        words += ["-drive", f"if=none,id={id},file={tmp_path / id},format=raw", "-device", f"{device},drive={id}"]
    found = {}
    for side in ("vmrun", "qemu"):
        q = made(side, *words)
        found[side] = file(q, "bios-geometry")
        q.close()
    assert found["vmrun"] == found["qemu"]
    assert b"/drive@1/disk@0 100 0 0\n" in found["vmrun"]
