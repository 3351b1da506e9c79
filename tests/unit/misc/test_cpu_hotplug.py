"""The registers of processors at 0xaf00, more of them possible than present (QEMU docs/specs/acpi_cpu_hotplug.rst)."""

from __future__ import annotations

import pytest

from vmrun.devices.chipset.cpu_hotplug import CpuHotplug
from vmrun.errors import StateError


@pytest.fixture
def cpus() -> CpuHotplug:
    """Two of four are there; their APIC ids have a gap."""
    return CpuHotplug([0, 1, 4, 5], range(2))


@pytest.fixture
def registers(cpus: CpuHotplug) -> CpuHotplug:
    cpus.write(0, 4, 0)
    return cpus


def test_the_bitmap_holds_those_that_are_there(cpus: CpuHotplug) -> None:
    assert [cpus.read(n, 1) for n in range(3)] == [0b11, 0, 0]


def test_a_guest_counts_processors_by_selecting_them(registers: CpuHotplug) -> None:
    found = []
    for index in range(5):
        registers.write(0, 4, index)
        registers.write(5, 1, 0)
        found.append((registers.read(4, 1), registers.read(8, 4)))
    assert found == [(1, 0), (1, 1), (0, 2), (0, 3), (0, 0)]


def test_command_3_tells_the_apic_id(registers: CpuHotplug) -> None:
    registers.write(0, 4, 2)
    registers.write(5, 1, 3)
    assert (registers.read(8, 4), registers.read(0, 4)) == (4, 0)


def test_orders_to_a_processor_that_cannot_be_are_ignored(registers: CpuHotplug) -> None:
    registers.write(0, 4, 0xFFFFFFFF)
    registers.write(5, 1, 3)
    registers.write(0, 4, 1)
    registers.write(4, 1, 0xFF)
    assert (registers.read(8, 4), registers.read(4, 1)) == (1, 1)


def test_a_processor_that_shall_go_is_found_and_ejected() -> None:
    told: list[str | int] = []
    cpus = CpuHotplug([0, 1, 4, 5], range(2), lambda: told.append("event"), told.append)
    assert not cpus.ask(1)  # the bitmap has no word for it
    cpus.write(0, 4, 0)
    assert cpus.ask(1)
    cpus.write(5, 1, 0)
    assert (cpus.read(8, 4), cpus.read(4, 1)) == (1, 0b101)
    cpus.write(4, 1, 4)  # seen
    assert cpus.read(4, 1) == 1 and cpus.present == {0, 1}
    cpus.write(4, 1, 8)  # ejected
    assert cpus.read(4, 1) == 0 and cpus.present == {0}
    assert told == ["event", 1]


def test_the_first_processor_stays_the_others_go_in_any_order() -> None:
    told: list[int] = []
    cpus = CpuHotplug([0, 1, 4, 5], range(3), let_go=told.append)
    cpus.write(0, 4, 0)
    for index in (0, 1, 3):
        cpus.write(0, 4, index)
        cpus.write(4, 1, 8)
    assert told == [1] and cpus.present == {0, 2}


def test_a_state_from_before_processors_could_go_is_read(registers: CpuHotplug) -> None:
    state = registers.save()
    del state["removing"]
    registers.load({**state, "version": 1})
    assert registers.save() == {**state, "removing": bytes(4)}


def test_saved_state_comes_back(registers: CpuHotplug) -> None:
    registers.write(0, 4, 2)
    registers.write(5, 1, 3)
    other = CpuHotplug([0, 1, 4, 5], range(2))
    other.load(registers.save())
    assert other.save() == registers.save() and other.read(8, 4) == 4


@pytest.mark.parametrize("change", [{"selector": -1}, {"command": 256}, {"bitmap": 2}, {"selector": "x"}])
def test_bad_state_is_refused(cpus: CpuHotplug, change: dict[str, object]) -> None:
    before = cpus.save()
    with pytest.raises(StateError):
        cpus.load({**before, **change})
    assert cpus.save() == before
