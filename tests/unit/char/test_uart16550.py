"""16550 UART. Numbers are those of TI's PC16550D datasheet, table II (registers) and III (interrupts)."""

import pytest
from accel.api import IrqLine, PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.char.uart16550 import Uart16550

from vmrun.backends.chardev.base import HostChar, NullChar
from vmrun.errors import StateError

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7

RESET_VALUES = {IER: 0x00, IIR: 0x01, LCR: 0x00, LSR: 0x60, MSR: 0xB0, SCR: 0x00}


class Board:
    """A UART whose pin, clock and line end can be watched."""

    def __init__(self, capacity=64, backend=None):
        self.edges = []
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.line = IrqLine(PyIrqSink(lambda n, level: self.edges.append(level)), 4)
        self.host = backend if backend is not None else HostChar(capacity=capacity)
        self.uart = Uart16550(self.line, self.timers, self.host)

    def __getitem__(self, register):
        return self.uart.load(register, 1)

    def __setitem__(self, register, value):
        self.uart.store(register, 1, value)

    def sent(self):
        return self.host.drain()

    def type(self, data):
        return self.host.deliver(data)

    def pass_time(self, ns):
        self.clock.set_time(self.clock.time() + ns)
        self.timers.run()

    def divisor(self, value):
        self[LCR] = 0x83
        self[DLL], self[DLM] = value & 0xFF, value >> 8
        self[LCR] = 0x03


@pytest.fixture
def board():
    return Board()


@pytest.mark.parametrize("register", RESET_VALUES)
def test_reset_value(board, register):
    assert board[register] == RESET_VALUES[register]


def test_reset_gives_a_fresh_chip(board):
    fresh = board.uart.save()
    for register in range(8):
        board[register] = 0x5A
    board.type(b"x")
    board.uart.reset()
    assert board.uart.save() == fresh


def test_dlab_shows_the_divisor_latch(board):
    board[LCR] = 0x80
    board[DLL], board[DLM] = 0x34, 0x12
    assert (board[DLL], board[DLM]) == (0x34, 0x12)
    board[LCR] = 0x00
    assert board[IER] == 0x00


@pytest.mark.parametrize("value", [0x00, 0x55, 0xFF])
def test_scratch_register_holds_a_byte(board, value):
    board[SCR] = value
    assert board[SCR] == value


def test_ier_has_four_bits(board):
    board[IER] = 0xFF
    assert board[IER] == 0x0F


def test_mcr_has_five_bits(board):
    board[MCR] = 0xFF
    assert board[MCR] == 0x1F


# --- transmitter --------------------------------------------------------------------------------------------


def test_bytes_written_go_out_in_order(board):
    for byte in b"hello":
        board[THR] = byte
    assert board.sent() == b"hello"


def test_lsr_says_empty_again_when_the_line_took_the_byte(board):
    board[THR] = 65
    assert board[LSR] & 0x60 == 0x60


def test_with_the_line_blocked_the_first_byte_leaves_thr_empty_but_the_transmitter_busy():
    board = Board(capacity=1)
    board[THR] = 1
    board[THR] = 2
    assert board[LSR] & 0x60 == 0x20


def test_with_the_line_blocked_thr_fills_up():
    board = Board(capacity=1)
    for byte in (1, 2, 3):
        board[THR] = byte
    assert board[LSR] & 0x60 == 0x00


def test_with_the_line_blocked_the_fifo_holds_sixteen():
    board = Board(capacity=1)
    board[FCR] = 0x01
    for byte in range(18):  # line 1, shift register 1, FIFO 16
        board[THR] = byte
    out = b""
    for _ in range(18):
        out += board.sent()
    assert out == bytes(range(18))


def test_a_drained_line_goes_on_without_the_guest():
    board = Board(capacity=1)
    for byte in b"abc":
        board[THR] = byte
    assert board.sent() + board.sent() + board.sent() == b"abc"
    assert board[LSR] & 0x60 == 0x60


def test_a_drained_line_raises_the_thre_interrupt():
    board = Board(capacity=1)
    board[IER] = 0x02
    for byte in b"abc":
        board[THR] = byte
    assert board.line.level == 0
    board.sent()
    assert board.line.level == 1


def test_without_a_chardev_the_transmitter_is_never_busy():
    board = Board(backend=NullChar())
    for byte in range(100):
        board[THR] = byte
    assert board[LSR] & 0x60 == 0x60


