"""Frames through sockets, hubs, segments and taps; peers that speak nonsense or stand still."""

from __future__ import annotations

import os
import pathlib
import select
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from vmrun.backends.net.base import PyCard

from tests.ports import free_port
from tests.unit.net.host import ALL, A, B, C, Card, TestHost, frame, until
from vmrun.errors import BackendError


@pytest.fixture
def host() -> Iterator[TestHost]:
    one = TestHost()
    yield one
    one.close()


def both_ways(host: TestHost, a: Any, b: Any) -> None:
    left, right = Card(host, a), Card(host, b)
    until(lambda: a.connected and b.connected)
    left.send(frame(B, A, b"to the right"))
    right.send(frame(A, B, b"to the left", 1514))
    assert right.wait() == [frame(B, A, b"to the right")]
    assert left.wait() == [frame(A, B, b"to the left", 1514)]


def test_listen_and_connect(host: TestHost) -> None:
    port = free_port()
    a = host.open("a", type="socket", listen=f"127.0.0.1:{port}")
    both_ways(host, a, host.open("b", type="socket", connect=f"127.0.0.1:{port}"))


def test_streams_through_a_path(host: TestHost, tmp_path: pathlib.Path) -> None:
    where = f"unix:{tmp_path}/s"
    both_ways(host, host.open("a", type="stream", server=True, addr=where), host.open("b", type="stream", addr=where))


def test_streams_by_descriptor(host: TestHost) -> None:
    ours, theirs = socket.socketpair()
    a = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    both_ways(host, a, host.open("b", type="socket", fd=theirs.fileno()))
    theirs.detach()


def test_datagrams_through_paths(host: TestHost, tmp_path: pathlib.Path) -> None:
    one, two = f"unix:{tmp_path}/1", f"unix:{tmp_path}/2"
    a = host.open("a", type="dgram", local=one, remote=two)
    both_ways(host, a, host.open("b", type="dgram", local=two, remote=one))


def test_udp(host: TestHost) -> None:
    one, two = (f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}" for _ in range(2))
    a = host.open("a", type="socket", udp=one, localaddr=two)
    both_ways(host, a, host.open("b", type="socket", udp=two, localaddr=one))


def test_streams_and_datagrams_over_ipv6(host: TestHost) -> None:
    port, one, two = free_port(), free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_DGRAM)
    try:
        a = host.open("a", type="stream", server=True, addr=f"inet:[::1]:{port}")
    except BackendError as error:
        pytest.skip(f"no IPv6 on this host: {error}")
    both_ways(host, a, host.open("b", type="stream", addr=f"inet:::1:{port}"))
    c = host.open("c", type="dgram", local=f"inet:[::1]:{one}", remote=f"inet:[::1]:{two}")
    both_ways(host, c, host.open("d", type="dgram", local=f"inet:[::1]:{two}", remote=f"inet:[::1]:{one}"))


def test_datagrams_by_descriptor(host: TestHost) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    a = host.open("a", type="dgram", local=f"fd:{ours.detach()}")
    both_ways(host, a, host.open("b", type="socket", fd=theirs.fileno()))
    theirs.detach()


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_who_reconnects_waits_for_nobody_and_finds_a_peer_that_comes_late_and_again(
    host: TestHost, tmp_path: pathlib.Path, kind: str
) -> None:
    where = f"unix:{tmp_path}/s" if kind == "unix" else f"inet:127.0.0.1:{free_port()}"
    told: list[Any] = []
    host.on_stream = lambda name, peer: told.append((name, peer and peer["type"]))  # type: ignore[attr-defined]
    a = host.open("a", type="stream", addr=where, reconnect=1)
    host.loop.call_soon(lambda: None)  # its thread is another one here: it looks for timers anew
    assert not a.connected
    for n in range(2):
        b = host.open(f"b{n}", type="stream", server=True, addr=where)
        until(lambda: a.connected)
        both_ways(host, a, b)
        b.close()
        until(lambda: not a.connected)
    until(lambda: [row for row in told if row[0] == "a"] == [("a", kind), ("a", None)] * 2)


def test_nobody_waits_for_a_host_that_does_not_answer(host: TestHost) -> None:
    """198.51.100.0/24 is nobody's (RFC 5737): packets to it are lost, or the network is unreachable."""
    a = host.open("a", type="stream", addr="inet:198.51.100.1:9", reconnect=1)
    answered = threading.Event()
    host.loop.call_soon(answered.set)
    assert answered.wait(3)
    a.close()


def test_multicast(host: TestHost) -> None:
    group = f"230.0.0.1:{free_port(socket.SOCK_DGRAM)}"
    try:
        a, b = (host.open(id, type="socket", mcast=group, localaddr="127.0.0.1") for id in "ab")
    except BackendError as error:
        pytest.skip(f"no multicast on this host: {error}")
    left, right = Card(host, a), Card(host, b)
    left.send(frame(B, A, b"to the group"))
    assert right.wait()[0] == frame(B, A, b"to the group") and left is not None


