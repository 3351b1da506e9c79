"""8254 programmable interval timer (Intel 231164)."""

from __future__ import annotations

import pytest

CONTROL, CH0, CH2, SPEAKER = 0x43, 0x40, 0x42, 0x61
RATE = 1_193_182


def status(q, channel):
    q.outb(CONTROL, 0xE0 | 2 << channel)  # read-back: status only
    return q.inb(CH0 + channel)


def count(q, channel):
    q.outb(CONTROL, channel << 6)  # counter latch
    low = q.inb(CH0 + channel)
    return low | q.inb(CH0 + channel) << 8


@pytest.mark.parametrize("mode", range(6))
@pytest.mark.parametrize("channel", [0, 2])
def test_the_read_back_command_shows_access_and_mode(q, channel, mode):
    q.outb(CONTROL, channel << 6 | 0x30 | mode << 1)
    assert status(q, channel) & 0x3F == 0x30 | mode << 1


@pytest.mark.parametrize("mode, shown", [(6, 2), (7, 3)])
def test_modes_6_and_7_are_2_and_3(q, mode, shown):
    q.outb(CONTROL, 0x30 | mode << 1)
    assert status(q, 0) >> 1 & 3 == shown & 3


def test_a_count_reads_back_low_byte_first(q):
    q.outb(CONTROL, 0xB4)  # channel 2, mode 2, whose count begins with the gate, which is off
    q.outb(SPEAKER, 0)
    q.outb(CH2, 0x34)
    q.outb(CH2, 0x12)
    assert count(q, 2) == 0x1234


def test_a_latched_count_is_kept_until_it_is_read(q):
    q.outb(CONTROL, 0x34)
    q.outb(CH0, 0x34)
    q.outb(CH0, 0x12)
    q.outb(CONTROL, 0x00)
    q.outb(CONTROL, 0x00)
    assert q.inb(CH0) | q.inb(CH0) << 8 == 0x1234


def test_read_back_latches_status_and_count_in_that_order(q):
    q.outb(CONTROL, 0x34)
    q.outb(CH0, 0x78)
    q.outb(CH0, 0x56)
    q.outb(CONTROL, 0xC2)
    assert q.inb(CH0) & 0x3F == 0x34
    assert q.inb(CH0) == 0x78
    assert q.inb(CH0) == 0x56


@pytest.mark.parametrize("access, shift", [(1, 0), (2, 8)])
def test_one_byte_access_sets_and_reads_one_byte(q, access, shift):
    q.outb(CONTROL, access << 4 | 0x04)
    q.outb(CH0, 0x5A)
    q.outb(CONTROL, 0x00)
    assert q.inb(CH0) == 0x5A


def test_the_control_port_reads_0(q):
    assert q.inb(CONTROL) in (0, 0xFF)


def test_the_gate_of_channel_2_is_bit_0_of_port_61h(q):
    q.outb(SPEAKER, 1)
    assert q.inb(SPEAKER) & 1 == 1
    q.outb(SPEAKER, 0)
    assert q.inb(SPEAKER) & 1 == 0


# --- with time ----------------------------------------------------------------------------------------------


def test_mode_2_interrupts_once_in_every_period(timed):
    q = timed
    q.intercept_in("pic0")
    q.outb(CONTROL, 0x34)
    q.outb(CH0, 0xA9)
    q.outb(CH0, 0x04)  # 1193: 1 ms
    q.clock_step(10_500_000)
    assert 9 <= q.irq_log.count((0, 1)) <= 11


def test_mode_0_raises_its_output_at_the_end_of_the_count_and_stays_there(timed):
    q = timed
    q.intercept_in("pic0")
    q.outb(CONTROL, 0x30)
    q.outb(CH0, 0xA9)
    q.outb(CH0, 0x04)
    q.clock_step(900_000)
    assert q.irqs.get(0, 0) == 0
    q.clock_step(200_000)
    assert q.irqs[0] == 1
    q.clock_step(5_000_000)
    assert q.irq_log.count((0, 1)) == 1


def test_the_count_goes_down_with_time(timed):
    q = timed
    q.outb(CONTROL, 0x34)
    q.outb(CH0, 0)
    q.outb(CH0, 0)
    before = count(q, 0) or 0x10000
    q.clock_step(1_000_000)
    assert before - count(q, 0) == pytest.approx(RATE / 1000, abs=2)


def test_the_output_of_channel_2_is_bit_5_of_port_61h(timed):
    q = timed
    q.outb(SPEAKER, 1)
    q.outb(CONTROL, 0xB0)
    q.outb(CH2, 0xA9)
    q.outb(CH2, 0x04)
    assert q.inb(SPEAKER) & 0x20 == 0
    q.clock_step(1_100_000)
    assert q.inb(SPEAKER) & 0x20
