"""MC146818A with the PC's century cell. Registers, rates and flags are those of the Motorola data sheet."""

import calendar

import pytest
from accel.api import IrqLine, PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from accel.space import AddressSpace, Region
from vmrun.devices.timer.mc146818 import Mc146818

from vmrun.errors import StateError

SECOND = 1_000_000_000
A, B, C, D = 10, 11, 12, 13
SET, PIE, AIE, UIE, DM, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02


class Board:
    def __init__(self, date=(2026, 11, 23, 13, 59, 58)):
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.edges = []
        line = IrqLine(PyIrqSink(lambda n, level: self.edges.append(level)))
        self.rtc = Mc146818(self.clock, self.timers, line)
        self.rtc.set_time_of_day(calendar.timegm(date) * SECOND)
        self.io = AddressSpace("rtc", Region.device("rtc", self.rtc, 2))

    def __getitem__(self, index):
        self.io.write(0, 1, index)
        return self.io.read(1, 1)

    def __setitem__(self, index, value):
        self.io.write(0, 1, index)
        self.io.write(1, 1, value)

    def step(self, ns):
        self.clock.set_time(self.clock.time() + ns)
        self.timers.run()

    def shown(self):
        return [self[n] for n in (0x32, 9, 8, 7, 4, 2, 0)]


@pytest.fixture
def board():
    return Board()


def test_time_is_bcd_and_24_hours_at_power_on(board):
    assert board.shown() == [0x20, 0x26, 0x11, 0x23, 0x13, 0x59, 0x58]
    assert board[6] == 2        # Monday
    assert (board[A], board[B], board[D]) == (0x26, 0x02, 0x80)


def test_binary_mode(board):
    board[B] = H24 | DM
    assert board.shown()[1:] == [26, 11, 23, 13, 59, 58]


@pytest.mark.parametrize(
    ("hour", "cell"), [(0, 0x12), (1, 0x01), (11, 0x11), (12, 0x92), (13, 0x81), (23, 0x91)]
)
def test_twelve_hours(hour, cell):
    board = Board((2026, 1, 1, hour, 0, 0))
    board[B] = 0
    assert board[4] == cell


def test_seconds_carry_to_the_century():
    board = Board((2099, 12, 31, 23, 59, 59))
    board.step(SECOND)
    assert board.shown() == [0x21, 0x00, 0x01, 0x01, 0, 0, 0]


def test_leap_day():
    board = Board((2028, 2, 28, 23, 59, 59))
    board.step(SECOND)
    assert board.shown()[2:4] == [0x02, 0x29]


def test_century_answers_at_its_ps2_address_too(board):
    assert board[0x37] == 0x20
    board[0x37] = 0x19
    assert board[0x32] == 0x19


def test_nmi_bit_is_not_part_of_the_index(board):
    board.io.write(0, 1, 0x80 | 0x09)
    assert board.io.read(1, 1) == 0x26


def test_index_port_cannot_be_read(board):
    assert board.io.read(0, 1) == 0xFF


def test_set_stops_updates_and_takes_the_new_time(board):
    board[B] = SET | H24
    for cell, value in ((0x32, 0x20), (9, 0x30), (8, 1), (7, 2), (4, 3), (2, 4), (0, 5)):
        board[cell] = value
    board.step(10 * SECOND)
    assert board[0] == 5
    board[B] = H24
    board.step(SECOND)
    assert board.shown() == [0x20, 0x30, 1, 2, 3, 4, 6]


def test_uip_comes_244_microseconds_before_the_update(board):
    board.step(SECOND - 244_141)  # 8 / 32768 s is 244140.6 ns
    assert board[A] & 0x80 == 0
    board.step(1)
    assert board[A] & 0x80
    board.step(244_140)
    assert board[A] & 0x80 == 0


