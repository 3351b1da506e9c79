"""The power management function of the PIIX4 (Intel 290562): ACPI registers, timer, SMBus, general-purpose events."""

from __future__ import annotations

import pytest

from tests.peers.oracle import QEMU
from vmrun.testing import QTest, QtestProgram

PM, SMB, GPE, SLOTS, CPUS = 0xB000, 0xB100, 0xAFE0, 0xAE00, 0xAF00
HZ = 3_579_545
WHERE = (1, 3)


@pytest.fixture
def pm(q):
    return enable(q)


def enable(q):
    q.pci_write(*WHERE, 0x40, PM | 1)
    q.pci_write(*WHERE, 0x80, 1, 1)
    return q


def test_the_registers_are_where_pmba_says_while_they_are_enabled(q):
    q.pci_write(*WHERE, 0x40, 0x4001)
    assert q.inw(0x4000) == 0xFFFF
    q.pci_write(*WHERE, 0x80, 1, 1)
    assert q.inw(0x4000) != 0xFFFF


def test_pmba_has_its_io_bit(q):
    assert q.pci_read(*WHERE, 0x40) == 1


def test_enables_read_back(pm):
    pm.outw(PM + 2, 0x0120)
    assert pm.inw(PM + 2) == 0x0120


def test_status_bits_are_cleared_by_ones(pm):
    pm.outw(PM, 0xFFFF)
    assert pm.inw(PM) & 0x8701 == 0


def test_sci_en_follows_the_port_of_smi_commands(pm):
    assert pm.inw(PM + 4) & 1 == 0
    pm.outb(0xB2, 0xF1)
    assert pm.inw(PM + 4) & 1 == 1
    pm.outb(0xB2, 0xF0)
    assert pm.inw(PM + 4) & 1 == 0


def test_rhel_6_starts_in_legacy_mode():
    with alone("vmrun", "rhel6.6.0") as pm:
        assert enable(pm).inw(PM + 4) & 1 == 0


@pytest.mark.parametrize(("kind", "always"), [("pc-i440fx-5.2", 0), ("pc-i440fx-6.0", 1)])
def test_without_smm_newer_types_have_no_legacy_mode(side, kind, always):
    with alone(side, kind) as machine:
        pm = enable(machine)
        assert pm.inw(PM + 4) & 1 == always
        pm.outb(0xB2, 0xF1)
        pm.outb(0xB2, 0xF0)
        assert pm.inw(PM + 4) & 1 == always


def alone(side, kind):
    """A board of another type with nothing on it, without system management mode."""
    if side == "vmrun":
        return QTest({"machine": kind, "memory": "64MiB"})
    command = [QEMU, "-M", f"{kind},smm=off", "-m", "64", "-accel", "tcg", "-S", "-nodefaults", "-display", "none"]
    return QtestProgram(command)


def test_the_timer_has_24_bits_and_cannot_be_written(pm):
    pm.outl(PM + 8, 0xFFFFFFFF)
    assert pm.inl(PM + 8) < 1 << 24


def test_the_smi_status_port_reads_back(q):
    q.outb(0xB3, 0x5A)
    assert q.inb(0xB3) == 0x5A


def test_general_purpose_events(q):
    q.outb(GPE + 2, 0x02)
    assert q.inb(GPE + 2) == 0x02
    q.outb(GPE, 0xFF)
    assert q.inb(GPE) == 0


def test_nothing_was_plugged(q):
    assert q.inl(0xAE00) == 0
    assert q.inl(0xAE04) == 0


def test_an_unknown_bus_has_no_slots(q):
    q.outl(SLOTS + 16, 5)
    assert [q.inl(SLOTS + 4 * n) for n in range(6)] == [0, 0, 0, 0xFFFFFFFF, 5, 0]


def test_the_board_and_the_display_cannot_be_taken_out(q):
    assert q.inl(SLOTS + 12) == 0xFFFFFFF8


# --- processors ----------------------------------------------------------------------------------------------


def test_processors_are_a_bitmap_at_first(q):
    assert [q.inb(CPUS + n) for n in range(32)] == [1] + [0] * 31


