"""The user network, spoken to frame by frame: DHCP, ARP, ping, TFTP, forwarded ports, options."""

from __future__ import annotations

import pathlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from accel.api import DeviceLock
from vmrun.backends.net.base import PyCard

from tests.ports import listens
from vmrun.backends.net import open_netdev, user
from vmrun.errors import BackendError

MAC = b"\x52\x54\x00\x12\x34\x56"
ALL = b"\xff" * 6


class Guest:
    """A card with a little network stack of its own."""

    def __init__(self, **spec: Any) -> None:
        self.lock = DeviceLock()
        self.net = open_netdev("net0", {"type": "user", **spec}, SimpleNamespace(lock=self.lock, iothread=None))
        self.frames: list[bytes] = []
        self.card = PyCard(lambda frame, header: self.frames.append(frame))
        with self.lock:
            self.net.plug(self.card)
            self.net.set_running(True)
        self.host_mac = ALL

    def send(self, frame: bytes) -> None:
        with self.lock:
            self.net.transmit(frame)

    def wait(self, wanted: Any, seconds: float = 20) -> bytes:
        """The first frame that is `wanted`, which answers ARP meanwhile."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for n, frame in enumerate(self.frames):
                if frame[12:14] == b"\x08\x06" and frame[21] == 1:
                    self.arp(2, frame[28:32], frame[22:28], frame[38:42])
                    del self.frames[n]
                    break
                if wanted(frame):
                    del self.frames[n]
                    return frame
            time.sleep(0.002)
        raise AssertionError(f"no such frame among {[frame[:60].hex() for frame in self.frames]}")

    def arp(self, op: int, ip: bytes, mac: bytes, mine: bytes) -> None:
        self.send((mac if op == 2 else ALL) + MAC + b"\x08\x06" + struct.pack(">HHBBH", 1, 0x800, 6, 4, op)
                  + MAC + mine + (mac if op == 2 else bytes(6)) + ip)

    def ip(self, protocol: int, source: str, target: str, body: bytes) -> None:
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
        head += socket.inet_aton(source) + socket.inet_aton(target)
        head = head[:10] + checksum(head) + head[12:]
        frame = ALL + MAC + b"\x08\x00" + head + body
        self.send(frame + bytes(max(0, 60 - len(frame))))

    def udp(self, source: str, sport: int, target: str, dport: int, data: bytes) -> None:
        self.ip(17, source, target, struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data)

    def dhcp(self) -> dict[int, bytes]:
        """Options of an offer; 0: the address."""
        body = struct.pack(">BBBBIHH4s4s4s4s", 1, 1, 6, 0, 7, 0, 0x8000, *(b"\0" * 4,) * 4) + MAC + bytes(10 + 192)
        self.udp("0.0.0.0", 68, "255.255.255.255", 67, body + b"\x63\x82\x53\x63\x35\x01\x01\xff")
        offer = self.wait(lambda f: f[23] == 17 and f[34:38] == b"\0\x43\0\x44")[42:]
        found, at = {0: offer[16:20]}, 240
        found[-1] = offer[108:236].rstrip(b"\0")
        while offer[at] != 255:
            if offer[at]:
                found[offer[at]] = offer[at + 2 : at + 2 + offer[at + 1]]
            at += 2 + offer[at + 1] if offer[at] else 1
        return found

    def close(self) -> None:
        self.net.close()


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


@pytest.fixture
def guest() -> Iterator[Any]:
    made: list[Guest] = []

    def make(**spec: Any) -> Guest:
        made.append(Guest(**spec))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_dhcp_gives_what_qemu_gives(guest: Any) -> None:
    options = guest().dhcp()
    assert options[0] == bytes([10, 0, 2, 15])
    assert (options[1], options[3], options[6]) == (b"\xff\xff\xff\0", b"\x0a\0\2\2", b"\x0a\0\2\3")


def test_options_reach_dhcp(guest: Any) -> None:
    options = guest(
        net="192.168.7.0/24", host="192.168.7.1", dhcpstart="192.168.7.50", dns="192.168.7.9", hostname="guest",
        domainname="example.org", dnssearch=["a.example", "b.example"], bootfile="boot.ipxe", tftp="/tmp",
    ).dhcp()  # fmt: skip
    assert options[0] == bytes([192, 168, 7, 50])
    assert (options[3], options[6]) == (bytes([192, 168, 7, 1]), bytes([192, 168, 7, 9]))
    assert options[12] == b"guest" and options[15] == b"example.org"
    assert b"a\x07example" in options[119] and options[-1] == b"boot.ipxe"


def test_the_host_answers_pings(guest: Any) -> None:
    one = guest()
    echo = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + b"abcd"
    one.ip(1, "10.0.2.15", "10.0.2.2", echo[:2] + checksum(echo) + echo[4:])
    assert one.wait(lambda f: f[23] == 1 and f[34] == 0)[42:46] == b"abcd"


def test_tftp_serves_a_directory(guest: Any, tmp_path: Any) -> None:
    (tmp_path / "hello").write_bytes(b"from the host")
    one = guest(tftp=str(tmp_path))
    one.udp("10.0.2.15", 1234, "10.0.2.2", 69, b"\0\1hello\0octet\0")
    assert one.wait(lambda f: f[23] == 17 and f[36:38] == struct.pack(">H", 1234))[42:] == b"\0\3\0\1from the host"


def test_a_block_that_is_acknowledged_again_comes_again_not_the_next(guest: Any, tmp_path: Any) -> None:
    """A client that got nothing for a moment; each of its repetitions was a block for libslirp."""
    blocks = [bytes([n]) * 512 for n in range(1, 5)]
    (tmp_path / "file").write_bytes(b"".join(blocks))
    one = guest(tftp=str(tmp_path))
    one.arp(1, socket.inet_aton("10.0.2.2"), ALL, socket.inet_aton("10.0.2.15"))

    def say(code: int, rest: bytes) -> None:
        one.udp("10.0.2.15", 1234, "10.0.2.2", 69, struct.pack(">H", code) + rest)

    def block() -> bytes:
        return one.wait(lambda f: f[23] == 17 and f[36:38] == struct.pack(">H", 1234))[42:]  # type: ignore[no-any-return]

    say(1, b"file\0octet\0")
    assert block() == b"\0\3\0\1" + blocks[0]
    for _ in range(5):
        say(4, b"\0\1")
    assert block() == b"\0\3\0\2" + blocks[1]
    time.sleep(0.6)
    say(4, b"\0\1")  # it was lost
    assert block() == b"\0\3\0\2" + blocks[1]
    say(4, b"\0\2")
    assert block() == b"\0\3\0\3" + blocks[2]
    say(1, b"file\0octet\0")  # once more from the same port
    assert block() == b"\0\3\0\1" + blocks[0]
    say(4, b"\0\1")
    assert block() == b"\0\3\0\2" + blocks[1]


def test_port_0_is_a_free_one_and_leads_to_the_guest(guest: Any) -> None:
    one = guest(hostfwd="tcp:127.0.0.1:0-:22")
    (row,) = one.net.forwards
    assert row["port"] > 0 and row["guest"] == "10.0.2.15" and row["guest-port"] == 22
    with socket.create_connection(("127.0.0.1", row["port"])):
        syn = one.wait(lambda f: f[12:14] == b"\x08\0" and f[23] == 6)
    assert struct.unpack_from(">H", syn, 36)[0] == 22 and syn[47] & 2


def test_two_networks_with_port_0_do_not_collide(guest: Any) -> None:
    ports = {guest(hostfwd=["tcp::0-:22", "udp::0-:53"]).net.forwards[n]["port"] for n in (0, 1) for _ in (0, 1)}
    assert len(ports) == 4


def test_a_port_in_use_is_named_with_who_wants_it(guest: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BackendError, match=f"'net0' cannot listen at tcp 127.0.0.1:{port} for the guest's port 22"):
            guest(hostfwd=f"tcp:127.0.0.1:{port}-:22")


def test_forwards_come_and_go(guest: Any) -> None:
    one = guest()
    port = user.forward(one.net, "net0", "tcp:127.0.0.1:0-:80")["port"]
    assert listens(port)
    assert user.unforward(one.net, f"tcp:127.0.0.1:{port}")
    assert not user.unforward(one.net, f"tcp:127.0.0.1:{port}")
    assert one.net.forwards == [] and not listens(port)


def test_guestfwd_runs_a_command(guest: Any) -> None:
    one = guest(guestfwd="tcp:10.0.2.100:7-cmd:echo out of the host")
    seq = 1000

    def tcp(flags: int, ack: int) -> None:
        head = struct.pack(">HHIIBBHHH", 5000, 7, seq, ack, 0x50, flags, 60000, 0, 0)
        pseudo = socket.inet_aton("10.0.2.15") + socket.inet_aton("10.0.2.100") + struct.pack(">HH", 6, 20)
        one.ip(6, "10.0.2.15", "10.0.2.100", head[:16] + checksum(pseudo + head) + head[18:])

    tcp(2, 0)
    answer = one.wait(lambda f: f[23] == 6)
    seq += 1
    tcp(0x10, struct.unpack_from(">I", answer, 38)[0] + 1)
    assert b"out of the host" in one.wait(lambda f: f[23] == 6 and len(f) > 60)


@pytest.mark.parametrize(
    "spec, key",
    [
        ({"net": "10.0.2"}, "net"),
        ({"net": "10.0.2.0/31"}, "net"),
        ({"host": "10.9.9.9"}, "host"),
        ({"dns": "10.0.2.2"}, "dns"),
        ({"hostname": "x" * 300}, "hostname"),
        ({"tftp": "/nowhere/at/all"}, "tftp"),
        ({"hostfwd": "tcp:22"}, "hostfwd"),
        ({"hostfwd": "tcp::99999-:22"}, "hostfwd"),
        ({"hostfwd": "sctp::22-:22"}, "hostfwd"),
        ({"guestfwd": "tcp:10.0.2.100:7"}, "guestfwd"),
        ({"guestfwd": "tcp:10.0.2.100:7-run:x"}, "guestfwd"),
        ({"ipv4": False, "ipv6": False}, "ipv6"),
    ],
)
def test_what_makes_no_sense_is_said(guest: Any, spec: dict[str, Any], key: str) -> None:
    with pytest.raises(BackendError) as caught:
        guest(**spec)
    assert caught.value.problems[0].path == f"netdevs.net0.{key}"


def test_a_flood_at_a_stopped_guest_is_bounded(guest: Any) -> None:
    one = guest(hostfwd="udp:127.0.0.1:0-:9")
    with one.lock:
        one.net.set_running(False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("127.0.0.1", one.net.forwards[0]["port"]))
        for _ in range(3000):
            out.send(bytes(1000))
    assert one.net.held_count <= 1024 and one.net.held_bytes <= 1 << 21


@pytest.mark.parametrize("size", [14, 15, 20, 33, 34, 41, 60, 1514, 9000, 65535])
def test_frames_of_every_kind_do_no_harm(guest: Any, size: int) -> None:
    one = guest()
    for kind in (b"\x08\x00\x45", b"\x08\x06\0\1", b"\x86\xdd\x60", b"\x81\0\0\5\x08\0", b"\0\0"):
        one.send((ALL + MAC + kind + b"\xff" * size)[:size])
    assert one.dhcp()[0] == bytes([10, 0, 2, 15])


def test_a_stream_reaches_a_card_that_takes_large_frames_in_large_frames(guest: Any) -> None:
    one = guest(hostfwd="tcp:127.0.0.1:0-:22")
    headers: list[Any] = []

    def take(frame: bytes, header: Any) -> None:
        headers.append(header)
        one.frames.append(frame)

    card = PyCard(take, takes=3)
    with one.lock:
        one.net.plug(card)
    data = bytes(n * 13 & 0xFF for n in range(60000))
    with socket.create_connection(("127.0.0.1", one.net.forwards[0]["port"])) as peer:
        syn = one.wait(lambda f: f[12:14] == b"\x08\0" and f[23] == 6)
        ports, start = syn[34:38], struct.unpack_from(">I", syn, 38)[0] + 1

        def answer(flags: int, seq: int, ack: int) -> None:
            head = ports[2:] + ports[:2] + struct.pack(">IIBBHHH", seq, ack, 0x50, flags, 65535, 0, 0)
            pseudo = socket.inet_aton("10.0.2.15") + syn[26:30] + struct.pack(">HH", 6, 20)
            one.ip(6, "10.0.2.15", socket.inet_ntoa(syn[26:30]), head[:16] + checksum(pseudo + head) + head[18:])

        answer(0x12, 100, start)
        peer.sendall(data)
        got, large = b"", 0
        while len(got) < len(data):
            frame = one.wait(lambda f: f[12:14] == b"\x08\0" and f[23] == 6 and len(f) > 60)
            assert struct.unpack_from(">I", frame, 38)[0] == start + len(got)
            size = struct.unpack_from(">H", frame, 16)[0] - 40
            assert checksum(frame[14:34]) == b"\0\0"
            got += frame[54 : 54 + size]
            large = max(large, size)
            answer(0x10, 101, start + len(got))
    assert got == data and large > 1460
    assert any(header is not None and header[:2] == (1, 1) and header[4:] == (34, 16) for header in headers)


def first_datagram() -> None:
    """The first thing that a guest sends is a question, which somebody on the host answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        one = Guest()
        one.udp("10.0.2.15", 99, "10.0.2.2", server.getsockname()[1], b"question")
        question, guest = server.recvfrom(100)
        time.sleep(0.5)  # in which a connection that is too old goes
        server.sendto(b"answer to " + question, guest)
        assert one.wait(lambda f: f[12:14] == b"\x08\0" and f[23] == 17)[42:].startswith(b"answer to question")
        one.close()


