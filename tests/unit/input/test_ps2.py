"""PS/2 keyboard and mouse. Codes are those of IBM's PS/2 technical reference, keyboards and mouse
chapters."""

import pytest
from accel.clock import SteppedClock, TimerQueue
from hypothesis import given, settings
from hypothesis import strategies as st
from vmrun.devices.input.ps2kbd import Ps2Keyboard
from vmrun.devices.input.ps2mouse import Ps2Mouse

from vmrun.devices.input.keycodes import KEYS
from vmrun.errors import StateError

ACK, RESEND = 0xFA, 0xFE
MS = 1_000_000


class Keyboard:
    def __init__(self):
        self.clock = SteppedClock()
        self.timers = TimerQueue(self.clock)
        self.leds = []
        self.chip = Ps2Keyboard(self.timers, self.leds.append)

    def tell(self, *values):
        for value in values:
            self.chip.send(value)
        return self.chip.receive()

    def tap(self, name):
        self.chip.key(name, True)
        made = self.chip.receive()
        self.chip.key(name, False)
        return made.hex(" "), self.chip.receive().hex(" ")

    def pass_time(self, ms):
        self.clock.set_time(self.clock.time() + int(ms * MS))
        self.timers.run()


@pytest.fixture
def keyboard():
    return Keyboard()


@pytest.mark.parametrize(
    ("name", "make", "break_"),
    [
        ("a", "1c", "f0 1c"), ("f7", "83", "f0 83"), ("ret", "5a", "f0 5a"), ("right", "e0 74", "e0 f0 74"),
        ("ctrl_r", "e0 14", "e0 f0 14"), ("kp_enter", "e0 5a", "e0 f0 5a"), ("less", "61", "f0 61"),
        ("print", "e0 12 e0 7c", "e0 f0 7c e0 f0 12"), ("pause", "e1 14 77 e1 f0 14 f0 77", ""),
    ],
)  # fmt: skip
def test_scan_set_2(keyboard, name, make, break_):
    assert keyboard.tap(name) == (make, break_)


@pytest.mark.parametrize(
    ("name", "make", "break_"),
    [
        ("a", "1e", "9e"), ("esc", "01", "81"), ("f11", "57", "d7"), ("up", "e0 48", "e0 c8"), ("spc", "39",
        "b9"), ("meta_l", "e0 5b", "e0 db"), ("kp_5", "4c", "cc"), ("print", "e0 2a e0 37", "e0 b7 e0 aa"),
        ("pause", "e1 1d 45 e1 9d c5", ""),
    ],
)  # fmt: skip
def test_scan_set_1(keyboard, name, make, break_):
    keyboard.tell(0xF0, 1)
    assert keyboard.tap(name) == (make, break_)


@pytest.mark.parametrize(
    ("name", "make", "break_"),
    [("a", "1c", ""), ("esc", "08", ""), ("shift", "12", "f0 12"), ("up", "63", "")],
)
def test_scan_set_3_breaks_only_for_the_shift_keys(keyboard, name, make, break_):
    keyboard.tell(0xF0, 3)
    assert keyboard.tap(name) == (make, break_)


def test_set_3_keys_can_be_told_to_break(keyboard):
    keyboard.tell(0xF0, 3)
    assert keyboard.tell(0xFC) + keyboard.tell(0x1C) == bytes((ACK, ACK))
    assert keyboard.tap("a") == ("1c", "f0 1c")


def test_set_3_all_keys_can_be_told_to_break(keyboard):
    keyboard.tell(0xF0, 3)
    keyboard.tell(0xF8)
    assert keyboard.tap("b") == ("32", "f0 32")


def test_every_key_has_a_code_in_every_set(keyboard):
    for scan_set in (1, 2, 3):
        keyboard.tell(0xF0, scan_set)
        for name in KEYS:
            assert keyboard.tap(name)[0], name


def test_an_unknown_key_is_an_error(keyboard):
    with pytest.raises(KeyError):
        keyboard.chip.key("any", True)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ([0xEE], "ee"), ([0xF2], "fa ab 83"), ([0xFF], "fa aa"), ([0xF4], "fa"), ([0xF5], "fa"),
        ([0xF6], "fa"), ([0xED, 0x07], "fa fa"), ([0xF3, 0x00], "fa fa"), ([0xF0, 0x00], "fa fa 02"),
        ([0xF0, 4], "fa fe"), ([0x42], "fe"),
    ],
)  # fmt: skip
def test_command(keyboard, command, answer):
    out = b""
    for value in command:
        out += keyboard.tell(value)
    assert out.hex(" ") == answer


def test_resend_repeats_the_last_byte(keyboard):
    keyboard.tell(0xF2)
    assert keyboard.tell(0xFE) == b"\x83"


