"""Address spaces: who answers, priorities, aliases, splitting, the end of the space, listeners."""

from __future__ import annotations

import pytest
from accel.api import Notifier, PyIoRegion
from accel.ram import DirtyLog, RamBlock
from accel.space import AddressSpace, FlatRange, Region

PAGE = 4096
TOP = 1 << 64


class Device:
    """Answers all reads with its number; notes accesses."""

    def __init__(self, number: int, largest: int = 4, size: int = 0x100) -> None:
        self.number, self.log = number, []  # type: ignore[var-annotated]
        io = PyIoRegion(f"device{number}", self.read, self.write, 1, largest)
        self.region = Region.device(f"device{number}", io, size)

    def read(self, offset: int, size: int) -> int:
        self.log.append((offset, size))
        return self.number * 0x0101010101010101

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append((offset, size, value))


def memory(root: Region | None = None) -> tuple[Region, AddressSpace]:
    root = root or Region.container("root", 0)
    return root, AddressSpace("memory", root)


def test_nobody_reads_as_all_ones_and_is_counted() -> None:
    _, space = memory()
    assert space.read(0x1000, 4) == 0xFFFFFFFF
    space.write(0x1000, 4, 0)
    assert space.unassigned == 2


def test_regions_of_equal_priority_the_later_wins() -> None:
    root, space = memory()
    root.add(Device(1).region, 0x1000)
    root.add(Device(2).region, 0x1000)
    assert space.read(0x1000, 1) == 2


def test_a_region_that_moves_comes_last() -> None:
    root, space = memory()
    first, second = Device(1), Device(2)
    root.add(first.region, 0x5000)
    root.add(second.region, 0x1000)
    first.region.set_address(0x1000)
    assert space.read(0x1000, 1) == 1


def test_what_lay_under_the_later_answers_when_that_goes() -> None:
    root, space = memory()
    root.add(Device(1).region, 0x1000)
    over = root.add(Device(2).region, 0x1080)
    assert [space.read(at, 1) for at in (0x107F, 0x1080, 0x10FF)] == [1, 2, 2]
    over.set_enabled(False)
    assert space.read(0x1080, 1) == 1


def test_a_higher_priority_wins_whatever_came_first() -> None:
    root, space = memory()
    root.add(Device(1).region, 0x1000, 1)
    root.add(Device(2).region, 0x1000, 0)
    root.add(Device(3).region, 0x1000, -1)
    assert space.read(0x1000, 1) == 1


def test_an_alias_shows_a_part_of_its_target() -> None:
    root, space = memory()
    block = RamBlock("ram", PAGE)
    block.write(0x800, b"here")
    root.add(Region.alias("window", Region.ram("ram", block), 0x800, 0x100), 0x9000)
    assert space.read_bytes(0x9000, 4) == b"here"
    assert space.read_bytes(0x9100, 1) == b"\xff"


def test_an_alias_of_itself_ends() -> None:
    root, space = memory()
    inner = Region.container("inner", 0x1000)
    inner.add(Region.alias("loop", inner, 0, 0x1000), 0)
    root.add(inner, 0)
    assert space.read(0, 1) == 0xFF


def test_a_large_access_is_split_for_a_narrow_device() -> None:
    root, space = memory()
    device = Device(1, largest=1)
    root.add(device.region, 0x1000)
    space.write(0x1002, 4, 0x44332211)
    assert device.log == [(2, 1, 0x11), (3, 1, 0x22), (4, 1, 0x33), (5, 1, 0x44)]


def test_an_access_over_the_end_of_ram_reads_ones_behind_it() -> None:
    root, space = memory()
    block = RamBlock("ram", PAGE)
    block.fill(0x22)
    root.add(Region.ram("ram", block), 0)
    assert space.read(PAGE - 2, 4) == 0xFFFF2222


def test_writes_to_rom_vanish() -> None:
    root, space = memory()
    root.add(Region.rom("rom", RamBlock("rom", PAGE)), 0)
    space.write(0, 4, 0x12345678)
    assert space.read(0, 4) == 0


def test_writes_through_a_readonly_alias_vanish() -> None:
    root, space = memory()
    alias = root.add(Region.alias("shadow", Region.ram("ram", RamBlock("ram", PAGE)), 0, PAGE), 0)
    alias.set_readonly(True)
    space.write(0, 1, 5)
    alias.set_readonly(False)
    assert space.read(0, 1) == 0


def test_a_written_page_is_marked_after_its_bytes_are_there() -> None:
    root, space = memory()
    block = RamBlock("ram", PAGE)
    root.add(Region.ram("ram", block), 0)
    log = DirtyLog(block)
    log.take()
    space.write_bytes(10, b"abc")
    assert log.written(0, PAGE)


