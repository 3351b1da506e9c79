"""Saved ATA channels: a transfer goes on where it was, and nothing in a state leads outside the buffer or the disk."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from tests.unit.storage.test_ata import SECTORS, command, content, read_block, status
from vmrun.errors import StateError


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    (tmp_path / "disk.img").write_bytes(b"".join(content(n) for n in range(SECTORS)))
    with Driven(tmp_path, machine="rhel6.3.0", memory="64MiB", disks=["disk.img"]) as pc:
        yield pc


def channel(pc: Driven) -> Any:
    return next(device for device in pc.machine.devices.values() if device.driver == "piix3-ide").channels[0]


def with_drive(state: dict[str, Any], **change: Any) -> dict[str, Any]:
    return {**state, "drives": [{**state["drives"][0], **change}, state["drives"][1]]}


@pytest.mark.parametrize(
    "change", [{"block": 0}, {"block": 17}, {"dma_op": 2}, {"phase": 1}, {"phase": 5}, {"lba": -1}]
)
def test_numbers_that_would_divide_by_zero_or_mean_nothing_are_refused(pc: Driven, change: dict[str, Any]) -> None:
    chip = channel(pc)
    before = chip.save()
    with pytest.raises(StateError):
        chip.load_state({**before, **change})
    assert chip.save() == before


@pytest.mark.parametrize(
    "change", [{"heads": 0}, {"sectors": 0}, {"heads": 17}, {"mult": 3}, {"total": 1}, {"present": False}]
)
def test_drives_that_cannot_be_are_refused(pc: Driven, change: dict[str, Any]) -> None:
    chip = channel(pc)
    before = chip.save()
    with pytest.raises(StateError):
        chip.load_state(with_drive(before, **change))
    assert chip.save() == before


def test_a_read_goes_on_in_the_middle_of_a_sector(pc: Driven) -> None:
    command(pc, 0x20, 5, 3)
    assert status(pc) & 0x08
    first = [pc.inw(0x1F0) for _ in range(100)]
    state = channel(pc).save()
    for _ in range(156):
        pc.inw(0x1F0)
    read_block(pc, 256)
    channel(pc).load_state(state)
    rest = b"".join(pc.inw(0x1F0).to_bytes(2, "little") for _ in range(156))
    assert b"".join(word.to_bytes(2, "little") for word in first) + rest == content(5)
    assert read_block(pc, 256) == content(6)
    assert read_block(pc, 256) == content(7)


@pytest.mark.parametrize(
    "change",
    [
        {"filled": 512},  # less than what is offered
        {"block_end": 1024, "position": 1024},
        {"held": b""},
        {"lba": 1},  # before the buffer's own sectors
        {"lba": SECTORS + 1},  # beyond the disk
        {"unit": 1},  # no such drive
        {"dma_waiting": True},
        {"position": 700},
        {"filled": 1535},
    ],
)
def test_a_transfer_outside_its_buffer_or_the_disk_is_refused(pc: Driven, change: dict[str, Any]) -> None:
    command(pc, 0x20, 5, 3)
    assert status(pc) & 0x08
    chip = channel(pc)
    before = chip.save()
    assert before["filled"] == 1536
    with pytest.raises(StateError):
        chip.load_state({**before, **change})
    assert chip.save() == before
