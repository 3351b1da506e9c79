"""Commit, and the end of jobs, when a disk cannot take what is written."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.machine.jobs import Job, jobs
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp import run
from vmrun.monitor.work import Work


def test_a_full_disk_is_told_in_the_hosts_words(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below, top = str(tmp_path / "below.img"), str(tmp_path / "top.qcow2")
    pathlib.Path(below).write_bytes(bytes(1 << 20))
    new_file(top, 0)
    create_qcow2(top, 1 << 20, {"backing_file": below, "backing_fmt": "raw"})

    class Full:
        def copy(self, *given: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    drives = {"d": {"file": top, "format": "qcow2"}}
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB", drives=drives) as pc:
        pc.machine.board.drive("d").node.write(0, bytes([7]) * 512)
        monkeypatch.setattr("vmrun.backends.block.copy.Lane", Full)
        work = run(pc.machine, "commit d")
        assert isinstance(work, Work)
        with pytest.raises(QmpError) as told:
            work.function(work)
        assert told.value.desc == "'commit' error for 'd': No space left on device"


class Failing(Job):
    """Whose disk fails it, and fails again when what was done is to be undone."""

    cleaned = False

    def work(self) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def abort(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def clean(self) -> None:
        self.cleaned = True


@pytest.mark.parametrize("end", ["by itself", "with the machine"])
def test_a_job_is_over_though_nothing_can_be_undone(tmp_path: pathlib.Path, end: str) -> None:
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        job = Failing(pc.machine, "j", auto_dismiss=False)
        job.start()
        with job.over:
            pass
        if end == "with the machine":
            pc.machine.close()
        else:
            for _ in range(100):
                pc.machine.loop.run_once(0.05)
                if job.status == "concluded":
                    break
            assert (job.status, job.error) == ("concluded", "Input/output error")
            jobs(pc.machine).all.clear()
    assert job.cleaned
