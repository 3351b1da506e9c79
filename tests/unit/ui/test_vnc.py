"""The VNC server against a client written from the RFC: handshake, encodings, input, policy, hostile peers."""

from __future__ import annotations

import base64
import hashlib
import os
import pathlib
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from accel.api import DeviceLock

from tests.unit.ui.rfb import HEXTILE, RAW, TIGHT, ZLIB, ZRLE, Rfb
from vmrun.core.console import Console, Cursor
from vmrun.core.input import InputRouter, InputSink
from vmrun.core.loop import Loop
from vmrun.core.surface import Scanout, Surface
from vmrun.errors import BackendError
from vmrun.machine.keyboards import load
from vmrun.ui.vnc import server as server_module
from vmrun.ui.vnc.client import MOST_OUTPUT
from vmrun.ui.vnc.server import VncServer, cipher

RGB = (255, 255, 255), (16, 8, 0)


class Painter(Scanout):
    """Draws what a test wants: `paint(surface)` at each look."""

    def __init__(self) -> None:
        self.size = (100, 70)
        self.paint: Any = lambda surface: None
        self.looks = 0

    def update(self, surface: Surface, full: bool, log: object = None) -> None:
        self.looks += 1
        surface.resize(*self.size)
        self.paint(surface)


class Memory:
    def log_dirty(self, block: object, on: bool) -> None: ...
    def sync_dirty(self, block: object) -> None: ...
    def drain(self) -> int:
        return 0


class Hands(InputSink):
    def __init__(self, *kinds: str) -> None:
        self.kinds = frozenset(kinds)
        self.heard: list[tuple[object, ...]] = []

    def key(self, qcode: str, down: bool) -> None:
        self.heard.append((qcode, down))

    def move(self, dx: int, dy: int) -> None:
        self.heard.append(("move", dx, dy))

    def position(self, x: int, y: int) -> None:
        self.heard.append(("at", x, y))

    def button(self, name: str, down: bool) -> None:
        self.heard.append((name, down))