@pytest.fixture
def high() -> tuple[RamBlock, AddressSpace]:
    """The last page there is, and one at 0."""
    root, space = memory()
    low, block = RamBlock("low", PAGE), RamBlock("high", PAGE)
    root.add(Region.ram("low", low), 0)
    root.add(Region.ram("high", block), TOP - PAGE)
    return low, space


def test_a_read_past_the_end_of_the_space_does_not_wrap(high: tuple[RamBlock, AddressSpace]) -> None:
    low, space = high
    low.fill(0x11)
    assert space.read_bytes(TOP - 2, 6) == b"\0\0\xff\xff\xff\xff"
    assert space.read(TOP - 2, 4) == 0xFFFF0000


def test_a_write_past_the_end_of_the_space_does_not_wrap(high: tuple[RamBlock, AddressSpace]) -> None:
    low, space = high
    space.write_bytes(TOP - 2, b"abcdef")
    space.write(TOP - 2, 8, 0x1122334455667788)
    assert space.read_bytes(TOP - 2, 2) == b"\x88\x77"
    assert low.read(0, 8) == bytes(8)


def ports(largest: int = 4, widest: int = 8) -> AddressSpace:
    """Two ports of a device at 0x20."""
    root = Region.container("io", 0x10000)
    io = PyIoRegion("device", lambda offset, size: 0x10 + offset, None, 1, largest, widest)
    root.add(Region.device("device", io, 2), 0x20)
    return AddressSpace("io", root, ports=True)


def test_an_odd_access_that_begins_before_a_device_reaches_it() -> None:
    space = ports(largest=1)
    assert space.read(0x1F, 2) == 0x10FF
    assert space.read(0x1F, 4) == 0xFF1110FF
    assert space.read(0x1E, 2) == 0xFFFF


def test_an_aligned_access_to_ports_that_nobody_has_is_one() -> None:
    assert ports(largest=1).read(0x1C, 4) == 0xFFFFFFFF


def test_an_access_wider_than_the_widest_finds_nobody() -> None:
    space = ports(largest=1, widest=2)
    assert space.read(0x20, 2) == 0x1110
    assert space.read(0x20, 4) == 0xFFFFFFFF


def test_ports_end_at_65536() -> None:
    root = Region.container("io", 0x10000)
    space = AddressSpace("io", root, True)
    root.add(Device(1, size=4).region, 0xFFFC)
    assert space.read(0xFFFF, 1) == 1
    assert space.read(0x10000, 1) == 0xFF


class Listener:
    def __init__(self) -> None:
        self.events: list[str] = []

    def region_add(self, piece: FlatRange) -> None:
        self.events.append(f"+{piece.region.name}@{piece.start:#x}")

    def region_del(self, piece: FlatRange) -> None:
        self.events.append(f"-{piece.region.name}@{piece.start:#x}")

    def commit(self) -> None:
        self.events.append("commit")


def test_a_listener_is_told_the_difference_once_a_transaction() -> None:
    root, space = memory()
    root.add(Device(1).region, 0x1000)
    listener = Listener()
    space.add_listener(listener)
    with space.transaction():
        root.add(Device(2).region, 0x2000)
        root.add(Device(3).region, 0x3000)
        root.remove(root.children[-1])
    assert listener.events[:2] == ["+device1@0x1000", "commit"]
    assert listener.events[2:] == ["-device1@0x1000", "+device2@0x2000", "+device3@0x3000", "commit"]


def test_a_change_without_effect_tells_nobody_of_ranges() -> None:
    root, space = memory()
    root.add(Device(1).region, 0x1000, 1)
    listener = Listener()
    space.add_listener(listener)
    listener.events.clear()
    root.add(Device(2).region, 0x1000)
    assert listener.events == ["commit"]


def test_doorbells_are_told_where_they_are_to_be_seen() -> None:
    told: list[tuple[list[object], list[object]]] = []
    root = Region.container("root", 0x10000)
    space = AddressSpace("memory", root)
    space.on_doorbells = lambda gone, new: told.append((gone, new))
    bells = Region.device("bells", PyIoRegion("bells", lambda *_: 0, lambda *_: None), 0x100)
    notifier = Notifier()
    bells.add_doorbell(0x10, 2, notifier, 7)
    assert told == []
    root.add(bells, 0x1000)
    assert told.pop() == ([], [(0x1010, 2, 7, notifier)])
    bells.set_address(0x2000)
    assert told.pop() == ([(0x1010, 2, 7, notifier)], [(0x2010, 2, 7, notifier)])
    cover = Region.device("cover", PyIoRegion("cover", lambda *_: 0, lambda *_: None), 0x20)
    root.add(cover, 0x2000, 1)
    assert told.pop() == ([(0x2010, 2, 7, notifier)], [])
    root.remove(cover)
    bells.remove_doorbells()
    assert [told.pop(0) for _ in range(2)] == [
        ([], [(0x2010, 2, 7, notifier)]), ([(0x2010, 2, 7, notifier)], [])
    ]  # fmt: skip
