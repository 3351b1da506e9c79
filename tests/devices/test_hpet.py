"""HPET (IA-PC HPET specification 1.0a)."""

from __future__ import annotations

import pytest

BASE = 0xFED00000
CAPABILITIES, CONFIG, STATUS, COUNTER = 0x000, 0x010, 0x020, 0x0F0
PERIOD = 10_000_000  # fs


def timer(n):
    return 0x100 + 0x20 * n


def test_the_capabilities(q):
    value = q.readq(BASE + CAPABILITIES)
    assert value >> 32 == PERIOD
    assert value & 0xFFFF == 0xA201  # revision 1, three timers, 64 bits, legacy routing


def test_the_counter_stands_still_and_can_be_set_while_disabled(q):
    assert q.readq(BASE + COUNTER) == 0
    q.writeq(BASE + COUNTER, 0x123456789ABC)
    assert q.readq(BASE + COUNTER) == 0x123456789ABC
    assert q.readl(BASE + COUNTER + 4) == 0x1234


def test_the_configuration_has_two_bits(q):
    q.writeq(BASE + CONFIG, 0xFFFFFFFFFFFFFFFC)
    assert q.readq(BASE + CONFIG) == 0
    q.writeq(BASE + CONFIG, 2)
    assert q.readq(BASE + CONFIG) == 2


@pytest.mark.parametrize("n", range(3))
def test_a_timer_s_capabilities_stay(q, n):
    before = q.readq(BASE + timer(n))
    assert before & 0x30 == 0x30  # periodic, 64 bits
    q.writeq(BASE + timer(n), 0xFFFFFFFF00000000)
    assert q.readq(BASE + timer(n)) >> 32 == before >> 32


@pytest.mark.parametrize("n", range(3))
def test_a_comparator_reads_back(q, n):
    q.writeq(BASE + timer(n) + 8, 0x1122334455667788)
    assert q.readq(BASE + timer(n) + 8) == 0x1122334455667788


@pytest.mark.parametrize("n", range(3))
def test_comparators_start_with_all_ones(q, n):
    assert q.readq(BASE + timer(n) + 8) == 0xFFFFFFFFFFFFFFFF


# --- with time ----------------------------------------------------------------------------------------------


def test_the_counter_counts_100_mhz(timed):
    q = timed
    q.writeq(BASE + CONFIG, 1)
    q.clock_step(1_000_000)
    assert q.readq(BASE + COUNTER) == 100_000


def test_a_timer_interrupts_when_the_counter_reaches_it(timed):
    q = timed
    q.intercept_out("hpet")
    q.writeq(BASE + timer(2), 0x0004 | 2 << 9)  # enabled, edge, line 2
    q.writeq(BASE + timer(2) + 8, 50_000)
    q.writeq(BASE + CONFIG, 1)
    q.clock_step(499_000)
    assert (2, 1) not in q.irq_log
    q.clock_step(2_000)
    assert (2, 1) in q.irq_log


def test_a_level_interrupt_stays_until_its_status_is_cleared(timed):
    q = timed
    q.writeq(BASE + timer(2), 0x0006 | 2 << 9)
    q.writeq(BASE + timer(2) + 8, 1000)
    q.writeq(BASE + CONFIG, 1)
    q.clock_step(20_000)
    assert q.readq(BASE + STATUS) == 4
    q.writeq(BASE + STATUS, 4)
    assert q.readq(BASE + STATUS) == 0


def test_a_periodic_timer_goes_on(timed):
    q = timed
    q.intercept_in("pic0")
    q.writeq(BASE + timer(0), 0x004C)  # periodic, set accumulator, enabled
    q.writeq(BASE + timer(0) + 8, 100_000)
    q.writeq(BASE + timer(0) + 8, 100_000)
    q.writeq(BASE + CONFIG, 3)  # legacy routing: timer 0 is interrupt 0
    q.clock_step(10_500_000)
    assert q.irq_log.count((0, 1)) == 10
