"""Where a VNC server listens and whom it lets in: families of addresses, viewers that dawdle, anonymous TLS, wss, keys
that come faster than a guest reads.
"""

from __future__ import annotations

import os
import pathlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.unit.ui.rfb import Rfb
from tests.unit.ui.test_vnc import Setup
from tests.unit.ui.test_vnc_tls import Secure, certificate, exactly  # noqa: F401  certificate is a fixture
from vmrun.backends.objects.tls import AnonymousCreds
from vmrun.errors import BackendError
from vmrun.ui.vnc.keyqueue import MOST_KEYS, KeyQueue


def six() -> bool:
    """Whether the host has IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("settings", "families"),
    [
        ({}, ["ipv4", "ipv6"]), ({"ipv4": True}, ["ipv4"]), ({"ipv6": True}, ["ipv6"]), ({"ipv4": False}, ["ipv6"]),
        ({"ipv6": False}, ["ipv4"]), ({"ipv4": True, "ipv6": True}, ["ipv4", "ipv6"]),
        ({"ipv4": True, "ipv6": False}, ["ipv4"]),
    ],
)  # fmt: skip
def test_a_display_alone_is_at_all_addresses_of_the_wanted_families(
    tmp_path: pathlib.Path, settings: dict[str, bool], families: list[str]
) -> None:
    if not six():
        families = [family for family in families if family != "ipv6"]
    if not families:
        return
    setup = Setup(tmp_path, listen=":70", to=900, **settings)
    try:
        assert [family for _, _, family in setup.server.addresses] == families
        for _, service, family in setup.server.addresses:
            peer = socket.create_connection(("127.0.0.1" if family == "ipv4" else "::1", int(service)))
            setup.peers.append(peer)
            Rfb(peer, setup.turn).connect()
        assert [row["family"] for row in setup.server.info2()["server"]] == families
        assert sorted(row["family"] for row in setup.server.info()["clients"]) == families
    finally:
        setup.close()


def test_a_port_that_one_family_has_taken_is_taken(tmp_path: pathlib.Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        display = other.getsockname()[1] - 5900
        other.listen(1)
        with pytest.raises(BackendError, match="in use"):
            Setup(tmp_path, listen=f"localhost:{display}")


def test_the_socket_of_another_program_stays_when_it_is_in_the_way(tmp_path: pathlib.Path) -> None:
    first = Setup(tmp_path)
    try:
        with pytest.raises(BackendError, match="in use"):
            Setup(tmp_path)
        assert os.path.exists(first.path)
        other = Setup(tmp_path, listen="127.0.0.1:70", to=900)
        with pytest.raises(BackendError, match="in use"):
            other.server.move([(f"unix:{first.path}", 0)])
        assert os.path.exists(first.path)
        other.close()
    finally:
        first.close()


def test_reverse_takes_any_port(tmp_path: pathlib.Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        setup = Setup(tmp_path, listen=f"localhost:{port}", reverse=True)
        try:
            peer, _ = listener.accept()
            setup.peers.append(peer)
            Rfb(peer, setup.turn).connect()
        finally:
            setup.close()
    with pytest.raises(BackendError, match="no viewer listens"):
        Setup(tmp_path, listen=f"127.0.0.1:{port}", reverse=True)


def test_who_dawdles_makes_room_for_others(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, connections=3)
    try:
        inside = setup.client()
        slow = [setup.peer() for _ in range(9)]
        setup.turn(12)
        assert len(setup.server.clients) == 4
        assert slow[-1].read(12) == b"RFB 003.008\n"
        gone = [peer for peer in slow if _ended(peer)]
        assert gone == slow[:6]
        setup.client()
        assert not _ended(inside)
    finally:
        setup.close()


def _ended(client: Rfb) -> bool:
    try:
        while client.peer.recv(4096):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("ciphers", ["AECDH:ADH", "ADH"])  # gtk-vnc's know no curves
def test_anonymous_tls_encrypts_without_certificates(
    ciphers: str, tmp_path: pathlib.Path, certificate: pathlib.Path  # noqa: F811
) -> None:
    setup = Secure(tmp_path, certificate)
    try:
        creds, other = AnonymousCreds("a"), AnonymousCreds("b")
        creds.endpoint = "server"
        for each in (creds, other):
            each.complete(None)  # type: ignore[arg-type]
        assert not [row for row in creds.context.get_ciphers() if "NULL" in row["name"]]
        other.context.set_ciphers(f"{ciphers}:@SECLEVEL=0")
        setup.server.tls, setup.server.anonymous = creds.context, True

        def talk(peer: socket.socket) -> tuple[bytes, str | None]:
            exactly(peer, 12)
            peer.sendall(b"RFB 003.008\n")
            assert exactly(peer, 2) == b"\1\x13"
            peer.sendall(b"\x13")
            exactly(peer, 2)
            peer.sendall(b"\0\2")
            assert exactly(peer, 6) == b"\0\1" + (257).to_bytes(4, "big")
            peer.sendall((257).to_bytes(4, "big"))
            assert exactly(peer, 1) == b"\1"
            secure = other.context.wrap_socket(peer)
            assert exactly(secure, 4) == bytes(4)
            secure.sendall(b"\1")
            cipher = secure.cipher()
            return exactly(secure, 34), cipher[0] if cipher else None

        hello, cipher = setup.run(talk)
        assert hello.endswith(b"QEMU (lab)") and cipher is not None and cipher.startswith(("AECDH", "ADH"))
        assert setup.server.info()["auth"] == "vencrypt+tls+none"
        assert setup.server.info2()["vencrypt"] == "tls-none"
    finally:
        setup.close()


def test_a_websocket_of_a_server_with_tls_is_inside_of_tls(
    tmp_path: pathlib.Path, certificate: pathlib.Path  # noqa: F811
) -> None:
    setup = Secure(tmp_path, certificate, websocket="127.0.0.1:0")
    try:
        def talk(peer: socket.socket) -> bytes:
            plain = socket.create_connection(("127.0.0.1", int(setup.server.websockets[0][1])), 20)
            setup.peers.append(plain)
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            secure = context.wrap_socket(plain)
            secure.sendall(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += exactly(secure, 1)
            assert head.startswith(b"HTTP/1.1 101")
            return exactly(secure, 14)

        assert setup.run(talk) == b"\x82\x0cRFB 003.008\n"
        assert [row["auth"] for row in setup.server.info2()["server"]] == ["vencrypt", "none"]
    finally:
        setup.close()


# --- keys ---------------------------------------------------------------------------------------------------------


class Clock:
    """A loop whose time the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.todo: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, callback: Any) -> Any:
        entry = (self.now + seconds, callback)
        self.todo.append(entry)
        return type("Delay", (), {"cancel": lambda _: self.todo.remove(entry)})()

    def pass_(self, seconds: float) -> None:
        end = self.now + seconds
        while self.todo and min(at for at, _ in self.todo) <= end:
            entry = min(self.todo, key=lambda entry: entry[0])
            self.todo.remove(entry)
            self.now = entry[0]
            entry[1]()
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: found.now)
    yield found


