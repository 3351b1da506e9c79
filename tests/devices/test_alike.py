"""What no single test looks at: random accesses, the same on both; and the small differences that they found."""

from __future__ import annotations

import random

import pytest

from tests.devices.differences import DIFFERENCES

PORTS = {
    "i8257": [*range(0, 9), 0xA, 0xB, 0xC, *range(0x81, 0x84), 0x87, *range(0x89, 0x8C), 0x8F],
    "isa-i8259": [0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1],
    "mc146818rtc": [0x70, 0x71],
    "isa-serial": range(0x3F8, 0x400),
    "isa-parallel": range(0x378, 0x37B),
    "VGA": [0x3B4, 0x3B5, *range(0x3C0, 0x3C6), *range(0x3C7, 0x3D0), 0x3D4, 0x3D5],
    "VBE": [0x1CE, 0x1CF, 0x1D0],
    "ide-hd": [*range(0x1F1, 0x1F7), 0x3F6],
    "port92": [0x92],
    "pvpanic": [0x505],
}


@pytest.mark.peer
@pytest.mark.parametrize("device", PORTS)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_accesses_have_the_same_answers(pair, device, seed):
    rng = random.Random(f"{device} {seed}")
    lines = ["outb 0x70 0xb"]  # the two clocks do not tell the same time: away from it
    for _ in range(300):
        port = rng.choice(PORTS[device])
        if device == "i8257" and port < 8:  # both bytes at a time
            lines += ["outb 0xc 0", *(f"outb {port:#x} {rng.randrange(256):#x}" for _ in "lh")]
        elif rng.random() < 0.5:
            lines.append(f"outb {port:#x} {value(rng, device, port):#x}")
        else:
            lines.append(f"inb {port:#x}")
    answers = [machine.ask_all(lines) for machine in pair]
    wrong = [row for row in zip(lines, *answers, strict=True) if row[1] != row[2]]
    assert wrong == []


def value(rng: random.Random, device: str, port: int) -> int:
    """Anything but what resets the machine, or has a row of its own in the table."""
    if (device, port) == ("mc146818rtc", 0x70):
        return rng.choice((0x0B, 0x0D, *range(0x0E, 0x32), *range(0x38, 0x80)))
    keep = {("port92", 0x92): 0xFE, ("isa-serial", 0x3FC): 0xEF, ("ide-hd", 0x3F6): 0x02, ("pvpanic", 0x505): 0}
    return rng.randrange(256) & keep.get((device, port), 0xFF)


def test_a_wide_access_is_all_the_first_device_s(q):
    assert q.inw(0x92) == 0


def test_confadd_answers_smaller_reads_too(q):
    assert q.inl(0xCF8) == 0
    assert q.inb(0xCF8) == 0


def test_dma_masks_and_requests(q, side):
    assert q.inb(0x0F) == DIFFERENCES["dma-masks"].of(side)
    assert q.inb(0x09) == DIFFERENCES["dma-request"].of(side)


def test_dma_takes_a_byte_at_a_time(q, side):
    q.outb(0x0C, 0)
    q.outb(0x02, 0x34)
    q.outb(0x0C, 0)
    assert q.inb(0x02) == DIFFERENCES["dma-half"].of(side)


def test_lines_change_in_loopback(q, side):
    q.inb(0x3FE)
    q.outb(0x3FC, 0x10)
    assert q.inb(0x3FE) & 0x0F == DIFFERENCES["uart-loopback"].of(side)


def test_the_keyboard_sends_its_last_byte_again(q, side):
    q.outb(0x60, 0xEE)
    assert q.inb(0x60) == 0xEE
    q.outb(0x60, 0xFE)
    assert q.inb(0x60) == DIFFERENCES["kbd-resend"].of(side)


def test_the_mouse_has_defaults(q, side):
    q.outb(0x64, 0xD4)
    q.outb(0x60, 0xE9)
    assert [q.inb(0x60) for _ in range(3)] == [0xFA, 0, DIFFERENCES["mouse-status"].of(side)]


def test_a_count_is_loaded_by_the_clock(q, side):
    q.outb(0x40, 0x1F)
    q.outb(0x40, 0x04)
    assert q.inb(0x40) == DIFFERENCES["pit-early"].of(side)


def test_ports_behind_the_power_management(q, side):
    assert q.inb(0xB10D) == DIFFERENCES["smbus-auxctl"].of(side)
    assert q.inl(0xAE0C) == 0xFFFFFFF8
    assert q.inb(0xAE0C) == DIFFERENCES["pcihp-byte"].of(side)


def test_the_beam_stands_still_with_time(q, side):
    q.outb(0x3C2, 0x63)
    assert q.inb(0x3DA) == DIFFERENCES["vga-retrace"].of(side)


def test_the_local_apic_answers_qtest(q, side):
    assert q.readl(0xFEE00030) == DIFFERENCES["lapic-mmio"].of(side)
