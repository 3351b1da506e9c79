"""The keyboard controller: commands, output buffer, translation, interrupts, reset and A20."""

import pytest
from accel.api import Action, IrqLine, PyIrqSink
from accel.clock import SteppedClock, TimerQueue
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.input.i8042 import I8042

from vmrun.errors import StateError

DATA, COMMAND = 0x60, 0x64
OBF, AUX = 0x01, 0x20


class Board:
    def __init__(self):
        self.edges = []
        lines = [
            IrqLine(PyIrqSink(lambda n, level, name=name: self.edges.append((name, level)))) for name in "kma"
        ]
        self.kbd, self.aux, self.a20 = lines
        self.chip = I8042(*lines, TimerQueue(SteppedClock()))

    def __getitem__(self, port):
        return (self.chip if port == DATA else self.chip.command_port).load(0, 1)

    def __setitem__(self, port, value):
        self.write(port, value)

    def write(self, port, value):
        return (self.chip if port == DATA else self.chip.command_port).store(0, 1, value)

    def ask(self, command, *data):
        self[COMMAND] = command
        for value in data:
            self[DATA] = value
        return self[DATA]

    def set_mode(self, value):
        self[COMMAND] = 0x60
        self[DATA] = value

    def all(self):
        out = []
        while self[COMMAND] & OBF and len(out) < 200:
            out.append(self[DATA])
        return bytes(out)

    def clear(self):
        self.all()
        self.edges.clear()


@pytest.fixture
def board():
    return Board()


@pytest.mark.parametrize(
    ("command", "answer"),
    [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x00), (0x20, 0x03), (0xD0, 0xCF), (0xC0, 0x80)],
)
def test_command_answers(board, command, answer):
    assert board.ask(command) == answer


def test_the_status_port_says_when_the_buffer_is_full(board):
    board[COMMAND] = 0xAA
    assert board[COMMAND] & OBF
    board[DATA]
    assert not board[COMMAND] & OBF


def test_reading_an_empty_buffer_gives_the_last_byte(board):
    board.ask(0xAA)
    assert board[DATA] == 0x55


def test_the_command_byte_reads_back(board):
    board.set_mode(0x47)
    assert board.ask(0x20) == 0x47


@pytest.mark.parametrize(
    ("command", "bit", "value"), [(0xA7, 0x20, 1), (0xA8, 0x20, 0), (0xAD, 0x10, 1), (0xAE, 0x10, 0)]
)
def test_interfaces_are_switched_by_command(board, command, bit, value):
    board[COMMAND] = command
    assert bool(board.ask(0x20) & bit) == bool(value)


def test_echo_to_the_keyboard_buffer(board):
    board[COMMAND] = 0xD2
    board[DATA] = 0x42
    assert board[COMMAND] & (OBF | AUX) == OBF
    assert board[DATA] == 0x42


def test_echo_to_the_mouse_buffer(board):
    board[COMMAND] = 0xD3
    board[DATA] = 0x42
    assert board[COMMAND] & (OBF | AUX) == OBF | AUX
    assert board[DATA] == 0x42


def test_keys_are_translated_to_set_1_when_asked(board):
    board.set_mode(0x41)
    board.chip.keyboard.key("a", True)
    board.chip.keyboard.key("a", False)
    assert board.all() == b"\x1e\x9e"


def test_keys_are_not_translated_otherwise(board):
    board.chip.keyboard.key("a", True)
    board.chip.keyboard.key("a", False)
    assert board.all() == b"\x1c\xf0\x1c"


def test_extended_keys_keep_their_prefix(board):
    board.set_mode(0x41)
    board.chip.keyboard.key("delete", True)
    board.chip.keyboard.key("delete", False)
    assert board.all() == b"\xe0\x53\xe0\xd3"


@pytest.mark.parametrize("mode", [0x41, 0x01])
def test_korean_keys_are_heard_once(board, mode):
    board.set_mode(mode)
    for name in ("lang1", "lang2"):
        board.chip.keyboard.key(name, True)
        assert not board.chip.keyboard.repeat2
        board.chip.keyboard.key(name, False)
    assert board.all() == b"\xf2\xf1"


def test_identification_is_translated_like_everything(board):
    board.set_mode(0x41)
    board[DATA] = 0xF2
    assert board.all() == b"\xfa\xab\x41"


