"""X11 keysyms, as VNC clients send them, to keys by QEMU's names on a US keyboard.

Ref: RFC 6143 7.5.4; X11's keysymdef.h for the numbers. A client that speaks the extended key event (QEMU's) sends the
key itself, whatever the layout; that is `SCANCODES`: PC scan codes of set 1, 0x80 set for those behind 0xE0.
"""

from __future__ import annotations

_SHIFTED = dict(zip('~!@#$%^&*()_+{}|:"<>?', "`1234567890-=[]\\;',./", strict=True))
_NAMES = {
    " ": "spc", "`": "grave_accent", "-": "minus", "=": "equal", "[": "bracket_left", "]": "bracket_right",
    "\\": "backslash", ";": "semicolon", "'": "apostrophe", ",": "comma", ".": "dot", "/": "slash",
}  # fmt: skip
_SPECIAL = {
    0xFF08: "backspace", 0xFF09: "tab", 0xFE20: "tab", 0xFF0A: "ret", 0xFF0D: "ret", 0xFF13: "pause", 0xFF14: "scroll_lock",
    0xFF15: "sysrq", 0xFF1B: "esc", 0xFF50: "home", 0xFF51: "left", 0xFF52: "up", 0xFF53: "right", 0xFF54: "down",
    0xFF55: "pgup", 0xFF56: "pgdn", 0xFF57: "end", 0xFF61: "print", 0xFF63: "insert", 0xFF67: "menu", 0xFF6B: "pause",
    0xFF7F: "num_lock", 0xFF8D: "kp_enter", 0xFF95: "kp_7", 0xFF96: "kp_4", 0xFF97: "kp_8", 0xFF98: "kp_6",
    0xFF99: "kp_2", 0xFF9A: "kp_9", 0xFF9B: "kp_3", 0xFF9C: "kp_1", 0xFF9D: "kp_5", 0xFF9E: "kp_0", 0xFF9F: "kp_decimal",
    0xFFAA: "kp_multiply", 0xFFAB: "kp_add", 0xFFAC: "kp_comma", 0xFFAD: "kp_subtract", 0xFFAE: "kp_decimal",
    0xFFAF: "kp_divide", 0xFFBD: "kp_equals", 0xFFE1: "shift", 0xFFE2: "shift_r", 0xFFE3: "ctrl", 0xFFE4: "ctrl_r",
    0xFFE5: "caps_lock", 0xFFE7: "meta_l", 0xFFE8: "meta_r", 0xFFE9: "alt", 0xFFEA: "alt_r", 0xFFEB: "meta_l",
    0xFFEC: "meta_r", 0xFFFF: "delete", 0xFE03: "alt_r", 0xFF21: "muhenkan", 0xFF23: "henkan",
    **{0xFFB0 + n: f"kp_{n}" for n in range(10)}, **{0xFFBE + n: f"f{n + 1}" for n in range(12)},
}  # fmt: skip


def lookup(keysym: int) -> tuple[str, bool | None] | None:
    """(key, whether shift must be down, None when it does not matter) for a keysym; None for one no key has."""
    if keysym in _SPECIAL:
        return _SPECIAL[keysym], None
    if not 0x20 <= keysym < 0x7F:
        return None
    character = chr(keysym)
    if character in _SHIFTED:
        below = _SHIFTED[character]
        return _NAMES.get(below, below), True
    if character in _NAMES:
        return _NAMES[character], False
    if character.isalpha():
        return character.lower(), None  # shift comes as a key of its own, or from Caps Lock
    return character, False


_SET1 = (
    " esc 1 2 3 4 5 6 7 8 9 0 minus equal backspace tab q w e r t y u i o p bracket_left bracket_right ret ctrl a s d f g h "
    "j k l semicolon apostrophe grave_accent shift backslash z x c v b n m comma dot slash shift_r kp_multiply alt spc "
    "caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 num_lock scroll_lock kp_7 kp_8 kp_9 kp_subtract kp_4 kp_5 kp_6 kp_add kp_1 "
    "kp_2 kp_3 kp_0 kp_decimal sysrq"
).split(" ")
SCANCODES: dict[int, str] = {
    **{number: name for number, name in enumerate(_SET1) if name},
    0x56: "less", 0x57: "f11", 0x58: "f12", 0x70: "hiragana", 0x73: "ro", 0x79: "henkan", 0x7B: "muhenkan", 0x7D: "yen",
    0x7E: "kp_comma", 0x59: "kp_equals",
    0x9C: "kp_enter", 0x9D: "ctrl_r", 0xA0: "audiomute", 0xA1: "calculator", 0xA2: "audioplay", 0xA4: "audiostop",
    0xAE: "volumedown", 0xB0: "volumeup", 0xB2: "ac_home", 0xB5: "kp_divide", 0xB7: "print", 0xB8: "alt_r", 0xC6: "pause",
    0xC7: "home", 0xC8: "up", 0xC9: "pgup", 0xCB: "left", 0xCD: "right", 0xCF: "end", 0xD0: "down", 0xD1: "pgdn",
    0xD2: "insert", 0xD3: "delete", 0xDB: "meta_l", 0xDC: "meta_r", 0xDD: "menu", 0xDE: "power", 0xDF: "sleep",
    0xE3: "wake", 0xEC: "mail",
}  # fmt: skip


def scancode(number: int) -> str | None:
    """The key of an extended key event's code: set 1, with 0xE0 in front as 0xe0XX or bit 7."""
    if number & 0xFF00 == 0xE000:
        number = (number & 0x7F) | 0x80
    return SCANCODES.get(number)