def test_a_command_where_an_argument_was_due_is_obeyed(keyboard):
    keyboard.tell(0xED)
    assert keyboard.tell(0xF2) == b"\xfa\xab\x83"


def test_lights_are_told(keyboard):
    keyboard.tell(0xED, 0x05)
    assert keyboard.leds[-1] == 5


def test_a_disabled_keyboard_sends_no_keys(keyboard):
    keyboard.tell(0xF5)
    assert keyboard.tap("a") == ("", "")


def test_the_held_key_repeats_after_half_a_second_at_eleven_a_second(keyboard):
    keyboard.chip.key("a", True)
    keyboard.chip.receive()
    keyboard.pass_time(499)
    assert keyboard.chip.receive() == b""
    keyboard.pass_time(1)
    assert keyboard.chip.receive() == b"\x1c"
    keyboard.pass_time(91)  # 10.9 a second: 91.7 ms
    assert keyboard.chip.receive() == b""
    keyboard.pass_time(1)
    assert keyboard.chip.receive() == b"\x1c"


def test_the_fastest_rate_is_thirty_a_second_after_a_quarter(keyboard):
    keyboard.tell(0xF3)
    keyboard.tell(0x00)
    keyboard.chip.key("a", True)
    keyboard.chip.receive()
    keyboard.pass_time(250)
    assert keyboard.chip.receive() == b"\x1c"
    keyboard.pass_time(33.4)
    assert keyboard.chip.receive() == b"\x1c"


def test_a_released_key_stops_repeating(keyboard):
    keyboard.chip.key("a", True)
    keyboard.chip.key("a", False)
    keyboard.chip.receive()
    keyboard.pass_time(2000)
    assert keyboard.chip.receive() == b""


def test_the_hosts_own_repeats_are_not_passed_on(keyboard):
    for _ in range(5):
        keyboard.chip.key("a", True)
    assert keyboard.chip.receive() == b"\x1c"


def test_the_buffer_holds_sixteen_bytes_then_one_overrun_code(keyboard):
    names = [name for name in KEYS if name in "abcdefghijklmnopqrstuvwxyz"]
    for name in names[:20]:
        keyboard.chip.key(name, True)
    out = keyboard.chip.receive()
    assert len(out) == 17 and out[-1] == 0x00


def test_keyboard_state_survives(keyboard):
    keyboard.chip.key("a", True)
    keyboard.tell(0xF0, 3)
    state = keyboard.chip.save()
    other = Keyboard()
    other.chip.load_state(state)
    assert other.chip.save() == state


@pytest.mark.parametrize(
    "change", [{"scan_set": 0}, {"queue": b"x" * 65}, {"key_modes": b""}, {"key_modes": bytes([4]) * 256}]
)
def test_impossible_keyboard_state_is_refused(keyboard, change):
    before = keyboard.chip.save()
    with pytest.raises(StateError):
        keyboard.chip.load_state({**before, **change})
    assert keyboard.chip.save() == before


# --- mouse --------------------------------------------------------------------------------------------------


@pytest.fixture
def mouse():
    return Ps2Mouse()


def tell(mouse, *values):
    for value in values:
        mouse.send(value)
    return mouse.receive().hex(" ")


def knock(mouse, *rates):
    for rate in rates:
        tell(mouse, 0xF3)
        tell(mouse, rate)


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ([0xFF], "fa aa 00"), ([0xF2], "fa 00"), ([0xE9], "fa 00 02 64"), ([0xE6], "fa"), ([0xEA], "fa"),
        ([0xF0], "fa"), ([0xF4], "fa"), ([0xF5], "fa"), ([0xF6], "fa"), ([0xEB], "fa 08 00 00"), ([0x01],
        "fe"),
    ],
)  # fmt: skip
def test_mouse_command(mouse, command, answer):
    assert tell(mouse, *command) == answer


def test_status_shows_what_was_set(mouse):
    tell(mouse, 0xE8)
    tell(mouse, 3)
    tell(mouse, 0xF3)
    tell(mouse, 40)
    tell(mouse, 0xE7)
    tell(mouse, 0xF4)
    mouse.move(buttons=1)
    mouse.receive()
    assert tell(mouse, 0xE9) == "fa 34 03 28"


@pytest.mark.parametrize(("rates", "kind"), [((200, 100, 80), 3), ((200, 200, 80), 4), ((100, 200, 80), 0)])
def test_the_knock_wakes_wheel_and_buttons(mouse, rates, kind):
    knock(mouse, *rates)
    assert tell(mouse, 0xF2) == f"fa {kind:02x}"


def test_nothing_is_sent_before_it_is_enabled(mouse):
    mouse.move(5, 5)
    assert mouse.receive() == b""