class Setup:
    def __init__(self, path: pathlib.Path, **settings: Any) -> None:
        self.lock = DeviceLock()
        self.loop = Loop(self.lock)
        self.painter = Painter()
        self.console = Console(None, self.painter, Memory())
        self.input = InputRouter(self.lock)
        self.hands = Hands("key", "rel")
        self.input.add(self.hands)
        self.events: list[str] = []
        self.path = str(path / "vnc")
        settings.setdefault("listen", f"unix:{self.path}")
        settings.setdefault("key-delay-ms", 0)
        self.server = VncServer(
            settings, "lab", self.console, self.input, self.loop, load(), lambda event, data: self.events.append(event),
            power=lambda button: self.events.append(button),
        )
        self.peers: list[socket.socket] = []

    def peer(self) -> Rfb:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        self.peers.append(connection)
        return Rfb(connection, self.turn)

    def client(self, *encodings: int, **more: Any) -> Rfb:
        client = self.peer()
        client.connect(**more)
        if encodings:
            client.encodings(*encodings)
        return client

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.run_once(0.02)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def setup(tmp_path: pathlib.Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    yield found
    found.close()


def picture(seed: int, colours: int) -> Any:
    """Paints runs and blocks of `colours` colours once."""
    rng = random.Random(seed)
    palette = [rng.randrange(1 << 24) for _ in range(colours)]
    shapes = [
        (rng.randrange(140), rng.randrange(80), rng.randint(1, 40), rng.randint(1, 9), rng.choice(palette))
        for _ in range(3 * colours)
    ]

    def paint(surface: Surface) -> None:
        for shape in shapes:
            surface.fill(*shape)

    return paint


def shown(setup: Setup) -> dict[tuple[int, int], int]:
    surface = setup.console.surface
    return {(x, y): surface.pixel(x, y) for y in range(surface.height) for x in range(surface.width)}


@pytest.mark.parametrize("encoding", [RAW, HEXTILE, ZLIB, TIGHT, ZRLE])
@pytest.mark.parametrize("colours", [1, 2, 3, 9, 60, 200, 1000])
def test_every_encoding_shows_the_screen_exactly(setup: Setup, encoding: int, colours: int) -> None:
    setup.painter.size, setup.painter.paint = (150, 83), picture(colours, colours)
    client = setup.client(encoding)
    client.update()
    assert client.pixels == shown(setup)
    setup.painter.paint = lambda surface: surface.fill(70, 20, 21, 30, 0xABCDEF)
    client.update(1)
    assert client.pixels == shown(setup)


@pytest.mark.parametrize("encoding", [RAW, HEXTILE, ZLIB, TIGHT, ZRLE])
@pytest.mark.parametrize(
    ("bits", "depth", "big", "most", "shift"),
    [
        (32, 24, 1, *RGB),
        (32, 24, 0, (255, 255, 255), (0, 8, 16)),
        (32, 24, 0, (255, 255, 255), (24, 16, 8)),
        (32, 24, 1, (255, 255, 255), (24, 16, 8)),
        (16, 16, 0, (31, 63, 31), (11, 5, 0)),
        (16, 15, 1, (31, 31, 31), (10, 5, 0)),
        (8, 8, 0, (7, 7, 3), (0, 3, 6)),
    ],
)
def test_every_pixel_format_is_served(
    setup: Setup, encoding: int, bits: int, depth: int, big: int, most: Any, shift: Any
) -> None:
    setup.painter.paint = picture(5, 40)
    client = setup.client(encoding)
    client.format(bits, depth, big, most, shift)
    client.update()
    steps = [m + 1 for m in most]

    def seen(pixel: int) -> int:
        parts = [(pixel >> s & 255) * n >> 8 for s, n in zip((16, 8, 0), steps, strict=True)]
        red, green, blue = (part * 255 // m for part, m in zip(parts, most, strict=True))
        return red << 16 | green << 8 | blue

    assert client.pixels == {at: seen(pixel) for at, pixel in shown(setup).items()}


def test_a_client_with_a_colour_map_gets_one(setup: Setup) -> None:
    client = setup.client(RAW)
    client.send(struct.pack(">B3x4B3H3B3x", 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0))
    client.bits, client.depth, client.most, client.shift = 8, 8, (7, 7, 3), (0, 3, 6)
    client.update()
    assert len(client.palette) == 256 * 6 and client.palette[6 * 255 :] == b"\xff" * 6


def photograph(surface: Surface) -> None:
    rng = random.Random(2)
    for x in range(100):
        for y in range(70):
            surface.fill(x, y, 1, 1, (x * 2) << 16 | (y * 3) << 8 | rng.randrange(8))


def worst(setup: Setup, client: Rfb) -> int:
    """The greatest difference of a colour between the screen and what the client has."""
    return max(
        abs((a >> s & 255) - (b >> s & 255))
        for (at, a) in client.pixels.items()
        for b in (setup.console.surface.pixel(*at),)
        for s in (16, 8)
    )


def test_without_lossy_a_photograph_is_exact_whatever_quality_is_named(setup: Setup) -> None:
    setup.painter.paint = photograph
    client = setup.client(TIGHT, -23)
    client.update()
    assert worst(setup, client) == 0


@pytest.mark.parametrize("adaptive", [True, False])
def test_with_lossy_photographs_go_as_jpeg_and_exactly_once_they_stand_still(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, adaptive: bool
) -> None:
    setup = Setup(tmp_path, lossy=True, **({} if adaptive else {"non-adaptive": True}))
    try:
        setup.painter.paint = photograph
        client = setup.client(TIGHT, -23)
        client.update()
        assert 0 < worst(setup, client) < 24
        setup.painter.paint = lambda surface: None
        monkeypatch.setattr("vmrun.ui.vnc.client.QUIET", 0.0)
        client.ask(1)
        if adaptive:
            client.receive()
            assert worst(setup, client) == 0
            client.ask(1)
        setup.turn(30)
        with pytest.raises(BlockingIOError):
            client.peer.recv(1)
    finally:
        setup.close()


@pytest.mark.parametrize("version", [b"RFB 003.003\n", b"RFB 003.007\n", b"RFB 003.008\n"])
def test_each_version_of_the_protocol_is_spoken(setup: Setup, version: bytes) -> None:
    client = setup.client(version=version)
    assert (client.width, client.height, client.name) == (100, 70, "QEMU (lab)")
    assert setup.events == ["VNC_CONNECTED", "VNC_INITIALIZED"]


def test_an_update_waits_until_something_changes(setup: Setup) -> None:
    client = setup.client(RAW)
    client.update()
    client.ask(1)
    setup.turn(5)
    with pytest.raises(BlockingIOError):
        client.peer.recv(1)
    setup.painter.paint = lambda surface: surface.fill(3, 3, 1, 1, 9)
    assert client.receive() == [(0, 3, 16, 1)]


def test_nobody_waiting_means_no_timer(setup: Setup) -> None:
    client = setup.client(RAW)
    client.update()
    setup.turn(3)
    looks = setup.painter.looks
    setup.turn(5)
    assert setup.painter.looks == looks


def test_another_size_is_told_in_the_clients_words(setup: Setup) -> None:
    extended, plain = setup.client(RAW, -308, -223), setup.client(RAW, -223)
    extended.update(), plain.update()
    setup.painter.size = (64, 48)
    extended.update(1), plain.update(1)
    assert extended.heard[-1][0] == -308 and plain.heard[-1] == (-223, (0, 0, 64, 48), b"")
    assert (extended.width, plain.width) == (64, 64)


def test_a_client_that_cannot_follow_another_size_is_left(setup: Setup) -> None:
    client = setup.client(RAW)
    client.update()
    setup.painter.size = (64, 48)
    with pytest.raises(EOFError):
        client.update(1)


def test_a_wish_for_another_size_is_declined(setup: Setup) -> None:
    client = setup.client(RAW, -308)
    client.send(struct.pack(">BxHHBx", 251, 800, 600, 1) + bytes(16))
    client.receive()
    assert client.heard[-1][:2] == (-308, (1, 1, 100, 70))


def test_the_adapters_cursor_is_drawn_by_the_client(setup: Setup) -> None:
    client = setup.client(RAW, -239)
    setup.console.define_cursor(Cursor(2, 1, 1, 0, bytes((1, 2, 3, 255, 4, 5, 6, 0))))
    client.update()
    assert client.heard == [(-239, (1, 0, 2, 1), bytes((1, 2, 3, 0, 4, 5, 6, 0, 0x80)))]


# --- input ------------------------------------------------------------------------------------------------------------


def test_keysyms_become_keys_with_the_shift_they_need(setup: Setup) -> None:
    client = setup.client()
    client.key(ord("!"), True)
    client.key(ord("!"), False)
    client.key(0xFF0D, True)
    client.key(0xFF0D, False)
    setup.turn(3)
    heard = [("shift", True), ("1", True), ("shift", False), ("1", False), ("ret", True), ("ret", False)]
    assert setup.hands.heard == heard


def test_shift_that_is_held_stays_held(setup: Setup) -> None:
    client = setup.client()
    for keysym in (0xFFE1, ord("A"), ord("1")):
        client.key(keysym, True)
    setup.turn(3)
    assert setup.hands.heard == [
        ("shift", True), ("a", True), ("shift", False), ("1", True), ("shift", True),
    ]  # fmt: skip


def test_caps_lock_of_the_guest_turns_the_shift_of_letters(setup: Setup) -> None:
    client = setup.client()
    client.key(ord("A"), True)
    setup.turn(2)
    assert setup.hands.heard == [("shift", True), ("a", True), ("shift", False)]
    setup.hands.heard.clear()
    setup.hands.leds = lambda: 4  # type: ignore[method-assign]
    client.key(ord("B"), True)
    client.key(ord("c"), True)
    setup.turn(2)
    assert setup.hands.heard == [("b", True), ("shift", True), ("c", True), ("shift", False)]


@pytest.mark.parametrize(
    "layout, pressed, heard",
    [
        ("de", [ord("z")], [("y", True)]),
        ("de", [ord("@")], [("alt_r", True), ("q", True), ("alt_r", False)]),
        ("de", [0xFE03, ord("@")], [("alt_r", True), ("q", True)]),
        ("de", [0xE9], [("equal", True), ("equal", False), ("e", True)]),
        ("fr", [ord("1")], [("shift", True), ("1", True), ("shift", False)]),
        ("fr", [0xFFE1, ord("1")], [("shift", True), ("1", True)]),
        ("ru", [0x6CA], [("q", True)]),
        ("en-us", [0xFE03, ord("@")], [
            ("alt_r", True), ("shift", True), ("alt_r", False), ("2", True), ("alt_r", True), ("shift", False)]),
        ("en-us", [0xFFEA, ord("x")], [("alt_r", True), ("x", True)]),
    ],
)  # fmt: skip
def test_keysyms_become_keys_of_the_layout(setup: Setup, layout: str, pressed: list[int], heard: list[Any]) -> None:
    setup.server.layout = load(layout)
    client = setup.client()
    for keysym in pressed:
        client.key(keysym, True)
    setup.turn(3)
    assert setup.hands.heard == heard


def test_extended_key_events_name_the_key_itself(setup: Setup) -> None:
    client = setup.client(RAW, -258)
    setup.turn(3)
    assert not client.peek()  # a second message behind one would be lost on libvncclient's programs
    assert client.update() and client.heard == [(-258, (0, 0, 0, 0), b"")]
    client.send(struct.pack(">BBHII", 255, 0, 1, ord("z"), 0x15) + struct.pack(">BBHII", 255, 0, 1, 0, 0xE01C))
    setup.turn(3)
    assert setup.hands.heard == [("y", True), ("kp_enter", True)]


def test_a_mouse_is_moved_by_the_difference(setup: Setup) -> None:
    client = setup.client()
    client.pointer(0, 10, 10)
    setup.turn(2)
    setup.hands.heard.clear()
    client.pointer(1, 13, 9)
    client.pointer(8, 13, 9)
    setup.turn(2)
    assert setup.hands.heard == [
        ("move", 3, -1), ("left", True), ("move", 0, 0), ("left", False), ("wheel-up", True),
    ]  # fmt: skip


def test_a_tablet_gets_positions(setup: Setup) -> None:
    tablet = Hands("abs")
    setup.input.add(tablet)
    setup.input.activate(tablet)
    client = setup.client()
    client.pointer(0, 99, 0)
    setup.turn(2)
    assert tablet.heard == [("at", 0x7FFF, 0)]


def test_a_client_that_leaves_lets_go_of_its_keys_and_buttons(setup: Setup) -> None:
    client = setup.client()
    client.key(ord("a"), True)
    client.pointer(1, 0, 0)
    setup.turn(2)
    client.peer.close()
    setup.turn(2)
    assert setup.hands.heard[-2:] == [("a", False), ("left", False)]
    assert setup.events[-1] == "VNC_DISCONNECTED"


# --- who may look -----------------------------------------------------------------------------------------------------


def secret(password: bytes) -> Any:
    return lambda challenge: cipher(password, challenge)


def test_the_cipher_is_des_with_a_mirrored_key() -> None:
    # the worked example of DES in most textbooks: key 133457799bbcdff1, here with the bits of each byte the other way
    key = bytes(int(f"{byte:08b}"[::-1], 2) for byte in bytes.fromhex("133457799bbcdff1"))
    assert cipher(key, bytes.fromhex("0123456789abcdef") * 2).hex() == "85e813540f0ab405" * 2
    assert cipher(b"COW", bytes(16)) == cipher(b"COW\0\0\0\0\0", bytes(16))


def test_a_password_lets_in_who_knows_it(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, password=True)
    try:
        with pytest.raises(PermissionError, match="Authentication failed"):
            setup.client(answer=secret(b"anything"))
        setup.server.set_password("secret")
        with pytest.raises(PermissionError):
            setup.client(answer=secret(b"wrong"))
        assert setup.client(answer=secret(b"secret")).width == 100
        setup.server.expires = 1.0
        with pytest.raises(PermissionError):
            setup.client(answer=secret(b"secret"))
    finally:
        setup.close()


def test_a_guesser_is_kept_waiting(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, password=True)
    setup.server.set_password("secret")
    try:
        for _ in range(5):
            with pytest.raises(PermissionError, match="Authentication failed"):
                setup.client(answer=secret(b"guess"))
        with pytest.raises(PermissionError, match="try again later"):
            setup.client(answer=secret(b"secret"))
    finally:
        setup.close()


def test_a_client_that_wants_the_screen_for_itself_gets_it(setup: Setup) -> None:
    first = setup.client()
    setup.client(shared=0)
    with pytest.raises(EOFError):
        first.read(1)


def test_force_shared_refuses_such_a_client(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, share="force-shared")
    try:
        first = setup.client(RAW)
        with pytest.raises(EOFError):
            setup.client(shared=0)
        first.update()
    finally:
        setup.close()


# --- listening --------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named_and_to_finds_the_next(tmp_path: pathlib.Path) -> None:
    first = Setup(tmp_path, listen="127.0.0.1:77", to=170)
    try:
        display = int(first.server.address[1]) - 5900
        with pytest.raises(BackendError, match=f"127.0.0.1:{5900 + display}.*in use"):
            Setup(tmp_path, listen=f"127.0.0.1:{display}")
        second = Setup(tmp_path, listen=f"127.0.0.1:{display}", to=display + 50)
        assert int(second.server.address[1]) > 5900 + display
        second.close()
    finally:
        first.close()


@pytest.mark.parametrize("listen", ["", "nonsense", ":x", ":-1", ":99999", "300.1.2.3:0"])
def test_an_address_that_is_none_is_refused_in_words(tmp_path: pathlib.Path, listen: str) -> None:
    if listen:
        with pytest.raises(BackendError, match="vnc"):
            Setup(tmp_path, listen=listen)


def test_a_socket_file_is_taken_over_when_stale_and_removed_at_the_end(tmp_path: pathlib.Path) -> None:
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(tmp_path / "vnc"))
    left.close()
    setup = Setup(tmp_path)
    with pytest.raises(BackendError, match="in use"):
        Setup(tmp_path)
    setup.close()
    assert not os.path.exists(setup.path)


def test_reverse_calls_a_viewer(tmp_path: pathlib.Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "viewer"))
        listener.listen(1)
        setup = Setup(tmp_path, listen=f"unix:{tmp_path / 'viewer'}", reverse=True)
        try:
            peer, _ = listener.accept()
            setup.peers.append(peer)
            client = Rfb(peer, setup.turn)
            client.connect()
            assert client.width == 100
        finally:
            setup.close()


