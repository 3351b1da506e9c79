"""The pair of 8259A interrupt controllers (Intel 231468), and the edge/level registers of the PIIX3."""

from __future__ import annotations

import pytest

COMMAND, DATA = 0, 1
CHIPS = [(0x20, 0x4D0, 0xF8), (0xA0, 0x4D1, 0xDE)]


def initialise(q, base, icw3, icw4=1):
    q.outb(base + COMMAND, 0x11)
    q.outb(base + DATA, 0x20)
    q.outb(base + DATA, icw3)
    q.outb(base + DATA, icw4)


def request(q, base):
    q.outb(base, 0x0A)
    return q.inb(base)


def in_service(q, base):
    q.outb(base, 0x0B)
    return q.inb(base)


@pytest.mark.parametrize("base, elcr, mask", CHIPS)
def test_the_mask_register_keeps_what_is_written(q, base, elcr, mask):
    for value in (0xFF, 0x5A, 0):
        q.outb(base + DATA, value)
        assert q.inb(base + DATA) == value


@pytest.mark.parametrize("base, elcr, mask", CHIPS)
def test_icw1_clears_the_mask(q, base, elcr, mask):
    q.outb(base + DATA, 0xFF)
    initialise(q, base, 4 if base == 0x20 else 2)
    assert q.inb(base + DATA) == 0


@pytest.mark.parametrize("base, elcr, mask", CHIPS)
def test_nothing_is_requested_or_in_service_after_initialisation(q, base, elcr, mask):
    initialise(q, base, 4 if base == 0x20 else 2)
    assert in_service(q, base) == 0
    assert request(q, base) & ~0x05 == 0


@pytest.mark.parametrize("base, elcr, mask", CHIPS)
def test_only_some_inputs_can_be_level_triggered(q, base, elcr, mask):
    q.outb(elcr, 0xFF)
    assert q.inb(elcr) == mask
    q.outb(elcr, 0)
    assert q.inb(elcr) == 0


@pytest.mark.parametrize("base, elcr, mask", CHIPS)
def test_ocw3_chooses_what_the_command_port_reads(q, base, elcr, mask):
    initialise(q, base, 4 if base == 0x20 else 2)
    request(q, base)
    first = q.inb(base)
    in_service(q, base)
    assert q.inb(base) == 0
    assert request(q, base) == first


def test_a_poll_without_a_request_says_so(q):
    initialise(q, 0xA0, 2)
    q.outb(0xA0, 0x0C)
    assert q.inb(0xA0) & 0x80 == 0


# --- pins, which only vmrun can be driven by ----------------------------------------------------------------


def test_a_request_reaches_the_processor_and_a_poll_takes_it(timed):
    q = timed
    initialise(q, 0x20, 4)
    initialise(q, 0xA0, 2)
    q.set_irq_in("pic0", "unnamed-gpio-in", 3, 1)
    assert request(q, 0x20) & 8
    assert q.machine.accelerator.pins["intr"] == 1
    q.outb(0x20, 0x0C)
    assert q.inb(0x20) == 0x83
    assert in_service(q, 0x20) == 8
    q.outb(0x20, 0x20)  # non-specific EOI
    assert in_service(q, 0x20) == 0


def test_a_masked_request_waits(timed):
    q = timed
    initialise(q, 0x20, 4)
    q.outb(0x21, 0xFF)
    q.set_irq_in("pic0", "unnamed-gpio-in", 5, 1)
    assert request(q, 0x20) == 0x20
    assert q.machine.accelerator.pins["intr"] == 0
    q.outb(0x21, 0xDF)
    assert q.machine.accelerator.pins["intr"] == 1


def test_the_second_chip_comes_in_on_input_2_of_the_first(timed):
    q = timed
    initialise(q, 0x20, 4)
    initialise(q, 0xA0, 2)
    q.set_irq_in("pic1", "unnamed-gpio-in", 1, 1)
    assert request(q, 0x20) == 4
    assert q.machine.accelerator.pins["intr"] == 1


def test_a_level_triggered_input_asks_again_as_long_as_it_is_high(timed):
    q = timed
    initialise(q, 0x20, 4)
    q.outb(0x4D0, 0x20)
    q.set_irq_in("pic0", "unnamed-gpio-in", 5, 1)
    q.outb(0x20, 0x0C)
    assert q.inb(0x20) == 0x85
    q.outb(0x20, 0x65)  # specific EOI 5
    assert request(q, 0x20) == 0x20
    q.set_irq_in("pic0", "unnamed-gpio-in", 5, 0)
    assert request(q, 0x20) == 0
