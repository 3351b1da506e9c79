"""MC146818A real-time clock (Motorola MC146818A, DS9739) and the RAM behind it."""

from __future__ import annotations

import pytest

from tests.devices.differences import DIFFERENCES

INDEX, DATA = 0x70, 0x71
SECONDS, SECONDS_ALARM, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR = 0, 1, 2, 4, 6, 7, 8, 9
A, B, C, D = 10, 11, 12, 13
SET, PIE, AIE, UIE, DM, H24 = 0x80, 0x40, 0x20, 0x10, 0x04, 0x02
UIP, UF, AF, PF, IRQF, VRT = 0x80, 0x10, 0x20, 0x40, 0x80, 0x80


def get(q, index):
    q.outb(INDEX, index)
    return q.inb(DATA)


def put(q, index, value):
    q.outb(INDEX, index)
    q.outb(DATA, value)


def test_power_on_state_of_the_control_registers(q):
    assert get(q, A) & 0x7F == 0x26
    assert get(q, B) == H24
    assert get(q, C) == 0
    assert get(q, D) == VRT


@pytest.mark.parametrize("index", [*range(0x0E, 0x10), *range(0x40, 0x5B), 0x7F])
def test_user_ram_keeps_what_is_written(q, index):
    for value in (0x55, 0xAA):
        put(q, index, value)
        assert get(q, index) == value


def test_the_index_has_seven_bits(q):
    put(q, 0x40, 0x5A)
    q.outb(INDEX, 0xC0)
    assert q.inb(DATA) == 0x5A


def test_the_index_port_reads_all_ones(q):
    q.outb(INDEX, 0x0B)
    assert q.inb(INDEX) == 0xFF


def test_register_d_is_read_only(q):
    put(q, D, 0)
    assert get(q, D) == VRT


def test_register_c_is_read_only(q):
    put(q, C, 0xFF)
    assert get(q, C) & 0x0F == 0


def test_update_in_progress_cannot_be_written(q):
    put(q, B, SET | H24)
    put(q, A, 0xA6)
    assert get(q, A) == 0x26


def test_the_time_set_under_set_reads_back_in_bcd(q):
    put(q, B, SET | H24)
    for index, value in ((SECONDS, 0x42), (MINUTES, 0x59), (HOURS, 0x23), (DAY, 0x28), (MONTH, 0x02), (YEAR, 0x99)):
        put(q, index, value)
        assert get(q, index) == value


def test_in_binary_mode_registers_count_in_binary(q):
    put(q, B, SET | H24 | DM)
    for index, value in ((SECONDS, 42), (MINUTES, 59), (HOURS, 23), (DAY, 28), (MONTH, 12)):
        put(q, index, value)
        assert get(q, index) == value


def test_twelve_hour_mode_has_a_pm_bit(q):
    put(q, B, SET)
    put(q, HOURS, 0x91)  # 11 PM is 91h: PM and 11
    assert get(q, HOURS) == 0x91


def test_alarm_registers_keep_what_is_written(q):
    for index, value in ((1, 0x30), (3, 0xC0), (5, 0x12)):
        put(q, index, value)
        assert get(q, index) == value


def test_set_clears_the_update_interrupt_enable(q):
    put(q, B, SET | UIE | H24)
    assert get(q, B) & UIE == 0


# --- with time ----------------------------------------------------------------------------------------------


def test_a_periodic_interrupt_comes_at_its_rate_and_register_c_tells_and_clears_it(timed):
    q = timed
    q.intercept_in("pic1")
    put(q, A, 0x26)  # 1024 Hz
    put(q, B, PIE | H24)
    q.clock_step(1_000_000_000 // 1024 + 40_000)
    assert q.irqs.get(0) == 1
    assert get(q, C) & (IRQF | PF) == IRQF | PF
    assert q.irqs[0] == 0
    assert get(q, C) & (IRQF | PF) == 0


def test_without_its_enable_the_periodic_flag_rises_but_not_the_pin(timed):
    q = timed
    q.intercept_in("pic1")
    put(q, A, 0x2F)  # 2 Hz
    assert get(q, C) & PF == 0
    q.clock_step(1_100_000_000)
    assert get(q, C) & (PF | IRQF) == PF
    assert (0, 1) not in q.irq_log


def test_the_periodic_flag_without_its_enable(q, side):
    if side == "vmrun":
        q.clock_step(2_000_000)
    else:
        q.ask_all(["inb 0x80"] * 3000)  # its clock is the host's: a few of the 976 µs pass
    assert get(q, C) & PF == DIFFERENCES["rtc-pf"].of(side)  # a second may end meanwhile, which sets UF


def test_an_alarm_comes_when_the_time_is_that_of_the_alarm(timed):
    q = timed
    q.intercept_in("pic1")
    put(q, B, SET | H24)
    for index, value in ((SECONDS, 0x10), (MINUTES, 0x20), (HOURS, 0x03), (1, 0x12), (3, 0x20), (5, 0x03)):
        put(q, index, value)
    put(q, B, AIE | H24)
    q.clock_step(900_000_000)
    assert (0, 1) not in q.irq_log
    q.clock_step(1_200_000_000)
    assert (0, 1) in q.irq_log
    assert get(q, C) & (IRQF | AF) == IRQF | AF


def test_midnight_at_the_end_of_a_leap_february(timed):
    q = timed
    put(q, B, SET | H24)
    when = ((SECONDS, 0x59), (MINUTES, 0x59), (HOURS, 0x23), (DAY, 0x28), (MONTH, 0x02), (YEAR, 0x24))
    for index, value in when:
        put(q, index, value)
    put(q, B, H24)
    q.clock_step(1_600_000_000)
    assert [get(q, index) for index in (HOURS, MINUTES, DAY, MONTH, YEAR)] == [0, 0, 0x29, 2, 0x24]
