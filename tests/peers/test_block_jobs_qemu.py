"""The same block jobs on the same disks, by QEMU 7.2 and by vmrun-qemu, with writes between: equal answers, events in
equal order, and every image that either leaves is sound and has the same contents.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk

pytestmark = [pytest.mark.peer, needs_qemu]

LINE = [
    *("-machine", "pc-i440fx-7.2,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"),
]
DISK = ["-drive", "if=none,id=d0,file=a.qcow2,format=qcow2", "-device", "virtio-blk-pci,drive=d0,id=x0"]


class Side:
    """One of both, and what it said; `log` is compared."""

    def __init__(self, name: str, top: pathlib.Path, line: list[str]) -> None:
        self.directory, self.log = top / name, []  # type: tuple[pathlib.Path, list[Any]]
        self.directory.mkdir(exist_ok=True)
        self.image("base.qcow2", "16M")
        self.io_tool("base.qcow2", "write -P 1 0 2M")
        self.image("a.qcow2", "-F", "qcow2", "-b", "base.qcow2")
        self.io_tool("a.qcow2", "write -P 2 1M 2M")
        program = [QEMU or ""] if name == "qemu" else [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
        self.talk = Talk([*program, *LINE, *line], self.directory)

    def image(self, name: str, *more: str) -> None:
        where = [word for word in more if not word[0].isdigit()]
        size = [word for word in more if word[0].isdigit()]
        subprocess.run(
            ["qemu-img", "create", "-q", "-f", "qcow2", *where, name, *size], cwd=self.directory, check=True
        )

    def io_tool(self, name: str, command: str) -> None:
        words = ["qemu-io", "-f", "qcow2", "-c", command, name]
        subprocess.run(words, cwd=self.directory, check=True, capture_output=True)

    def io(self, command: str, device: str = "d0") -> str:
        """What the guest would do."""
        self.talk.text = ""
        line = f'qemu-io {device} "{command}"'
        answer = self.talk.ask("human-monitor-command", **{"command-line": line})
        return self.talk.text + str(answer["return"])

    def ask(self, name: str, /, **arguments: Any) -> Any:
        answer = self.talk.ask(name, **arguments)
        found = answer.get("error") or answer.get("return")
        self.log.append((name, found))
        return found

    def until(self, event: str, **data: Any) -> None:
        """Events up to this one; how far a job was, and pauses of QEMU's own, are left out."""
        seen = []
        while True:
            found = self.talk.events.pop(0) if self.talk.events else self.talk.message()
            if "event" not in found:
                continue
            rest = {key: value for key, value in found.get("data", {}).items() if key not in ("offset", "len")}
            seen.append((found["event"], rest))
            if found["event"] == event and all(rest.get(key) == value for key, value in data.items()):
                break
        calm, at = ("paused", "standby"), 0
        while at < len(seen):
            if seen[at][0] == "JOB_STATUS_CHANGE" and seen[at][1]["status"] in calm:
                del seen[at : at + 2]
            else:
                at += 1
        self.log.append(seen)

    def over(self, id: str = "d0") -> None:
        self.until("JOB_STATUS_CHANGE", id=id, status="null")

    def end(self) -> None:
        self.talk.ask("quit")
        self.talk.process.wait(60)
        self.talk.close()


def both(tmp_path: pathlib.Path, scenario: Callable[[Side], None], images: tuple[str, ...], line: Any = None) -> None:
    sides = []
    for name in ("qemu", "vmrun"):
        side = Side(name, tmp_path, line or DISK)
        try:
            scenario(side)
            side.end()
        except BaseException:
            side.talk.close()
            raise
        sides.append(side)
    theirs, ours = sides
    for mine, his in zip(ours.log, theirs.log, strict=True):
        assert mine == his
    for image in images:
        for side in sides:
            subprocess.run(["qemu-img", "check", "-q", image], cwd=side.directory, check=True)
        subprocess.run(["qemu-img", "compare", "-q", *(side.directory / image for side in sides)], check=True)