def test_keys_wait_until_the_guest_has_read_the_last_one(clock: Clock) -> None:
    pressed: list[int] = []
    hungry = True
    queue = KeyQueue(clock, 0.01, lambda: hungry)  # type: ignore[arg-type]
    for keysym in range(20):
        assert queue.put(partial(pressed.append, keysym))
    assert pressed == [0]
    clock.pass_(0.051)
    assert pressed == [0, 1, 2, 3, 4, 5]
    hungry = False
    clock.pass_(0.3)
    assert len(pressed) == 6
    clock.pass_(0.3)  # a guest that reads nothing: the keyboard gets them all the same
    assert len(pressed) == 7
    hungry = True
    clock.pass_(1)
    assert pressed == list(range(20)) and not clock.todo


def test_without_a_delay_nothing_waits(clock: Clock) -> None:
    pressed: list[int] = []
    queue = KeyQueue(clock, 0, lambda: False)  # type: ignore[arg-type]
    for keysym in range(20):
        assert queue.put(partial(pressed.append, keysym))
    assert pressed == list(range(20)) and not clock.todo


def test_a_full_queue_drops_keys_and_lets_go_all_the_same(clock: Clock) -> None:
    pressed: list[int] = []
    queue = KeyQueue(clock, 0.01, lambda: True)  # type: ignore[arg-type]
    taken = [queue.put(partial(pressed.append, number)) for number in range(MOST_KEYS + 10)]
    assert taken == [True] * (MOST_KEYS + 1) + [False] * 9  # the first one was pressed at once
    assert queue.put(partial(pressed.append, -1), always=True)
    clock.pass_(MOST_KEYS)
    assert pressed == [*range(MOST_KEYS + 1), -1]


def test_a_closed_queue_presses_nothing_more_and_lets_go_at_once(clock: Clock) -> None:
    pressed: list[int] = []
    queue = KeyQueue(clock, 0.01, lambda: True)  # type: ignore[arg-type]
    for number in range(3):
        queue.put(partial(pressed.append, number))
    queue.close()
    queue.put(partial(pressed.append, -1), always=True)
    assert pressed == [0, -1] and not clock.todo


def test_what_viewers_typed_is_pressed_in_order_when_they_have_gone(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, **{"key-delay-ms": 10})
    try:
        for text in ("abc", "de"):  # as programs do that type and hang up; the last key of each is never let go
            client = setup.client()
            for letter in text:
                client.key(ord(letter), True)
                if letter != text[-1]:
                    client.key(ord(letter), False)
            client.peer.close()
        wanted = [(letter, down) for letter in "abcde" for down in (True, False)]
        for _ in range(1000):
            if len(setup.hands.heard) == len(wanted):
                break
            setup.turn()
        assert setup.hands.heard == wanted and not setup.server.clients
    finally:
        setup.close()


def test_a_viewer_of_extended_keys_that_leaves_lets_go_of_them(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path)
    try:
        client = setup.client()
        client.peer.sendall(struct.pack(">BBHII", 255, 0, 1, 0xFFE3, 0x1D))
        setup.turn(2)
        client.peer.close()
        setup.turn(2)
        assert setup.hands.heard == [("ctrl", True), ("ctrl", False)]
    finally:
        setup.close()
