"""Drives with `snapshot: true`: the guest reads what it wrote, the image stays as it is."""

from __future__ import annotations

import pathlib
import random
import struct
from typing import Any

import pytest

from tests.board import Driven
from tests.unit.storage.test_ata import BM, content, dma
from vmrun.backends.block import open_drive
from vmrun.errors import BackendError

SECTORS = 4096


def machine(directory: pathlib.Path, **drive: Any) -> Driven:
    pc = Driven(directory, machine="rhel6.3.0", memory="64MiB", disks=[{"file": "disk.img", **drive}])
    pc.config(1, 1, 0x20, BM | 1)
    pc.config(1, 1, 4, 5)
    return pc


@pytest.fixture
def image(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "disk.img"
    path.write_bytes(b"".join(content(n) for n in range(SECTORS)))
    return path


def test_random_writes_read_back_and_the_image_stays(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rng = random.Random(7)
    before = image.read_bytes()
    expected = bytearray(before)
    with machine(tmp_path, snapshot=True) as pc:
        for _ in range(60):
            count, at = rng.randint(1, 64), rng.randrange(SECTORS - 64)
            data = rng.randbytes(count * 512)
            pc.write(0x100000, data)
            assert dma(pc, 0xCA, at, count, [(0x100000, count * 512)], False) & 0x07 == 0x04
            expected[at * 512 : (at + count) * 512] = data
            count, at = rng.randint(1, 128), rng.randrange(SECTORS - 128)
            # in pieces whose borders are not those of the sectors
            cut = rng.randrange(2, count * 512, 2)
            table = [(0x200000, cut), (0x300000, count * 512 - cut)]
            assert dma(pc, 0xC8, at, count, table, True) & 0x07 == 0x04
            found = pc.read(0x200000, cut) + pc.read(0x300000, count * 512 - cut)
            assert found == expected[at * 512 : (at + count) * 512]
        pc.outb(0x1F7, 0xE7)
        pc.settle()
        assert not pc.inb(0x1F7) & 1
    assert image.read_bytes() == before


def test_two_machines_share_an_image_that_neither_changes(image: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with machine(tmp_path, snapshot=True), machine(tmp_path, snapshot=True) as second:
        second.write(0x100000, struct.pack("<I", 77) * 128)
        assert dma(second, 0xCA, 5, 1, [(0x100000, 512)], False) & 0x07 == 0x04
        assert second.machine.board.drives["drive-ide0-0-0"].read_bytes(4 * 512, 1536) == (
            content(4) + content(77) + content(6)
        )
    assert image.read_bytes()[5 * 512 : 6 * 512] == content(5)


def test_no_room_for_the_temporary_file_is_told(image: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accel.api import DeviceLock

    monkeypatch.setenv("TMPDIR", str(image.parent / "nowhere"))
    with pytest.raises(BackendError, match="drive d: no temporary file in .*nowhere"):
        open_drive("d", {"file": str(image), "snapshot": True}, DeviceLock())


def test_nothing_of_it_is_left_in_the_directory(
    image: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setenv("TMPDIR", str(room))
    with machine(tmp_path, snapshot=True) as pc:
        pc.write(0x100000, bytes(512))
        assert dma(pc, 0xCA, 5, 1, [(0x100000, 512)], False) & 0x07 == 0x04
        assert list(room.iterdir()) == []
    assert list(room.iterdir()) == []