@pytest.mark.parametrize(
    ("families", "hosts"),
    [({}, {"0.0.0.0", "::"}), ({"ipv4": True}, {"0.0.0.0"}), ({"ipv6": False}, {"0.0.0.0"}), ({"ipv6": True}, {"::"})],
)
def test_a_display_without_a_host_is_at_all_addresses_of_the_families(
    tmp_path: pathlib.Path, families: dict[str, bool], hosts: set[str]
) -> None:
    if not socket.has_dualstack_ipv6():
        hosts = hosts - {"::"} or {"none"}
    if hosts == {"none"}:
        with pytest.raises(BackendError):
            Setup(tmp_path, listen=":40", to=9000, **families)
        return
    setup = Setup(tmp_path, listen=":40", to=9000, **families)
    try:
        names = [listener.getsockname() for listener, _ in setup.server.listeners]
        assert {name[0] for name in names} == hosts
        assert len({name[1] for name in names}) == 1
    finally:
        setup.close()


def test_an_address_of_another_family_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(BackendError, match="no address of the family"):
        Setup(tmp_path, listen="127.0.0.1:40", to=9000, ipv4=False)


def test_a_websocket_carries_the_same(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, websocket="127.0.0.1:0")
    try:
        assert setup.server.websockets
        peer = socket.create_connection(("127.0.0.1", int(setup.server.websockets[0][1])))
        setup.peers.append(peer)
        key = base64.b64encode(b"0123456789abcdef")
        peer.sendall(
            b"GET /websockify HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Key: " + key
            + b"\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
        )
        client = Rfb(peer, setup.turn)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.read(1)
        guid = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        assert base64.b64encode(hashlib.sha1(key + guid).digest()) in head
        assert client.read(14) == b"\x82\x0cRFB 003.008\n"
        mask = b"\1\2\3\4"
        payload = bytes(byte ^ mask[n % 4] for n, byte in enumerate(b"RFB 003.008\n"))
        peer.sendall(b"\x82\x8c" + mask + payload)
        assert client.read(4) == b"\x82\x02\1\1"
    finally:
        setup.close()


