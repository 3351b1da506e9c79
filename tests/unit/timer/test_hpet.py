"""HPET. Offsets and bits are those of the IA-PC HPET specification 1.0a."""

import pytest
from accel.api import PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region
from vmrun.devices.timer.hpet_chip import Hpet, HpetLegacy

from vmrun.errors import StateError

ID, CONFIG, STATUS, COUNTER = 0x000, 0x010, 0x020, 0x0F0
LEVEL, ENB, PERIODIC, VAL_SET, MODE32 = 0x002, 0x004, 0x008, 0x040, 0x100
MS = 1_000_000
TICKS = 100_000         # of 10 ns in a millisecond


def conf(n):
    return 0x100 + 0x20 * n


def comp(n):
    return 0x108 + 0x20 * n


class Board:
    def __init__(self):
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.hpet = Hpet(self.clock, self.timers, 3, 4)
        self.edges = []
        self.space = AddressSpace("hpet", Region.device("hpet", self.hpet, 0x400))
        sink = PyIrqSink(lambda n, level: self.edges.append((n, level)))
        for n, line in enumerate(self.hpet.lines):
            line.connect(sink, n)

    def step(self, ns):
        self.clock.set_time(self.clock.time() + ns)
        self.timers.run()

    def write(self, offset, value, size=8):
        self.space.write(offset, size, value)

    def read(self, offset, size=8):
        return self.space.read(offset, size)


@pytest.fixture
def board():
    return Board()


def test_capabilities(board):
    assert board.read(ID) == 0x0098968_0_8086_A201
    assert board.read(ID + 4, 4) == 10_000_000
    assert board.read(conf(0)) == 0x4_0000_0030
    assert board.read(comp(0)) == 0xFFFFFFFF_FFFFFFFF


def test_counter_stands_still_until_enabled(board):
    board.step(MS)
    assert board.read(COUNTER) == 0
    board.write(CONFIG, 1)
    board.step(MS)
    assert board.read(COUNTER) == TICKS


def test_counter_stops_and_goes_on(board):
    board.write(CONFIG, 1)
    board.step(MS)
    board.write(CONFIG, 0)
    board.step(MS)
    assert board.read(COUNTER) == TICKS
    board.write(CONFIG, 1)
    board.step(MS)
    assert board.read(COUNTER) == 2 * TICKS


def test_counter_written_in_halves(board):
    board.write(COUNTER, 0x11111111, 4)
    board.write(COUNTER + 4, 0x22222222, 4)
    assert board.read(COUNTER) == 0x2222222211111111


def test_one_shot_edge_pulses_once(board):
    board.write(conf(0), ENB | 2 << 9)
    board.write(comp(0), TICKS)
    board.write(CONFIG, 1)
    board.step(MS - 10)
    assert board.edges == []
    board.step(10)
    assert board.edges == [(2, 1), (2, 0)]
    board.step(10 * MS)
    assert len(board.edges) == 2


def test_level_interrupt_holds_until_its_status_is_cleared(board):
    board.write(conf(1), ENB | LEVEL | 2 << 9)
    board.write(comp(1), TICKS)
    board.write(CONFIG, 1)
    board.step(MS)
    assert board.edges == [(2, 1)]
    assert board.read(STATUS) == 2
    board.write(STATUS, 2)
    assert board.edges == [(2, 1), (2, 0)]


def test_masked_timer_is_silent(board):
    board.write(conf(0), 2 << 9)
    board.write(comp(0), TICKS)
    board.write(CONFIG, 1)
    board.step(2 * MS)
    assert board.edges == [] and board.read(STATUS) == 0


def test_periodic_timer_ticks_with_its_accumulator(board):
    board.write(conf(0), ENB | PERIODIC | VAL_SET | 2 << 9)
    board.write(comp(0), 3 * TICKS)         # first interrupt
    board.write(comp(0), TICKS)             # period
    board.write(CONFIG, 1)
    board.step(3 * MS)
    assert board.edges.count((2, 1)) == 1
    assert board.read(comp(0)) == 4 * TICKS
    for _ in range(100):
        board.step(MS)
    assert board.edges.count((2, 1)) == 101
    assert board.read(comp(0)) == 104 * TICKS


def test_late_periodic_timer_skips_whole_periods(board):
    board.write(conf(0), ENB | PERIODIC | VAL_SET | 2 << 9)
    board.write(comp(0), TICKS)
    board.write(CONFIG, 1)
    board.step(5 * MS + MS // 2)
    assert board.read(comp(0)) == 6 * TICKS


def test_tiny_period_cannot_flood_the_host(board):
    board.write(conf(0), ENB | PERIODIC | VAL_SET | 2 << 9)
    board.write(comp(0), 1)
    board.write(CONFIG, 1)
    board.step(1000)
    assert board.timers.deadline() >= board.clock.time() + 50_000


def test_legacy_replacement_takes_irq_0_and_8_from_pit_and_rtc(board):
    pit, rtc = HpetLegacy(board.hpet, 0), HpetLegacy(board.hpet, 1)
    pit.drive(0, 1)
    rtc.drive(0, 1)
    assert board.edges == [(0, 1), (8, 1)]
    assert board.hpet.pit_enabled.level == 1
    board.write(CONFIG, 2)
    assert board.edges[2:] == [(0, 0), (8, 0)]
    assert board.hpet.pit_enabled.level == 0
    pit.drive(0, 0)
    pit.drive(0, 1)
    assert len(board.edges) == 4
    board.write(CONFIG, 0)
    assert board.edges[4:] == [(0, 1), (8, 1)]


def test_legacy_replacement_routes_timers_0_and_1(board):
    for n in (0, 1):
        board.write(conf(n), ENB)
        board.write(comp(n), TICKS * (n + 1))
    board.write(CONFIG, 3)
    board.step(MS)
    board.step(MS)
    assert board.edges == [(0, 1), (0, 0), (8, 1), (8, 0)]


def test_32_bit_timer_keeps_its_low_half(board):
    board.write(conf(0), MODE32)
    board.write(comp(0), 0x1234567887654321)
    assert board.read(comp(0)) == 0x87654321


def test_32_bit_one_shot_meets_its_comparator_again_after_a_wrap(board):
    board.write(conf(0), ENB | MODE32 | 2 << 9)
    board.write(comp(0), TICKS)
    board.write(CONFIG, 1)
    board.step(MS)
    board.step((1 << 32) * 10)
    assert board.edges.count((2, 1)) == 2


def test_read_only_bits_stay(board):
    board.write(conf(2), 0xFFFFFFFF_FFFFFFFF)
    assert board.read(conf(2)) == 0x4_0000_0000 | 0x3F7E
    board.write(ID, 0)
    assert board.read(ID) == 0x0098968_0_8086_A201


def test_timers_that_do_not_exist_read_zero(board):
    assert board.read(conf(3)) == 0
    board.write(conf(31), 0xFFFF)


def test_state_comes_back(board):
    board.write(conf(0), ENB | PERIODIC | VAL_SET | 2 << 9)
    board.write(comp(0), TICKS)
    board.write(CONFIG, 1)
    board.step(MS // 2)
    other = Board()
    other.hpet.load_state(board.hpet.save())
    assert other.hpet.save() == board.hpet.save()
    other.step(MS // 2)
    assert other.edges == [(2, 1), (2, 0)]


@pytest.mark.parametrize("change", [{"config": 4}, {"ticks": []}, {"counter": -1}, {"status": 8}])
def test_impossible_state_is_refused_unchanged(board, change):
    before = board.hpet.save()
    with pytest.raises(StateError):
        board.hpet.load_state({**before, **change})
    assert board.hpet.save() == before
