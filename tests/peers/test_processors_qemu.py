"""Processors as clients see and plug them, on QEMU 7.2 and on vmrun-qemu: places, order, refusals, properties."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu
from tests.peers.qmp_session import ROOT, Talk

pytestmark = [pytest.mark.peer, needs_qemu]

SOFT = ["-accel", "tcg", "-machine", "pc-i440fx-7.2", "-m", "64", "-S", "-nodefaults", "-display", "none"]
EIGHT = ["-cpu", "qemu64", "-smp", "1,sockets=2,cores=2,threads=2,maxcpus=8"]
VMRUN = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
PROGRAMS = ([str(QEMU)], VMRUN)
FIRST = "/machine/unattached/device[0]"


def both(line: list[str], steps: list[tuple[str, dict[str, Any]]], directory: pathlib.Path) -> list[list[Any]]:
    found = []
    for number, program in enumerate(PROGRAMS):
        talk = Talk([*program, *SOFT, *line, "-qmp", "stdio"], directory / str(number))
        try:
            found.append([talk.ask(name, **arguments) for name, arguments in steps])
        finally:
            talk.close()
    return found


def at(socket: int, core: int, thread: int) -> dict[str, int]:
    return {"socket-id": socket, "core-id": core, "thread-id": thread}


def places(answer: dict[str, Any]) -> list[tuple[tuple[int, ...], bool]]:
    """(socket, core, thread) of every processor that there can be, and whether it is there."""
    return [(tuple(row["props"][name] for name in at(0, 0, 0)), "qom-path" in row) for row in answer["return"]]


def indexes(answer: dict[str, Any]) -> list[int]:
    return sorted(row["cpu-index"] for row in answer["return"])


def test_processors_that_the_command_line_plugs_are_at_their_places(tmp_path: pathlib.Path) -> None:
    line = [*EIGHT, "-device", "qemu64-x86_64-cpu,id=a,socket-id=1,die-id=0,core-id=0,thread-id=0"]
    line += ["-device", "qemu64-x86_64-cpu,socket-id=0,core-id=1,thread-id=1"]
    steps: list[tuple[str, dict[str, Any]]] = [("query-cpus-fast", {}), ("query-hotpluggable-cpus", {})]
    qemu, ours = both(line, steps, tmp_path)
    assert indexes(qemu[0]) == indexes(ours[0]) == [0, 3, 4]
    assert places(qemu[1]) == places(ours[1])
    assert "/machine/peripheral/a" in {row["qom-path"] for row in ours[0]["return"]}


def test_processors_come_in_any_order(tmp_path: pathlib.Path) -> None:
    wanted = [at(1, 1, 1), at(0, 1, 0), at(1, 0, 0), at(0, 0, 1), at(1, 1, 1), at(0, 0, 0), at(2, 0, 0)]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("device_add", {"driver": "qemu64-x86_64-cpu", "id": f"c{n}", **place}) for n, place in enumerate(wanted)
    ]
    steps += [("query-cpus-fast", {}), ("query-hotpluggable-cpus", {}), ("device_del", {"id": FIRST})]
    qemu, ours = both(EIGHT, steps, tmp_path)
    for answer, own in zip(qemu[:-3], ours[:-3], strict=True):
        assert answer.get("error") == own.get("error")
    assert indexes(qemu[-3]) == indexes(ours[-3]) == [0, 1, 2, 4, 7]
    assert places(qemu[-2]) == places(ours[-2])
    assert ours[-1]["error"]["desc"] == qemu[-1]["error"]["desc"]


def test_devices_come_beside_processors_that_came(tmp_path: pathlib.Path) -> None:
    """What a machine has become is a machine file that can be resolved."""
    line = [*EIGHT, "-device", "qemu64-x86_64-cpu,id=a,socket-id=1,core-id=0,thread-id=0"]
    steps: list[tuple[str, dict[str, Any]]] = [
        ("device_add", {"driver": "qemu64-x86_64-cpu", "id": "c", **at(0, 1, 0)}),
        ("device_add", {"driver": "virtio-rng-pci", "id": "r"}),
        ("netdev_add", {"type": "user", "id": "n"}),
        ("device_add", {"driver": "e1000", "id": "e", "netdev": "n"}),
    ]
    assert both(line, steps, tmp_path) == [[{"return": {}}] * 4] * 2


@pytest.mark.parametrize(
    "device",
    [
        "qemu64-x86_64-cpu,socket-id=1,core-id=7,thread-id=0",
        "qemu64-x86_64-cpu,socket-id=9,core-id=0,thread-id=0",
        "qemu64-x86_64-cpu,socket-id=1,core-id=0",
        "kvm64-x86_64-cpu,socket-id=1,core-id=0,thread-id=0",
        "qemu64-x86_64-cpu",
    ],
)
def test_a_processor_that_cannot_be_is_refused_in_the_same_words(device: str, tmp_path: pathlib.Path) -> None:
    said = []
    for program in PROGRAMS:
        command = [*program, *SOFT, *EIGHT, "-device", device]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == 1
        said.append(done.stderr.strip().rpartition(f"{device}: ")[2])
    assert said[0] == said[1]


PROPERTIES = (
    "family", "model", "stepping", "model-id", "level", "xlevel", "min-level", "min-xlevel",
    "phys-bits", "host-phys-bits", "pmu", "check", "enforce", "l3-cache", "legacy-cache",
    "cpuid-0xb", "full-cpuid-auto-level", "x-force-features", "sse2", "sse4_2", "sse4.2", "sse4-2",
    "xd", "lm", "avx", "svm", "hv-relaxed", "realized", "hotplugged", "hotpluggable", "socket-id",
    "core-id", "thread-id", "die-id", "node-id", "apic-id", "start-powered-off", "parent_bus",
)  # fmt: skip


MODELS = ["Haswell-noTSX,check=off", "Cascadelake-Server,x-force-features=on,check=off", "486"]


@pytest.mark.parametrize("model", MODELS)
def test_properties_of_a_processor_are_equal(model: str, tmp_path: pathlib.Path) -> None:
    steps = [("qom-get", {"path": FIRST, "property": name}) for name in PROPERTIES]
    qemu, ours = both(["-cpu", model], steps, tmp_path)
    found = {name: (his, mine) for name, his, mine in zip(PROPERTIES, qemu, ours, strict=True) if his != mine}
    assert found == {}


@pytest.mark.parametrize(
    ("line", "starts"),
    [
        ("-m 512,slots=1,maxmem=59G -cpu pentium2", False),
        ("-m 512,slots=1,maxmem=57G -cpu pentium2", True),
        ("-m 512,slots=1,maxmem=12T -cpu Skylake-Server,check=off", False),
        ("-m 512,slots=1,maxmem=987G -cpu Skylake-Server,check=off", True),
        ("-m 1G,slots=4,maxmem=4G -cpu 486", True),
    ],
)
def test_modules_that_the_processors_cannot_reach_are_refused(line: str, starts: bool, tmp_path: pathlib.Path) -> None:
    for program in PROGRAMS:
        command = [*program, *SOFT, *line.split(), "-qmp", "stdio"]
        text = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
        env = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=env)
        assert done.returncode == (0 if starts else 1), done.stderr
        assert starts or "phys-bits too low" in done.stderr
