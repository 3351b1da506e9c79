"""Slots: what KVM is told of the memory space, while it changes too."""

from __future__ import annotations

import time

import pytest
from accel.ram import DirtyLog, RamBlock
from accel.space import Region

from accel.errors import AccelFailure
from tests.unit.kvm.guests import PROTECTED, PROTECTED_DONE
from tests.unit.kvm.pc import EXIT, Pc

pytestmark = pytest.mark.kvm


def layout(guest: Pc) -> list[tuple[int, int, str, bool]]:
    return [
        (start, size, name, ro) for start, size, name, _, ro, _ in guest.accel.vm.memory_listener.layout()
    ]


def test_ram_and_rom_become_slots_and_rom_is_read_only(pc: type[Pc]) -> None:
    guest = pc()
    assert layout(guest) == [
        (0, 0x80000, "ram", False),
        (0xF0000, 0x10000, "rom", True),
        (0xFFFF0000, 0x10000, "rom", True),
    ]


def test_region_over_ram_splits_the_slot(pc: type[Pc]) -> None:
    guest = pc()
    guest.mmio(0x10000, 0x2000)
    over = guest.root.children[0]
    guest.root.remove(over)
    guest.root.add(over, 0x10000, 1)
    assert layout(guest)[:2] == [(0, 0x10000, "ram", False), (0x12000, 0x6E000, "ram", False)]


def test_part_of_a_page_is_left_to_dispatch(pc: type[Pc]) -> None:
    guest = pc()
    guest.root.add(Region.ram("odd", RamBlock("odd", 0x3000), size=0x2800), 0x100800)
    assert (0x101000, 0x2000, "odd", False) not in layout(guest)  # its pages are not the host's
    assert all(name != "odd" for _, _, name, _ in layout(guest))


def test_aligned_pages_of_an_odd_range_become_a_slot(pc: type[Pc]) -> None:
    guest = pc()
    guest.root.add(Region.ram("odd", RamBlock("odd", 0x4000), offset=0x800, size=0x2800), 0x100800)
    assert (0x101000, 0x2000, "odd", False) in layout(guest)


def test_slot_numbers_are_used_again(pc: type[Pc]) -> None:
    guest = pc()
    block = RamBlock("moving", 0x1000)
    for n in range(300):
        region = guest.root.add(Region.ram("moving", block), 0x200000 + n * 0x1000)
        guest.root.remove(region)
    assert max(slot for *_, slot in guest.accel.vm.memory_listener.layout()) < 4


def test_running_out_of_slots_says_so(pc: type[Pc]) -> None:
    guest = pc()
    guest.accel.vm.slot_limit = 10
    block = RamBlock("many", 0x1000)
    with pytest.raises(AccelFailure, match="memory slots"):
        for n in range(11):
            guest.root.add(Region.ram("many", block), 0x1_0000_0000 + n * 0x2000)
    assert len(guest.accel.vm.memory_listener.layout()) == 10


def test_guest_sees_memory_that_appears_while_it_is_stopped(pc: type[Pc]) -> None:
    guest = pc("b800d0 8ed8 b001 e6f4 a00000 e680 b002 e6f4")
    guest.run()
    block = RamBlock("late", 0x1000)
    block.write(0, b"\x77")
    guest.root.add(Region.ram("late", block), 0xD0000)
    guest.go()
    assert guest.logged == [0x77]


def test_layout_changes_under_a_running_guest(pc: type[Pc]) -> None:
    # Writes to and reads from d000:0 for ever; RAM comes and goes there a hundred times.
    guest = pc("b800d0 8ed8 a20000 a00000 40 ebf7")
    guest.cpus()
    guest.accel.start()
    block = RamBlock("flicker", 0x1000)
    for _ in range(100):
        with guest.lock:
            region = guest.root.add(Region.ram("flicker", block), 0xD0000)
        with guest.lock:
            guest.root.remove(region)
    assert guest.control.running
    guest.accel.stop()
    assert guest.control.take_reports() == []


def test_pages_the_guest_writes_are_in_the_dirty_log(pc: type[Pc]) -> None:
    guest = pc("31c0 8ed8 c606000111 b80020 8ed8 c606000011 b05a e6f4")  # [100h], [20000h]
    log = DirtyLog(guest.ram, guest.accel)
    log.take()
    guest.run()
    log.sync()
    assert log.take(0, 0x80000) == [(0, 0x1000), (0x20000, 0x1000)]


def test_dirty_log_starts_again_after_each_sync(pc: type[Pc]) -> None:
    guest = pc("31c0 8ed8 c606000111 b001 e6f4 c606003011 b002 e6f4")
    log = DirtyLog(guest.ram, guest.accel)
    guest.run()
    log.sync()
    log.take()
    guest.go()
    log.sync()
    assert log.take(0, 0x80000) == [(0x3000, 0x1000)]


def test_dirty_log_survives_a_change_of_layout(pc: type[Pc]) -> None:
    guest = pc("31c0 8ed8 c606000111 b001 e6f4")
    log = DirtyLog(guest.ram, guest.accel)
    log.take()
    guest.run()
    over = Region.ram("over", RamBlock("over", 0x1000))
    guest.root.add(over, 0x40000, 1)
    assert log.written(0, 0x1000)


def test_queued_port_writes_arrive_in_order_before_the_next_exit(pc: type[Pc]) -> None:
    seen: list[tuple[str, int]] = []
    guest = pc("b001 e690 b002 e690 b003 e690 e491 b05a e6f4")
    guest.port(0x90, write=lambda offset, size, value: seen.append(("queued", value)))
    guest.port(0x91, read=lambda offset, size: seen.append(("read", 0)) or 0)
    guest.cpus()
    assert guest.accel.add_coalesced(guest.io, 0x90, 1)
    exits = guest.accel.vcpus[0].exits
    guest.go()
    assert seen == [("queued", 1), ("queued", 2), ("queued", 3), ("read", 0)]
    assert guest.accel.vcpus[0].io_exits - exits == 2


def test_queued_memory_writes_wait_for_drain(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc("b800d0 8ed8 c606000055 f4")
    guest.mmio(0xD0000, write=lambda offset, size, value: seen.append(value))
    guest.cpus()
    assert guest.accel.add_coalesced(guest.memory, 0xD0000, 0x100)
    guest.accel.start()
    assert guest.until(lambda: guest.accel.drain() > 0)
    assert seen == [0x55]


def test_queue_is_empty_when_the_machine_stands_still(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc("b007 e690 ebfe")
    guest.port(0x90, write=lambda offset, size, value: seen.append(value))
    guest.cpus()
    guest.accel.add_coalesced(guest.io, 0x90, 1)
    guest.accel.start()
    time.sleep(0.01)
    guest.accel.stop()
    assert seen == [7]


def test_full_queue_loses_nothing(pc: type[Pc]) -> None:
    seen: list[int] = []
    guest = pc("b9f401 88c8 e690 e2fa b05a e6f4")  # cx = 500: out 90h, cl; loop
    guest.port(0x90, write=lambda offset, size, value: seen.append(value))
    guest.cpus()
    guest.accel.add_coalesced(guest.io, 0x90, 1)
    guest.go()
    assert seen == [n & 0xFF for n in range(500, 0, -1)]


def test_memory_above_4_gib_belongs_to_the_guest(pc: type[Pc]) -> None:
    guest = pc(PROTECTED + PROTECTED_DONE)
    guest.root.add(Region.ram("high", RamBlock("high", 0x200000)), 0x1_0000_0000)
    assert guest.run() == EXIT
    assert (0x1_0000_0000, 0x200000, "high", False) in layout(guest)
