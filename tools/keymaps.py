"""Writes schema/keymaps.json: the keyboard layouts that vmrun knows, from xkeyboard-config through libxkbcommon.

    python tools/keymaps.py                # needs Debian's libxkbcommon0 and xkb-data

A layout is QEMU's name for it → key (QKeyCode) → a character for each of: alone, with Shift, with AltGr, with both. A
space stands for nothing, a combining character for the dead key that makes it. `keysyms` has the characters of those
keysyms that are neither Latin-1 nor Unicode numbers, as viewers send them.
"""

from __future__ import annotations

import ctypes
import json
import pathlib
import sys
import unicodedata

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from vmrun.core.keymap import DEAD
from vmrun.core.keys import SCANCODES

# QEMU's names, and some that it does not have → layout and variant of xkeyboard-config
LAYOUTS = {
    "ar": ("ara", ""), "bepo": ("fr", "bepo"), "bg": ("bg", ""), "colemak": ("us", "colemak"), "cz": ("cz", ""),
    "da": ("dk", ""), "de": ("de", ""), "de-ch": ("ch", ""), "dvorak": ("us", "dvorak"), "en-gb": ("gb", ""),
    "en-us": ("us", ""), "es": ("es", ""), "et": ("ee", ""), "fi": ("fi", ""), "fo": ("fo", ""), "fr": ("fr", ""),
    "fr-be": ("be", ""), "fr-ca": ("ca", "fr"), "fr-ch": ("ch", "fr"), "gr": ("gr", ""), "hr": ("hr", ""),
    "hu": ("hu", ""), "is": ("is", ""), "it": ("it", ""), "ja": ("jp", ""), "lt": ("lt", ""), "lv": ("lv", ""),
    "mk": ("mk", ""), "nl": ("nl", ""), "nl-be": ("be", ""), "no": ("no", ""), "pl": ("pl", ""), "pt": ("pt", ""),
    "pt-br": ("br", ""), "ro": ("ro", ""), "ru": ("ru", ""), "sk": ("sk", ""), "sl": ("si", ""), "sv": ("se", ""),
    "th": ("th", ""), "tr": ("tr", ""), "ua": ("ua", ""), "us-intl": ("us", "intl"),
}  # fmt: skip
KEYS = (*range(2, 14), *range(16, 28), *range(30, 42), *range(43, 54), 57, 86, 89, 124)  # Linux' numbers of typing keys
OTHER = {89: "ro", 124: "yen"}  # those that are no PC scan codes
LEVELS = ((), ("Shift",), ("LevelThree",), ("Shift", "LevelThree"))
EVDEV = 8  # xkeyboard-config's numbers of keys begin there


class Names(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("rules", "model", "layout", "variant", "options")]


def library() -> ctypes.CDLL:
    found = ctypes.CDLL("libxkbcommon.so.0")
    for name in ("context_new", "keymap_new_from_names", "state_new"):
        getattr(found, f"xkb_{name}").restype = ctypes.c_void_p
    return found


def layout(xkb: ctypes.CDLL, context: int, name: str, variant: str, keysyms: dict[str, str]) -> dict[str, str]:
    """key → its characters; what is found of other keysyms goes into `keysyms`."""
    model = "jp106" if name == "jp" else "abnt2" if name == "br" else "pc105"
    names = Names(b"evdev", model.encode(), name.encode(), variant.encode(), b"")
    keymap = ctypes.c_void_p(xkb.xkb_keymap_new_from_names(ctypes.c_void_p(context), ctypes.byref(names), 0))
    if not keymap.value:
        raise SystemExit(f"xkeyboard-config has no layout {name}({variant})")
    state = ctypes.c_void_p(xkb.xkb_state_new(keymap))
    bits = {}
    for modifier in ("Shift", "LevelThree"):
        index = xkb.xkb_keymap_mod_get_index(keymap, modifier.encode())
        bits[modifier] = 1 << index if 0 <= index < 32 else 0
    # the virtual modifier LevelThree stands for a real one
    bits["LevelThree"] = bits["LevelThree"] or 1 << xkb.xkb_keymap_mod_get_index(keymap, b"Mod5")
    bits["LevelThree"] |= 1 << xkb.xkb_keymap_mod_get_index(keymap, b"Mod5")
    keys = {}
    for number in KEYS:
        characters = []
        for level in LEVELS:
            xkb.xkb_state_update_mask(state, sum(bits[modifier] for modifier in level), 0, 0, 0, 0, 0)
            keysym = xkb.xkb_state_key_get_one_sym(state, number + EVDEV)
            characters.append(character(xkb, keysym, keysyms))
        if characters[2:] == characters[:2]:
            characters[2:] = [" ", " "]
        text = "".join(characters).rstrip()
        if text:
            keys[OTHER.get(number) or SCANCODES[number]] = text
    return keys


def character(xkb: ctypes.CDLL, keysym: int, keysyms: dict[str, str]) -> str:
    if keysym in DEAD:
        return DEAD[keysym]
    code = xkb.xkb_keysym_to_utf32(keysym)
    if code <= 0x20 or code == 0x7F:
        return " "
    if keysym >= 0x100 and keysym >> 24 != 1:
        keysyms[f"{keysym:x}"] = chr(code)
    return chr(code)


def text(table: dict[str, str]) -> str:
    """As JSON; combining characters by number, since they would stand on the quotation mark."""
    whole = json.dumps(table, ensure_ascii=False)
    return "".join(f"\\u{ord(one):04x}" if unicodedata.combining(one) else one for one in whole)


def main() -> None:
    xkb = library()
    context = xkb.xkb_context_new(0)
    keysyms: dict[str, str] = {}
    found = {name: layout(xkb, context, *place, keysyms) for name, place in LAYOUTS.items()}
    for keysym in range(0x100, 0x2000):  # those of legacy keyboards that no layout above happens to have
        if xkb.xkb_keysym_to_utf32(keysym) > 0xFF and keysym not in DEAD:
            keysyms[f"{keysym:x}"] = chr(xkb.xkb_keysym_to_utf32(keysym))
    rows = [f'"{name}": {text(keys)}' for name, keys in found.items()]
    rows.append(f'"keysyms": {text(dict(sorted(keysyms.items())))}')
    target = pathlib.Path(__file__).parent.parent / "schema" / "keymaps.json"
    target.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
