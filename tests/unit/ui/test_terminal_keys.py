"""A terminal's bytes as keys and mouse."""

from __future__ import annotations

import random
from typing import Any

import pytest

from vmrun.ui.terminal import Char, Chord, Keys, Mouse

KEYS = [
    (b"a", Char("a")), ("ä".encode(), Char("ä")), ("€".encode(), Char("€")), (b"\x1bx", Char("x", True)),
    (b"\r", Char("\r")),
    (b"\x03", Char("\x03")), (b"\0", Chord(("ctrl", "spc"))), (b"\x1c", Chord(("ctrl", "backslash"))),
    (b"\x1b[A", Chord(("up",))), (b"\x1bOA", Chord(("up",))), (b"\x1b[1;5C", Chord(("ctrl", "right"))),
    (b"\x1b[1;2P", Chord(("shift", "f1"))), (b"\x1bOP", Chord(("f1",))), (b"\x1b[[A", Chord(("f1",))),
    (b"\x1b[[E", Chord(("f5",))), (b"\x1b[11~", Chord(("f1",))), (b"\x1b[24~", Chord(("f12",))),
    (b"\x1b[24;6~", Chord(("shift", "ctrl", "f12"))), (b"\x1b[3;3~", Chord(("alt", "delete"))),
    (b"\x1b[1~", Chord(("home",))), (b"\x1b[7~", Chord(("home",))), (b"\x1b[8~", Chord(("end",))),
    (b"\x1b[5~", Chord(("pgup",))), (b"\x1b[Z", Chord(("shift", "tab"))), (b"\x1b[5^", Chord(("ctrl", "pgup"))),
    (b"\x1bOM", Chord(("kp_enter",))), (b"\x1bOw", Chord(("kp_7",))), (b"\x1b[2@", Chord(("shift", "ctrl", "insert"))),
    (b"\x1b[<0;3;4M", Mouse("left", True, 2, 3)), (b"\x1b[<0;3;4m", Mouse("left", False, 2, 3)),
    (b"\x1b[<32;9;4M", Mouse(None, True, 8, 3)), (b"\x1b[<65;1;1M", Mouse("wheel-down", True, 0, 0)),
    (b"\x1b[<18;1;1M", Mouse("right", True, 0, 0)),
]  # fmt: skip


@pytest.mark.parametrize("data, event", KEYS)
def test_a_sequence_is_a_key_however_it_is_cut(data: bytes, event: Any) -> None:
    assert Keys().feed(data) == [event]
    pieces = Keys()
    found = [got for byte in data for got in pieces.feed(bytes((byte,)))]
    assert found == [event]
    assert Keys().feed(data + b"q") == [event, Char("q")]


def test_an_escape_that_nothing_follows_is_a_key() -> None:
    keys = Keys()
    assert keys.feed(b"\x1b") == []
    assert keys.flush() == [Chord(("esc",))]
    assert keys.feed(b"a") == [Char("a")]


def test_two_escapes_are_one_and_a_beginning() -> None:
    assert Keys().feed(b"\x1b\x1b[A") == [Chord(("esc",)), Chord(("up",))]


def test_a_sequence_that_nobody_knows_is_dropped_whole() -> None:
    assert Keys().feed(b"\x1b[?1;2cz") == [Char("z")]
    assert Keys().feed(b"\x1b[200~z") == [Char("z")]


def test_random_bytes_are_taken_and_do_not_pile_up() -> None:
    rng = random.Random(13)
    keys = Keys()
    for _ in range(3000):
        keys.feed(bytes(rng.choice(b"\x1b[O<;019~Mm\xff\xc3a\0") for _ in range(rng.randrange(20))))
        assert len(keys.held) < 100
    keys.flush()
    assert keys.held == b""