def test_the_first_connection_of_a_process_is_not_born_too_old() -> None:
    """The stack's clock is one of the process: so in one of its own."""
    code = "from tests.unit.net.test_user import first_datagram; first_datagram()"
    root = pathlib.Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_datagrams_go_in_at_once_and_their_answers_are_waited_for(guest: Any) -> None:
    one = guest(ipv6=False)
    one.arp(1, socket.inet_aton("10.0.2.2"), ALL, socket.inet_aton("10.0.2.15"))
    one.wait(lambda f: f[12:14] == b"\x08\x06" and f[21] == 2)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        for n in range(200):
            one.udp("10.0.2.15", 99, "10.0.2.2", server.getsockname()[1], b"%d" % n)
        came = [server.recvfrom(100) for _ in range(200)]
        assert [data for data, _ in came] == [b"%d" % n for n in range(200)]
        took = []
        for port in range(100, 105):  # each a connection of its own, which the stack's thread has to learn of
            one.udp("10.0.2.15", port, "10.0.2.2", server.getsockname()[1], b"again")
            asker = server.recvfrom(100)[1]
            began = time.monotonic()
            server.sendto(b"answer", asker)
            assert one.wait(lambda f: f[23] == 17)[42:].startswith(b"answer")
            took.append(time.monotonic() - began)
        assert min(took) < 0.25  # it looks twice a second by itself