def test_mirror_until_ready_then_the_guest_uses_the_copy(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.io("write -P 3 4M 1M")
        side.ask("drive-mirror", device="d0", target="m.qcow2", sync="full", format="qcow2")
        side.until("BLOCK_JOB_READY")
        side.io("write -P 4 5M 1M")
        side.ask("block-job-complete", device="d0")
        side.over()
        side.io("write -P 5 6M 1M")
        assert "Pattern" not in side.io("read -P 4 5M 1M")

    both(tmp_path, scenario, ("a.qcow2", "m.qcow2"))


@pytest.mark.parametrize("sync", ("top", "none"))
def test_mirror_of_a_part_has_the_rest_below(tmp_path: pathlib.Path, sync: str) -> None:
    def scenario(side: Side) -> None:
        side.ask("drive-mirror", device="d0", target="m.qcow2", sync=sync, format="qcow2")
        side.until("BLOCK_JOB_READY")
        side.io("write -P 4 5M 1M")
        side.io("write -z 1M 64k")
        side.ask("block-job-complete", device="d0")
        side.over()
        side.io("write -P 5 6M 1M")

    both(tmp_path, scenario, ("m.qcow2", "a.qcow2"))


def test_a_mirror_cancelled_when_ready_leaves_a_copy_of_then(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.ask("drive-mirror", device="d0", target="m.qcow2", sync="full", format="qcow2")
        side.until("BLOCK_JOB_READY")
        side.io("write -P 4 5M 1M")
        side.ask("block-job-cancel", device="d0")
        side.over()
        side.io("write -P 9 5M 1M")

    both(tmp_path, scenario, ("m.qcow2", "a.qcow2"))


def test_backup_has_the_disk_as_it_was(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.ask("drive-backup", device="d0", target="b.qcow2", sync="full", format="qcow2", speed=4 << 20)
        side.io("write -P 6 1M 2M")
        side.io("write -P 7 14M 2M")
        side.io("discard 0 1M")
        side.ask("block-job-set-speed", device="d0", speed=0)
        side.over()

    both(tmp_path, scenario, ("b.qcow2", "a.qcow2"))


def test_a_compressed_backup_is_small_and_has_the_disk_as_it_was(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.io("write -P 3 8M 4M")
        side.ask("drive-backup", device="d0", target="r.raw", sync="full", format="raw", compress=True)
        side.ask("drive-backup", device="d0", target="b.qcow2", sync="full", format="qcow2", compress=True)
        side.io("write -P 9 0 12M")
        side.over()
        words = ["qemu-img", "info", "--output=json", "-U", "b.qcow2"]
        told = subprocess.run(words, cwd=side.directory, check=True, capture_output=True).stdout
        assert json.loads(told)["actual-size"] < 2 << 20

    both(tmp_path, scenario, ("a.qcow2", "b.qcow2"))


def test_backup_of_what_a_bitmap_has(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.ask("block-dirty-bitmap-add", node="d0", name="b0")
        side.io("write -P 6 3M 1M")
        side.ask("drive-backup", device="d0", target="i.qcow2", sync="incremental", bitmap="b0", format="qcow2")
        side.over()
        side.io("write -P 7 5M 64k")
        side.ask("block-dirty-bitmap-add", node="d0", name="b1", granularity=4096)
        side.io("write -P 7 6M 4k")
        side.ask("block-dirty-bitmap-disable", node="d0", name="b0")
        side.io("write -P 7 7M 4k")
        side.ask("block-dirty-bitmap-merge", node="d0", target="b0", bitmaps=["b1"])
        side.ask("x-debug-block-dirty-bitmap-sha256", node="d0", name="b0")
        side.ask("block-dirty-bitmap-add", node="d0", name="b1")
        side.ask("block-dirty-bitmap-remove", node="d0", name="nix")
        inserted = side.talk.ask("query-block")["return"][0]["inserted"]
        rows = sorted(inserted["dirty-bitmaps"], key=lambda row: str(row["name"]))
        side.log.append([(row["name"], row["recording"], row["count"], row["granularity"]) for row in rows])
        side.ask("block-dirty-bitmap-clear", node="d0", name="b0")
        side.ask("block-dirty-bitmap-remove", node="d0", name="b1")

    both(tmp_path, scenario, ("a.qcow2", "i.qcow2"))


def test_snapshots_committed_and_streamed(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.ask("blockdev-snapshot-sync", device="d0", **{"snapshot-file": "s1.qcow2"})
        side.io("write -P 7 7M 1M")
        side.ask("blockdev-snapshot-sync", device="d0", **{"snapshot-file": "s2.qcow2"})
        side.io("write -P 8 8M 1M")
        side.ask("block-commit", device="d0", top="s1.qcow2", base="a.qcow2")
        side.over()
        side.io("write -P 9 9M 1M")
        side.ask("block-commit", device="d0", base="a.qcow2")
        side.until("BLOCK_JOB_READY")
        side.io("write -P 9 10M 1M")
        side.ask("block-job-complete", device="d0")
        side.over()
        side.io("write -P 10 11M 1M")
        side.ask("blockdev-snapshot-sync", device="d0", **{"snapshot-file": "s3.qcow2"})
        side.ask("block-stream", device="d0", base="base.qcow2")
        side.over()
        side.io("write -P 11 12M 1M")
        side.ask("block-stream", device="d0", **{"job-id": "whole"})
        side.over("whole")

    both(tmp_path, scenario, ("s1.qcow2", "a.qcow2", "s3.qcow2"))


def test_a_transaction_is_all_or_nothing(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        first = {"type": "blockdev-snapshot-sync", "data": {"device": "d0", "snapshot-file": "t1.qcow2"}}
        side.ask("transaction", actions=[first, {"type": "abort", "data": {}}])
        side.io("write -P 3 3M 1M")
        bitmap = {"type": "block-dirty-bitmap-add", "data": {"node": "d0", "name": "since"}}
        copy = {"device": "d0", "target": "b.qcow2", "sync": "full", "format": "qcow2"}
        side.ask("transaction", actions=[bitmap, {"type": "drive-backup", "data": copy}])
        side.io("write -P 4 4M 1M")
        side.over()

    both(tmp_path, scenario, ("a.qcow2", "b.qcow2"))


def test_jobs_by_hand(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        by_hand = {"auto-finalize": False, "auto-dismiss": False, "job-id": "j"}
        side.ask("drive-backup", device="d0", target="b.qcow2", sync="full", format="qcow2", **by_hand)
        side.until("JOB_STATUS_CHANGE", status="pending")
        side.ask("job-dismiss", id="j")
        side.ask("job-finalize", id="j")
        side.until("JOB_STATUS_CHANGE", status="concluded")
        side.ask("drive-mirror", device="d0", target="x.qcow2", sync="full", format="qcow2", **by_hand)
        side.ask("job-dismiss", id="j")
        side.until("JOB_STATUS_CHANGE", status="null")
        side.ask("block-job-cancel", device="j")
        side.ask("job-pause", id="j")
        side.ask("drive-mirror", device="nix", target="x", sync="full")
        side.ask("block-commit", device="nix")
        side.ask("block-stream", device="d0", base="nix")
        side.ask("query-jobs")

    both(tmp_path, scenario, ("b.qcow2",))


GUEST = "-d /machine/peripheral/x0/virtio-backend"
NODES = [
    *("-blockdev", "driver=file,filename=a.qcow2,node-name=f0"),
    *("-blockdev", "driver=qcow2,file=f0,node-name=n0", "-device", "virtio-blk-pci,drive=n0,id=x0"),
]


def test_nodes_with_names(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.image("o.qcow2", "16M")
        side.image("t.qcow2", "16M")
        o, t = ({"driver": "file", "filename": f"{name}.qcow2"} for name in "ot")
        side.ask("blockdev-add", driver="qcow2", **{"node-name": "o0"}, file=o, backing=None)
        side.ask("blockdev-snapshot", node="n0", overlay="o0")
        side.io("write -P 3 3M 1M", GUEST)
        side.ask("blockdev-del", **{"node-name": "n0"})
        side.ask("blockdev-add", driver="qcow2", **{"node-name": "t0"}, file=t)
        side.ask("blockdev-mirror", device="o0", target="t0", sync="full", **{"job-id": "j0"})
        side.until("BLOCK_JOB_READY")
        side.io("write -P 4 4M 1M", GUEST)
        side.ask("job-complete", id="j0")
        side.over("j0")
        side.io("write -P 5 5M 1M", GUEST)
        side.ask("blockdev-del", **{"node-name": "o0"})
        side.ask("blockdev-del", **{"node-name": "t0"})
        side.ask("blockdev-del", **{"node-name": "nix"})

    both(tmp_path, scenario, ("a.qcow2", "t.qcow2"), NODES)


TWO = [*DISK, "-drive", "if=none,id=d1,file=base.qcow2,format=qcow2", "-device", "virtio-blk-pci,drive=d1,id=x1"]
TWO[1] = "if=none,id=d0,file=c.qcow2,format=qcow2"


def test_savevm_loadvm_delvm_and_their_jobs(tmp_path: pathlib.Path) -> None:
    import re

    def scenario(side: Side) -> None:
        def hmp(line: str) -> None:
            text = str(side.talk.ask("human-monitor-command", **{"command-line": line})["return"])
            text = re.sub(r"vm-\d{14}", "vm-N", text)  # by the clock
            side.log.append((line, re.sub(r" +[\d.]+ [KM]iB.*", " …", text)))

        for line in ("info snapshots", "savevm s1", "info snapshots"):
            hmp(line)
        side.io("write -P 2 0 1M")
        side.io("write -P 2 0 1M", "d1")
        for line in ("loadvm nix", "loadvm s1"):
            hmp(line)
        assert "Pattern" not in side.io("read -P 0 0 1M") + side.io("read -P 1 0 1M", "d1")
        for line in ("delvm nix", "savevm s1", "savevm", "info snapshots", "delvm s1", "info block-jobs"):
            hmp(line)
        nodes = [row["inserted"]["node-name"] for row in side.talk.ask("query-block")["return"]]
        named = {"job-id": "j", "tag": "q", "devices": nodes}
        for name, more in (("save", {"vmstate": nodes[0]}), ("load", {"vmstate": nodes[0]}), ("delete", {})):
            side.ask(f"snapshot-{name}", **named, **more)
            side.until("JOB_STATUS_CHANGE", status="concluded")
            side.ask("query-jobs")
            side.ask("job-dismiss", id="j")
        side.ask("query-status")
        side.ask("blockdev-snapshot-internal-sync", device="d0", name="i")
        side.ask("blockdev-snapshot-internal-sync", device="d0", name="i")
        side.talk.ask("blockdev-snapshot-delete-internal-sync", device="d0", name="i")
        side.ask("blockdev-snapshot-delete-internal-sync", device="d0", name="i")

    original = Side.__init__

    def prepared(self: Side, name: str, top: pathlib.Path, line: list[str]) -> None:
        (top / name).mkdir()
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", top / name / "c.qcow2", "16M"], check=True)
        original(self, name, top, line)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Side, "__init__", prepared)
        both(tmp_path, scenario, ("c.qcow2", "base.qcow2"), TWO)


def test_images_made_and_reopened_by_node(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        def done() -> None:
            side.until("JOB_STATUS_CHANGE", status="concluded")
            side.ask("job-dismiss", id="c")
            side.until("JOB_STATUS_CHANGE", status="null")

        side.ask("blockdev-create", **{"job-id": "c"}, options={"driver": "file", "filename": "n.qcow2", "size": 0})
        done()
        side.ask("blockdev-add", driver="file", filename="n.qcow2", **{"node-name": "nf"})
        made = {"driver": "qcow2", "file": "nf", "size": 16 << 20, "cluster-size": 4096, "lazy-refcounts": True}
        side.ask("blockdev-create", **{"job-id": "c"}, options=made)
        done()
        side.ask("blockdev-add", driver="qcow2", file="nf", **{"node-name": "n1"}, backing=None)
        side.ask("blockdev-snapshot", node="n0", overlay="n1")
        side.io("write -P 9 9M 1M", GUEST)
        side.ask("blockdev-reopen", options=[{"driver": "qcow2", "node-name": "nix", "file": "nf"}])

    both(tmp_path, scenario, ("a.qcow2", "n.qcow2"), NODES)


def test_the_node_of_a_drive_is_reopened_by_its_name(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        file = {"driver": "file", "filename": "a.qcow2"}
        for options in (
            {"driver": "raw", "node-name": "dn", "file": file},
            {"driver": "qcow2", "node-name": "dm", "file": file},
            {"driver": "qcow2", "node-name": "dn", "file": {**file, "filename": "b.qcow2"}},
            {"driver": "qcow2", "node-name": "dn", "file": {"driver": "null-co"}},
            {"driver": "qcow2", "node-name": "dn", "file": file, "read-only": False},
        ):
            side.ask("blockdev-reopen", options=[options])
            side.log.append(side.talk.ask("query-block")["return"][0]["inserted"]["ro"])

    line = ["-drive", "if=none,id=dd,file=a.qcow2,format=qcow2,node-name=dn,readonly=on"]
    both(tmp_path, scenario, ("a.qcow2",), [*line, "-device", "virtio-blk-pci,drive=dd,id=x0"])


def test_what_cannot_be_is_told_in_the_same_words(tmp_path: pathlib.Path) -> None:
    """Requests with a fault each, and the few that must do for the next."""
    lines = (pathlib.Path(__file__).parent / "block_faults.txt").read_text().splitlines()

    def scenario(side: Side) -> None:
        side.image("t.qcow2", "16M")
        (side.directory / "t.raw").write_bytes(bytes(16 << 20))
        for line in lines:
            name, _, arguments = line.partition(" ")
            side.ask(name, **json.loads(arguments))
            side.log.append(line)

    both(tmp_path, scenario, ("a.qcow2",))


def test_an_image_that_cannot_be_made_is_the_job_s_news(tmp_path: pathlib.Path) -> None:
    def scenario(side: Side) -> None:
        side.ask("blockdev-add", driver="file", filename="base.qcow2", **{"node-name": "f", "read-only": True})
        for file, more in (("nowhere", {"size": 1 << 20}), ("f", {"size": 1000})):
            side.ask("blockdev-create", **{"job-id": "c"}, options={"driver": "qcow2", "file": file, **more})
            side.until("JOB_STATUS_CHANGE", status="concluded")
            side.log += [(row["status"], row["error"]) for row in side.talk.ask("query-jobs")["return"]]
            side.ask("job-dismiss", id="c")
            side.until("JOB_STATUS_CHANGE", status="null")

    both(tmp_path, scenario, ())


def test_a_backup_goes_into_nothing_that_a_device_shows(tmp_path: pathlib.Path) -> None:
    """Nor does an overlay go between images of a chain; words differ, so only that both refuse is compared."""

    def scenario(side: Side) -> None:
        side.image("t.qcow2", "16M")
        node = {"driver": "qcow2", "node-name": "t", "file": {"driver": "file", "filename": "t.qcow2"}}
        side.ask("blockdev-add", **node)
        answers = [side.talk.ask("blockdev-backup", **{"job-id": "j"}, device="t", target="n0", sync="full")]
        over = {"node-name": "n0", "snapshot-file": "o.qcow2", "snapshot-node-name": "o"}
        side.ask("blockdev-snapshot-sync", **over)
        again = {**over, "snapshot-file": "p.qcow2", "snapshot-node-name": "p"}
        side.ask("blockdev-snapshot-sync", **again)
        side.log.append(["error" in answer for answer in answers])
        assert "error" in answers[0]

    named = ["-drive", "if=none,id=d0,file=a.qcow2,format=qcow2,node-name=n0"]
    both(tmp_path, scenario, ("a.qcow2",), [*named, "-device", "virtio-blk-pci,drive=d0,id=x0"])


CD = ["-drive", "if=none,id=cd0,media=cdrom", "-device", "ide-cd,drive=cd0,id=cd"]


def test_what_nodes_are_opened_with_holds_and_is_told(tmp_path: pathlib.Path) -> None:
    """Also of a node that no device shows yet; a disc is read as what it looks like."""

    def told(side: Side, name: str) -> None:
        rows = side.talk.ask("query-named-block-nodes", flat=True)["return"]
        keys = ("ro", "detect_zeroes", "cache", "drv")
        side.log += [{key: row[key] for key in keys} for row in rows if row["node-name"] == name]

    def shown(side: Side, device: str) -> None:
        rows = [row for row in side.talk.ask("query-block")["return"] if device in row.get("qdev", "")]
        side.log += [(row["inserted"]["drv"], row["inserted"]["detect_zeroes"]) for row in rows]

    def scenario(side: Side) -> None:
        side.image("t.qcow2", "16M")
        disk = {"driver": "qcow2", "node-name": "x", "file": {"driver": "file", "filename": "t.qcow2"}}
        more = {"detect-zeroes": "unmap", "discard": "unmap", "cache": {"no-flush": True, "direct": False}}
        side.ask("blockdev-add", **disk, **more)
        told(side, "x")
        side.ask("device_add", driver="virtio-blk-pci", drive="x", id="hot")
        told(side, "x")
        shown(side, "hot")
        side.ask("blockdev-add", driver="null-aio", **{"node-name": "y", "read-only": True})
        told(side, "y")
        none = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops_rd", "iops_wr"), 0)
        side.ask("block_set_io_throttle", id="cd", iops=5, **none)
        side.ask("blockdev-change-medium", id="cd", filename="base.qcow2")
        shown(side, "cd")

    both(tmp_path, scenario, (), [*DISK, *CD])


def test_a_disc_that_can_be_written_is_not_taken_for_another_format(tmp_path: pathlib.Path) -> None:
    side = Side("vmrun", tmp_path, [*DISK, "-device", "floppy,id=f"])
    try:
        side.image("t.qcow2", "1M")
        medium = {"id": "f", "filename": "t.qcow2", "read-only-mode": "read-write"}
        answer = side.talk.ask("blockdev-change-medium", **medium)
        assert "looks like an image of format qcow2" in answer["error"]["desc"]
        answer = side.talk.ask("blockdev-change-medium", **medium, format="raw")
        assert "error" not in answer
        side.end()
    finally:
        side.talk.close()
