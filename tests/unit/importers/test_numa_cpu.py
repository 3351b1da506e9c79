"""-numa cpu: processors given to nodes by socket, core and thread, in QEMU's words of error."""

from __future__ import annotations

import pytest

from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError

NODES = "-m 256 -numa node,nodeid=0,mem=128 -numa node,nodeid=1,mem=128"


def nodes(text: str) -> list[list[int]]:
    document = parse_command_line(f"{NODES} {text}".split()).document
    return [node.get("cpus", []) for node in document["numa"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("-smp 4,sockets=2,cores=2 -numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1", [[0, 1], [2, 3]]),
        ("-numa cpu,node-id=1,socket-id=0 -numa cpu,node-id=0,socket-id=1 -smp 4,sockets=2,cores=2", [[2, 3], [0, 1]]),
        ("-smp 4,cores=2,threads=2 -numa cpu,node-id=0,core-id=0 -numa cpu,node-id=1,core-id=1", [[0, 1], [2, 3]]),
        ("-smp 2,threads=2,cores=1 -numa cpu,node-id=0,thread-id=0 -numa cpu,node-id=1,thread-id=1", [[0], [1]]),
        ("-M pc-i440fx-7.2 -smp 2 -numa cpu,node-id=0,core-id=0 -numa cpu,node-id=1,core-id=1", [[0], [1]]),
        ("-M pc-i440fx-2.0 -smp 2 -numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1", [[0], [1]]),
        ("-smp 1,maxcpus=2,sockets=2 -numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1", [[0], [1]]),
    ],
)
def test_places_are_processors(text: str, found: list[list[int]]) -> None:
    assert nodes(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("-numa cpu,node-id=2,socket-id=0", "Invalid node-id=2, NUMA node must be defined"),
        ("-numa cpu,socket-id=0", "Missing mandatory node-id property"),
        ("-numa cpu,node-id=0,socket-id=7", "no match found"),
        ("-numa cpu,node-id=0,die-id=0", "die-id is not supported"),
        ("-numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=0", "CPU is already assigned to node-id: 0"),
        ("-numa nonsense", "Parameter 'type' does not accept value 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused(text: str, why: str) -> None:
    with pytest.raises(LineError, match=why):
        nodes(text)
