"""`info numa` counts modules of memory to their node, as QEMU does."""

from __future__ import annotations

from vmrun.testing import QTest


def test_a_module_is_of_its_node() -> None:
    from vmrun.monitor.info import _numa

    nodes = [{"memory": "64MiB", "cpus": [0]}, {"memory": "64MiB"}]
    file = {"machine": "pc-i440fx-7.2", "memory": "128MiB", "numa": nodes}
    file["objects"] = {"m": {"type": "memory-backend-ram", "size": "32MiB"}}
    file["devices"] = [{"driver": "pc-dimm", "id": "d", "memdev": "m", "node": 1}]
    with QTest({**file, "memory-slots": {"count": 1, "maxmem": "1GiB"}}) as q:
        text = _numa(q.machine, [], 0)
    assert "node 0 size: 64 MB\nnode 0 plugged: 0 MB\n" in text
    assert "node 1 size: 96 MB\nnode 1 plugged: 32 MB\n" in text