def test_a_write_of_anything_but_zero_leaves_the_bitmap(q):
    q.outb(CPUS, 1)
    q.outb(CPUS + 1, 0)
    assert [q.inb(CPUS + n) for n in range(14)] == [1] + [0] * 13


def test_zero_makes_registers_of_the_bitmap(q):
    q.outl(CPUS, 0)
    assert [q.inb(CPUS + n) for n in range(14)] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]


def test_a_processor_that_cannot_be_reads_zero(q):
    q.outl(CPUS, 0)
    q.outl(CPUS, 1)
    q.outb(CPUS + 5, 0)
    assert (q.inb(CPUS + 4), q.inl(CPUS + 8)) == (0, 0)
    q.outl(CPUS, 0)
    assert q.inb(CPUS + 4) == 1


# --- SMBus ------------------------------------------------------------------------------------------------------

STATUS, CONTROL, COMMAND, ADDRESS, DATA0, DATA1, BLOCK = 0, 2, 3, 4, 5, 6, 7


@pytest.fixture
def smbus(q):
    q.pci_write(*WHERE, 0x90, SMB | 1)
    q.pci_write(*WHERE, 0xD2, 0x09, 1)
    q.outb(SMB + STATUS, 0x1E)
    return q


def read_byte(q, address, register):
    q.outb(SMB + STATUS, 0x1E)
    q.outb(SMB + ADDRESS, address << 1 | 1)
    q.outb(SMB + COMMAND, register)
    q.outb(SMB + CONTROL, 0x48)  # start, byte data
    for _ in range(100):
        status = q.inb(SMB + STATUS)
        if not status & 1:  # host busy
            break
    return status, q.inb(SMB + DATA0)


def test_a_memory_module_answers(smbus):
    status, _ = read_byte(smbus, 0x50, 0)
    assert status & 0x1E == 0x02


def test_nobody_at_an_address_is_a_device_error(smbus):
    status, _ = read_byte(smbus, 0x20, 0)
    assert status & 0x04


def test_registers_of_the_host_controller_read_back(smbus):
    for register, value in ((COMMAND, 0x5A), (ADDRESS, 0xA1), (DATA0, 0x12), (DATA1, 0x34)):
        smbus.outb(SMB + register, value)
        assert smbus.inb(SMB + register) == value


@pytest.mark.peer
def test_what_the_memory_modules_say_is_what_qemu_s_say(pair):
    found = []
    for machine in pair:
        machine.pci_write(*WHERE, 0x90, SMB | 1)
        machine.pci_write(*WHERE, 0xD2, 0x09, 1)
        found.append([read_byte(machine, 0x50, register) for register in range(64)])
    assert found[0] == found[1]


# --- with time ----------------------------------------------------------------------------------------------


def test_the_timer_counts_at_its_rate(timed):
    q = enable(timed)
    before = q.inl(PM + 8)
    q.clock_step(100_000_000)
    assert (q.inl(PM + 8) - before) & 0xFFFFFF == pytest.approx(HZ / 10, abs=2)


def test_the_timer_s_overflow_is_an_interrupt(timed):
    q = enable(timed)
    q.intercept_in("pic1")
    q.outb(0xB2, 0xF1)
    q.outw(PM + 2, 1)
    q.clock_step(2_400_000_000)  # bit 23 changes after 2.34 s
    assert q.inw(PM) & 1
    assert q.irqs.get(1) == 1
    q.outw(PM, 1)
    assert q.irqs[1] == 0


def test_the_power_button_is_an_event(timed):
    q = enable(timed)
    q.intercept_in("pic1")
    q.outb(0xB2, 0xF1)
    q.outw(PM + 2, 0x100)
    q.machine.powerdown()
    assert q.inw(PM) & 0x100
    assert q.irqs.get(1) == 1


def test_sleep_type_0_ends_the_machine(timed):
    q = enable(timed)
    q.outw(PM + 4, 0x2000)
    assert q.machine.outcome.reason == "shutdown"
