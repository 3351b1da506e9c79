"""JSON values out of a stream: in pieces, several at once, and wrong."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmrun.monitor.jsonstream import MAX_DEPTH, MAX_SIZE, JsonError, JsonStream

PING = b'{"execute": "ping"}'


def shown(found: list[object]) -> list[object]:
    return ["error" if isinstance(value, JsonError) else value for value in found]


def fed(*pieces: bytes) -> list[object]:
    stream, found = JsonStream(), []
    for piece in pieces:
        found += stream.feed(piece)
    return shown(found)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64) | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)


@given(st.lists(st.dictionaries(st.text(), values), min_size=1, max_size=4), st.lists(st.integers(1, 30)))
@settings(max_examples=50)
def test_values_come_out_whole_however_they_are_cut(messages: list[dict[str, object]], cuts: list[int]) -> None:
    data = b"\r\n".join(json.dumps(message, ensure_ascii=False).encode() for message in messages)
    pieces, at = [], 0
    for cut in cuts:
        pieces.append(data[at : at + cut])
        at += cut
    assert fed(*pieces, data[at:]) == messages


def test_values_need_no_line_ends() -> None:
    assert fed(PING + PING) == [{"execute": "ping"}] * 2


def test_single_quotes_do_as_well() -> None:
    assert fed(b"""{'execute': 'it"s', 'a': "don't"}""") == [{"execute": 'it"s', "a": "don't"}]


@pytest.mark.parametrize(
    "junk",
    [
        b"garbage",
        b"{'a'}",
        b'{"a": }',
        b'{"a": 1, "a": 2}',
        b'{"a": nan}',
        b'{"a": NaN}',
        b"]",
        b'"never closed',
        b'{"a": "raw\x01control"}',
        b'{"a": "\xff"}',
        b'{"a": "\xc3\x28"}',
        b"[}",
        b"\xfe",
        b"0x12",
    ],
)
def test_after_junk_and_a_line_end_the_next_command_is_understood(junk: bytes) -> None:
    found = fed(junk + b"\n" + PING + b"\n")
    assert found[0] == "error"
    assert found[-1] == {"execute": "ping"}


def test_an_impossible_byte_ends_what_was_begun() -> None:
    """Clients send FFh to bring the parser into a known state."""
    assert fed(b'{"a": "begun', b"\xff" + PING)[-1] == {"execute": "ping"}


def test_a_message_that_is_too_large_is_refused_and_not_kept() -> None:
    stream = JsonStream()
    found = stream.feed(b'{"execute": "')
    for _ in range(100):
        found += stream.feed(b"x" * (1 << 20))
        assert len(stream._data) <= MAX_SIZE
    found += stream.feed(b'"}\n' + PING)
    assert str(found[0]) == "JSON token size limit exceeded"
    assert found[-1] == {"execute": "ping"}
    assert len(found) < 4


def test_a_large_message_within_the_limit_is_taken() -> None:
    text = "x" * (MAX_SIZE - 64)
    data = json.dumps({"a": text}).encode()
    assert fed(data[:1000], data[1000:]) == [{"a": text}]


def test_nesting_has_an_end() -> None:
    assert shown(JsonStream().feed(b"[" * 100_000))[0] == "error"
    deep = b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)
    assert len(fed(deep)) == 1 and fed(deep) != ["error"]


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    stream = JsonStream()
    stream.feed(data)
    assert shown(stream.feed(b"\xff\n" + PING + b"\n"))[-1] == {"execute": "ping"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (b'"x\n', "stray '\"x\n'"),
        (b"'x\n", "stray ''x\n'"),
        (b'{"a": "x\n', "stray '\"x\n'"),
        (b'"\\\n', "stray '\"\\\n'"),
        (b"nonsense\n", "invalid keyword 'nonsense'"),
        (b'{"id": -1e400}', "'-1e400' is out of range"),
    ],
)
@pytest.mark.parametrize("piece", [1, 1000])
def test_the_command_after_something_wrong_is_heard(wrong: bytes, said: str, piece: int) -> None:
    """QEMU's words, and QEMU's way back."""
    stream, text = JsonStream(), wrong + b'{"execute":"query-name","id":1}\n'
    found = [value for at in range(0, len(text), piece) for value in stream.feed(text[at : at + piece])]
    error, command = found
    assert str(error) == f"JSON parse error, {said}"
    assert command == {"execute": "query-name", "id": 1}
