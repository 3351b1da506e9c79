"""What a processor writes is in the dirty logs, on each accelerator, however long it has had the page at hand."""

from __future__ import annotations

import pathlib

import pytest
from accel.ram import DirtyLog

from tests.guest.test_lifecycle import kernel

pytestmark = pytest.mark.guest

PAGE, WRITTEN = 4096, 0x300000
COUNTS = "ff0500003000 ebf8"  # inc dword [300000h]; jmp to it


def test_each_look_finds_what_was_written_since_the_last(accel: str, tmp_path: pathlib.Path) -> None:
    with kernel(tmp_path, accel, COUNTS) as guest:
        ram = guest.machine.board.ram

        def counted() -> int:
            return int.from_bytes(ram.read(WRITTEN, 4), "little")

        assert guest.run_until(counted)
        log, other = (DirtyLog(ram, guest.machine.accelerator) for _ in range(2))
        for _ in range(20):
            log.sync()
            log.take()
            before = counted()
            assert guest.run_until(lambda before=before: counted() != before)  # type: ignore[misc]
            log.sync()
            assert (WRITTEN, PAGE) in log.take()
        other.sync()
        assert other.take() == [(0, ram.size)]
        guest.machine.pause()
        log.sync()
        log.take()
        log.sync()
        assert log.take() == []
        log.stop()
        other.stop()
        assert not ram.logged