# --- hostile peers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\0" * 12,
        b"RFB 003.008\n\x13",
        b"RFB 003.008\n\1\1" + b"\x09",
        b"RFB 003.008\n\1\1" + struct.pack(">BxH", 2, 65535),
        b"RFB 003.008\n\1\1" + struct.pack(">B3x4B3H3B3x", 0, 24, 24, 0, 1, 255, 255, 255, 0, 8, 16),
        b"RFB 003.008\n\1\1" + struct.pack(">B3x4B3H3B3x", 0, 16, 16, 0, 1, 255, 255, 255, 0, 8, 16),
        b"RFB 003.008\n\1\1" + struct.pack(">B3x4B3H3B3x", 0, 32, 24, 0, 1, 0, 255, 255, 0, 8, 16),
        b"RFB 003.008\n\1\1" + b"\xff\x07" + bytes(10),
    ],
)
def test_a_client_that_breaks_the_protocol_is_left(setup: Setup, data: bytes) -> None:
    client = setup.peer()
    client.send(data)
    with pytest.raises((EOFError, ConnectionResetError)):
        client.read(1 << 20)
    assert setup.server.clients == []


def test_four_gigabytes_of_cut_text_are_not_kept(setup: Setup) -> None:
    client = setup.client(RAW)
    client.send(struct.pack(">BxxxI", 6, 0x7FFFFFFF))
    for _ in range(20):
        client.send(bytes(32768))
        setup.turn()
    assert len(setup.server.clients[0]._input) <= 65536


