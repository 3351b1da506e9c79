"""Jobs that are given up while they wait for a disk with limits, and snapshots of images that are another's as yet."""

from __future__ import annotations

import pathlib
import time

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.machine import runstate
from vmrun.machine.jobs import jobs


@pytest.mark.parametrize("how", ["cancelled", "with the machine"])
def test_a_job_that_waits_for_a_throttled_disk_is_given_up_at_once(tmp_path: pathlib.Path, how: str) -> None:
    path = str(tmp_path / "disk.img")
    pathlib.Path(path).write_bytes(bytes(range(256)) * 16384)
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        limits = {"bps-read": 1}  # six weeks for the disk
        talk.result("object-add", **{"qom-type": "throttle-group"}, id="g", limits=limits)
        talk.result("blockdev-add", driver="file", filename=path, **{"node-name": "f", "read-only": True})
        talk.result("blockdev-add", driver="throttle", file="f", **{"node-name": "slow", "throttle-group": "g"})
        talk.result("blockdev-add", driver="null-co", size=4 << 20, **{"node-name": "to"})
        talk.result("blockdev-mirror", device="slow", target="to", sync="full", **{"job-id": "j"})
        time.sleep(0.05)
        if how == "cancelled":
            talk.result("block-job-cancel", device="j", force=True)
            end = time.monotonic() + 100
            while jobs(pc.machine).all and time.monotonic() < end:
                pc.machine.loop.run_once(0.01)
            assert not jobs(pc.machine).all


def test_no_snapshots_of_images_that_another_machine_has_as_yet(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "disk.qcow2")
    new_file(path, 0)
    create_qcow2(path, 1 << 20, {})
    drives = {"d": {"file": path, "format": "qcow2"}}
    devices = [{"driver": "virtio-blk-pci", "drive": "d"}]
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB", drives=drives, devices=devices) as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        pc.machine.state = runstate.INMIGRATE
        for line in ("savevm s", "loadvm s", "delvm s"):
            assert talk.hmp(line) == "Error: Device 'd' is writable but does not support snapshots\r\n"


def test_names_within_a_node_are_known_however_it_is_written(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "disk.img")
    new_file(path, 1 << 20)
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        flat = {"driver": "raw", "node-name": "top", "file.driver": "file", "file.node-name": "low"}
        flat["file.filename"] = path
        pc.machine.board.nodes.begin(flat)
        pc.machine.board.nodes.begin({"driver": "raw", "node-name": "other", "file": "low", "read-only": "on"})
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        names = [one["node-name"] for one in talk.result("query-named-block-nodes")]
        assert sorted(names) == ["low", "other", "top"]
