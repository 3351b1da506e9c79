"""What follows a command of the line monitor, read by its declaration."""

from __future__ import annotations

import pytest

from vmrun.monitor import hmp, info
from vmrun.monitor.errors import QmpError
from vmrun.monitor.hmp_args import Given, read


def given(text: str, kinds: str) -> Given:
    return read(text, kinds, "line|l", {"rip": 0x1000}.__getitem__)


def refused(text: str, kinds: str) -> str:
    with pytest.raises(QmpError) as caught:
        given(text, kinds)
    return caught.value.desc


@pytest.mark.parametrize(
    ("text", "kinds", "words", "flags"),
    [
        ("-f a b", "-n -f str str", ["a", "b"], {"f": ""}),
        ("-na b", "-n str str?", ["a", "b"], {"n": ""}),
        ("a -fpng", "file -f= str?", ["a"], {"f": "png"}),
        ('"a b\\n" c', "str str", ["a b\n", "c"], {}),
        ("1 +  2 (3)", "long long", ["3", "3"], {}),
        ("$rip+1", "int", ["4097"], {}),
        ("2", "mega", ["2097152"], {}),
        ("0x70 . 1", "int index?", ["112", "1"], {}),
        ("d 1.5", "block size", ["d", "1572864"], {}),
        ("d 3k", "block size", ["d", "3072"], {}),
        ("/4xw 16", "fmt long", ["/4xw", "16"], {}),
        ("16", "fmt long", ["/", "16"], {}),
        ("a  {'b': 1} ", "str rest", ["a", "{'b': 1}"], {}),
        ("x on", "str bool", ["x", "on"], {}),
        ("", "options", [""], {}),
    ],
)
def test_words_and_flags(text: str, kinds: str, words: list[str], flags: dict[str, str]) -> None:
    found = given(text, kinds)
    assert (found, found.flags) == (words, flags)


@pytest.mark.parametrize(
    ("text", "kinds", "told"),
    [
        ("", "str", "line|l: string expected"),
        ('"a', "str", "line|l: string expected"),
        ('"a\\q"', "file", "line|l: filename expected"),
        ("a b", "str", "line|l: extraneous characters at the end of line"),
        ("-z a", "-n block", "line|l: unsupported option -z"),
        ("a -d", "str -d=", "line|l: value expected for -d"),
        ("0x100000000", "int", "'line|l' has failed: integer is for 32-bit values"),
        ("-1", "mega", "enter a positive value"),
        ("1,5", "size", "line|l: extraneous characters at the end of line"),
        ("9" * 5000, "size", "invalid size"),
        ("9" * 5000, "long", "number too large"),
        ("8E", "size", "invalid size"),
        ("/4z 1", "fmt long", "invalid char in format: 'z'"),
        ("yes", "bool", "Expected 'on' or 'off'"),
    ],
)
def test_what_is_wrong_is_said(text: str, kinds: str, told: str) -> None:
    assert refused(text, kinds) == told


def test_every_declaration_is_of_known_kinds() -> None:
    known = {"str", "block", "file", "rest", "int", "long", "mega", "index", "size", "bool", "fmt", "options"}
    for line in (*hmp.LINES, *info.VIEWS.values()):
        for kind in line.takes.split():
            assert kind.rstrip("?") in known or (kind[0] == "-" and kind[2:] in ("", "=")), line.title
