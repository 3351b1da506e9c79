"""What one viewer cuts is there for the others: plain and extended clipboards, and what is hostile in them."""

from __future__ import annotations

import pathlib
import random
import struct
import zlib
from collections.abc import Iterator

import pytest

from tests.unit.ui.rfb import Rfb
from tests.unit.ui.test_vnc import Setup
from vmrun.core.clipboard import MOST_TEXT, Clipboard
from vmrun.ui.vnc.cuttext import CAPS, EXTENDED, NOTIFY, PEEK, PROVIDE, REQUEST, TEXT


@pytest.fixture
def setup(tmp_path: pathlib.Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    yield found
    found.close()


def cut(client: Rfb, text: bytes) -> None:
    client.send(struct.pack(">B3xi", 6, len(text)) + text)


def say(client: Rfb, flags: int, data: bytes = b"") -> None:
    client.send(struct.pack(">B3xiI", 6, -4 - len(data), flags) + data)


def provide(client: Rfb, text: bytes, size: int | None = None) -> None:
    say(client, PROVIDE | TEXT, zlib.compress((len(text) if size is None else size).to_bytes(4, "big") + text))


def hear(client: Rfb) -> tuple[bool, bytes]:
    """(extended, what the server's cut text says)."""
    kind, length = struct.unpack(">B3xi", client.read(8))
    assert kind == 3
    return length < 0, client.read(abs(length))


def flags(client: Rfb) -> int:
    extended, data = hear(client)
    assert extended
    return int.from_bytes(data[:4], "big")


def extended(setup: Setup) -> Rfb:
    client = setup.client(EXTENDED)
    assert flags(client) == CAPS | REQUEST | NOTIFY | PROVIDE | TEXT
    say(client, CAPS | REQUEST | PEEK | NOTIFY | PROVIDE | TEXT, (1 << 20).to_bytes(4, "big"))
    return client


def quiet(setup: Setup, client: Rfb) -> None:
    setup.turn(4)
    assert not client.buffer
    with pytest.raises(BlockingIOError):
        client.peer.recv(1)


def test_plain_text_reaches_the_others_and_not_who_cut_it(setup: Setup) -> None:
    one, two = setup.client(), setup.client()
    cut(one, "Grüße\r\nzwei".encode("latin-1"))
    assert hear(two) == (False, "Grüße\nzwei".encode("latin-1"))
    quiet(setup, one)


def test_extended_text_is_fetched_when_somebody_wants_it(setup: Setup) -> None:
    one, two = extended(setup), extended(setup)
    say(one, NOTIFY | TEXT)
    assert flags(two) == NOTIFY | TEXT
    quiet(setup, one)  # nobody has asked
    say(two, REQUEST | TEXT)
    assert flags(one) == REQUEST | TEXT
    provide(one, "Ω ≠ α\r\n".encode() + b"\0")
    is_extended, data = hear(two)
    assert is_extended and int.from_bytes(data[:4], "big") == PROVIDE | TEXT
    text = "Ω ≠ α\r\n".encode() + b"\0"
    assert zlib.decompress(data[4:]) == len(text).to_bytes(4, "big") + text
    say(two, REQUEST | TEXT)  # once more: it is known here now
    hear(two)
    quiet(setup, one)


def test_an_old_viewer_gets_what_an_extended_one_cuts_as_far_as_it_can(setup: Setup) -> None:
    one, two = extended(setup), setup.client()
    say(one, NOTIFY | TEXT)
    assert flags(one) == REQUEST | TEXT
    provide(one, "é Ω".encode() + b"\0")
    assert hear(two) == (False, b"\xe9 ?")


def test_peek_says_whether_there_is_text(setup: Setup) -> None:
    one, two = extended(setup), setup.client()
    say(one, PEEK)
    assert flags(one) == NOTIFY
    cut(two, b"x")
    assert flags(one) == NOTIFY | TEXT
    say(one, PEEK)
    assert flags(one) == NOTIFY | TEXT


def test_a_viewer_that_goes_takes_what_it_has_not_told_with_it(setup: Setup) -> None:
    one, two = extended(setup), extended(setup)
    say(one, NOTIFY | TEXT)
    flags(two)
    one.peer.close()
    setup.turn(3)
    say(two, REQUEST | TEXT)
    quiet(setup, two)


def test_a_bomb_of_zeroes_is_not_unpacked(setup: Setup) -> None:
    one, two = extended(setup), extended(setup)
    provide(one, bytes(64 << 20), size=0xFFFFFFFF)
    provide(one, bytes(64 << 20), size=64 << 20)
    provide(one, b"short", size=500)
    say(one, PROVIDE | TEXT, b"no deflate")
    quiet(setup, two)
    cut(one, b"alive")
    assert flags(two) == NOTIFY | TEXT


def test_text_of_four_gigabytes_is_read_past(setup: Setup) -> None:
    one, two = setup.client(), setup.client()
    one.send(struct.pack(">B3xi", 6, 0x7FFFFFFF) + b"x" * 100000)
    one.peer.close()
    quiet(setup, two)
    three = setup.client()
    three.send(struct.pack(">B3xi", 6, -0x80000000) + b"x" * 100000)
    quiet(setup, two)


def test_a_viewer_that_reads_nothing_is_told_only_so_much(setup: Setup) -> None:
    deaf, one = setup.client(), setup.client()
    message = struct.pack(">B3xi", 6, MOST_TEXT - 1) + b"x" * (MOST_TEXT - 1)
    for _ in range(12):
        left = message
        while left:
            try:
                left = left[one.peer.send(left) :]
            except BlockingIOError:
                setup.turn()
    setup.turn(40)
    assert len(setup.server.clients) == 2
    waiting = max(client.stream.waiting for client in setup.server.clients)
    assert waiting < 8 << 20
    deaf.peer.close()


@pytest.mark.parametrize("seed", range(4))
def test_nonsense_harms_nobody(setup: Setup, seed: int) -> None:
    rng = random.Random(seed)
    one, two = extended(setup), extended(setup)
    for _ in range(150):
        say(one, rng.getrandbits(32), rng.randbytes(rng.randrange(40)))
        say(two, 1 << rng.randrange(24, 29) | rng.randrange(4), rng.randbytes(rng.randrange(9)))
        setup.turn()
    assert len(setup.server.clients) == 2


def test_the_clipboard_asks_its_owner_once_for_all() -> None:
    heard: list[tuple[str, str]] = []

    class Peer:
        def __init__(self, name: str) -> None:
            self.name = name

        def offered(self) -> None:
            heard.append((self.name, "offered"))

        def given(self, text: str) -> None:
            heard.append((self.name, text))

        def wanted(self) -> None:
            heard.append((self.name, "wanted"))

    clipboard = Clipboard()
    peers = [Peer(name) for name in "abc"]
    for peer in peers:
        clipboard.join(peer)
    clipboard.grab(peers[0])
    clipboard.ask(peers[1])
    clipboard.ask(peers[2])
    clipboard.tell(peers[0], "text")
    assert heard == [("b", "offered"), ("c", "offered"), ("a", "wanted"), ("b", "text"), ("c", "text")]
    clipboard.tell(peers[0], "x" * (MOST_TEXT + 1))
    assert clipboard.text == "text"
