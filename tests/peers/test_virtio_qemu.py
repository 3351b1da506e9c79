"""Virtio cards beside QEMU's: configuration space, legacy and modern registers, the window in configuration space."""

from __future__ import annotations

import pathlib
import sys

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from vmrun.testing import QtestCommands, QtestProgram

pytestmark = [needs_qemu, pytest.mark.peer]

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "bin" / "vmrun-qemu"
PORTS, MODERN, FRAME_BUFFER = 0xC000, 0xE0000000, 0xD0000000


OLD = "pc-i440fx-2.0"


def programs(machine: str, device: str, directory: pathlib.Path) -> list[QtestProgram]:
    made = []
    for name, command in (
        ("theirs", [str(QEMU), "-M", f"{machine},smm=off", "-accel", "tcg", "-S"]),
        ("ours", [sys.executable, str(PROGRAM), "-M", machine, "-accel", "qtest"]),
    ):
        image = directory / f"{name}.img"
        image.write_bytes(bytes(3 << 20))
        options = ["-m", "64", "-display", "none", "-nodefaults"]
        options += ["-drive", f"if=none,id=d0,file={image},format=raw", "-device", f"{device},addr=5"]
        made.append(QtestProgram([*command, *options]))
    return made


def config(q: QtestCommands, offset: int, value: int | None = None) -> int:
    q.outl(0xCF8, 0x80002800 | offset)
    if value is not None:
        q.outl(0xCFC, value)
    return q.inl(0xCFC)


def look(q: QtestCommands) -> list[tuple[str, int]]:
    """All that a driver can read of a card, by name."""
    found = [(f"config {offset:#x}", config(q, offset)) for offset in range(0, 256, 4) if offset != 0x94]
    legacy, bar = config(q, 0x10) == 1, next((bar for bar in (0x20, 0x18) if config(q, bar) == 0xC), 0)
    config(q, 0x10, PORTS if legacy else FRAME_BUFFER)
    config(q, bar or 0x20, MODERN)
    config(q, (bar or 0x20) + 4, 0)
    config(q, 4, 7)
    if legacy:
        found += [(f"inb {n:#x}", q.inb(PORTS + n)) for n in range(128)]
        found += [(f"inw {n:#x}", q.inw(PORTS + n)) for n in range(0, 128, 2)]
        found += [(f"inl {n:#x}", q.inl(PORTS + n)) for n in range(0, 128, 4)]
    if bar:
        common, device = MODERN + config(q, 0x48), MODERN + config(q, 0x68)
        for word in range(3):
            q.writel(common, word)
            found.append((f"features {word}", q.readl(common + 4)))
        found += [(f"common {n:#x}", q.readl(common + n)) for n in range(0, 0x38, 4)]
        found += [(f"common word {n:#x}", q.readw(common + n)) for n in range(0, 0x38, 2)]
        found += [(f"device {n:#x}", q.readl(device + n)) for n in range(0, 64, 4)]
    if bar == 0x18:  # a VGA's registers are in front
        q.outb(0x3C2, 0x67)
        # all but the PEL mask, which QEMU has not
        where = [*range(0x400, 0x406), *range(0x407, 0x41A), *range(0x500, 0x516), *range(0x600, 0x608)]
        found += [(f"VGA {n:#x}", q.readb(MODERN + n)) for n in where]
        found += [(f"word {n:#x}", q.readw(MODERN + n)) for n in range(0x500, 0x516, 2)]
        found += [(f"long {n:#x}", q.readl(MODERN + n)) for n in (0x600, 0x604)]
        found += [(f"port {n:#x}", q.inb(n)) for n in where[:19]]
        q.writeb(FRAME_BUFFER + (8 << 20) - 1, 0x5A)
        found.append(("memory", q.readl(FRAME_BUFFER + (8 << 20) - 4)))
    return found


DEVICES = (
    "virtio-rng-pci", "virtio-gpu-pci", "virtio-vga", "virtio-vga,page-per-vq=on", "virtio-blk-pci,drive=d0",
    "virtio-scsi-pci", "virtio-balloon-pci",
)  # fmt: skip


@pytest.mark.parametrize("machine", ["pc-i440fx-7.2", "pc-i440fx-4.2", "pc-i440fx-2.0"])
@pytest.mark.parametrize("device", DEVICES)
def test_registers_are_qemus(machine: str, device: str, tmp_path: pathlib.Path) -> None:
    theirs, ours = programs(machine, device, tmp_path)
    try:
        wanted, found = look(theirs), look(ours)
    finally:
        theirs.close()
        ours.close()
    assert [pair for pair in zip(wanted, found, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.parametrize(
    ("machine", "device"),
    [
        ("pc-i440fx-2.6", "virtio-rng-pci-transitional"),
        ("pc-i440fx-4.0", "virtio-balloon-pci"),  # a configuration of 16 bytes
        ("pc-i440fx-7.2", "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on,page-poison=off"),
        ("pc-i440fx-2.7", "virtio-rng-pci"),  # a page for each queue
        ("pc-i440fx-2.7", "virtio-scsi-pci-non-transitional"),
        ("pc-i440fx-7.2", "virtio-blk-pci-non-transitional,drive=d0"),
        ("pc-i440fx-7.2", "virtio-scsi-pci-transitional"),
    ],
)
def test_cards_of_one_kind_are_qemus_on_every_type(machine: str, device: str, tmp_path: pathlib.Path) -> None:
    theirs, ours = programs(machine, device, tmp_path)
    try:
        wanted, found = look(theirs), look(ours)
    finally:
        theirs.close()
        ours.close()
    assert [pair for pair in zip(wanted, found, strict=True) if pair[0] != pair[1]] == []


def test_registers_of_a_modern_card_with_packed_rings_are_qemus(tmp_path: pathlib.Path) -> None:
    device = "virtio-blk-pci,drive=d0,disable-legacy=on,packed=on,serial=abc,num-queues=3"
    theirs, ours = programs("pc-i440fx-7.2", device, tmp_path)
    try:
        wanted, found = look(theirs), look(ours)
    finally:
        theirs.close()
        ours.close()
    assert [pair for pair in zip(wanted, found, strict=True) if pair[0] != pair[1]] == []


ACCESSES = (
    *((0x08, 4, 1), (0x08, 2, 0), (0x08, 2, 1), (0x00, 4, 1), (0x04, 4, None), (0x24, 4, 5), (0x24, 1, 7)),
    *((0x16, 2, 1), (0x16, 2, None), (0x16, 4, None), (0x14, 1, 3), (0x14, 1, None), (0x1E, 2, None)),
    *((0x2000, 4, None), (0x20, 4, 0x1234), (0x4000, 4, None), (0x14, 3, 0)),
)


def test_the_window_in_configuration_space_is_qemus(tmp_path: pathlib.Path) -> None:
    theirs, ours = programs("pc-i440fx-7.2", "virtio-blk-pci,drive=d0,num-queues=2", tmp_path)
    logs = []
    for q in (theirs, ours):
        log = []
        for offset, length, value in ACCESSES:
            config(q, 0x8C, offset)
            config(q, 0x90, length)
            if value is not None:
                config(q, 0x94, value)
            log.append((offset, length, value, config(q, 0x94)))
        logs.append(log)
        q.close()
    assert logs[0] == logs[1]
