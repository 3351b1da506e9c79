"""SRAT, SLIT and the NUMA item: memory around the holes, processors by APIC id (ACPI 6.4, 5.2.16 and 5.2.17)."""

from __future__ import annotations

import struct
from typing import Any

from tests.unit.firmware.board import board
from vmrun.firmware import fwcfg, srat

MIB, GIB = 1 << 20, 1 << 30
KIB_640 = 640 << 10


def nodes(*sizes: int) -> list[dict[str, Any]]:
    return [{"cpus": [n], "memory": size} for n, size in enumerate(sizes)]


def machine(memory: int, numa: list[dict[str, Any]]) -> dict[str, Any]:
    count = len(numa)
    return {**board("pc-i440fx-7.2", memory=memory, cpus={"count": count, "sockets": count}), "numa": numa}


def test_memory_goes_around_both_holes() -> None:
    assert srat.ranges(machine(6 * GIB, nodes(2 * GIB, 4 * GIB))) == [
        (0, KIB_640, 0),
        (MIB, 2 * GIB - MIB, 0),
        (2 * GIB, GIB, 1),
        (4 * GIB, 3 * GIB, 1),
    ]


def test_a_node_that_ends_in_the_hole_at_640_kib_has_no_more() -> None:
    assert srat.ranges(machine(4 * MIB, nodes(768 << 10, (4 << 20) - (768 << 10)))) == [
        (0, KIB_640, 0),
        (MIB, 3 * MIB, 1),
    ]


def test_ranges_that_are_not_needed_are_there_disabled() -> None:
    ((_, body),) = srat.tables(machine(256 * MIB, nodes(256 * MIB)))
    memory = body[12 + 16 :]
    flags = [struct.unpack_from("<I", memory, at + 28)[0] for at in range(0, len(memory), 40)]
    assert flags == [1, 1, 0]


def test_a_distance_given_makes_a_slit() -> None:
    given = nodes(128 * MIB, 128 * MIB)
    given[0]["distances"] = [10, 21]
    _, (signature, body) = srat.tables(machine(256 * MIB, given))
    assert (signature, body) == (b"SLIT", struct.pack("<Q4B", 2, 10, 21, 20, 10))


def test_without_nodes_there_is_neither() -> None:
    assert srat.tables(board("pc-i440fx-7.2")) == []


def test_the_item_has_the_node_of_each_apic_id_and_the_size_of_each_node() -> None:
    data = fwcfg.items(machine(768 * MIB, nodes(512 * MIB, 256 * MIB)))[fwcfg.NUMA]
    assert struct.unpack("<5Q", data) == (2, 0, 1, 512 * MIB, 256 * MIB)
