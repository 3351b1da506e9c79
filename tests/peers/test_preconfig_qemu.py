"""-preconfig on both programs: what monitors may say before there is a machine, and what becomes of it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, converse, needs_qemu

pytestmark = [pytest.mark.peer, needs_qemu]
VMRUN = [sys.executable, str(pathlib.Path(__file__).parents[2] / "bin" / "vmrun-qemu")]
LINE = ["-preconfig", "-S", "-M", "pc-i440fx-7.2", "-accel", "tcg", "-display", "none", "-nodefaults"]
RAM = 128 << 20


def said(name: str, **given: Any) -> dict[str, Any]:
    return {"execute": name, "arguments": {key.replace("_", "-"): value for key, value in given.items()}}


def numa(kind: str, **given: Any) -> dict[str, Any]:
    return said("set-numa-node", type=kind, **given)


def typed(line: str) -> dict[str, Any]:
    return said("human-monitor-command", command_line=line)


def both(asked: list[dict[str, Any]], *words: str) -> list[list[dict[str, Any]]]:
    return [converse([*program, *LINE, "-qmp", "stdio", *words], asked) for program in ([QEMU or ""], VMRUN)]


def test_the_same_commands_are_allowed() -> None:
    names = [{row["name"] for row in side[0]["return"]} for side in both([{"execute": "query-commands"}])]
    ending = {"quit", "x-exit-preconfig", "qmp_capabilities"}
    asked = [{"execute": name} for name in sorted(names[0] & names[1] - ending)]
    his, ours = ([answer.get("error") for answer in side] for side in both(asked))
    refused = sum("permitted only after" in str(error) for error in his)
    assert 60 < refused < len(asked) - 40
    assert dict(zip(map(json.dumps, asked), ours, strict=True)) == dict(zip(map(json.dumps, asked), his, strict=True))


def test_an_empty_machine_has_a_time_before_it_too() -> None:
    names = ("query-status", "query-cpus-fast", "x-exit-preconfig", "query-status", "query-cpus-fast", "query-memdev")
    asked = [{"execute": name} for name in (*names, "x-exit-preconfig")]
    his, ours = both(asked, "-M", "none", "-m", "8", "-blockdev", "null-co,node-name=n0")
    assert ours == his


def test_nodes_that_are_given_before_the_machine() -> None:
    asked = [
        *(said("object-add", qom_type="memory-backend-ram", id=f"m{n}", size=RAM) for n in (0, 1, 1)),
        said("object-add", qom_type="memory-backend-ram", id="gone", size=RAM),
        said("object-del", id="gone"),
        *(numa("node", nodeid=n, memdev=f"m{n}") for n in (0, 1, 1)),
        numa("node", nodeid=2, memdev="m9"),
        numa("node", nodeid=500),
        numa("cpu", node_id=0, socket_id=0),
        numa("cpu", node_id=1, socket_id=0),
        numa("cpu", node_id=1, socket_id=1),
        numa("cpu", node_id=1, socket_id=7),
        numa("cpu", node_id=5, socket_id=0),
        numa("cpu", socket_id=7),
        numa("cpu", node_id=1, die_id=0),
        numa("dist", src=0, dst=1, val=30),
        numa("dist", src=0, dst=1, val=5),
        numa("dist", src=0, dst=0, val=12),
        numa("dist", src=0, dst=3, val=12),
        numa("dist", src=0, val=12),
        numa("hmat-cache", node_id=0, size=1, level=1, associativity="direct", policy="none", line=8),
        numa("hmat-lb", initiator=0, target=0, hierarchy="memory", data_type="access-latency", latency=10),
        numa("nothing"),
        {"execute": "query-hotpluggable-cpus"},
        {"execute": "x-exit-preconfig"},
        {"execute": "x-exit-preconfig"},
        numa("node", nodeid=2),
        typed("info numa"),
        {"execute": "query-status"},
    ]
    his, ours = both(asked, "-smp", "4,sockets=2", "-m", "256")
    assert sum("error" in answer for answer in his) == 18
    assert ours == his
    for n, name in enumerate(("query-memdev", "query-cpus-fast")):
        more = [{"execute": name}]
        rows = [side[-1]["return"] for side in both([*asked[:-3], *more], "-smp", "4,sockets=2", "-m", "256")]
        key = ("id", "cpu-index")[n]
        found = [[(row[key], row.get("size"), row.get("props")) for row in side] for side in rows]
        assert sorted(found[0], key=str) == sorted(found[1], key=str), name


def test_how_quick_memory_is_is_said_step_by_step() -> None:
    def access(initiator: int, target: int, data_type: str, **value: int) -> dict[str, Any]:
        given = {"initiator": initiator, "target": target, "hierarchy": "memory", "data_type": data_type}
        return numa("hmat-lb", **given, **value)

    def cache(node: int, level: int, size: int = 10240) -> dict[str, Any]:
        return numa("hmat-cache", node_id=node, level=level, size=size, associativity="direct", policy="none", line=8)

    asked = [
        numa("node", nodeid=1, memdev="m1", initiator=0),
        *(access(*between, "access-latency", latency=5) for between in ((2, 0), (1, 0), (0, 2))),
        access(0, 0, "write-latency", bandwidth=500 << 20),
        access(0, 0, "access-bandwidth", bandwidth=1),
        access(0, 0, "access-latency", latency=1),
        access(0, 0, "access-latency", latency=5),
        access(0, 1, "access-latency", latency=65535),
        cache(0, 1),
        access(0, 0, "access-bandwidth", bandwidth=500 << 20),
        access(0, 1, "access-bandwidth", bandwidth=65535 * (500 << 20)),
        *(cache(node, level) for node, level in ((2, 1), (0, 4), (0, 0), (0, 2), (0, 1), (0, 1), (0, 2))),
        cache(0, 2, 20480),
        {"execute": "x-exit-preconfig"},
        {"execute": "query-memory-size-summary"},
    ]
    line = ["-M", "pc-i440fx-7.2,hmat=on", "-smp", "2,sockets=2", "-m", "128"]
    line += [word for n in range(2) for word in ("-object", f"memory-backend-ram,size=64M,id=m{n}")]
    line += ["-numa", "node,nodeid=0,cpus=0-1,memdev=m0"]  # alone it is too little
    his, ours = both(asked, *line)
    assert ["error" in answer for answer in ours] == ["error" in answer for answer in his]
    assert ours[-1] == his[-1]


def test_what_is_made_before_is_there_afterwards() -> None:
    asked = [
        said("netdev_add", type="user", id="n0"),
        said("blockdev-add", driver="null-co", node_name="b0"),
        said("set-action", reboot="shutdown"),
        {"execute": "x-exit-preconfig"},
        said("device_add", driver="e1000", netdev="n0", id="card"),
        said("device_add", driver="virtio-blk-pci", drive="b0", id="disk"),
        said("qom-get", path="/machine/peripheral/card", property="netdev"),
        said("qom-get", path="/machine/peripheral/disk", property="drive"),
    ]
    his, ours = both(asked)
    assert ours == his
    assert all("return" in answer for answer in ours)


def test_nodes_that_do_not_add_up_end_it() -> None:
    asked = [numa("node", nodeid=0, mem=RAM), {"execute": "x-exit-preconfig"}]
    text = "".join(json.dumps(one) + "\n" for one in [{"execute": "qmp_capabilities"}, *asked])
    for program in ([QEMU or ""], VMRUN):
        words = [*program, *LINE, "-M", "pc-i440fx-4.2", "-m", "256", "-qmp", "stdio"]
        ended = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 1, program
        assert "NUMA nodes" in ended.stderr, program


def test_a_person_may_say_as_little() -> None:
    lines = ["info status", "info numa", "cont", "nonsense", "exit_preconfig", "info numa", "exit_preconfig", "q"]
    shown = []
    for program in ([QEMU or ""], VMRUN):
        words = [*program, *LINE, "-chardev", "stdio,id=c", "-mon", "c"]
        ended = subprocess.run(words, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0
        rows = ended.stdout.replace("\r", "").split("\n")
        shown.append([row for row in rows[1:] if row and not row.startswith("(qemu)")])
    assert shown[1] == shown[0]
    assert "Command 'info numa' not available until machine initialization has completed." in shown[0]
