"""The printer port (IBM PC/AT Technical Reference: data, status, control) and the debug port."""

import pytest
from accel.api import IrqLine
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.char.debugcon import DebugPort
from vmrun.devices.char.parallel import ParallelPort

from vmrun.backends.chardev.base import HostChar
from vmrun.errors import StateError

DATA, STATUS, CONTROL = 0, 1, 2


@pytest.fixture
def port():
    return ParallelPort(IrqLine(), HostChar())


def print_byte(port, byte):
    """As a driver does: data, then strobe low and high again."""
    port.store(DATA, 1, byte)
    port.store(CONTROL, 1, 0x0D)
    port.store(CONTROL, 1, 0x0C)


def test_reset_says_selected_ready_and_no_error(port):
    assert port.load(STATUS, 1) == 0xD9
    assert port.load(CONTROL, 1) == 0xCC


def test_a_strobe_prints_the_data_byte(port):
    for byte in b"page":
        print_byte(port, byte)
    assert port.backend.drain() == b"page"


def test_a_strobe_held_low_prints_once(port):
    port.store(DATA, 1, 65)
    for _ in range(3):
        port.store(CONTROL, 1, 0x0D)
    assert port.backend.drain() == b"A"


def test_nothing_is_printed_by_a_printer_that_is_not_selected(port):
    port.store(CONTROL, 1, 0x05)
    assert port.backend.drain() == b""


def test_the_printer_is_busy_then_acknowledges_then_ready(port):
    print_byte(port, 65)
    assert [port.load(STATUS, 1) & 0xC0 for _ in range(3)] == [0x40, 0x00, 0xC0]


def test_the_end_of_the_strobe_interrupts_when_enabled(port):
    port.store(CONTROL, 1, 0x1D)
    port.store(CONTROL, 1, 0x1C)
    assert port.irq.level == 1


def test_reading_the_status_takes_the_interrupt_away(port):
    port.store(CONTROL, 1, 0x1D)
    port.store(CONTROL, 1, 0x1C)
    port.load(STATUS, 1)
    assert port.irq.level == 0


def test_data_reads_back_unless_turned_round(port):
    port.store(DATA, 1, 0x5A)
    assert port.load(DATA, 1) == 0x5A
    port.store(CONTROL, 1, 0x2C)
    assert port.load(DATA, 1) == 0xFF


@pytest.mark.parametrize("offset", [3, 4, 5, 6, 7])
def test_registers_of_epp_are_not_there(port, offset):
    port.store(offset, 1, 0)
    assert port.load(offset, 1) == 0xFF


def test_parallel_state_survives_and_nonsense_is_refused(port):
    port.store(DATA, 1, 1)
    state = port.save()
    other = ParallelPort(IrqLine())
    other.load_state(state)
    assert other.save() == state
    with pytest.raises(StateError):
        other.load_state({**state, "status": 256})
    assert other.save() == state


@settings(max_examples=50)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.integers(0, 255)), max_size=50))
def test_any_access_to_the_printer_port_returns(script):
    port = ParallelPort(IrqLine(), HostChar(capacity=4))
    for write, offset, value in script:
        assert port.store(offset, 1, value) == 0 if write else 0 <= port.load(offset, 1) <= 255


def test_debug_port_reads_back_its_mark():
    assert DebugPort(readback=0xE9).load(0, 1) == 0xE9


def test_debug_port_writes_go_to_the_chardev():
    host = HostChar()
    port = DebugPort(host)
    for byte in b"SeaBIOS":
        port.store(0, 1, byte)
    assert host.drain() == b"SeaBIOS"


def test_debug_port_counts_what_a_full_ring_loses():
    port = DebugPort(HostChar(capacity=2))
    for byte in b"abc":
        port.store(0, 1, byte)
    assert port.lost == 1
