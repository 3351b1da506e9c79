"""8254. Modes, control words and read-back are those of Intel 231164; the clock is 1.193182 MHz."""

import pytest
from accel.api import IrqLine, PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region
from vmrun.devices.timer.i8254 import I8254, PitEnable

from vmrun.errors import StateError

HZ = 1193182
CONTROL = 3


class Board:
    def __init__(self):
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.edges = []
        line = IrqLine(PyIrqSink(lambda n, level: self.edges.append(level)))
        self.pit = I8254(self.clock, self.timers, line)
        self.io = AddressSpace("pit", Region.device("pit", self.pit, 4))
        self.zero = 0

    def write(self, port, value):
        self.io.write(port, 1, value)

    def read(self, port):
        return self.io.read(port, 1)

    def program(self, channel, mode, count, bcd=0):
        self.write(CONTROL, channel << 6 | 0x30 | mode << 1 | bcd)
        self.write(channel, count & 0xFF)
        self.write(channel, count >> 8)
        self.zero = self.clock.time()

    def at(self, clocks):
        """Go to `clocks` input clocks after the last program()."""
        self.clock.set_time(self.zero - (-clocks * 1_000_000_000 // HZ))
        self.timers.run()

    def count(self, channel):
        self.write(CONTROL, channel << 6)
        return self.read(channel) | self.read(channel) << 8

    def rises(self):
        return self.edges.count(1)


@pytest.fixture
def board():
    return Board()


def test_mode_2_gives_one_edge_per_period(board):
    board.program(0, 2, 1000)
    del board.edges[:]
    for n in range(1, 101):
        board.at(1000 * n)
    assert board.rises() == 100


def test_mode_2_is_low_for_one_clock(board):
    board.program(0, 2, 1000)
    board.at(998)
    assert board.pit.get_out(0) == 1
    board.at(999)
    assert board.pit.get_out(0) == 0
    board.at(1000)
    assert board.pit.get_out(0) == 1


def test_late_host_does_not_lose_the_tick(board):
    board.program(0, 2, 11932)
    del board.edges[:]
    board.at(11932 + 500)
    assert board.edges == [0, 1]
    board.at(3 * 11932 + 500)
    assert board.rises() == 3


def test_host_that_slept_long_gives_a_few_ticks_not_thousands(board):
    board.program(0, 2, 100)
    del board.edges[:]
    board.at(1_000_000)
    assert 1 <= board.rises() <= 6
    board.at(1_000_100)
    assert board.timers.deadline() > board.clock.time()


def test_no_drift_in_an_hour_of_ticks(board):
    board.program(0, 2, 1193)
    del board.edges[:]
    board.at(1193 * 3_600_000)
    first = board.rises()
    board.at(1193 * 3_600_001 - 1)
    assert board.rises() == first
    board.at(1193 * 3_600_001)
    assert board.rises() == first + 1


def test_mode_3_is_high_half_the_period(board):
    board.program(2, 3, 1001)
    board.pit.set_gate(2, True)
    board.zero = board.clock.time()
    board.at(500)
    assert board.pit.get_out(2) == 1
    board.at(501)
    assert board.pit.get_out(2) == 0
    board.at(1001)
    assert board.pit.get_out(2) == 1


def test_mode_3_counts_by_two(board):
    board.program(0, 3, 1000)
    board.at(10)
    assert board.count(0) == 980
    board.at(510)
    assert board.count(0) == 980


def test_mode_0_rises_at_terminal_count_and_stays(board):
    board.program(0, 0, 500)
    assert board.edges[-1:] == [0]
    board.at(499)
    assert board.pit.get_out(0) == 0
    board.at(500)
    assert board.edges[-2:] == [0, 1]
    board.at(70_000)
    assert board.edges[-1] == 1


def test_mode_0_goes_on_below_zero(board):
    board.program(0, 0, 500)
    board.at(501)
    assert board.count(0) == 0xFFFF


def test_mode_0_stops_while_the_gate_is_low(board):
    board.program(2, 0, 1000)
    board.at(100)
    assert board.count(2) == 1000
    board.pit.set_gate(2, True)
    board.zero = board.clock.time()
    board.at(300)
    board.pit.set_gate(2, False)
    board.at(900)
    assert board.count(2) == 700
    board.pit.set_gate(2, True)
    board.zero = board.clock.time()
    board.at(699)
    assert board.pit.get_out(2) == 0
    board.at(700)
    assert board.pit.get_out(2) == 1


def test_mode_1_waits_for_the_gate(board):
    board.program(2, 1, 100)
    board.at(500)
    assert board.pit.get_out(2) == 1
    board.pit.set_gate(2, True)
    board.zero = board.clock.time()
    assert board.pit.get_out(2) == 0
    board.at(100)
    assert board.pit.get_out(2) == 1


def test_mode_4_strobes_for_one_clock(board):
    board.program(0, 4, 100)
    levels = []
    for clock in (99, 100, 101):
        board.at(clock)
        levels.append(board.pit.get_out(0))
    assert levels == [1, 0, 1]


def test_mode_5_strobes_after_the_gate(board):
    board.program(2, 5, 100)
    board.at(100)
    assert board.pit.get_out(2) == 1
    board.pit.set_gate(2, True)
    board.zero = board.clock.time()
    board.at(100)
    assert board.pit.get_out(2) == 0


def test_new_count_in_mode_2_waits_for_the_end_of_the_period(board):
    board.program(0, 2, 1000)
    del board.edges[:]
    board.at(400)
    board.write(0, 2000 & 0xFF)
    board.write(0, 2000 >> 8)
    board.at(999)
    board.at(1000)
    assert board.rises() == 1
    board.at(2500)
    assert board.rises() == 1
    board.at(3001)
    assert board.rises() == 2


def test_gate_low_stops_modes_2_and_3_and_holds_out_high(board):
    board.program(2, 3, 100)
    board.at(75)
    assert board.pit.get_out(2) == 1


def test_latch_holds_until_read(board):
    board.program(0, 2, 1000)
    board.at(100)
    board.write(CONTROL, 0)
    board.at(200)
    assert board.read(0) | board.read(0) << 8 == 900
    assert board.count(0) == 800


def test_bcd_counts_in_tens(board):
    board.program(0, 2, 0x1000, bcd=1)
    board.at(1)
    assert board.count(0) == 0x0999


def test_count_zero_is_the_largest(board):
    board.program(0, 2, 0)
    board.at(1)
    assert board.count(0) == 0xFFFF


def test_read_back_gives_status_then_count(board):
    board.program(0, 2, 1000)
    board.at(10)
    board.write(CONTROL, 0xC2)
    assert board.read(0) == 0xB4
    assert board.read(0) | board.read(0) << 8 == 990


def test_read_back_shows_null_count_until_loaded(board):
    board.write(CONTROL, 0x34)
    board.write(CONTROL, 0xE2)
    assert board.read(0) == 0xF4


def test_one_byte_counts(board):
    board.write(CONTROL, 0x14)
    board.write(0, 50)
    assert board.read(0) == 50
    board.write(CONTROL, 0x24)
    board.write(0, 2)
    assert board.read(0) == 2


def test_modes_6_and_7_are_2_and_3(board):
    board.program(0, 6, 1000)
    board.at(999)
    assert board.pit.get_out(0) == 0
    board.write(CONTROL, 0xE2)
    assert board.read(0) & 0x0E == 0x0C     # the status tells what was written


def test_control_port_reads_nothing(board):
    assert board.read(CONTROL) == 0


def test_hpet_takes_over_interrupt_0(board):
    enable = PitEnable(board.pit)
    board.program(0, 2, 1000)
    enable.drive(0, 0)
    del board.edges[:]
    board.at(5000)
    assert board.edges == []
    enable.drive(0, 1)
    board.at(6000)
    assert board.rises() >= 1


def test_state_comes_back(board):
    board.program(0, 2, 1000)
    board.at(300)
    other = Board()
    other.pit.load_state(board.pit.save())
    assert other.pit.save() == board.pit.save()
    assert other.count(0) == 700


@pytest.mark.parametrize(
    "change", [{"count": 0}, {"mode": 6}, {"rw": 0}, {"latch": 1 << 16}, {"start": 1 << 62}]
)
def test_impossible_state_is_refused_unchanged(board, change):
    before = board.pit.save()
    bad = {**before, "counters": [{**c, **change} for c in before["counters"]]}
    with pytest.raises(StateError):
        board.pit.load_state(bad)
    assert board.pit.save() == before
