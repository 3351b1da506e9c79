"""Bus masters: copies, pieces, pins, marks, and what a guest may put into a descriptor."""

from __future__ import annotations

import pytest
from accel.api import PyIoRegion
from accel.dma import DMA_FULL, DMA_HOLE, DMA_OFF, DMA_WRAP, Dma, Scatter
from accel.ram import DirtyLog, RamBlock
from accel.space import AddressSpace, Region
from hypothesis import given, settings
from hypothesis import strategies as st

PAGE = 4096
RAM, DEVICE, ROM, HOLE, SIZE = 0, 0x4000, 0x5000, 0x6000, 4 * PAGE
TOP = 1 << 64


class Memory:
    """Four pages of RAM, a device, a page of ROM, nothing."""

    def __init__(self) -> None:
        self.ram, self.rom = RamBlock("ram", SIZE), RamBlock("rom", PAGE)
        self.accesses: list[tuple[int, int]] = []
        self.root = Region.container("root", 0)
        self.shown = self.root.add(Region.ram("ram", self.ram), RAM)
        io = PyIoRegion("device", self.access, self.access)
        self.root.add(Region.device("device", io, 0x1000), DEVICE)
        self.root.add(Region.rom("rom", self.rom), ROM)
        self.space = AddressSpace("memory", self.root)
        self.dma = Dma(self.space)
        self.log = DirtyLog(self.ram)
        self.log.take()

    def access(self, offset: int, size: int, value: int = 0) -> int:
        self.accesses.append((offset, size))
        return 0


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def scatter(memory: Memory) -> Scatter:
    return Scatter(memory.dma, 8)


def test_without_bus_mastering_nothing_is_reached(memory: Memory, scatter: Scatter) -> None:
    memory.dma.enabled = False
    scatter.start(True)
    assert memory.dma.read(RAM, 4) is None
    assert memory.dma.write(RAM, b"abcd") is False
    assert scatter.append(RAM, 4) == DMA_OFF
    assert memory.ram.read(0, 4) == bytes(4)


def test_copies_never_call_a_device(memory: Memory) -> None:
    assert memory.dma.read(DEVICE - 4, 8) is None
    assert memory.dma.write(DEVICE - 4, b"abcdefgh") is False
    assert memory.accesses == []


def test_a_master_of_registers_calls_the_device(memory: Memory) -> None:
    assert Dma(memory.space, registers=True).write(DEVICE, b"abcd") is True
    assert memory.accesses == [(0, 4)]


def test_writes_into_rom_vanish_without_an_error(memory: Memory) -> None:
    assert memory.dma.write(ROM, b"abcd") is True
    assert memory.rom.read(0, 4) == bytes(4)


def test_rom_can_be_read_but_is_no_target(memory: Memory, scatter: Scatter) -> None:
    memory.rom.write(0, b"boot")
    scatter.start(False)
    assert scatter.append(ROM, 4) == 0
    assert scatter.load(0, 4) == b"boot"
    scatter.start(True)
    assert scatter.append(ROM, 4) == DMA_HOLE


@pytest.mark.parametrize(("address", "count"), [(DEVICE, 1), (DEVICE - 1, 2), (HOLE, 1), (ROM + PAGE - 1, 2)])
def test_a_range_that_is_not_all_memory_is_refused_whole(
    memory: Memory, scatter: Scatter, address: int, count: int
) -> None:
    scatter.start(False)
    assert scatter.append(address, count) == DMA_HOLE
    assert (scatter.total, memory.ram.pins, memory.rom.pins) == (0, 0, 0)


@pytest.mark.parametrize(("address", "count"), [(TOP - 1, 2), (2, TOP - 1), (TOP - 8, TOP - 1)])
def test_a_range_past_the_end_of_the_space_is_refused(scatter: Scatter, address: int, count: int) -> None:
    scatter.start(False)
    assert scatter.append(address, count) == DMA_WRAP


