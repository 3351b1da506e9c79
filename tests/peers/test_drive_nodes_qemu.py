"""-drive with the nodes of its image named, or others put below it: what QEMU 7.2 and vmrun-qemu show of it, and how
they refuse what cannot be.
"""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk

pytestmark = [pytest.mark.peer, needs_qemu]

LINE = ["-machine", "pc-i440fx-7.2,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none"]
OURS = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
SHOWN = (
    "format=qcow2,if=none,node-name=top",
    "format=qcow2,if=virtio,node-name=top,backing.node-name=m,backing.backing.node-name=b,backing.file.node-name=mf",
    "driver=qcow2,if=none,backing.file.filename=base.qcow2",
    "format=qcow2,if=ide,file.node-name=f,read-only=on,media=cdrom",
    "format=qcow2,if=none,lazy-refcounts=on",
    "format=qcow2,if=none",
)
REFUSED = (
    "format=qcow2,node-name=1x", "format=qcow2,node-name=x" + 31 * "y", "format=qcow2,node-name=a,backing.node-name=a",
    "format=qcow2,file.nosuch=1", "format=raw,backing.file.filename=base.qcow2", "format=raw,file.backing.filename=x",
    "format=raw,lazy-refcounts=on", "format=qcow2,lazy-refcounts=x", "format=qcow2,backing.driver=nosuch",
)  # fmt: skip


@pytest.fixture
def chain(tmp_path: pathlib.Path) -> pathlib.Path:
    for words in (
        "create -q -f qcow2 base.qcow2 1M", "create -q -f qcow2 -b base.qcow2 -F qcow2 mid.qcow2",
        "create -q -f qcow2 -b mid.qcow2 -F qcow2 top.qcow2",
    ):  # fmt: skip
        subprocess.run(["qemu-img", *words.split()], cwd=tmp_path, check=True)
    return tmp_path


def seen(program: list[str], drive: str, directory: pathlib.Path) -> list[Any]:
    """Of each drive and node what has a name: its driver, what is below it, whether it is only read."""
    talk = Talk([*program, *LINE, "-qmp", "stdio", "-drive", f"id=d,file=top.qcow2,{drive}"], directory)
    try:
        found: list[Any] = []
        for row in talk.ask("query-block")["return"]:
            inserted = row["inserted"]
            below = pathlib.Path(inserted.get("backing_file") or "none").name
            found.append((row["device"], row["removable"], row["locked"], inserted["ro"], below))
            name = inserted["node-name"]
            found.append((inserted["backing_file_depth"], "" if name.startswith("#") else name))
        rows = talk.ask("query-named-block-nodes")["return"]
        named = [(row["node-name"], row["drv"], row["ro"]) for row in rows if not row["node-name"].startswith("#")]
        answer = talk.ask("human-monitor-command", **{"command-line": 'qemu-io d "read 0 4k"'})
        return [*found, len(rows), sorted(named), answer.get("return"), talk.text.splitlines()[:1]]
    finally:
        talk.close()


@pytest.mark.parametrize("drive", SHOWN)
def test_the_nodes_of_a_drive_are_what_its_options_say(chain: pathlib.Path, drive: str) -> None:
    assert seen(OURS, drive, chain) == seen([QEMU], drive, chain)


def test_an_image_that_somebody_writes_is_refused_in_the_same_words(chain: pathlib.Path) -> None:
    holder = Talk([QEMU, *LINE, "-qmp", "stdio", "-drive", "if=none,file=top.qcow2,format=qcow2"], chain)
    try:
        said = []
        for program in ([QEMU], OURS):
            words = [*program, *LINE, "-drive", f"if=none,file={chain}/top.qcow2,format=qcow2"]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
            said.append(re.sub(r"^\S*(qemu-system-x86_64|vmrun-qemu): ", "", done.stderr))
        assert said[1] == said[0]
        assert "Is another process" in said[0]
    finally:
        holder.close()


def test_drives_are_told_in_the_order_of_the_line(chain: pathlib.Path) -> None:
    drives = ("if=virtio,id=a,file=top.qcow2,format=qcow2,read-only=on", "if=ide,id=b,media=cdrom", "if=floppy,id=c")
    shown = []
    for program in ([QEMU], OURS):
        words = [word for drive in drives for word in ("-drive", drive)]
        talk = Talk([*program, *LINE, "-qmp", "stdio", *words], chain)
        try:
            rows = talk.ask("query-block")["return"]
            inner = rows[0]["inserted"]["image"]["backing-image"]["backing-image"]["filename"]
            shown.append([[row["device"] for row in rows], pathlib.Path(inner).name])
        finally:
            talk.close()
    assert shown[1] == shown[0]


def test_an_image_below_others_is_streamed_into_and_read_only_again(chain: pathlib.Path) -> None:
    """By the name that -drive gave it; while a backup goes on its size stays."""
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 1 0 512k", "base.qcow2"], cwd=chain, check=True)
    shown = []
    for name, program in (("q", [QEMU]), ("v", OURS)):
        directory = chain / name
        directory.mkdir()
        for image in chain.glob("*.qcow2"):
            (directory / image.name).write_bytes(image.read_bytes())
        drive = "if=virtio,id=d,file=top.qcow2,format=qcow2,backing.node-name=m"
        talk = Talk([*program, *LINE, "-qmp", "stdio", "-drive", drive], directory)
        try:
            found: list[Any] = [talk.ask("block-stream", device="m", **{"job-id": "s"})]
            found.append(talk.wait_for("BLOCK_JOB_COMPLETED")["data"])
            rows = talk.ask("query-named-block-nodes")["return"]
            found.append([row["ro"] for row in rows if row["node-name"] == "m"])
            talk.ask("drive-backup", device="d", target="copy", sync="full", speed=1, **{"job-id": "b"})
            found.append(talk.ask("block_resize", device="d", size=65536)["error"]["class"])
            shown.append(found)
        finally:
            talk.close()
    assert shown[1] == shown[0]


@pytest.mark.parametrize("drive", REFUSED)
def test_what_cannot_be_is_refused_in_the_same_words(chain: pathlib.Path, drive: str) -> None:
    def said(program: list[str]) -> str:
        words = [*program, *LINE, "-drive", f"if=none,file=top.qcow2,{drive}"]
        done = subprocess.run(words, cwd=chain, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        return re.sub(r"^\S*(qemu-system-x86_64|vmrun-qemu): ", "", done.stderr.splitlines()[-1])

    theirs, ours = said([QEMU]), said(OURS)
    assert ours == theirs
