"""-numa in all its forms, and back."""

from __future__ import annotations

import pytest

from vmrun.config.importers.export import command_line
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError

BACKENDS = ["-object", "memory-backend-ram,id=a,size=2G", "-object", "memory-backend-ram,id=b,size=4G"]
TWO = [{"cpus": [0, 1], "memory": "2GiB"}, {"cpus": [2, 3, 5], "memory": "4GiB"}]


def nodes(*words: str, machine: str = "pc-i440fx-7.2") -> object:
    return parse_command_line(["-M", machine, "-m", "6G", "-smp", "6", *words], defaults=False).document["numa"]


def test_memory_of_backends() -> None:
    assert nodes(*BACKENDS, "-numa", "node,memdev=a,cpus=0-1", "-numa", "node,memdev=b,cpus=2-3,cpus=5") == TWO


def test_memory_by_size_and_nodes_by_id() -> None:
    words = ("-numa", "node,nodeid=1,mem=4G,cpus=2-3,cpus=5", "-numa", "node,nodeid=0,mem=2048,cpus=0-1")
    assert nodes(*words, machine="rhel6.3.0") == TWO


def test_memory_that_nobody_claims_is_divided() -> None:
    assert nodes("-numa", "node", "-numa", "node", "-m", "100") == [{"memory": "48MiB"}, {"memory": "52MiB"}]


def test_a_distance_one_way_counts_for_both() -> None:
    found = nodes(*BACKENDS, "-numa", "node,memdev=a", "-numa", "node,memdev=b", "-numa", "dist,src=0,dst=1,val=21")
    assert [node["distances"] for node in found] == [[10, 21], [21, 10]]


@pytest.mark.parametrize("machine", ["rhel6.3.0", "pc-i440fx-7.2"])
def test_what_goes_out_comes_back(machine: str) -> None:
    numa = [{**node, "distances": [10, 31] if n == 0 else [31, 10]} for n, node in enumerate(TWO)]
    words, lost = command_line({"machine": machine, "memory": "6GiB", "cpus": {"count": 6}, "numa": numa})
    assert lost == []
    assert parse_command_line(words, defaults=False).document["numa"] == numa


@pytest.mark.parametrize(
    "words",
    [
        ["-numa", "node,memdev=z"],
        ["-numa", "node,nodeid=128"],
        ["-numa", "node,nodeid=0", "-numa", "node,nodeid=0"],
        ["-numa", "node,cpus=3-1"],
        ["-numa", "node,cpus=0-999999999999"],
        ["-numa", "node,color=red"],
        ["-numa", "dist,src=0,dst=1"],
    ],
)
def test_bad_nodes_are_refused(words: list[str]) -> None:
    with pytest.raises(LineError):
        nodes(*words)


def test_ids_of_nodes_have_no_gap() -> None:
    with pytest.raises(LineError, match="numa: Node ID missing: 2$"):
        parse_command_line(["-smp", "4", "-numa", "node,nodeid=0", "-numa", "node,nodeid=3"])
