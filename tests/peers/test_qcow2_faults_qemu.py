"""qcow2 images that contradict themselves, in use: what is told of them, what goes on, and what the image says
afterwards, with QEMU 7.2 and with vmrun-qemu.
"""

from __future__ import annotations

import pathlib
import struct
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk

pytestmark = [pytest.mark.peer, needs_qemu]

LINE = [
    *("-machine", "pc-i440fx-7.2,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"),
    *("-drive", "if=none,id=q,format=qcow2,file=c.qcow2", "-device", "virtio-blk-pci,drive=q,id=da"),
]
COPIED, PLACE = 1 << 63, 0x00FFFFFFFFFFFE00
L1, L2, REFTABLE, REFBLOCK = range(4)
# what is overwritten, and with what: from where the tables are
CASES: dict[str, tuple[int, Any]] = {
    "a table that is not aligned": (L1, lambda at: COPIED | at[L2] + 512),
    "a cluster that is not aligned": (L2, lambda at: COPIED | 0x50200),
    "data over the L1 table": (L2, lambda at: COPIED | at[L1] & ~0xFFFF),
    "data over an L2 table": (L2, lambda at: COPIED | at[L2]),
    "data over the refcount table": (L2, lambda at: COPIED | at[REFTABLE]),
    "data over a refcount block": (L2, lambda at: COPIED | at[REFBLOCK]),
    "a refcount block that is not aligned": (REFTABLE, lambda at: at[REFBLOCK] + 512),
}


def number(image: pathlib.Path, offset: int) -> int:
    with image.open("rb") as file:
        file.seek(offset)
        return int(struct.unpack(">Q", file.read(8))[0])


def spoiled(image: pathlib.Path, what: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(image), "1G"], check=True)
    words = ["qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "write 512M 128k", str(image)]
    subprocess.run(words, check=True, capture_output=True)
    l1, reftable = number(image, 40) + 8, number(image, 48)  # the table of the disk's second 512 MiB
    at = (l1, number(image, l1) & PLACE, reftable, number(image, reftable))
    where, value = CASES[what]
    with image.open("r+b") as file:
        file.seek(at[where])
        file.write(struct.pack(">Q", value(at)))


def told(program: list[str], directory: pathlib.Path, what: str, commands: tuple[str, ...]) -> list[Any]:
    directory.mkdir()
    spoiled(directory / "c.qcow2", what)
    talk = Talk([*program, *LINE], directory)
    found: list[Any] = []
    for command in commands:
        talk.text = ""
        answer = talk.ask("human-monitor-command", **{"command-line": f'qemu-io q "{command}"'})
        lines = (talk.text + answer["return"]).splitlines()
        found.append([line.strip() for line in lines if "failed" in line])
    talk.ask("query-status")
    events = [event["data"] for event in talk.events if event["event"] == "BLOCK_IMAGE_CORRUPTED"]
    found += [sorted(event.items()) for event in events if event.pop("node-name")]  # one that is made up
    talk.ask("quit")
    talk.process.wait(60)
    return [*found, number(directory / "c.qcow2", 72)]


@pytest.mark.parametrize("what", CASES)
@pytest.mark.parametrize(
    "commands", [("read 512M 4k", "read 0 4k", "write 512M 4k"), ("write 512M 4k", "write 600M 4k", "read 0 4k")]
)
def test_a_fault_is_told_once_and_the_image_marked(
    tmp_path: pathlib.Path, what: str, commands: tuple[str, ...]
) -> None:
    theirs = told([QEMU or ""], tmp_path / "qemu", what, commands)
    ours = told([sys.executable, str(ROOT / "bin" / "vmrun-qemu")], tmp_path / "vmrun", what, commands)
    assert ours == theirs
