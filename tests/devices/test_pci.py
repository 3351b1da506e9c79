"""PCI 2.1 configuration, the 82441FX (Intel 290549) and the PIIX3 (Intel 290550): ports, PAM, PIRQ, reset control."""

from __future__ import annotations

import pytest

from tests.devices.differences import DIFFERENCES

ADDRESS, DATA = 0xCF8, 0xCFC
FUNCTIONS = {
    (0, 0): (0x8086, 0x1237, 0x060000),
    (1, 0): (0x8086, 0x7000, 0x060100),
    (1, 1): (0x8086, 0x7010, 0x010180),
    (1, 3): (0x8086, 0x7113, 0x068000),
    (2, 0): (0x1234, 0x1111, 0x030000),
}


@pytest.mark.parametrize("where", FUNCTIONS, ids=str)
def test_the_identity_of_a_function(q, where):
    vendor, device, kind = FUNCTIONS[where]
    assert q.pci_read(*where, 0) == device << 16 | vendor
    assert q.pci_read(*where, 8) >> 8 == kind


def test_where_nothing_is_all_ones_are_read(q):
    assert q.pci_read(5, 0, 0) == 0xFFFFFFFF
    assert q.pci_read(1, 2, 0) == 0xFFFFFFFF
    assert q.pci_read(31, 7, 0) == 0xFFFFFFFF


def test_the_address_register_reads_back(q):
    q.outl(ADDRESS, 0x80001234)
    assert q.inl(ADDRESS) & 0x80FFFFFC == 0x80001234


def test_without_the_enable_bit_the_data_register_is_nobody_s(q):
    q.outl(ADDRESS, 0)
    assert q.inl(DATA) == 0xFFFFFFFF


def test_the_address_register_takes_dwords_only(q):
    q.outl(ADDRESS, 0x80000000)
    q.outb(ADDRESS, 0x55)
    assert q.inl(ADDRESS) == 0x80000000


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_data_register_is_read_in_any_size(q, size):
    whole = q.pci_read(1, 0, 0)
    for offset in range(0, 4, size):
        assert q.pci_read(1, 0, offset, size) == whole >> 8 * offset & ((1 << 8 * size) - 1)


def test_multifunction_shows_in_the_header_type(q):
    assert q.pci_read(1, 0, 0x0E, 1) & 0x80
    assert q.pci_read(2, 0, 0x0E, 1) & 0x80 == 0


@pytest.mark.parametrize("where", FUNCTIONS, ids=str)
def test_ids_and_class_cannot_be_written(q, where):
    before = [q.pci_read(*where, offset) for offset in (0, 8, 0x2C)]
    for offset in (0, 8, 0x2C):
        q.pci_write(*where, offset, 0xFFFFFFFF)
    assert [q.pci_read(*where, offset) for offset in (0, 8, 0x2C)] == before


@pytest.mark.parametrize("where", FUNCTIONS, ids=str)
def test_the_interrupt_line_register_is_software_s(q, where):
    q.pci_write(*where, 0x3C, 0x5A, 1)
    assert q.pci_read(*where, 0x3C, 1) == 0x5A


@pytest.mark.peer
@pytest.mark.parametrize("value", [0xFFFFFFFF, 0xA5A5A5A5, 0x5A5A5A5A])
@pytest.mark.parametrize("where", FUNCTIONS, ids=str)
def test_a_guest_can_change_what_it_can_change_in_qemu(pair, where, value):
    found = []
    for machine in pair:
        for offset in range(0x04, 0x40, 4):
            machine.pci_write(*where, offset, value)
        found.append({hex(offset): hex(machine.pci_read(*where, offset)) for offset in range(0x04, 0x40, 4)})
        machine.pci_write(*where, 4, 0, 2)
    assert found[0] == found[1]


def test_the_size_of_a_bar_is_found_by_writing_ones(q):
    q.pci_write(1, 1, 0x20, 0xFFFFFFFF)
    assert q.pci_read(1, 1, 0x20) == 0xFFFFFFF1
    q.pci_write(2, 0, 0x10, 0xFFFFFFFF)
    assert q.pci_read(2, 0, 0x10) == 0xFF000008


def test_a_bar_is_where_it_was_put_while_decoding_is_on(q):
    q.pci_write(1, 1, 0x20, 0xC000)
    assert q.inb(0xC002) == 0xFF
    q.pci_write(1, 1, 4, 1, 2)
    assert q.inb(0xC002) == 0
    q.pci_write(1, 1, 4, 0, 2)
    assert q.inb(0xC002) == 0xFF


# --- 82441FX --------------------------------------------------------------------------------------------------


def test_pam_chooses_between_rom_and_ram(q, side):
    rom = q.read(0xF0000, 16)
    q.pci_write(0, 0, 0x59, 0x30, 1)  # PAM0: reads and writes go to RAM
    q.write(0xF0000, b"shadow")
    assert q.read(0xF0000, 6) == b"shadow"
    q.pci_write(0, 0, 0x59, 0x10, 1)  # reads only
    q.write(0xF0000, b"nobody")
    assert q.read(0xF0000, 6).decode() == DIFFERENCES["pam-read-only"].of(side)
    q.pci_write(0, 0, 0x59, 0x00, 1)
    assert q.read(0xF0000, 16) == rom


@pytest.mark.parametrize("register", range(0x5A, 0x60))
def test_each_pam_register_has_two_halves(q, register):
    base = 0xC0000 + (register - 0x5A) * 0x8000
    q.pci_write(0, 0, register, 0x33, 1)
    q.write(base, b"low.")
    q.write(base + 0x4000, b"high")
    assert (q.read(base, 4), q.read(base + 0x4000, 4)) == (b"low.", b"high")


# --- PIIX3 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("register", range(0x60, 0x64))
def test_pirq_routing_is_off_at_power_on_and_reads_back(q, register):
    assert q.pci_read(1, 0, register, 1) == 0x80
    q.pci_write(1, 0, register, 0x0B, 1)
    assert q.pci_read(1, 0, register, 1) == 0x0B


def test_reset_control_reads_back_without_the_reset_bit(q):
    q.outb(0xCF9, 0x02)
    assert q.inb(0xCF9) == 0x02


def test_reset_control_is_a_byte_within_the_address_register(q):
    q.outl(ADDRESS, 0x80000000)
    q.outb(0xCF9, 0x02)
    assert q.inl(ADDRESS) == 0x80000000


def test_a_routed_pirq_reaches_its_interrupt(timed):
    q = timed
    q.pci_write(1, 0, 0x60, 0x0B, 1)
    q.intercept_in("pic1")
    q.set_irq_in("piix3", "pirq", 0, 1)
    assert q.irqs.get(3) == 1
    q.set_irq_in("piix3", "pirq", 0, 0)
    assert q.irqs[3] == 0