def test_a_disabled_keyboard_interface_holds_keys_back(board):
    board[COMMAND] = 0xAD
    board.chip.keyboard.key("a", True)
    assert not board[COMMAND] & OBF
    board[COMMAND] = 0xAE
    assert board[DATA] == 0x1C


def test_a_byte_for_the_keyboard_enables_its_interface(board):
    board[COMMAND] = 0xAD
    board[DATA] = 0xEE
    assert board[DATA] == 0xEE


def test_a_key_raises_irq_1_and_reading_lowers_it(board):
    board.clear()
    board.chip.keyboard.key("a", True)
    assert board.kbd.level == 1
    board[DATA]
    assert board.kbd.level == 0


def test_two_waiting_bytes_give_two_edges(board):
    board.clear()
    board.chip.keyboard.key("up", True)
    board.all()
    assert [edge for edge in board.edges if edge[0] == "k"] == [("k", 1), ("k", 0), ("k", 1), ("k", 0)]


def test_no_interrupt_when_the_command_byte_forbids(board):
    board.set_mode(0x00)
    board.chip.keyboard.key("a", True)
    assert board.kbd.level == 0


def test_the_mouse_raises_irq_12(board):
    board[COMMAND] = 0xD4
    board[DATA] = 0xF4
    assert (board.aux.level, board.kbd.level) == (1, 0)
    assert board[DATA] == 0xFA
    board.chip.mouse.move(1, 0)
    assert board[COMMAND] & AUX
    assert board.all() == b"\x08\x01\x00"


@pytest.mark.parametrize("command", [0xFE, 0xF0, 0xFC])
def test_pulsing_bit_0_resets(board, command):
    assert board.write(COMMAND, command) == Action.RESET


@pytest.mark.parametrize("command", [0xFF, 0xF1, 0xFD])
def test_pulsing_other_bits_does_nothing(board, command):
    assert board.write(COMMAND, command) == Action.NONE


def test_output_port_without_bit_0_resets(board):
    board[COMMAND] = 0xD1
    assert board.write(DATA, 0xCE) == Action.RESET


def test_output_port_bit_1_is_a20(board):
    assert board.a20.level == 1
    board[COMMAND] = 0xD1
    board[DATA] = 0xCD
    assert board.a20.level == 0
    board[COMMAND] = 0xDF
    assert board.a20.level == 1


def test_an_answer_waits_behind_a_key(board):
    board.chip.keyboard.key("a", True)
    board[COMMAND] = 0xAA
    assert board.all() == b"\x1c\x55"


def test_reset_gives_a_fresh_controller(board):
    fresh = board.chip.save()
    board.set_mode(0x77)
    board.chip.keyboard.key("a", True)
    board[COMMAND] = 0xD4
    board[DATA] = 0xF4
    board.chip.reset()
    assert board.chip.save() == fresh


def test_state_survives(board):
    board.set_mode(0x43)
    board.chip.keyboard.key("up", True)
    board[COMMAND] = 0xD4
    state = board.chip.save()
    other = Board()
    other.chip.load_state(state)
    assert other.chip.save() == state
    assert other.kbd.level == 1


@pytest.mark.parametrize(
    "change", [{"mode": 256}, {"argument": -2}, {"answer": 0x200}, {"mouse": {}}, {"x": 1}]
)
def test_impossible_state_is_refused_and_changes_nothing(board, change):
    before = board.chip.save()
    with pytest.raises(StateError):
        board.chip.load_state({**before, **change})
    assert board.chip.save() == before


steps = st.lists(
    st.tuples(st.sampled_from("rwk"), st.sampled_from((DATA, COMMAND)), st.integers(0, 255)), max_size=100
)


@settings(max_examples=200)
@given(steps)
def test_any_access_returns_and_leaves_a_loadable_state(script):
    board = Board()
    for what, port, value in script:
        if what == "r":
            assert 0 <= board[port] <= 0xFF
        elif what == "w":
            assert board.write(port, value) in (Action.NONE, Action.RESET)
        else:
            board.chip.keyboard.key("pause", bool(value & 1))
            board.chip.mouse.move(value, -value, 1, value & 31)
    board.chip.load_state(board.chip.save())