def test_a_peer_that_goes_may_come_again(host: TestHost, tmp_path: pathlib.Path) -> None:
    a = host.open("a", type="stream", server=True, addr=f"unix:{tmp_path}/s")
    card = Card(host, a)
    for n in range(2):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(f"{tmp_path}/s")
            peer.sendall(struct.pack(">I", 60) + frame(A, B, bytes([n])))
            card.wait(n + 1)
        until(lambda: not a.connected)
    assert [one[14] for one in card.frames] == [0, 1]


def test_half_frames_are_put_together(host: TestHost) -> None:
    ours, theirs = socket.socketpair()
    card = Card(host, host.open("a", type="stream", addr=f"fd:{ours.detach()}"))
    data = struct.pack(">I", 60) + frame(A, B, b"x") + bytes(4) + struct.pack(">I", 70) + frame(A, B, b"y", 70)
    for byte in data:
        theirs.send(bytes([byte]))
    assert card.wait(2) == [frame(A, B, b"x"), frame(A, B, b"y", 70)]


@pytest.mark.parametrize("length", [65559, 70000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_giant_length_ends_the_connection(host: TestHost, length: int) -> None:
    ours, theirs = socket.socketpair()
    net = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    card = Card(host, net)
    theirs.send(struct.pack(">I", length) + bytes(100))
    until(lambda: not net.connected)
    assert card.frames == [] and card.send(frame(B, A))


@pytest.mark.parametrize("length", [1, 13, 14, 60, 1514, 9000, 65558])
def test_frames_of_every_length(host: TestHost, length: int) -> None:
    ours, theirs = socket.socketpair()
    card = Card(host, host.open("a", type="stream", addr=f"fd:{ours.detach()}"))
    theirs.sendall(struct.pack(">I", length) + bytes(length) + struct.pack(">I", 60) + frame(A, B))
    assert card.wait(2) == [bytes(max(length, 14)), frame(A, B)]


def test_a_full_card_has_the_first_frame_at_once_when_it_makes_room(host: TestHost) -> None:
    """On the thread that makes it, as QEMU's cards: programs look at the descriptor in their next step."""
    ours, theirs = socket.socketpair()
    net = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    card = Card(host, net)
    card.room = False
    theirs.sendall(struct.pack(">I", 60) + frame(A, B))
    until(lambda: select.select([net.fd], [], [], 0)[0] == [])
    card.room = True
    with host.lock:
        net.room_again()
        assert card.frames == [frame(A, B)]


@pytest.mark.parametrize("kind", ["mirror", "redirector"])
def test_a_filter_sees_what_a_full_card_does_not_take(host: TestHost, kind: str) -> None:
    ours, theirs = socket.socketpair()
    net = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    card = Card(host, net)
    card.room = False
    theirs.sendall(struct.pack(">I", 5) + b"Hello" + struct.pack(">I", 60) + frame(A, B))
    until(lambda: select.select([net.fd], [], [], 0)[0] == [])   # read ahead; then a filter comes
    seen: list[bytes] = []

    class Tap:
        def passes(self, outgoing: bool, data: bytes) -> bool:
            seen.append(data)
            return kind == "mirror"

    with host.lock:
        net.add_filter(Tap())
    until(lambda: seen == [b"Hello", frame(A, B)][: 1 if kind == "mirror" else 2])
    assert card.frames == [] and net.held_count == (kind == "mirror")


def test_a_peer_that_reads_nothing_makes_the_card_wait(host: TestHost) -> None:
    ours, theirs = socket.socketpair()
    card = Card(host, host.open("a", type="stream", addr=f"fd:{ours.detach()}"))
    sent = 0
    while card.send(frame(B, A, size=1514)):
        sent += 1
        assert sent < 10000
    theirs.settimeout(10)
    got = 0
    while got < sent * 1518:
        got += len(theirs.recv(1 << 20))
    until(lambda: card.send(frame(B, A)))


def test_what_comes_for_a_full_card_stays_in_the_kernel(host: TestHost) -> None:
    ours, theirs = socket.socketpair()
    net = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    card = Card(host, net)
    card.room = False
    theirs.setblocking(False)
    message = struct.pack(">I", 1514) + frame(A, B, size=1514)
    sent = 0
    with pytest.raises(BlockingIOError):
        while sent < 10000:
            sent += theirs.send(message) == len(message)
    assert net.held_count <= 1
    card.room = True
    with host.lock:
        net.room_again()
    card.wait(sent)


def test_a_hub_joins_cards_and_netdevs(host: TestHost) -> None:
    ours, theirs = socket.socketpair()
    host.open("out", type="stream", addr=f"fd:{ours.detach()}")
    host.open("p0", type="hubport", hubid=0, netdev="out")
    one, two = (Card(host, host.open(id, type="hubport", hubid=0)) for id in ("p1", "p2"))
    one.send(frame(B, A))
    assert two.wait() == [frame(B, A)] and one.frames == []
    assert theirs.recv(64) == struct.pack(">I", 60) + frame(B, A)
    theirs.sendall(struct.pack(">I", 60) + frame(ALL, C))
    assert one.wait() == [frame(ALL, C)] and two.wait(2)[1] == frame(ALL, C)


@pytest.fixture
def segment(host: TestHost, tmp_path: pathlib.Path) -> Any:
    host.config["segments"] = {"lan": {"dir": str(tmp_path / "lan")}}
    nets = [host.open(id, type="segment", segment="lan") for id in "abc"]
    until(lambda: [net.peers for net in nets] == [2, 2, 2])
    return [Card(host, net) for net in nets]


def test_a_segment_learns_where_addresses_are(segment: Any) -> None:
    a, b, c = segment
    a.send(frame(ALL, A, b"who has B"))
    assert b.wait() == c.wait() == [frame(ALL, A, b"who has B")]
    b.send(frame(A, B, b"I have"))
    assert a.wait() == [frame(A, B, b"I have")]
    for n in range(20):
        a.send(frame(B, A, bytes([n])))
    assert len(b.wait(21)) == 21
    assert c.frames == [frame(ALL, A, b"who has B")]


def test_large_frames_cross_a_segment_uncut_or_cut(host: TestHost, segment: Any) -> None:
    a, b, _ = segment
    with host.lock:
        b.port.takes = 3
    header = (1, 1, 54, 1000, 34, 16)
    total = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 2540, 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    tcp = struct.pack(">HHIIBBHHH", 1, 2, 3, 4, 0x50, 0x10, 9, 0, 0)
    data = frame(ALL, A)[:12] + b"\x08\0" + total + tcp + bytes(2500)
    with host.lock:
        a.net.transmit_with(data, header)
    assert b.wait() == [data] and b.headers == [header]


def test_what_a_crashed_machine_left_is_removed(host: TestHost, tmp_path: pathlib.Path) -> None:
    where = tmp_path / "lan"
    where.mkdir(0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(where / "999999-x.sock"))
        dead.listen()
    host.config["segments"] = {"lan": {"dir": str(where)}}
    host.open("a", type="segment", segment="lan")
    assert os.listdir(where) == [f"{os.getpid()}-a-0.sock"]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"type": "stream", "addr": "nonsense"}, "no address"),
        ({"type": "stream", "addr": "unix:/nowhere/at/all"}, "No such file"),
        ({"type": "socket", "connect": "127.0.0.1:1"}, "refused"),
        ({"type": "socket", "connect": "nonsense"}, "not HOST:PORT"),
        ({"type": "socket"}, "exactly one"),
        ({"type": "socket", "listen": "127.0.0.1:1", "connect": "127.0.0.1:2"}, "exactly one"),
        ({"type": "socket", "udp": "127.0.0.1:1"}, "localaddr"),
        ({"type": "socket", "mcast": "10.0.0.1:1234"}, "10.0.0.1 is no multicast address"),
        ({"type": "dgram", "local": "unix:/tmp/x"}, "remote"),
        ({"type": "tap", "fd": 999}, "no open descriptor"),
        ({"type": "tap", "fd": 3, "ifname": "x"}, "do not go together"),
        ({"type": "tap", "ifname": "a-name-that-is-too-long"}, "cannot be had"),
        ({"type": "bridge", "helper": "/nowhere/helper"}, "no bridge helper"),
        ({"type": "vde", "sock": "/nowhere"}, "no VDE switch lets us in at /nowhere"),
        ({"type": "passt", "path": "/nowhere/passt"}, "no program"),
    ],
)
def test_what_cannot_be_opened_is_said(host: TestHost, spec: dict[str, Any], said: str) -> None:
    with pytest.raises(BackendError, match=said):
        host.open("a", **spec)
    host.nets.pop("a", None)


