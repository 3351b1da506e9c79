"""What a terminal sends, as keys and mouse: the sequences of xterm and its like, the Linux console's, rxvt's.

    keys = Keys()
    keys.feed(b"a\\x1b[1;5C\\x1bx")         [Char("a"), Chord(("ctrl", "right")), Char("x", alt=True)]
    keys.flush()                          what was held back: an Escape that nothing followed

Ref: XTerm Control Sequences ("PC-Style Function Keys", "Mouse Tracking", SGR 1006); console_codes(4).
"""

from __future__ import annotations

from vmrun.core.input import AXIS_END

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Char(NamedTuple):
        """A character of the keyboard's layout; `alt`: with Alt held."""

        text: str
        alt: bool = False

    class Chord(NamedTuple):
        """Keys to hold together."""

        keys: tuple[str, ...]

    class Mouse(NamedTuple):
        """A button pressed or let go (None: moved only) at a cell, from 0."""

        button: str | None
        down: bool
        column: int
        row: int
else:
    from collections import namedtuple

    Char = namedtuple("Char", ("text", "alt"), defaults=(False,))
    Chord = namedtuple("Chord", ("keys",))
    Mouse = namedtuple("Mouse", ("button", "down", "column", "row"))

MOUSE_ON, MOUSE_OFF = "\x1b[?1002h\x1b[?1006h", "\x1b[?1006l\x1b[?1002l"
MOST = 64  # bytes of a sequence
# the last letter of CSI and SS3 sequences
LETTERS = {
    "A": "up", "B": "down", "C": "right", "D": "left", "E": "kp_5", "F": "end", "H": "home", "P": "f1", "Q": "f2",
    "R": "f3", "S": "f4", "M": "kp_enter", "j": "kp_multiply", "k": "kp_add", "l": "kp_comma", "m": "kp_subtract",
    "n": "kp_decimal", "o": "kp_divide", **{chr(ord("p") + n): f"kp_{n}" for n in range(10)},
}  # fmt: skip
# the number before ~
NUMBERS = {
    1: "home", 2: "insert", 3: "delete", 4: "end", 5: "pgup", 6: "pgdn", 7: "home", 8: "end", 11: "f1", 12: "f2",
    13: "f3", 14: "f4", 15: "f5", 17: "f6", 18: "f7", 19: "f8", 20: "f9", 21: "f10", 23: "f11", 24: "f12", 29: "menu",
    25: "shift f1", 26: "shift f2", 28: "shift f3", 31: "shift f5", 32: "shift f6", 33: "shift f7", 34: "shift f8",
}  # fmt: skip
MODIFIERS = ((1, "shift"), (2, "alt"), (4, "ctrl"), (8, "meta_l"))
CONTROLS = {"\x1c": "\\", "\x1d": "]", "\x1e": "^", "\x1f": "_", "\0": " "}
MOUSE_BUTTONS = {0: "left", 1: "middle", 2: "right", 64: "wheel-up", 65: "wheel-down", 66: "wheel-left",
                 67: "wheel-right", 128: "side", 129: "extra"}  # fmt: skip


def position(column: int, row: int, cells: tuple[int, int]) -> tuple[int, int]:
    """The middle of a cell on axes that end at AXIS_END."""
    return (2 * column + 1) * AXIS_END // (2 * cells[0]), (2 * row + 1) * AXIS_END // (2 * cells[1])


class Keys:
    """Bytes in, events out; what is not whole yet waits for the next bytes."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes) -> list[Char | Chord | Mouse]:
        self.held += data
        found: list[Char | Chord | Mouse] = []
        while self.held:
            taken = self._next(found)
            if not taken:
                break
            self.held = self.held[taken:]
        return found

    def flush(self) -> list[Char | Chord | Mouse]:
        """Nothing more came: an Escape is a key, the beginning of a sequence are keys."""
        found: list[Char | Chord | Mouse] = []
        while self.held:
            taken = self._next(found)
            if not taken:
                found.append(_character(chr(self.held[0]), False))
                taken = 1
            self.held = self.held[taken:]
        return found

    def _next(self, found: list[Char | Chord | Mouse]) -> int:
        """Adds what the held bytes begin with; how many bytes that was, 0: more are needed."""
        data = self.held
        if data[0] != 0x1B:
            return self._text(found, 0)
        if len(data) == 1:
            return 0
        if data[1] in b"[O":
            return self._sequence(found)
        if data[1] == 0x1B:
            found.append(Chord(("esc",)))
            return 1
        return self._text(found, 1)

    def _text(self, found: list[Char | Chord | Mouse], at: int) -> int:
        first = self.held[at]
        size = 1 if first < 0xC0 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        part = self.held[at : at + size]
        if len(part) < size:
            return 0
        try:
            text = part.decode()
        except UnicodeDecodeError:
            return at + 1  # no character of any encoding we know
        found.append(_character(text, at > 0))
        return at + size

    def _sequence(self, found: list[Char | Chord | Mouse]) -> int:
        data = self.held
        if data[:3] == b"\x1b[[":  # the Linux console's F1 to F5
            if len(data) < 4:
                return 0
            if data[3:4] in b"ABCDE":
                found.append(Chord((f"f{data[3] - 0x40}",)))
            return 4
        end = 2
        while end < len(data) and not 0x40 <= data[end] < 0x7F:
            if not 0x20 <= data[end] < 0x40 or end > MOST:  # no sequence after all
                found.append(Chord(("esc",)))
                return 1
            end += 1
        if end == len(data):
            return 0
        whole = data[2:end].decode("ascii")
        event = _meaning(whole, chr(data[end]), data[1] == 0x5B)
        if event is not None:
            found.append(event)
        return end + 1


def _character(text: str, alt: bool) -> Char | Chord:
    if text == "\x1b":
        return Chord(("esc",))
    if text in CONTROLS:  # Ctrl with what the layout may have elsewhere: on a US keyboard
        key = {"\\": "backslash", "]": "bracket_right", "^": "6", "_": "minus", " ": "spc"}[CONTROLS[text]]
        return Chord((*(("alt",) if alt else ()), "ctrl", key))
    return Char(text, alt)


def _meaning(parameters: str, letter: str, csi: bool) -> Chord | Mouse | None:
    if csi and parameters[:1] == "<" and letter in "Mm":
        return _mouse(parameters[1:], letter == "M")
    if csi and letter == "Z":
        return Chord(("shift", "tab"))
    numbers = [int(part) if part.isdigit() else 0 for part in parameters.split(";")]
    held = numbers[-1] - 1 if len(numbers) > 1 or not csi and numbers[0] else 0
    name = NUMBERS.get(numbers[0]) if letter in "~^@" else LETTERS.get(letter)
    if name is None or letter not in "~^@" and csi and letter not in "ABCDEFHPQRS":
        return None
    held |= {"^": 4, "@": 5}.get(letter, 0)  # rxvt's Ctrl, and with Shift
    return Chord((*(key for bit, key in MODIFIERS if held > 0 and held & bit), *name.split()))


def _mouse(parameters: str, down: bool) -> Mouse | None:
    parts = parameters.split(";")
    if len(parts) != 3 or not all(part.isdigit() and len(part) < 6 for part in parts):
        return None
    code, column, row = map(int, parts)
    moved, code = code & 32, code & ~(4 | 8 | 16 | 32)
    button = None if moved else MOUSE_BUTTONS.get(code)
    return Mouse(button, down, max(column - 1, 0), max(row - 1, 0))
