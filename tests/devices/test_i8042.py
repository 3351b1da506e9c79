"""The keyboard controller (IBM AT technical reference), its keyboard and its mouse."""

from __future__ import annotations

import pytest

DATA, STATUS = 0x60, 0x64
OBF, IBF, SYS, CMD, AUX = 0x01, 0x02, 0x04, 0x08, 0x20


def flush(q):
    for _ in range(64):
        if not q.inb(STATUS) & OBF:
            return
        q.inb(DATA)
    raise AssertionError("the output buffer does not empty")


def command(q, code, *data):
    q.outb(STATUS, code)
    for byte in data:
        q.outb(DATA, byte)


def answers(q):
    found = []
    while q.inb(STATUS) & OBF and len(found) < 64:
        found.append(q.inb(DATA))
    return found


def test_the_status_at_power_on_is_empty_and_unlocked(q):
    assert q.inb(STATUS) & (OBF | IBF) == 0
    assert q.inb(STATUS) & 0x18 == 0x18


def test_the_self_test_passes(q):
    command(q, 0xAA)
    assert q.inb(STATUS) & OBF
    assert q.inb(DATA) == 0x55


@pytest.mark.parametrize("code", [0xA9, 0xAB])
def test_the_lines_to_the_devices_are_good(q, code):
    command(q, code)
    assert answers(q) == [0]


def test_the_command_byte_reads_back(q):
    for value in (0x45, 0x77, 0x03):
        command(q, 0x60, value)
        command(q, 0x20)
        assert answers(q) == [value]


def test_disabling_a_device_sets_its_bit_in_the_command_byte(q):
    command(q, 0x60, 0x03)
    command(q, 0xA7)
    command(q, 0xAD)
    command(q, 0x20)
    assert answers(q)[-1] & 0x30 == 0x30
    command(q, 0xA8)
    command(q, 0xAE)
    command(q, 0x20)
    assert answers(q)[-1] & 0x30 == 0


def test_the_output_port_reads_back(q):
    command(q, 0xD0)
    assert answers(q)[0] & 0x03 == 0x03


def test_a_byte_written_to_the_output_buffers_comes_back(q):
    command(q, 0x60, 0x00)
    flush(q)
    command(q, 0xD2, 0x5A)
    assert q.inb(STATUS) & (OBF | AUX) == OBF
    assert q.inb(DATA) == 0x5A
    command(q, 0xD3, 0xA5)
    assert q.inb(STATUS) & (OBF | AUX) == OBF | AUX
    assert q.inb(DATA) == 0xA5


def test_the_keyboard_acknowledges_and_answers_a_reset(q):
    command(q, 0x60, 0x00)
    flush(q)
    q.outb(DATA, 0xFF)
    assert answers(q) == [0xFA, 0xAA]


def test_the_keyboard_tells_its_identity(q):
    command(q, 0x60, 0x00)
    flush(q)
    q.outb(DATA, 0xF2)
    assert answers(q) == [0xFA, 0xAB, 0x83]


def test_the_keyboard_echoes(q):
    command(q, 0x60, 0x00)
    flush(q)
    q.outb(DATA, 0xEE)
    assert answers(q) == [0xEE]


def test_the_keyboard_does_not_know_every_command(q):
    command(q, 0x60, 0x00)
    flush(q)
    q.outb(DATA, 0xE1)
    assert answers(q) == [0xFE]


@pytest.mark.parametrize("code, argument", [(0xED, 0x07), (0xF3, 0x20)])
def test_the_keyboard_acknowledges_a_command_and_its_argument(q, code, argument):
    command(q, 0x60, 0x00)
    flush(q)
    q.outb(DATA, code)
    assert answers(q) == [0xFA]
    q.outb(DATA, argument)
    assert answers(q) == [0xFA]


def mouse(q, *data):
    found = []
    for byte in data:
        command(q, 0xD4, byte)
        assert q.inb(STATUS) & AUX
        found += answers(q)
    return found


def test_the_mouse_answers_a_reset_with_its_identity(q):
    command(q, 0x60, 0x00)
    flush(q)
    assert mouse(q, 0xFF) == [0xFA, 0xAA, 0x00]


def test_the_mouse_tells_its_state(q):
    command(q, 0x60, 0x00)
    flush(q)
    mouse(q, 0xFF)
    assert mouse(q, 0xE9) == [0xFA, 0x00, 0x02, 0x64]


def test_the_knock_of_200_100_80_makes_a_wheel_mouse(q):
    command(q, 0x60, 0x00)
    flush(q)
    mouse(q, 0xFF, 0xF3, 200, 0xF3, 100, 0xF3, 80)
    assert mouse(q, 0xF2) == [0xFA, 0x03]


def test_the_mouse_wraps(q):
    command(q, 0x60, 0x00)
    flush(q)
    assert mouse(q, 0xEE) == [0xFA]
    assert mouse(q, 0x42) == [0x42]
    assert mouse(q, 0xEC) == [0xFA]
