"""I/O APIC (Intel 82093AA, 290566) and local APIC (SDM volume 3, chapter 10)."""

from __future__ import annotations

import pytest

IOAPIC, LAPIC = 0xFEC00000, 0xFEE00000


def get(q, index):
    q.writel(IOAPIC, index)
    return q.readl(IOAPIC + 0x10)


def put(q, index, value):
    q.writel(IOAPIC, index)
    q.writel(IOAPIC + 0x10, value)


def test_the_version_tells_24_pins(q):
    assert get(q, 1) == 0x00170011


def test_the_identity_register_has_four_bits(q):
    put(q, 0, 0xFFFFFFFF)
    assert get(q, 0) == 0x0F000000


@pytest.mark.parametrize("pin", [0, 2, 15, 16, 23])
def test_a_redirection_entry_starts_masked_and_reads_back(q, pin):
    assert get(q, 0x10 + 2 * pin) == 0x00010000
    put(q, 0x10 + 2 * pin, 0x0001A9B1)
    put(q, 0x11 + 2 * pin, 0xA5000000)
    assert get(q, 0x10 + 2 * pin) == 0x0001A9B1
    assert get(q, 0x11 + 2 * pin) == 0xA5000000


@pytest.mark.parametrize("pin", [0, 23])
def test_delivery_status_and_remote_irr_cannot_be_written(q, pin):
    put(q, 0x10 + 2 * pin, 0x00015000)
    assert get(q, 0x10 + 2 * pin) == 0x00010000


def test_registers_that_are_not_there_read_0(q):
    assert get(q, 0x50) == 0


# --- vmrun alone: QEMU's local APICs belong to processors, which do not run ------------------------------------


def test_a_local_apic_at_power_on(timed):
    q = timed
    assert q.readl(LAPIC + 0x20) == 0
    assert q.readl(LAPIC + 0x30) & 0xFF == 0x11  # types before pc-i440fx-2.7; 14h since
    assert q.readl(LAPIC + 0xF0) == 0xFF
    assert q.readl(LAPIC + 0xE0) == 0xFFFFFFFF
    for offset in (0x320, 0x360, 0x370):
        assert q.readl(LAPIC + offset) & 0x10000
    assert q.readl(LAPIC + 0x350) == 0x700  # the first processor's LINT0 takes the 8259A's interrupts


def test_a_message_of_the_io_apic_is_requested_in_the_local_apic(timed):
    q = timed
    q.writel(LAPIC + 0xF0, 0x1FF)
    put(q, 0x10 + 2 * 5, 0x00000041)
    put(q, 0x11 + 2 * 5, 0)
    q.set_irq_in("ioapic", "unnamed-gpio-in", 5, 1)
    assert q.readl(LAPIC + 0x220) == 1 << 1


def test_the_timer_of_a_local_apic_counts_down_and_interrupts(timed):
    q = timed
    q.writel(LAPIC + 0xF0, 0x1FF)
    q.writel(LAPIC + 0x3E0, 0x0B)  # divide by 1
    q.writel(LAPIC + 0x320, 0x40)
    q.writel(LAPIC + 0x380, 1_000_000)
    q.clock_step(500_000)
    assert 0 < q.readl(LAPIC + 0x390) < 1_000_000
    q.clock_step(1_000_000)
    assert q.readl(LAPIC + 0x390) == 0
    assert q.readl(LAPIC + 0x220) == 1
