"""A keyboard's layout: which keys make a character, and which key a viewer's keysym stands for.

    layout = Layout("de", table["de"], table["keysyms"])       # vmrun.machine.keyboards.load("de")
    layout.chords("@")      [["alt_r", "q"]]
    layout.chords("ŷ")      dead keys first: [["grave_accent"], ["y"]] and the like
    layout.strokes(0x40)    [Stroke("q", shift=False, altgr=True)]

The guest has a layout of its own, and what it makes of the keys is its business: this is the one that it is believed to
have.
Ref: X11's keysymdef.h for the numbers; what the layouts have is xkeyboard-config's (tools/keymaps.py).
"""

from __future__ import annotations

import unicodedata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple

    class Stroke(NamedTuple):
        """A key and what must be down with it; `shift` None: it does not matter."""

        key: str
        shift: bool | None
        altgr: bool | None
else:
    from collections import namedtuple

    Stroke = namedtuple("Stroke", ("key", "shift", "altgr"))

# Dead keys' keysyms and the combining characters that stand for them.
DEAD = {
    0xFE50: "\u0300", 0xFE51: "\u0301", 0xFE52: "\u0302", 0xFE53: "\u0303", 0xFE54: "\u0304", 0xFE55: "\u0306",
    0xFE56: "\u0307", 0xFE57: "\u0308", 0xFE58: "\u030a", 0xFE59: "\u030b", 0xFE5A: "\u030c", 0xFE5B: "\u0327",
    0xFE5C: "\u0328", 0xFE60: "\u0323", 0xFE61: "\u0309", 0xFE62: "\u031b", 0xFE63: "\u0338", 0xFE64: "\u0313",
    0xFE65: "\u0314",
}  # fmt: skip
# What a dead key followed by space makes.
ALONE = {
    "^": "\u0302", "~": "\u0303", "`": "\u0300", "´": "\u0301", "¨": "\u0308", "¸": "\u0327", "˘": "\u0306",
    "ˇ": "\u030c", "˙": "\u0307", "¯": "\u0304", "˝": "\u030b", "˛": "\u0328", "°": "\u030a", "'": "\u0301",
    '"': "\u0308",
}  # fmt: skip
# What is the same in all layouts.
PLAIN = {" ": "spc", "\r": "ret", "\n": "ret", "\t": "tab", "\x1b": "esc", "\x7f": "backspace", "\b": "backspace"}
LEVELS = ((False, False), (True, False), (False, True), (True, True))  # shift and AltGr of a key's characters


class Layout:
    """`keys`: key → its characters alone, with Shift, with AltGr, with both; `below`: where its Latin letters come from
    when it has none (Russian, Greek, …), as on a keyboard that is switched between both.
    """

    def __init__(
        self, name: str, keys: Mapping[str, str], keysyms: Mapping[str, str], below: Layout | None = None
    ) -> None:
        self.name, self._keysyms = name, keysyms
        self._strokes: dict[str, Stroke] = {}
        self._letters: set[str] = set()  # keys that Caps Lock shifts
        # What a character is on a key that not every keyboard has, and its guests, comes after other keys' with Shift.
        places = [(level, key) for level in range(len(LEVELS)) for key in keys]
        for level, key in sorted(places, key=lambda place: 2 if place[0] > 1 else place[1] == "less"):
            if keys[key][level : level + 1].strip():
                self._strokes.setdefault(keys[key][level], Stroke(key, *LEVELS[level]))
        for key, characters in keys.items():
            if characters[:1].isalpha() and characters[1:2] == characters[0].upper() != characters[0]:
                self._letters.add(key)
        for character, key in PLAIN.items():
            self._strokes[character] = Stroke(key, None, False if character == " " else None)
        if below is not None and "a" not in self._strokes:
            self._letters |= below._letters
            for character, stroke in below._strokes.items():
                self._strokes.setdefault(character, stroke)

    def character(self, keysym: int) -> str:
        """What a keysym of a character or dead key stands for; '' for others."""
        if 0x20 <= keysym < 0x7F or 0xA0 <= keysym <= 0xFF:
            return chr(keysym)
        if keysym >> 24 == 1 and 0x20 <= keysym & 0xFFFFFF < 0x110000:
            return chr(keysym & 0xFFFFFF)
        return DEAD.get(keysym) or self._keysyms.get(f"{keysym:x}", "")

    def strokes(self, character: str) -> list[Stroke]:
        """Keys to strike one after the other for a character, dead keys first; none when the layout lacks it."""
        found = self._strokes.get(character)
        if found is not None:
            return [found]
        if character in ALONE and ALONE[character] in self._strokes:
            return [self._strokes[ALONE[character]], self._strokes[" "]]
        if len(character) == 1 and 1 <= ord(character) <= 26:  # Ctrl with a letter
            return []
        parts = unicodedata.normalize("NFD", character)
        base, marks = parts[:1], parts[1:]
        if not marks or base not in self._strokes or any(mark not in self._strokes for mark in marks):
            return []
        return [*(self._strokes[mark] for mark in reversed(marks)), self._strokes[base]]

    def chords(self, character: str) -> list[list[str]]:
        """The same as keys to hold together."""
        if len(character) == 1 and 1 <= ord(character) <= 26 and character not in PLAIN:
            return [["ctrl", *chord] for chord in self.chords(chr(ord(character) + 96))]
        return [
            [*(["shift"] if shift else []), *(["alt_r"] if altgr else []), key]
            for key, shift, altgr in self.strokes(character)
        ]

    def shifted_by_caps_lock(self, key: str) -> bool:
        return key in self._letters