def test_a_client_that_does_not_read_makes_nothing_grow(setup: Setup) -> None:
    setup.painter.size = (1024, 1024)
    rng = random.Random(3)
    client = setup.client(RAW)
    for _ in range(40):
        client.ask(0)
        setup.painter.paint = lambda surface: surface.fill(0, 0, 1024, 1024, rng.randrange(1 << 24))
        setup.turn()
    assert setup.server.clients[0].stream.waiting <= MOST_OUTPUT + (5 << 20)


def test_a_thousand_guesses_are_hardly_looked_at(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = Setup(tmp_path, password=True)
    try:
        now = [1000.0]
        monkeypatch.setattr(server_module.time, "monotonic", lambda: now[0])
        setup.server.set_password("geheim")
        answers = []
        for n in range(1000):
            now[0] += 0.01  # ten seconds in all
            answers.append(setup.server.check_password(bytes(16), cipher(b"%08d" % n, bytes(16))))
        assert answers.count("Authentication failed") <= 30 and "" not in answers
        now[0] += 3
        assert setup.server.check_password(bytes(16), cipher(b"geheim", bytes(16))) == ""
    finally:
        setup.close()


def test_fifty_clients_see_the_same_and_go(setup: Setup) -> None:
    setup.painter.paint = lambda surface: surface.fill(3, 4, 50, 30, 0x123456)
    clients = [setup.client(ZRLE) for _ in range(50)]
    for client in clients:
        client.update()
        assert client.pixels == clients[0].pixels
    for client in clients[1:]:
        client.peer.close()
    setup.turn(60)
    assert len(setup.server.clients) == 1
    setup.painter.paint = lambda surface: surface.fill(0, 0, 9, 9, 0x654321)
    clients[0].update(1)
    assert clients[0].pixels[(8, 8)] == 0x654321


def test_the_machines_buttons_where_they_are_given_away(tmp_path: pathlib.Path) -> None:
    setup = Setup(tmp_path, **{"power-control": True})
    try:
        client = setup.client(RAW, -309)
        assert client.read(4) == bytes((250, 0, 1, 1))
        client.send(bytes((250, 0, 1, 2, 250, 0, 1, 4, 250, 0, 1, 3)))
        assert client.read(4) == bytes((250, 0, 1, 0))  # reboot is no button
        assert setup.events[-2:] == ["powerdown", "reset"]
    finally:
        setup.close()


def test_the_machines_buttons_are_nobodys_otherwise(setup: Setup) -> None:
    client = setup.client(RAW, -309)
    client.send(bytes((250, 0, 1, 4)))
    with pytest.raises(EOFError):
        client.read(1 << 20)
    assert "reset" not in setup.events


def test_random_bytes_never_raise(setup: Setup) -> None:
    rng = random.Random(4)
    errors: list[BaseException] = []
    setup.loop.on_error = lambda where, error: errors.append(error)
    for _ in range(60):
        client = setup.peer()
        good = b"RFB 003.008\n\1\1"[: rng.choice((0, 12, 13, 14, 14, 14))]
        kinds = bytes(rng.choice((0, 2, 3, 4, 5, 6, 251, 255, rng.randrange(256))) for _ in range(4))
        client.send(good + b"".join(bytes((kind,)) + rng.randbytes(rng.randrange(24)) for kind in kinds))
        setup.turn(2)
        client.peer.close()
        setup.turn()
    assert errors == []


def test_who_goes_before_he_is_greeted_leaves_nothing_behind(setup: Setup) -> None:
    for _ in range(server_module.MOST_CLIENTS + 1):
        setup.peer().peer.close()
        setup.turn()
    assert not setup.server.clients
    told = [setup.events.count(event) for event in ("VNC_CONNECTED", "VNC_DISCONNECTED")]
    assert told == [server_module.MOST_CLIENTS + 1] * 2
    client = setup.client(RAW)
    client.update()
    assert client.pixels == shown(setup)


def test_what_a_client_said_that_has_gone_is_not_answered(setup: Setup) -> None:
    """All of its handshake is there when the first answer finds nobody: nobody looks at the screen afterwards."""
    for said in (b"RFB 003.008\n", b"RFB 003.008\n\1", b"RFB 003.008\n\1\1", b"RFB 003.003\n\1" + bytes(2000)):
        for _ in range(3):
            client = setup.peer()
            setup.turn()
            client.send(said)
            client.peer.close()
            setup.turn(2)
            assert not setup.server.clients and not setup.console.surface.watched
            assert not setup.server.clipboard.peers
    assert setup.events.count("VNC_DISCONNECTED") == setup.events.count("VNC_CONNECTED")


def test_too_many_clients_are_turned_away(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_CLIENTS", 2)
    setup.client(), setup.client()
    with pytest.raises(EOFError):
        setup.peer().read(1)


@pytest.mark.parametrize(("machine", "title"), [("lab", "QEMU (lab)"), ("", "QEMU")])
def test_a_machine_without_a_name_is_called_qemu(tmp_path: pathlib.Path, machine: str, title: str) -> None:
    found = Setup(tmp_path)
    try:
        found.server.name = machine
        client = found.peer()
        client.connect()
        assert client.name == title
    finally:
        found.close()