def test_enabling_thre_on_an_idle_line_interrupts_at_once(board):
    board[IER] = 0x02
    assert board.line.level == 1
    assert board[IIR] & 0x0F == 0x02


def test_reading_iir_clears_the_thre_interrupt_and_not_lsr(board):
    board[IER] = 0x02
    board[IIR]
    assert board.line.level == 0
    assert board[IIR] & 0x0F == 0x01
    assert board[LSR] & 0x20


def test_each_byte_written_gives_an_edge_of_its_own(board):
    """Drivers that write from the interrupt handler without reading IIR need it on an edge-triggered
    8259A."""
    board[IER] = 0x02
    board.edges.clear()
    board[THR] = 65
    assert board.edges == [0, 1]


def test_clearing_the_transmit_fifo_drops_what_waits():
    board = Board(capacity=1)
    board[FCR] = 0x01
    for byte in range(5):
        board[THR] = byte
    board[FCR] = 0x05
    assert board.sent() + board.sent() + board.sent() == b"\x00\x01"


# --- receiver -----------------------------------------------------------------------------------------------


def test_a_received_byte_sets_data_ready_and_reading_clears_it(board):
    board.type(b"A")
    assert board[LSR] & 0x01
    assert board[RBR] == 0x41
    assert not board[LSR] & 0x01


def test_without_fifo_one_byte_is_taken_at_a_time(board):
    assert board.type(b"AB") == 1


def test_with_fifo_sixteen_bytes_are_taken(board):
    board[FCR] = 0x01
    assert board.type(b"x" * 20) == 16


def test_the_host_is_told_when_there_is_room_again(board):
    board.host.room()
    board.type(b"A")
    assert board.host.room() == 0
    notifier = board.host.output.notifier
    notifier.drain()
    board[RBR]
    import select

    assert select.select((notifier,), (), (), 0)[0]


def test_received_data_interrupts_when_enabled(board):
    board[IER] = 0x01
    board.type(b"A")
    assert board.line.level == 1
    assert board[IIR] & 0x0F == 0x04


def test_reading_the_byte_takes_the_interrupt_away(board):
    board[IER] = 0x01
    board.type(b"A")
    board[RBR]
    assert board.line.level == 0


@pytest.mark.parametrize(("bits", "level"), [(0, 1), (1, 4), (2, 8), (3, 14)])
def test_the_fifo_interrupts_at_its_trigger_level(board, bits, level):
    board[FCR] = 0x01 | bits << 6
    board[IER] = 0x01
    board.type(b"x" * (level - 1))
    assert board.line.level == 0
    board.type(b"x")
    assert board[IIR] == 0xC4


@pytest.mark.parametrize("divisor", [1, 12])
def test_four_characters_of_silence_give_the_timeout_interrupt(board, divisor):
    board.divisor(divisor)
    board[FCR] = 0xC1
    board[IER] = 0x01
    board.type(b"x")
    four_characters = 4 * 10 * divisor * 1_000_000_000 // 115200  # 8N1 is ten bits
    board.pass_time(four_characters - 1)
    assert board.line.level == 0
    board.pass_time(1)
    assert board[IIR] == 0xCC


def test_reading_clears_the_timeout_interrupt_and_starts_it_anew(board):
    board[FCR] = 0xC1
    board[IER] = 0x01
    board.type(b"xy")
    board.pass_time(1_000_000_000)
    board[RBR]
    assert board[IIR] == 0xC1
    board.pass_time(1_000_000_000)
    assert board[IIR] == 0xCC


def test_an_empty_fifo_gives_no_timeout(board):
    board[FCR] = 0xC1
    board[IER] = 0x01
    board.type(b"x")
    board[RBR]
    board.pass_time(1_000_000_000)
    assert board.line.level == 0


def test_enabling_the_fifo_clears_it(board):
    board.type(b"x")
    board[FCR] = 0x01
    assert not board[LSR] & 0x01


def test_iir_shows_that_fifos_are_enabled(board):
    board[FCR] = 0x01
    assert board[IIR] == 0xC1
    board[FCR] = 0x00
    assert board[IIR] == 0x01


def test_fcr_without_bit_0_programs_nothing(board):
    board[FCR] = 0xC0
    assert board[IIR] == 0x01


# --- line status --------------------------------------------------------------------------------------------


