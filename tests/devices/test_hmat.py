"""How quick the memory of NUMA nodes is: the table HMAT beside QEMU's, and what is refused."""

from __future__ import annotations

import pytest

from tests.devices.fromline import ours, tables, theirs
from tests.peers.oracle import QEMU
from vmrun.config.importers.export import command_line
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError
from vmrun.errors import ConfigError

NODES = [
    *("-M", "pc-i440fx-7.2,hmat=on", "-m", "256", "-smp", "4"),
    *("-object", "memory-backend-ram,id=a,size=128M", "-object", "memory-backend-ram,id=b,size=64M"),
    *("-object", "memory-backend-ram,id=c,size=64M"),
    *("-numa", "node,nodeid=0,memdev=a,cpus=0-1", "-numa", "node,nodeid=1,memdev=b,cpus=2-3"),
]
THIRD = ["-numa", "node,nodeid=2,memdev=c,initiator=1"]


def access(initiator: int, target: int, data_type: str, value: str, hierarchy: str = "memory") -> list[str]:
    what = data_type.rpartition("-")[2]
    row = f"hmat-lb,initiator={initiator},target={target},hierarchy={hierarchy},data-type={data_type},{what}={value}"
    return ["-numa", row]


def both_kinds(target: int) -> list[str]:
    return [*access(0, target, "access-latency", "5"), *access(0, target, "access-bandwidth", "1G")]


CASES = {
    "nothing said": [],
    "of nobody": ["-numa", "node,nodeid=2,memdev=c"],
    "latencies": [*THIRD, *access(0, 0, "access-latency", "100"), *access(0, 1, "access-latency", "65400"),
                  *access(1, 2, "access-latency", "0"), *access(1, 0, "read-latency", "7")],
    "bandwidths": [*THIRD, *access(1, 2, "write-bandwidth", "8G"), *access(0, 2, "write-bandwidth", "48M"),
                   *access(0, 0, "read-bandwidth", "65534M", "first-level")],
    "caches": [*THIRD, *both_kinds(2), *both_kinds(0),
               *("-numa", "hmat-cache,node-id=2,size=10K,level=1,associativity=direct,policy=write-back,line=8"),
               *("-numa", "hmat-cache,node-id=2,size=20K,level=2,associativity=complex,policy=write-through,line=64"),
               *("-numa", "hmat-cache,node-id=0,size=1M,level=1,associativity=none,policy=none,line=0")],
}  # fmt: skip


def words(name: str) -> list[str]:
    given = CASES[name]
    return [*NODES, *(given if "nodeid=2" in str(given) else [*THIRD, *given])]


@pytest.mark.peer
@pytest.mark.parametrize("name", CASES)
def test_the_table_is_qemus(name: str) -> None:
    if QEMU is None:
        pytest.skip("qemu-system-x86_64 is not installed")
    found = []
    for make in (ours, theirs):
        with make(*words(name)) as q:
            found.append({name: table for name, table in tables(q) if name in ("SRAT", "HMAT")})
    assert set(found[0]) == {"SRAT", "HMAT"}
    assert found[0] == found[1]


@pytest.mark.parametrize("name", CASES)
def test_what_goes_out_comes_back(name: str) -> None:
    document = parse_command_line(words(name), defaults=False).machine()
    again, lost = command_line(document)
    assert lost == []
    assert "hmat=on" in " ".join(again)
    with ours(*words(name)) as one, ours(*again) as other:
        assert one.machine.config["numa"] == other.machine.config["numa"]


@pytest.mark.parametrize(("more", "why"), [
    ([*access(2, 0, "access-latency", "5")], "NUMA node 2 has no CPUs"),
    ([*access(9, 0, "access-latency", "5")], "there is no NUMA node 9"),
    ([*access(0, 0, "access-latency", "1"), *access(0, 1, "access-latency", "65535")], "too far apart"),
    ([*access(0, 0, "access-bandwidth", "1536K")], "no whole number of MiB"),
    ([*access(0, 0, "access-latency", "5"), *access(0, 0, "access-latency", "6")], "is given twice"),
    (["-numa", "hmat-cache,node-id=0,size=10K,level=1"], "has a latency and a bandwidth too"),
    ([*both_kinds(0), "-numa", "hmat-cache,node-id=0,size=10K,level=2"], "without a gap"),
])  # fmt: skip
def test_what_cannot_be_is_refused(more: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ours(*NODES, *THIRD, *more)


def test_the_switch_comes_first() -> None:
    words = [word.replace(",hmat=on", "") for word in [*NODES, *THIRD]]
    with pytest.raises(LineError, match="enable it with -machine hmat=on"):
        parse_command_line(words)
