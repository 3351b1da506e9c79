"""Keyboard layouts: which keys make a character; constants from the layouts' pictures, not from our table."""

from __future__ import annotations

import json
import pathlib

import pytest

from vmrun.config import keymaps
from vmrun.machine.keyboards import load

SCHEMA = pathlib.Path(__file__).parents[3] / "schema" / "machine.schema.json"
TYPED = [
    ("en-us", "@", [["shift", "2"]]), ("en-us", "\\", [["backslash"]]), ("en-us", "\n", [["ret"]]),
    ("en-us", "<", [["shift", "comma"]]), ("de", "<", [["less"]]),
    ("en-us", "\x03", [["ctrl", "c"]]), ("en-us", "\x1b", [["esc"]]), ("en-us", "é", []),
    ("de", "z", [["y"]]), ("de", "Y", [["shift", "z"]]), ("de", "@", [["alt_r", "q"]]), ("de", "ß", [["minus"]]),
    ("de", "\\", [["alt_r", "minus"]]), ("de", "|", [["alt_r", "less"]]), ("de", "^", [["grave_accent"], ["spc"]]),
    ("de", "é", [["equal"], ["e"]]), ("de", "è", [["shift", "equal"], ["e"]]),
    ("fr", "a", [["q"]]), ("fr", "1", [["shift", "1"]]), ("fr", "@", [["alt_r", "0"]]),
    ("fr", "ê", [["bracket_left"], ["e"]]), ("fr", "é", [["2"]]), ("fr", "m", [["semicolon"]]),
    ("en-gb", "£", [["shift", "3"]]), ("en-gb", "#", [["backslash"]]), ("en-gb", '"', [["shift", "2"]]),
    ("ru", "й", [["q"]]), ("ru", "Ж", [["shift", "semicolon"]]), ("ru", "q", [["q"]]), ("gr", "λ", [["l"]]),
    ("ja", "@", [["bracket_left"]]), ("ja", "\\", [["ro"]]), ("pt-br", "/", [["ro"]]), ("pt-br", "ç", [["semicolon"]]),
    ("dvorak", "s", [["semicolon"]]), ("bepo", "_", [["alt_r", "spc"]]),
    ("us-intl", "ñ", [["alt_r", "n"]]), ("us-intl", "ỹ", [["shift", "grave_accent"], ["y"]]),
]  # fmt: skip


@pytest.mark.parametrize("layout, character, chords", TYPED)
def test_a_character_is_typed_with_the_layouts_keys(layout: str, character: str, chords: list[list[str]]) -> None:
    assert load(layout).chords(character) == chords


@pytest.mark.parametrize("layout", keymaps.names())
def test_every_layout_has_all_of_ascii(layout: str) -> None:
    found = load(layout)
    assert [chr(code) for code in range(32, 127) if not found.chords(chr(code))] == []


@pytest.mark.parametrize(
    "keysym, character",
    [(0x61, "a"), (0xE9, "é"), (0x10020AC, "€"), (0x20AC, "€"), (0x6CA, "й"), (0xFE51, "\u0301"), (0x7EB, "λ")],
)
def test_a_keysym_is_a_character(keysym: int, character: str) -> None:
    assert load().character(keysym) == character


def test_caps_lock_shifts_letters_where_the_layout_has_them() -> None:
    french = load("fr")
    assert french.shifted_by_caps_lock("semicolon")
    assert not french.shifted_by_caps_lock("m")


def test_an_unknown_layout_is_a_key_error() -> None:
    for name in ("keysyms", "xx"):
        with pytest.raises(KeyError):
            load(name)


def test_a_machine_file_may_name_every_layout() -> None:
    assert json.loads(SCHEMA.read_text())["properties"]["keyboard"]["enum"] == keymaps.names()