@pytest.mark.parametrize(
    ("move", "packet"),
    [
        ((5, 0, 0, 0), "08 05 00"), ((0, 5, 0, 0), "28 00 fb"), ((-1, -2, 0, 0), "18 ff 02"),
        ((0, 0, 0, 1), "09 00 00"), ((0, 0, 0, 6), "0e 00 00"), ((0, 0, 3, 0), ""),
    ],
)  # fmt: skip
def test_packet(mouse, move, packet):
    tell(mouse, 0xF4)
    mouse.move(*move)
    assert mouse.receive().hex(" ") == packet


def test_far_movement_goes_out_in_several_packets(mouse):
    tell(mouse, 0xF4)
    mouse.move(600)
    data = mouse.receive()
    assert sum(data[1::3]) == 600 and len(data) == 9


def test_movement_adds_up_while_the_guest_does_not_read(mouse):
    tell(mouse, 0xF4)
    for _ in range(50):
        mouse.move(1)
    data = mouse.receive()
    assert len(data) == 6 and sum(data[1::3]) == 50


def test_the_wheel_is_the_fourth_byte(mouse):
    knock(mouse, 200, 100, 80)
    tell(mouse, 0xF4)
    mouse.move(dz=-1)
    assert mouse.receive().hex(" ") == "08 00 00 ff"


def test_five_buttons_share_the_fourth_byte(mouse):
    knock(mouse, 200, 200, 80)
    tell(mouse, 0xF4)
    mouse.move(dz=1, buttons=0x18)
    assert mouse.receive().hex(" ") == "08 00 00 31"


@pytest.mark.parametrize(("step", "scaled"), [(1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (-4, -6)])
def test_scaling_two_to_one(mouse, step, scaled):
    tell(mouse, 0xE7)
    tell(mouse, 0xF4)
    mouse.move(step)
    assert mouse.receive()[1] == scaled & 0xFF


def test_remote_mode_answers_when_asked(mouse):
    tell(mouse, 0xF0)
    mouse.move(7)
    assert mouse.receive() == b""
    assert tell(mouse, 0xEB) == "fa 08 07 00"


def test_wrap_mode_echoes_until_reset_wrap(mouse):
    tell(mouse, 0xEE)
    assert tell(mouse, 0x55) == "55"
    assert tell(mouse, 0xEC) == "fa"
    assert tell(mouse, 0xF2) == "fa 00"


def test_mouse_state_survives(mouse):
    knock(mouse, 200, 100, 80)
    tell(mouse, 0xF4)
    mouse.move(3, 4, 5, 1)
    state = mouse.save()
    other = Ps2Mouse()
    other.load_state(state)
    assert other.save() == state


@pytest.mark.parametrize("change", [{"kind": 2}, {"dx": 1 << 30}, {"buttons": 32}])
def test_impossible_mouse_state_is_refused(mouse, change):
    before = mouse.save()
    with pytest.raises(StateError):
        mouse.load_state({**before, **change})
    assert mouse.save() == before


@settings(max_examples=150)
@given(st.lists(st.integers(0, 255), max_size=80), st.integers(-(1 << 31), (1 << 31) - 1))
def test_any_commands_leave_a_loadable_state(values, far):
    keyboard, mouse = Keyboard(), Ps2Mouse()
    for value in values:
        keyboard.chip.send(value)
        mouse.send(value)
        mouse.move(far, far, far, value)
        keyboard.chip.key("a", bool(value & 1))
    keyboard.chip.load_state(keyboard.chip.save())
    mouse.load_state(mouse.save())


# --- the user's hands (vmrun.devices.input.hands) ------------------------------------------------------------------


def test_a_keyboard_that_has_sent_nothing_is_hungry_and_one_whose_bytes_wait_is_not() -> None:
    from vmrun.devices.input.hands import KeyboardHands

    chip = Ps2Keyboard(TimerQueue(SteppedClock()))
    hands = KeyboardHands(chip)
    assert hands.hungry()
    hands.key("a", True)
    assert not hands.hungry()
    hands.key("no-such-key", True)


def test_movement_of_one_sync_is_one_packet() -> None:
    from vmrun.devices.input.hands import MouseHands

    chip = Ps2Mouse()
    chip.send(0xF4)
    chip.receive()
    hands = MouseHands(chip)
    hands.move(2, 0)
    hands.move(1, -4)
    hands.button("left", True)
    hands.sync()
    assert chip.receive() == bytes((0x09, 3, 4))


def test_a_key_pressed_by_a_program_does_not_repeat(keyboard):
    keyboard.chip.key("a", True)
    keyboard.chip.unrepeated()
    keyboard.chip.receive()
    keyboard.pass_time(2000)
    assert keyboard.chip.receive() == b""
