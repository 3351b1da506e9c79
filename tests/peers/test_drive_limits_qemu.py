"""Limits of drives and groups of them, throttle-group objects and nodes, histograms of latencies: the same session with
QEMU 7.2 and with vmrun-qemu. Errors word for word.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk

pytestmark = [pytest.mark.peer, needs_qemu]

LINE = [
    *("-machine", "pc-i440fx-7.2,accel=tcg", "-m", "16", "-S", "-nodefaults", "-display", "none", "-qmp", "stdio"),
    *("-object", "throttle-group,id=g,x-bps-total=1000", "-object", "throttle-group,id=h"),
    *("-drive", "if=none,id=a,file=a.raw,format=raw,throttling.bps-total=1000000,throttling.group=two"),
    *("-device", "virtio-blk-pci,drive=a,id=da"),
    *("-drive", "if=none,id=b,file=b.raw,format=raw,group=two,iops_rd=100,iops_size=4096,iops_rd_max=300"),
    *("-device", "virtio-blk-pci,drive=b,id=db"),
    *("-drive", "if=none,id=c,file=c.raw,format=raw,throttling.group=nobody", "-device", "ide-hd,drive=c,id=dc"),
    *("-blockdev", "null-co,node-name=n,size=1048576", "-blockdev", "throttle,node-name=t,file=n,throttle-group=g"),
]
OFF = dict.fromkeys(("bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
PATH = "/machine/peripheral/da/virtio-backend"


def limit(id: str = "", **limits: Any) -> tuple[str, dict[str, Any]]:
    return "block_set_io_throttle", {**({"id": id} if id else {}), **OFF, **limits}


def histogram(**boundaries: Any) -> tuple[str, dict[str, Any]]:
    return "block-latency-histogram-set", {"id": PATH, **{k.replace("_", "-"): v for k, v in boundaries.items()}}


def group(name: str, **limits: int) -> tuple[str, dict[str, Any]]:
    value = {key.replace("_", "-"): number for key, number in limits.items()}
    return "qom-set", {"path": f"/objects/{name}", "property": "limits", "value": value}


BLOCK, STATS = ("query-block", {}), ("query-blockstats", {})
GET = ("qom-get", {"path": "/objects/g", "property": "limits"})
INFO = ("human-monitor-command", {"command-line": "info block"})
SESSION: tuple[tuple[str, dict[str, Any]], ...] = (
    *(BLOCK, INFO, GET),
    *(limit(PATH, bps=1000, bps_max=2000, bps_max_length=5, group="x"), BLOCK),
    *(limit("dc", iops=7, group="x"), BLOCK, limit(PATH), BLOCK, limit(device="b"), BLOCK, INFO),
    *(limit(PATH, bps=-1), limit(PATH, bps_max=1), limit(PATH, bps=5, bps_max=9, bps_max_length=0)),
    *(limit(PATH, bps=5, bps_max_length=2), limit(PATH, iops_size=2), limit("zz"), limit(), limit(PATH, device="a")),
    *(limit(PATH, bps=1, bps_rd=2), limit(PATH, iops=10**15 + 1), limit(PATH, bps=9, bps_max=8), limit(device="zz")),
    *(limit(PATH, bps=10**9, bps_max=2 * 10**9, bps_max_length=2 * 10**6), BLOCK),
    *(group("g", iops_total=5), GET, group("g", iops_totl=5), group("g", iops_read_max=5), GET),
    ("qom-set", {"path": "/objects/g", "property": "x-bps-total", "value": 4}),
    ("qom-get", {"path": "/objects/g", "property": "x-iops-total"}),
    ("object-del", {"id": "g"}),
    ("blockdev-reopen", {"options": [{"driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "i"}]}),
    ("blockdev-reopen", {"options": [{"driver": "throttle", "node-name": "t", "file": "n", "throttle-group": "h"}]}),
    *(("object-del", {"id": "h"}), ("object-del", {"id": "g"})),
    ("object-add", {"qom-type": "throttle-group", "id": "two"}),
    *(histogram(boundaries=[10, 50, 100]), STATS, histogram(boundaries=[10, 50], boundaries_write=[7]), STATS),
    *(histogram(boundaries_read=[5, 3]), histogram(boundaries_flush=[0, 3]), histogram(boundaries_read=[]), STATS),
    *(histogram(), STATS, ("block-latency-histogram-set", {"id": "zz"})),
)


def kept(value: Any) -> Any:
    """What is about limits and latencies; names that are made up are all one."""
    if isinstance(value, list):
        return [
            {key: item for key, item in (row.get("inserted") or row.get("stats") or {}).items()
             if "ps" in key or key == "group" or "histogram" in key}
            for row in value
        ]  # fmt: skip
    text = json.dumps(value, sort_keys=True)
    return re.sub(r"#block\d+", "", text)


def test_limits_groups_and_latencies_are_told_as_qemu_tells_them(tmp_path: pathlib.Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.raw").write_bytes(bytes(1 << 20))
    said: dict[str, list[Any]] = {}
    for side, program in (("qemu", [QEMU or ""]), ("vmrun", [sys.executable, str(ROOT / "bin" / "vmrun-qemu")])):
        talk = Talk([*program, *LINE], tmp_path)
        answers = []
        for name, arguments in SESSION:
            answer = talk.ask(name, **arguments)
            found = kept(answer.get("return", answer.get("error")))
            answers.append((name, arguments, found.replace(f"{tmp_path}/", "") if isinstance(found, str) else found))
        said[side] = answers
        talk.ask("quit")
        talk.process.wait(60)
    for theirs, ours in zip(said["qemu"], said["vmrun"], strict=True):
        assert ours == theirs


@pytest.mark.parametrize(
    "options",
    [
        "bps=1000,bps_max=200",
        "bps=1000,bps_rd=3",
        "throttling.bps-total=1000,throttling.bps-total-max=2000,throttling.bps-total-max-length=0",
        "iops_size=4096",
    ],
)
def test_a_line_is_refused_in_the_same_words(tmp_path: pathlib.Path, options: str) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1 << 20))
    words = []
    for program in ([QEMU or ""], [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]):
        line = [*program, *LINE[:8], "-drive", f"if=none,id=a,file=a.raw,format=raw,{options}"]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        words.append(done.stderr.partition(": ")[2])
    assert words[0] == words[1]
