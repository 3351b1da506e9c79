"""VGA registers (IBM PS/2 hardware interface reference) and Bochs' VBE registers."""

from __future__ import annotations

import pytest

from tests.devices.differences import DIFFERENCES

MISC_READ, MISC_WRITE = 0x3CC, 0x3C2
GROUPS = {"sequencer": (0x3C4, range(5)), "graphics": (0x3CE, range(9)), "crtc": (0x3D4, range(0x19))}


@pytest.fixture
def vga(q):
    q.pci_write(2, 0, 4, 3, 2)
    q.outb(MISC_WRITE, 0x67)  # colour: the CRTC is at 3D4h
    return q


def test_the_miscellaneous_register_reads_back(vga):
    for value in (0x63, 0xE3):
        vga.outb(MISC_WRITE, value)
        assert vga.inb(MISC_READ) == value


def test_bit_0_of_the_miscellaneous_register_moves_the_crtc(vga):
    vga.outb(0x3D4, 0x0E)
    vga.outb(0x3D5, 0x5A)
    vga.outb(MISC_WRITE, 0x66)
    vga.outb(0x3B4, 0x0E)
    assert vga.inb(0x3B5) == 0x5A
    assert vga.inb(0x3D5) == 0xFF


@pytest.mark.peer
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("value", [0xFF, 0xA5, 0x5A])
def test_registers_keep_of_what_is_written_what_they_keep_in_qemu(pair, group, value):
    port, indices = GROUPS[group]
    found = []
    for machine in pair:
        machine.pci_write(2, 0, 4, 3, 2)
        machine.outb(MISC_WRITE, 0x67)
        for index in indices:
            machine.outb(port, index)
            machine.outb(port + 1, 0 if group == "crtc" and index == 0x11 else value)
        row = []
        for index in indices:
            machine.outb(port, index)
            row.append(machine.inb(port + 1))
        found.append(row)
    assert found[0] == found[1]


def test_crtc_registers_0_to_7_are_protected_by_bit_7_of_register_11h(vga):
    vga.outw(0x3D4, 0x0011)
    vga.outw(0x3D4, 0x5A00)
    vga.outw(0x3D4, 0x8011)
    vga.outw(0x3D4, 0xA500)
    vga.outb(0x3D4, 0)
    assert vga.inb(0x3D5) == 0x5A


def test_the_attribute_controller_takes_index_and_data_in_turn(vga):
    vga.inb(0x3DA)
    vga.outb(0x3C0, 0x01)
    vga.outb(0x3C0, 0x2A)
    vga.inb(0x3DA)
    vga.outb(0x3C0, 0x01)
    assert vga.inb(0x3C1) == 0x2A


def test_the_palette_is_written_and_read_in_threes(vga):
    vga.outb(0x3C8, 7)
    for value in (1, 2, 3, 4, 5, 6):
        vga.outb(0x3C9, value)
    vga.outb(0x3C7, 7)
    assert [vga.inb(0x3C9) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_the_pel_mask_reads_back(vga, side):
    vga.outb(0x3C6, 0x0F)
    assert vga.inb(0x3C6) == DIFFERENCES["vga-pel-mask"].of(side)


def test_planes_are_chosen_by_the_map_mask_and_the_read_map(vga):
    vga.outw(0x3C4, 0x0604)  # no chain-4, no odd/even
    vga.outw(0x3CE, 0x0506)  # A0000, 64 KiB, graphics
    vga.outw(0x3CE, 0x0005)
    vga.outw(0x3CE, 0xFF08)
    for plane in range(4):
        vga.outw(0x3C4, (1 << plane) << 8 | 0x02)
        vga.writeb(0xA0000, 0x10 + plane)
    for plane in range(4):
        vga.outw(0x3CE, plane << 8 | 0x04)
        assert vga.readb(0xA0000) == 0x10 + plane


VBE_INDEX, VBE_DATA = 0x1CE, 0x1CF


def vbe(q, index, value=None):
    q.outw(VBE_INDEX, index)
    if value is None:
        return q.inw(VBE_DATA)
    q.outw(VBE_DATA, value)
    return None


def test_the_vbe_id(vga):
    assert vbe(vga, 0) == 0xB0C5


def test_an_older_vbe_id_may_be_set_and_no_other_value(vga):
    vbe(vga, 0, 0xB0C0)
    assert vbe(vga, 0) == 0xB0C0
    vbe(vga, 0, 0x1234)
    assert vbe(vga, 0) == 0xB0C0


def test_a_mode_is_set(vga):
    for index, value in ((1, 800), (2, 600), (3, 32), (4, 0x41)):
        vbe(vga, index, value)
    assert [vbe(vga, index) for index in (1, 2, 3, 4)] == [800, 600, 32, 0x41]
    assert vbe(vga, 6) == 800


def test_video_memory_in_64_kib_units(vga):
    assert vbe(vga, 10) == 16 << 20 >> 16


def test_the_largest_mode_is_told(vga):
    vbe(vga, 4, 2)  # GETCAPS
    assert vbe(vga, 3) == 32
    assert vbe(vga, 1) >= 1600


def test_the_linear_frame_buffer_is_bar_0(vga):
    vga.pci_write(2, 0, 0x10, 0xE0000000)
    vga.writel(0xE0000100, 0x12345678)
    assert vga.readl(0xE0000100) == 0x12345678


def test_bochs_registers_are_also_in_bar_2(vga):
    vga.pci_write(2, 0, 0x18, 0xF0000000)
    assert vga.readw(0xF0000500) == 0xB0C5
