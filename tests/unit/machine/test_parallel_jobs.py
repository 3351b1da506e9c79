"""Jobs that work on one chain at the same time, their filters' names, and what is told when they cannot."""

from __future__ import annotations

import errno
import os
import pathlib
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.images import Access, open_node
from vmrun.errors import BuildError
from vmrun.machine.blockops import blockdev_mirror
from vmrun.machine.blocks import blocks
from vmrun.machine.chainops import block_commit, block_stream
from vmrun.machine.jobs import jobs

SIZE = 4 << 20
STEP = 512 << 10


class Chain(Driven):
    """Five images, each with half a megabyte of its own: nodes n0 (the lowest) to n4, which the drive d has."""

    def __init__(self, top: pathlib.Path) -> None:
        path = ""
        for n in range(5):
            below = {"backing_file": path, "backing_fmt": "qcow2"} if n else {}
            path = str(top / f"{n}")
            new_file(path, 0)
            create_qcow2(path, SIZE, below)
            node: Any = open_node(path, "qcow2", Access())
            node.write(n * STEP, bytes([n + 1]) * STEP)
            node.close()
        super().__init__(top, machine="pc-i440fx-2.0", memory="16MiB", drives={"d": {"file": path, "format": "qcow2"}})
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.machine.tell = lambda event, **data: self.told.append((event, data))  # type: ignore[method-assign]
        node = self.machine.board.drive("d").node
        for n in range(4, -1, -1):
            node.name = f"n{n}"
            node = next((child for role, child in node.children() if role == "backing"), None)

    def below(self, name: str) -> str:
        node = blocks(self.machine).node(name)
        return next((str(child.name) for role, child in node.children() if role == "backing"), "")

    def ends(self) -> None:
        for _ in range(200):
            if not jobs(self.machine).all:
                return
            self.machine.loop.run_once(0.05)
        raise AssertionError([job.status for job in jobs(self.machine).all.values()])

    def contents(self) -> bytes:
        return bytes(self.machine.board.drive("d").node.read(0, 5 * STEP))


WANTED = b"".join(bytes([n + 1]) * STEP for n in range(5))


def test_jobs_of_other_parts_of_a_chain_go_on_beside_each_other(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        low = block_stream(pc.machine, "n1", job_id="low", speed=1)
        high = block_stream(pc.machine, "n3", base_node="n1", job_id="high", speed=1)
        low.speed = high.speed = 0
        pc.ends()
        assert (pc.below("n3"), pc.below("n1")) == ("n1", "")
        assert pc.contents() == WANTED


def test_a_streams_base_is_what_a_commit_leaves_there(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        commit = block_commit(
            pc.machine, "d", top_node="n2", base_node="n0", filter_node_name="filter", speed=1, job_id="c"
        )
        with pytest.raises(BuildError, match="Cannot freeze 'backing' link to 'filter'"):
            block_stream(pc.machine, "n3", base_node="n2", job_id="s")
        with pytest.raises(BuildError, match="Node 'd' is busy"):
            block_stream(pc.machine, "n4", base_node="filter", job_id="s")
        stream = block_stream(pc.machine, "n3", base_node="filter", job_id="s", speed=1)
        commit.speed = 0
        pc.machine.loop.run_once(0.05)
        stream.speed = 0
        pc.ends()
        assert (pc.below("n4"), pc.below("n3")) == ("n3", "n0")
        assert pc.contents() == WANTED


def test_who_comes_from_above_is_told_the_filters_name(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        job = block_stream(pc.machine, "n2", base_node="n0", job_id="s", speed=1, filter_node_name="filter")
        for act, busy in (
            (lambda: block_stream(pc.machine, "n3", base_node="n1", job_id="t"), "filter"),
            (lambda: block_stream(pc.machine, "n1", job_id="t"), "n1"),
            (lambda: block_commit(pc.machine, "d", top_node="n3", base_node="n2", job_id="t"), "filter"),
        ):
            with pytest.raises(BuildError, match=f"Node '{busy}' is busy: block device is in use by block job: stream"):
                act()
        rows = [row for row in (blocks(pc.machine).filter_info(node, None) for node, _ in blocks(pc.machine).nodes())]
        assert [(row["node-name"], row["drv"]) for row in rows if row] == [("filter", "copy-on-read")]
        job.speed = 0
        pc.ends()
        assert blocks(pc.machine).node("filter") is None


def test_a_mirror_of_another_size_fails_when_it_runs(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        path = str(tmp_path / "t")
        new_file(path, 0)
        create_qcow2(path, SIZE // 2, {})
        blocks(pc.machine).add(
            {"driver": "qcow2", "node-name": "t", "file": {"driver": "file", "filename": path}}
        )
        blockdev_mirror(pc.machine, "d", "t", "full", job_id="m")
        pc.ends()
        ended = [data for event, data in pc.told if event == "BLOCK_JOB_COMPLETED"]
        assert ended[0]["error"] == "Source and target image have different sizes"
        with pytest.raises(BuildError, match="Need a root block node"):
            blockdev_mirror(pc.machine, "n2", "t", "full", job_id="m")


def test_an_ignored_error_of_a_stream_is_told_at_its_end(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        job: Any = block_stream(pc.machine, "n4", job_id="s", on_error="ignore", speed=1)

        class Tap:
            def __init__(self, tap: Any) -> None:
                self.tap = tap

            def pull_up(self, start: int, length: int) -> None:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

            def __getattr__(self, name: str) -> Any:
                return getattr(self.tap, name)

        taps, job.tap = job.tap, Tap(job.tap)
        job.speed = 0
        for _ in range(200):
            pc.machine.loop.run_once(0.05)
            if job.done:
                break
        job.tap = taps
        pc.ends()
        ended = [data for event, data in pc.told if event == "BLOCK_JOB_COMPLETED"]
        assert (ended[0]["error"], ended[0]["offset"], ended[0]["len"]) == ("Input/output error", SIZE, SIZE)


def test_a_job_that_is_resumed_is_so_at_once(tmp_path: pathlib.Path) -> None:
    with Chain(tmp_path) as pc:
        job = block_stream(pc.machine, "n4", job_id="s", speed=1)
        job.pause()
        for _ in range(100):
            pc.machine.loop.run_once(0.05)
            if job.status == "paused":
                break
        assert job.status == "paused"
        job.resume()
        assert job.status == "running"
        job.cancel(True)
        pc.ends()
