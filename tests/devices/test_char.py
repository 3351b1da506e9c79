"""Serial port (TI PC16550D, SNLS378C), parallel port (SPP of the PC), debug console, exit port, pvpanic."""

from __future__ import annotations

import pytest

from tests.devices.conftest import DEBUGCON, EXIT, PANIC, PARALLEL, SERIAL

RBR, IER, IIR, LCR, MCR, LSR, MSR, SCR = range(8)


@pytest.mark.parametrize("value", [0x00, 0x5A, 0xFF])
def test_the_scratch_register_keeps_what_is_written(q, value):
    q.outb(SERIAL + SCR, value)
    assert q.inb(SERIAL + SCR) == value


@pytest.mark.parametrize("register, expected", [(IER, 0), (IIR, 0x01), (LCR, 0), (MCR, 0x08), (LSR, 0x60), (MSR, 0xB0)])
def test_registers_after_reset(q, register, expected):
    assert q.inb(SERIAL + register) == expected


def test_the_interrupt_enable_register_has_four_bits(q):
    q.outb(SERIAL + IER, 0xFF)
    assert q.inb(SERIAL + IER) == 0x0F


def test_the_modem_control_register_has_five_bits(q):
    q.outb(SERIAL + MCR, 0xFF)
    assert q.inb(SERIAL + MCR) == 0x1F


def test_the_divisor_latch_is_behind_dlab(q):
    q.outb(SERIAL + LCR, 0x83)
    q.outb(SERIAL, 0x34)
    q.outb(SERIAL + IER, 0x12)
    assert (q.inb(SERIAL), q.inb(SERIAL + IER)) == (0x34, 0x12)
    q.outb(SERIAL + LCR, 0x03)
    assert q.inb(SERIAL + IER) == 0


def test_an_empty_transmitter_asks_when_it_is_enabled_and_reading_iir_is_the_answer(q):
    q.outb(SERIAL + IER, 2)
    assert q.inb(SERIAL + IIR) == 0x02
    assert q.inb(SERIAL + IIR) == 0x01


def test_the_fifos_show_in_iir(q):
    q.outb(SERIAL + IIR, 0x01)
    assert q.inb(SERIAL + IIR) & 0xC0 == 0xC0
    q.outb(SERIAL + IIR, 0x00)
    assert q.inb(SERIAL + IIR) & 0xC0 == 0


def test_in_loopback_what_is_sent_comes_back(q):
    q.outb(SERIAL + MCR, 0x10)
    q.outb(SERIAL, 0x5A)
    if not q.inb(SERIAL + LSR) & 1 and hasattr(q, "machine"):
        q.clock_step(100_000_000)  # a byte takes its time
    assert q.inb(SERIAL + LSR) & 1
    assert q.inb(SERIAL) == 0x5A
    assert q.inb(SERIAL + LSR) & 1 == 0


@pytest.mark.parametrize("out, seen", [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_in_loopback_the_modem_outputs_are_its_inputs(q, out, seen):
    q.outb(SERIAL + MCR, 0x10 | out)
    assert q.inb(SERIAL + MSR) & 0xF0 == seen


# --- parallel ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0x00, 0x5A, 0xFF])
def test_the_data_register_of_the_parallel_port_reads_back(q, value):
    q.outb(PARALLEL, value)
    assert q.inb(PARALLEL) == value


def test_the_parallel_port_s_status_and_control_at_power_on(q):
    assert q.inb(PARALLEL + 1) & 0x80
    assert q.inb(PARALLEL + 2) == 0xCC


def test_the_control_register_s_upper_bits_read_as_ones(q):
    q.outb(PARALLEL + 2, 0x0A)
    assert q.inb(PARALLEL + 2) == 0xCA


# --- ports for firmware and tests -------------------------------------------------------------------------------


def test_the_debug_console_reads_as_its_mark(q):
    assert q.inb(DEBUGCON) == 0xE9


def test_what_is_written_to_the_debug_console_is_in_its_file(q, disk):
    for char in b"hello":
        q.outb(DEBUGCON, char)
    path = disk.with_suffix(".debugcon")
    for _ in range(2000):
        if path.read_bytes() == b"hello":
            break
        q.inb(0x80)
    assert path.read_bytes() == b"hello"


def test_reading_the_exit_port_does_nothing(q):
    assert q.inb(EXIT) == 0


def test_pvpanic_tells_what_it_understands(q):
    assert q.inb(PANIC) == 0x01  # this type knows a crash, not yet a crash whose dump is taken
