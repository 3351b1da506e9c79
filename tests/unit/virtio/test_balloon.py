"""virtio-balloon: pages go to the host, what the guest has is told, its statistics are asked for and kept."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from vmrun.testing import QTest

COMMON, NOTIFY, CONFIG = 0xE0000000, 0xE0003000, 0xE0002000
RINGS, DATA = 0x100000, 0x200000
VERSION_1, STATS_VQ, POISON, REPORTING = 1 << 32, 1 << 1, 1 << 4, 1 << 5
INFLATE, DEFLATE, STATS, REPORTS = range(4)
WRITE, NEXT = 2, 1
PAGE = 4096


class Guest:
    """The driver of a balloon at 05.0, over qtest; a ring of 16 entries for each queue."""

    def __init__(self) -> None:
        device = {"id": "balloon", "driver": "virtio-balloon-pci", "addr": "05.0", "free-page-reporting": True}
        self.q = QTest({"machine": "pc-i440fx-7.2", "memory": "16MiB", "devices": [device]})
        self.told: list[int] = []
        self.q.machine.board.balloon_changed = lambda device: self.told.append(device.actual)
        self.q.pci_write(5, 0, 0x20, COMMON)
        self.q.pci_write(5, 0, 0x24, 0)
        self.q.pci_write(5, 0, 4, 6, 2)
        self.index = [0] * 4
        q = self.q
        q.writeb(COMMON + 0x14, 3)
        for word, value in ((0, STATS_VQ | POISON | REPORTING), (1, VERSION_1 >> 32)):
            q.writel(COMMON + 0x08, word)
            q.writel(COMMON + 0x0C, value)
        q.writeb(COMMON + 0x14, 11)
        for queue in range(4):
            q.writew(COMMON + 0x16, queue)
            q.writew(COMMON + 0x18, 16)
            for n, offset in enumerate((0x20, 0x28, 0x30)):
                q.writel(COMMON + offset, self.ring(queue) + n * PAGE)
            q.writew(COMMON + 0x1C, 1)
        q.writeb(COMMON + 0x14, 15)

    @property
    def device(self) -> Any:
        return self.q.machine.devices["balloon"]

    def ring(self, queue: int) -> int:
        return RINGS + queue * 0x4000

    def put(self, queue: int, *pieces: tuple[int, int, int]) -> None:
        desc, avail = self.ring(queue), self.ring(queue) + PAGE
        for n, (addr, length, flags) in enumerate(pieces):
            more = n < len(pieces) - 1
            self.q.write(desc + 16 * n, struct.pack("<QIHH", addr, length, flags | (NEXT if more else 0), n + 1))
        self.q.writew(avail + 4 + 2 * (self.index[queue] % 16), 0)
        self.index[queue] += 1
        self.q.writew(avail + 2, self.index[queue])
        self.q.writew(NOTIFY + 4 * queue, queue)
        self.q.settle()

    def used(self, queue: int) -> int:
        return self.q.readw(self.ring(queue) + 2 * PAGE + 2)

    def give(self, *pages: int) -> None:
        self.q.write(DATA, struct.pack(f"<{len(pages)}I", *pages))
        self.put(INFLATE, (DATA, 4 * len(pages), 0))

    def tell(self, **stats: int) -> None:
        rows = b"".join(struct.pack("<HQ", int(tag[1:]), value) for tag, value in stats.items())
        self.q.write(DATA, rows)
        self.put(STATS, (DATA, len(rows), 0))


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.q.close()


def test_a_page_that_was_given_is_empty_and_its_neighbours_are_not(guest: Guest) -> None:
    guest.q.write(0x400000, b"x" * 8 * PAGE)
    guest.give(0x401, 0x402, 0x404, 0x406, 0x405)
    assert guest.used(INFLATE) == 1
    found = [guest.q.read(0x400000 + n * PAGE, 4) for n in range(8)]
    assert [n for n in range(8) if found[n] == bytes(4)] == [1, 2, 4, 5, 6]
    assert guest.device.chip.given == 5


def test_pages_that_are_no_memory_are_left_alone(guest: Guest) -> None:
    guest.q.write(0x400000, b"x" * PAGE)
    guest.give(0xFFFFFFFF, 0xE0002, 0x3FF, 0x400, 0xF0, 0x1000)
    assert guest.used(INFLATE) == 1 and guest.q.read(0x400000, 2) == bytes(2)
    assert guest.q.readb(0xFFFF0) != 0  # the firmware is where it was


def test_a_range_with_a_hole_gives_what_is_there(guest: Guest) -> None:
    guest.q.write(0xFFF000, b"x" * PAGE)
    guest.give(0xFFE, 0xFFF, 0x1000, 0x1001)
    assert guest.q.read(0xFFF000, 2) == bytes(2)


def test_free_pages_that_are_reported_go_too_but_for_a_pattern(guest: Guest) -> None:
    guest.q.write(0x400000, b"x" * 4 * PAGE)
    guest.put(REPORTS, (0x400000, PAGE, WRITE), (0x402000, 100, WRITE))
    assert guest.q.read(0x400000, 2) == bytes(2) and guest.q.read(0x402000, 2) == b"xx"
    guest.q.writel(CONFIG + 12, 0xAA)
    guest.put(REPORTS, (0x401000, PAGE, WRITE))
    assert guest.q.read(0x401000, 2) == b"xx" and guest.used(REPORTS) == 2


def test_what_is_asked_for_is_in_the_configuration_and_what_is_given_is_told(guest: Guest) -> None:
    before = guest.q.readb(COMMON + 0x15)
    with guest.q.machine.board.lock:
        guest.device.set_target(12 << 20)
    assert guest.q.readl(CONFIG) == 1024 and guest.q.readb(COMMON + 0x15) != before
    guest.q.writel(CONFIG + 4, 1024)
    assert guest.device.actual == 12 << 20 and guest.told == [12 << 20]
    guest.q.writel(CONFIG, 5)  # the host's
    assert guest.q.readl(CONFIG) == 1024
    with guest.q.machine.board.lock:
        guest.device.set_target(1 << 40)
    assert guest.q.readl(CONFIG) == 0


def test_statistics_are_kept_and_asked_for_again(guest: Guest) -> None:
    guest.tell(t4=0x1234000, t9=7, t99=1)
    assert guest.used(STATS) == 0  # the device keeps the message
    stats = guest.device.qom_values()["guest-stats"]
    assert stats["stats"]["stat-free-memory"] == 0x1234000 and stats["stats"]["stat-htlb-pgfail"] == 7
    assert stats["stats"]["stat-swap-in"] == (1 << 64) - 1 and stats["last-update"] > 0
    guest.device.set_interval(2)
    assert guest.used(STATS) == 1
    guest.tell(t5=99)
    guest.q.clock_step(2_000_000_000)
    assert guest.used(STATS) == 2
    assert guest.device.qom_values()["guest-stats"]["stats"]["stat-total-memory"] == 99
    guest.device.set_interval(0)
    guest.tell(t5=98)
    guest.q.clock_step(9_000_000_000)
    assert guest.used(STATS) == 2


def test_a_message_that_waits_is_saved_as_one_that_was_not_taken(guest: Guest) -> None:
    guest.tell(t5=99)
    queue = guest.device.chip.queues[STATS]
    state = guest.device.chip.save()
    assert queue.last_avail == 0 and state
    guest.device.set_interval(1)  # takes it again
    assert queue.last_avail == 1 and guest.used(STATS) == 0


def test_a_reset_forgets_the_message(guest: Guest) -> None:
    guest.tell(t5=99)
    guest.q.writeb(COMMON + 0x14, 0)
    guest.device.set_interval(1)
    assert guest.used(STATS) == 0
