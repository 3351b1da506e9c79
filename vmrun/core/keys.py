"""Keys by QEMU's names and numbers, and a typist who presses them no faster than the guest reads."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmrun.core.input import InputRouter
    from vmrun.core.loop import Loop

KEY_TIME = 0.02  # seconds from one key to the next, at least
REPEATS = 0.25  # seconds until a keyboard may repeat a key at the earliest
PATIENCE = 60.0  # seconds that a guest may leave a key unread


# PC scan codes of set 1, bit 7 set for those behind 0xE0: QEMU's numbers of keys.
_SET1 = (
    "esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p bracket_left bracket_right ret ctrl a "
    "s d f g h j k l semicolon apostrophe grave_accent shift backslash z x c v b n m comma dot slash shift_r "
    "kp_multiply alt spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_7 kp_8 kp_9 kp_subtract "
    "kp_4 kp_5 kp_6 kp_add kp_1 kp_2 kp_3 kp_0 kp_decimal sysrq "
)
SCANCODES: dict[int, str] = {
    **dict(enumerate(_SET1.split(), 1)),
    0x56: "less", 0x57: "f11", 0x58: "f12", 0x70: "katakanahiragana", 0x73: "ro", 0x77: "hiragana", 0x79: "henkan",
    0x7B: "muhenkan", 0x7D: "yen", 0x7E: "kp_comma", 0x59: "kp_equals",
    0x9C: "kp_enter", 0x9D: "ctrl_r", 0xA0: "audiomute", 0xA1: "calculator", 0xA2: "audioplay", 0xA4: "audiostop",
    0xAE: "volumedown", 0xB0: "volumeup", 0xB2: "ac_home", 0xB5: "kp_divide", 0xB7: "print", 0xB8: "alt_r",
    0xC6: "pause",
    0xC7: "home", 0xC8: "up", 0xC9: "pgup", 0xCB: "left", 0xCD: "right", 0xCF: "end", 0xD0: "down", 0xD1: "pgdn",
    0xD2: "insert", 0xD3: "delete", 0xDB: "meta_l", 0xDC: "meta_r", 0xDD: "menu", 0xDE: "power", 0xDF: "sleep",
    0xE3: "wake", 0xEC: "mail",
}  # fmt: skip
# All that QEMU calls a key (QKeyCode).
QCODES = frozenset((
    *SCANCODES.values(), "unmapped", "pause", "shift_r", "asterisk", "stop", "again", "props", "undo", "front", "copy",
    "open", "paste", "find", "cut", "lf", "help", "compose", "lang1", "lang2",
    "audionext", "audioprev", "ac_back", "ac_forward",
    "ac_refresh", "ac_bookmarks", "computer", "mediaselect",
))  # fmt: skip


class Typist:
    """Presses chords one after the other; the next one waits until the guest has read all of the one before.

    A chord that is not to be held is let go at once, so that no keyboard repeats it because the host is busy just then.
    `done(error)` is called on the loop at the end, with "" or what went wrong.
    """

    def __init__(
        self, hands: InputRouter, loop: Loop, chords: list[list[str]], done: Callable[[str], object], hold: float = 0.0
    ) -> None:
        self.hands, self.loop, self.chords, self.done, self.hold = hands, loop, list(chords), done, hold
        self._waited = 0.0
        self._down: list[str] = []
        self._step()

    def cancel(self) -> None:
        """Type no more; what is held is let go."""
        self.chords.clear()
        self._release()

    def _step(self) -> None:
        if not self.hands.hungry():
            self._waited += KEY_TIME
            if self._waited > PATIENCE:
                self.chords.clear()
                self.done("the guest does not read its keyboard")
                return
            self.loop.call_later(KEY_TIME, self._step)
            return
        self._waited = 0.0
        if self._down:
            self._release()
            self.loop.call_later(KEY_TIME / 2, self._step)
            return
        if not self.chords:
            self.done("")
            return
        self._down = self.chords.pop(0)
        for key in self._down:
            self.hands.key(key, True)
        if not self.hold:
            self._release()
        else:
            if self.hold < REPEATS:
                self.hands.unrepeated()
            self.hands.sync()
        self.loop.call_later(max(self.hold, KEY_TIME / 2), self._step)

    def _release(self) -> None:
        for key in reversed(self._down):
            self.hands.key(key, False)
        self.hands.sync()
        self._down = []