def test_a_range_of_no_bytes_is_no_piece(scatter: Scatter) -> None:
    scatter.start(False)
    assert scatter.append(HOLE, 0) == 0
    assert (scatter.count, scatter.total) == (0, 0)


def test_marks_come_at_the_end_and_only_where_bytes_were_written(memory: Memory, scatter: Scatter) -> None:
    scatter.start(True)
    assert scatter.append(RAM, PAGE) == scatter.append(2 * PAGE, 2 * PAGE) == 0
    scatter.store(0, bytes(PAGE + 10))
    assert memory.log.take() == []
    scatter.end(PAGE + 10)
    assert memory.log.take() == [(0, PAGE), (2 * PAGE, PAGE)]


def test_a_transfer_from_memory_marks_nothing(memory: Memory, scatter: Scatter) -> None:
    scatter.start(False)
    scatter.append(RAM, PAGE)
    assert scatter.store(0, b"no") == 0
    scatter.end(PAGE)
    assert memory.log.take() == []
    assert memory.ram.read(0, 2) == bytes(2)


def test_neighbours_are_one_piece(scatter: Scatter) -> None:
    scatter.start(True)
    for n in range(4):
        assert scatter.append(n * 100, 100) == 0
    assert scatter.append(1000, 100) == 0
    assert scatter.lengths() == [400, 100]


def test_a_full_table_says_so_and_keeps_what_it_has(memory: Memory, scatter: Scatter) -> None:
    scatter.start(True)
    for n in range(8):
        assert scatter.append(n * 100, 50) == 0
    assert scatter.append(1000, 50) == DMA_FULL
    assert (scatter.count, scatter.total, memory.ram.pins) == (8, 400, 8)


def test_a_window_is_cut_at_both_ends(scatter: Scatter) -> None:
    scatter.start(True)
    for n in range(3):
        scatter.append(n * 1000, 100)
    assert scatter.lengths(50, 100) == [50, 50]
    assert scatter.lengths(250, 1000) == [50]
    assert scatter.lengths(300, 10) == []


def test_memory_stays_while_a_transfer_works_on_it(memory: Memory, scatter: Scatter) -> None:
    block = RamBlock("card", PAGE)
    bar = memory.root.add(Region.ram("card", block), 0x10000)
    scatter.start(True)
    scatter.append(0x10000, PAGE)
    memory.root.remove(bar)
    del bar, block
    for n in range(3):  # the views that the space keeps for running accesses are gone by then
        memory.root.add(Region.ram("other", RamBlock("other", PAGE)), 0x20000 + n * PAGE)
    assert [kept.name for kept in memory.space.kept] == ["card"]
    assert scatter.store(0, b"late") == 4
    scatter.end(4)
    memory.shown.set_enabled(False)
    assert memory.space.kept == []


def test_a_new_transfer_ends_one_that_was_not_finished(memory: Memory, scatter: Scatter) -> None:
    scatter.start(True)
    scatter.append(RAM, 10)
    scatter.start(False)
    assert memory.ram.pins == 0


ranges = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(0, 3000)), max_size=8)


@settings(max_examples=300)
@given(ranges=ranges, offset=st.integers(0, 20000), data=st.binary(max_size=9000))
def test_bytes_go_where_the_ranges_say(ranges: list[tuple[int, int]], offset: int, data: bytes) -> None:
    memory = Memory()
    scatter = Scatter(memory.dma, 8)
    scatter.start(True)
    model = bytearray(SIZE)
    places: list[int] = []
    for address, count in ranges:
        count = min(count, SIZE - address)
        assert scatter.append(address, count) == 0
        places += range(address, address + count)
    moved = scatter.store(offset, data)
    assert moved == max(0, min(len(data), len(places) - offset))
    for n in range(moved):
        model[places[offset + n]] = data[n]
    assert memory.ram.read(0, SIZE) == bytes(model)
    assert scatter.load(offset, moved) == bytes(model[places[offset + n]] for n in range(moved))
    scatter.end(0)
    assert memory.ram.pins == 0
