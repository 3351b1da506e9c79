"""A disk of the host's that fails: what the guest and the machine's clients see of it."""

from __future__ import annotations

import os
import pathlib
from typing import Any

from vmrun.backends.block.debug import DebugNode
from vmrun.backends.block.file import FileNode

from tests.board import Driven
from tests.unit.storage.test_ata import BM, dma
from vmrun.backends.block.images import raw


def failing(pc: Driven, image: pathlib.Path) -> DebugNode:
    node = DebugNode(FileNode(os.open(image, os.O_RDWR), str(image)))
    (drive,) = pc.board.drives.values()
    drive.change(raw(node))
    pc.config(1, 1, 0x20, BM | 1)
    pc.config(1, 1, 4, 5)
    return node


def machine(directory: pathlib.Path, **drive: Any) -> Driven:
    (directory / "disk.img").write_bytes(bytes(1 << 20))
    return Driven(directory, machine="rhel6.3.0", memory="64MiB", disks=[{"file": "disk.img", **drive}])


def test_a_full_disk_stops_the_machine_and_cont_goes_on(tmp_path: pathlib.Path) -> None:
    with machine(tmp_path) as pc:
        node = failing(pc, tmp_path / "disk.img")
        events: list[tuple[str, dict[str, Any]]] = []
        pc.machine.listen(lambda name, **data: events.append((name, data)))
        pc.machine.resume()
        node.inject(error=28, kinds=["write"])
        pc.write(0x100000, b"w" * 512)
        assert dma(pc, 0xCA, 5, 1, [(0x100000, 512)], False) & 4 == 0
        assert pc.inb(0x3F6) & 0x80
        while pc.machine.state != "io-error":
            pc.machine.loop.run_once(1.0)
        assert [name for name, _ in events] == ["RESUME", "BLOCK_IO_ERROR", "STOP"]
        assert events[1][1] == {
            "device": next(iter(pc.board.drives)),
            "operation": "write",
            "action": "stop",
            "nospace": True,
            "reason": "No space left on device",
        }
        node.clear()
        pc.machine.resume()
        pc.settle()
        assert pc.machine.state == "running"
        assert pc.inb(0x1F7) & 0x81 == 0
        assert pc.inb(BM + 2) & 4
        pc.machine.pause()
    assert (tmp_path / "disk.img").read_bytes()[5 * 512 : 6 * 512] == b"w" * 512


def test_a_reported_error_is_in_the_guests_registers(tmp_path: pathlib.Path) -> None:
    with machine(tmp_path, rerror="report") as pc:
        failing(pc, tmp_path / "disk.img").inject(error=5, kinds=["read"])
        assert dma(pc, 0xC8, 5, 1, [(0x100000, 512)], True) & 4
        assert pc.inb(0x1F7) & 1


def test_the_device_says_what_an_error_does(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    devices = [{"driver": "ide-hd", "drive": "d", "rerror": "ignore"}]
    drives = {"d": {"file": "disk.img"}}
    with Driven(tmp_path, machine="rhel6.3.0", memory="64MiB", drives=drives, devices=devices) as pc:
        failing(pc, tmp_path / "disk.img").inject(error=5, kinds=["read"])
        dma(pc, 0xC8, 5, 1, [(0x100000, 512)], True)
        assert not pc.inb(0x1F7) & 1


def test_a_reset_in_mid_transfer_shows_busy_until_it_is_over(tmp_path: pathlib.Path) -> None:
    with machine(tmp_path) as pc:
        node = failing(pc, tmp_path / "disk.img")
        node.suspend("write_aio")
        pc.write(0x8000, bytes.fromhex("0000100000020080"))
        pc.outl(BM + 4, 0x8000)
        pc.outb(0x1F2, 1)
        for port in (0x1F3, 0x1F4, 0x1F5):
            pc.outb(port, 0)
        pc.outb(0x1F6, 0xE0)
        pc.outb(0x1F7, 0xCA)
        pc.outb(BM, 1)
        while not node.suspended:
            pass
        pc.outb(0x3F6, 4)
        pc.outb(0x3F6, 0)
        assert pc.inb(0x3F6) & 0x80
        node.resume()
        pc.settle()
        assert pc.inb(0x3F6) & 0x80 == 0
        assert pc.inb(0x1F1) == 1


def test_rules_hold_until_another_event_has_some_whatever_the_state(tmp_path: pathlib.Path) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    node = DebugNode(FileNode(os.open(tmp_path / "disk.img", os.O_RDWR), ""))
    top = raw(node)
    node.inject("read_aio", 5, state=1)
    node.set_state("read_aio", 2, 1)
    node.inject("write_aio", 28, kinds=["write"])

    def errors(*requests: Any) -> list[int]:
        found = []
        for name, *values in requests:
            try:
                getattr(top, name)(*values)
                found.append(0)
            except OSError as error:
                found.append(error.errno or 0)
        return found

    read, write = ("read", 0, 512), ("write", 0, b"x" * 512)
    assert errors(read, read, write, write, read) == [5, 5, 28, 28, 0]
    top.close()