def test_overrun_without_fifo_replaces_the_byte(board):
    board[MCR] = 0x10
    board[THR] = 1
    board[THR] = 2
    assert board[LSR] & 0x03 == 0x03
    assert board[RBR] == 2


def test_overrun_with_fifo_keeps_the_sixteen(board):
    board[FCR] = 0x01
    board[MCR] = 0x10
    for byte in range(17):
        board[THR] = byte
    assert board[LSR] & 0x02
    assert [board[RBR] for _ in range(16)] == list(range(16))


def test_reading_lsr_clears_the_overrun(board):
    board[MCR] = 0x10
    for byte in range(2):
        board[THR] = byte
    board[LSR]
    assert not board[LSR] & 0x02


def test_a_break_is_a_zero_with_its_mark(board):
    board.host.send_break()
    assert board[LSR] & 0x11 == 0x11
    assert board[RBR] == 0


def test_a_break_in_the_fifo_shows_when_it_reaches_the_top(board):
    board[FCR] = 0x01
    board.type(b"a")
    board.host.send_break()
    assert board[LSR] & 0x90 == 0x80  # somewhere in the FIFO, not at its top
    board[RBR]
    assert board[LSR] & 0x90 == 0x90


def test_line_status_has_the_highest_priority(board):
    board[IER] = 0x0F
    board.host.send_break()
    assert board[IIR] & 0x0F == 0x06
    board[LSR]
    assert board[IIR] & 0x0F == 0x04
    board[RBR]
    assert board[IIR] & 0x0F == 0x02
    assert board[IIR] & 0x0F == 0x01


# --- modem and loopback -------------------------------------------------------------------------------------


def test_loopback_returns_what_is_sent_and_keeps_it_off_the_line(board):
    board[MCR] = 0x10
    board[THR] = 0x42
    assert board[RBR] == 0x42
    assert board.sent() == b""


def test_in_loopback_the_line_is_not_heard(board):
    board[MCR] = 0x10
    assert board.type(b"x") == 0


@pytest.mark.parametrize(("mcr", "msr"), [(0x01, 0x20), (0x02, 0x10), (0x04, 0x40), (0x08, 0x80)])
def test_loopback_wires_each_output_to_its_input(board, mcr, msr):
    board[MCR] = 0x10 | mcr
    assert board[MSR] & 0xF0 == msr


def test_a_modem_change_interrupts_until_msr_is_read(board):
    board[MCR] = 0x10
    board[MSR]
    board[IER] = 0x08
    board[MCR] = 0x12
    assert board[IIR] & 0x0F == 0x00
    assert board[MSR] == 0x11
    assert board.line.level == 0


def test_the_ring_counts_only_when_it_ends(board):
    board[MCR] = 0x10
    board[MSR]
    board[MCR] = 0x14
    assert board[MSR] == 0x40
    board[MCR] = 0x10
    assert board[MSR] == 0x04


# --- state, and whatever a guest may do ---------------------------------------------------------------------


def test_state_survives_save_and_load(board):
    board[FCR] = 0x81
    board[IER] = 0x05
    board.type(b"abc")
    board[SCR] = 9
    state = board.uart.save()
    other = Board()
    other.uart.load_state(state)
    assert other.uart.save() == state
    assert [other[RBR] for _ in range(3)] == list(b"abc")


@pytest.mark.parametrize(
    "change",
    [{"ier": 0x10}, {"rx": b"x" * 17}, {"sending": 256}, {"thre_pending": None}, {"rx": b"a"}, {"new": 1}],
)
def test_impossible_state_is_refused_and_changes_nothing(board, change):
    before = board.uart.save()
    with pytest.raises(StateError):
        board.uart.load_state({**before, **change})
    assert board.uart.save() == before


accesses = st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 255)), max_size=60)


@settings(max_examples=150)
@given(accesses, st.integers(1, 40))
def test_any_access_returns_a_byte_and_leaves_a_loadable_state(script, capacity):
    board = Board(capacity=capacity)
    for write, register, value in script:
        if write:
            board[register] = value
        else:
            assert 0 <= board[register] <= 0xFF
        board.type(bytes([value]))
    board.uart.load_state(board.uart.save())


def test_a_detached_chip_no_longer_hears_the_line(board):
    board.uart.detach()
    assert board.type(b"x") == 0


def test_an_empty_fifo_reads_zero(board):
    board[FCR] = 0x01
    board.type(b"x")
    board[RBR]
    assert board[RBR] == 0
