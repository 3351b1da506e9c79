"""HMP's commit, when the image below cannot take what is written."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp import run
from vmrun.monitor.work import Work


def test_a_full_disk_is_told_in_the_hosts_words(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, top = str(tmp_path / "below.img"), str(tmp_path / "top.qcow2")
    pathlib.Path(below).write_bytes(bytes(1 << 20))
    new_file(top, 0)
    create_qcow2(top, 1 << 20, {"backing_file": below, "backing_fmt": "raw"})

    def full(*given: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    drives = {"d": {"file": top, "format": "qcow2"}}
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB", drives=drives) as pc:
        pc.machine.board.drive("d").node.write(0, bytes([7]) * 512)
        monkeypatch.setattr("vmrun.backends.block.copy.copy_range", full)
        work = run(pc.machine, "commit d")
        assert isinstance(work, Work)
        with pytest.raises(QmpError) as told:
            work.function(work)
        assert told.value.desc == "'commit' error for 'd': No space left on device"
