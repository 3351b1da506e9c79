"""X11 keysyms, as VNC clients send them, of keys that no layout moves; characters are the layout's (vmrun.core.keymap).

Ref: RFC 6143 7.5.4; X11's keysymdef.h for the numbers. A client that speaks the extended key event (QEMU's) sends the
key itself, whatever the layout, as a PC scan code.
"""

from __future__ import annotations

from vmrun.core.keymap import Stroke
from vmrun.core.keys import SCANCODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmrun.core.keymap import Layout

_SPECIAL = {
    0xFF08: "backspace", 0xFF09: "tab", 0xFE20: "tab", 0xFF0A: "ret", 0xFF0D: "ret", 0xFF13: "pause",
    0xFF14: "scroll_lock",
    0xFF15: "sysrq", 0xFF1B: "esc", 0xFF50: "home", 0xFF51: "left", 0xFF52: "up", 0xFF53: "right", 0xFF54: "down",
    0xFF55: "pgup", 0xFF56: "pgdn", 0xFF57: "end", 0xFF61: "print", 0xFF63: "insert", 0xFF67: "menu", 0xFF6B: "pause",
    0xFF7F: "num_lock", 0xFF8D: "kp_enter", 0xFF95: "kp_7", 0xFF96: "kp_4", 0xFF97: "kp_8", 0xFF98: "kp_6",
    0xFF99: "kp_2", 0xFF9A: "kp_9", 0xFF9B: "kp_3", 0xFF9C: "kp_1", 0xFF9D: "kp_5", 0xFF9E: "kp_0",
    0xFF9F: "kp_decimal",
    0xFFAA: "kp_multiply", 0xFFAB: "kp_add", 0xFFAC: "kp_comma", 0xFFAD: "kp_subtract", 0xFFAE: "kp_decimal",
    0xFFAF: "kp_divide", 0xFFBD: "kp_equals", 0xFFE1: "shift", 0xFFE2: "shift_r", 0xFFE3: "ctrl", 0xFFE4: "ctrl_r",
    0xFFE5: "caps_lock", 0xFFE7: "meta_l", 0xFFE8: "meta_r", 0xFFE9: "alt", 0xFFEA: "alt_r", 0xFFEB: "meta_l",
    0xFFEC: "meta_r", 0xFFFF: "delete", 0xFE03: "alt_r", 0xFF7E: "alt_r", 0xFF21: "muhenkan", 0xFF23: "henkan",
    **{0xFFB0 + n: f"kp_{n}" for n in range(10)}, **{0xFFBE + n: f"f{n + 1}" for n in range(12)},
}  # fmt: skip
ALTGR = (0xFE03, 0xFF7E)  # ISO_Level3_Shift, Mode_switch


def lookup(keysym: int, layout: Layout) -> list[Stroke]:
    """What to strike for a keysym, the last one to be held; nothing for one that the layout has no key for."""
    if keysym in _SPECIAL:
        return [Stroke(_SPECIAL[keysym], None, None)]
    return layout.strokes(layout.character(keysym))


def scancode(number: int) -> str | None:
    """The key of an extended key event's code: set 1, with 0xE0 in front as 0xe0XX or bit 7."""
    if number & 0xFF00 == 0xE000:
        number = (number & 0x7F) | 0x80
    return SCANCODES.get(number)


# what a terminal sends for keys that are no characters
_SAID = {
    0xFF08: b"\x7f", 0xFF09: b"\t", 0xFF0A: b"\r", 0xFF0D: b"\r", 0xFF8D: b"\r", 0xFF1B: b"\x1b",
    0xFF50: b"\x1b[1~", 0xFF51: b"\x1b[D", 0xFF52: b"\x1b[A", 0xFF53: b"\x1b[C", 0xFF54: b"\x1b[B", 0xFF55: b"\x1b[5~",
    0xFF56: b"\x1b[6~", 0xFF57: b"\x1b[4~", 0xFF63: b"\x1b[2~", 0xFFFF: b"\x1b[3~",
    0xFF95: b"\x1b[1~", 0xFF96: b"\x1b[D", 0xFF97: b"\x1b[A", 0xFF98: b"\x1b[C", 0xFF99: b"\x1b[B", 0xFF9A: b"\x1b[5~",
    0xFF9B: b"\x1b[6~", 0xFF9C: b"\x1b[4~", 0xFF9F: b"\x1b[3~",
    0xFFAA: b"*", 0xFFAB: b"+", 0xFFAD: b"-", 0xFFAE: b".", 0xFFAF: b"/", **{0xFFB0 + n: b"%d" % n for n in range(10)},
}  # fmt: skip
CONTROL, ALT = (0xFFE3, 0xFFE4), (0xFFE9, 0xFFEA, 0xFFE7, 0xFFE8)


def said(keysym: int, control: bool) -> bytes:
    """What a key says to a terminal; b"" for one that says nothing."""
    if control and 0x40 <= keysym < 0x80:
        return bytes((keysym & 0x1F,))
    if 0x20 <= keysym < 0x7F:
        return bytes((keysym,))
    if 0xA0 <= keysym < 0x100:
        return chr(keysym).encode("cp437", "replace")
    return _SAID.get(keysym, b"")