@pytest.mark.parametrize(
    ("date", "cells"),
    [
        ((1969, 12, 31, 23, 59, 58), [0x19, 0x69, 0x12, 0x31, 0x23, 0x59, 0x58]),
        ((1900, 2, 28, 0, 0, 1), [0x19, 0x00, 0x02, 0x28, 0x00, 0x00, 0x01]),
        ((1700, 3, 1, 12, 30, 15), [0x17, 0x00, 0x03, 0x01, 0x12, 0x30, 0x15]),
    ],
)
def test_dates_before_1970(date, cells):
    board = Board(date)
    board.step(SECOND // 2)
    assert board.shown() == cells
    assert board[A] & 0x80 == 0
    board.step(SECOND // 2 - 1000)
    assert board[A] & 0x80
    board[C]
    board.step(1000)
    assert board[C] & 0x10
    assert board.shown() == [*cells[:-1], cells[-1] + 1]


def test_the_first_periodic_interrupt_comes_a_whole_period_after_its_enable(board):
    board[A] = 0x2F  # 2 Hz
    board.step(400_000_000)
    board[B] = H24 | PIE
    board.step(499_900_000)
    assert board.edges == []
    board.step(200_000)
    assert board.edges == [1]


def test_a_new_rate_counts_from_the_last_periodic_interrupt(board):
    board[A] = 0x2F
    board[B] = H24 | PIE
    board.step(400_000_000)
    board[A] = 0x2E  # 4 Hz: due 250 ms after the start, which is over
    board.step(0)
    assert board.edges == [1]


def test_setting_the_time_does_not_move_the_periodic_interrupt(board):
    board[A] = 0x2F
    board[B] = H24 | PIE
    board.step(300_000_000)
    board.rtc.set_time_of_day(123_456_789)
    board.step(200_100_000)
    assert board.edges == [1]


@pytest.mark.parametrize("rate", range(3, 16))
def test_periodic_rate(board, rate):
    board[A] = 0x20 | rate
    board[B] = H24 | PIE
    hz, count = 32768 >> (rate - 1), 0
    for n in range(1, 11):
        board.clock.set_time(-(-n * SECOND // hz))
        board.timers.run()
        count += board[C] & 0xC0 == 0xC0
    assert count == 10


def test_rates_1_and_2_are_those_of_8_and_9(board):
    board[A] = 0x21
    board[B] = H24 | PIE
    assert board.timers.deadline() == -(-SECOND // 256)


def test_update_ended_interrupt(board):
    board[B] = H24 | UIE
    board.step(SECOND)
    assert board.edges == [1]
    assert board[C] & ~0x40 == 0x90
    assert board.edges == [1, 0]
    assert board[C] == 0


def test_flags_come_without_interrupt_enables(board):
    board[C]
    board.step(SECOND)
    assert board[C] & 0x50 == 0x50
    assert board.edges == []


def test_alarm(board):
    board[1], board[3], board[5] = 0x00, 0x00, 0x14
    board[B] = H24 | AIE
    board.step(SECOND)
    assert board.edges == []
    board.step(SECOND)
    assert board.edges == [1]
    assert board[C] & 0x20


def test_alarm_with_dont_care_hours_and_minutes(board):
    board[1], board[3], board[5] = 0x59, 0xFF, 0xC0
    board[B] = H24 | AIE
    board.step(SECOND)
    assert board.edges == [1]


def test_set_clears_update_enable(board):
    board[B] = SET | H24 | UIE
    assert board[B] == SET | H24


def test_reset_clears_enables_and_keeps_time_and_cmos(board):
    board[0x40] = 0x5A
    board[B] = H24 | PIE | UIE
    board.rtc.reset()
    assert board[B] == H24
    assert board[0x40] == 0x5A
    assert board[9] == 0x26


def test_divider_reset_stops_and_starts_half_a_second_early(board):
    board[A] = 0x76
    board.step(5 * SECOND)
    assert board[0] == 0x58
    board[A] = 0x26
    board.step(SECOND // 2)
    assert board[0] == 0x59


def test_slew_gives_lost_ticks_again(board):
    board.rtc.slew = True
    board[A] = 0x26
    board[B] = H24 | PIE
    board.step(SECOND * 10 // 1024)
    served = 0
    while board[C] & 0x40:
        served += 1
        assert served < 100
    assert served == 10


def test_discard_gives_one(board):
    board[A] = 0x26
    board[B] = H24 | PIE
    board.step(SECOND * 10 // 1024)
    assert [board[C] & 0x40, board[C] & 0x40] == [0x40, 0]


def test_c_and_d_are_read_only(board):
    board[C], board[D] = 0xFF, 0
    assert board[D] == 0x80


def test_state_comes_back(board):
    board[0x40] = 0x5A
    other = Board((1999, 1, 1, 0, 0, 0))
    other.rtc.load_state(board.rtc.save())
    assert other.shown() == board.shown()
    assert other[0x40] == 0x5A


@pytest.mark.parametrize(
    "change", [{"offset": (1 << 63) - 1}, {"offset": -(1 << 63)}, {"checked": 1 << 62 << 1}, {"last": 1 << 50}]
)
def test_a_time_that_cannot_be_shown_is_refused_before_anything_changed(board, change):
    board[0x40] = 0x5A
    before = board.rtc.save()
    with pytest.raises(StateError):
        board.rtc.load_state({**before, "cells": bytes(128), **change})
    assert board.rtc.save() == before
    assert board[0x40] == 0x5A


def test_a_date_that_64_bits_cannot_hold_stops_at_the_last_one(board):
    board[B] = H24 | SET
    board[0x32], board[9] = 0x99, 0x99
    board[B] = H24
    assert board.shown()[:2] == [0x22, 0x23]
    board.rtc.load_state(board.rtc.save())


def test_the_guest_sets_a_date_before_1970(board):
    board[B] = H24 | SET
    board[0x32], board[9] = 0x19, 0x60
    board[B] = H24
    board.step(SECOND)
    assert board.shown()[:6] == [0x19, 0x60, 0x11, 0x23, 0x13, 0x59]