def test_a_file_that_is_no_socket_is_not_taken_away(host: TestHost, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "disk.img"
    path.write_text("precious")
    for spec in ({"type": "stream", "server": True, "addr": f"unix:{path}"},
                 {"type": "dgram", "local": f"unix:{path}", "remote": "unix:/nowhere"}):
        with pytest.raises(BackendError, match="in use"):
            host.open("a", **spec)
        host.nets.pop("a", None)
    assert path.read_text() == "precious"


def test_frames_of_a_card_that_cannot_wait_are_kept_and_are_bounded(host: TestHost) -> None:
    """Up to some megabytes; an e1000's driver knows no other end that is slow."""
    ours, theirs = socket.socketpair()
    net = host.open("a", type="stream", addr=f"fd:{ours.detach()}")
    card = PyCard(waits=False)
    with host.lock:
        net.plug(card)
        net.set_running(True)
        for n in range(2000):
            assert net.transmit(frame(B, A, struct.pack(">I", n), size=1514))
        assert net.statistics()["dropped"] == 0
        for _ in range(10000):
            assert net.transmit(frame(B, A, size=1514))
    lost = net.statistics()["dropped"]
    assert 1000 < lost < 10000
    theirs.settimeout(10)
    got = b""
    while len(got) < 2000 * 1518:
        got += theirs.recv(1 << 20)
    assert [got[n * 1518 + 18 : n * 1518 + 22] for n in range(2000)] == [struct.pack(">I", n) for n in range(2000)]
