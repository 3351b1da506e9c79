"""Taps, bridges, passt and VDE switches in a network namespace of the test's own: success and each failure."""

from __future__ import annotations

import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.net.host import A, B, Card, TestHost, frame, until
from vmrun.backends.net.tap import TapNet
from vmrun.errors import BackendError

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_MULTI_QUEUE = 0x400454CA, 0x0002, 0x1000, 0x0100
NOBODY = 65534
ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture
def host() -> Iterator[TestHost]:
    one = TestHost()
    yield one
    one.close()


@pytest.fixture
def net(host: TestHost) -> Iterator[TestHost]:
    """This thread, and what it opens and starts, is in a namespace without any interface but a loopback."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if not os.path.exists("/dev/net/tun") or libc.unshare(CLONE_NEWNET):
        os.close(before)
        pytest.skip("no right to make a tap")
    try:
        yield host
    finally:
        for one in host.nets.values():
            one.close()
        assert libc.setns(before, CLONE_NEWNET) == 0
        os.close(before)


def ip(words: str) -> str:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def names() -> set[str]:
    return {row.split(":")[1].strip().partition("@")[0] for row in ip("-o link").splitlines()}


def kernel_side(interface: str) -> socket.socket:
    """What the host's kernel sees of an interface: frames of the tests' own type."""
    ip(f"link set {interface} up")
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
    one.bind((interface, 0x88B5))
    one.settimeout(10)
    return one


def both_ways(host: TestHost, net: Any, interface: str) -> None:
    card = Card(host, net)
    with kernel_side(interface) as kernel:
        card.send(frame(B, A, b"out"))
        assert kernel.recv(2000) == frame(B, A, b"out")
        kernel.send(frame(A, B, b"in"))
        until(lambda: frame(A, B, b"in") in card.frames)


def opened(name: str, flags: int = 0) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | flags))
    return fd


def script(path: pathlib.Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("headers", [True, False])
def test_an_own_tap_lives_as_long_as_its_machine(net: TestHost, headers: bool) -> None:
    one = net.open("a", type="tap", ifname="own0", vnet_hdr=headers)
    both_ways(net, one, "own0")
    assert "own0" in names() and one.describe() == "ifname=own0" and bool(one.can) == headers
    one.close()
    assert "own0" not in names()


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.parametrize("batches", [True, False])
def test_a_burst_comes_out_of_a_tap_in_order(
    net: TestHost, headers: bool, batches: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Short frames are gathered, more than go at once; long ones between them are not."""
    if not batches:
        monkeypatch.setattr(TapNet, "write_together", lambda one: None)
    one = net.open("a", type="tap", ifname="own0", vnet_hdr=headers)
    ip("link set own0 mtu 9000")
    card = Card(net, one)
    frames = [frame(B, A, struct.pack(">H", n), 9000 if n % 50 == 49 else 60 + n) for n in range(200)]
    with kernel_side("own0") as kernel:
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        before = one.statistics()["dropped"]
        with net.lock:
            assert one.transmit_all(frames) == 200
        card.send(frame(B, A, b"last"))
        assert [kernel.recv(10000) for _ in range(201)] == [*frames, frame(B, A, b"last")]
        assert one.statistics()["dropped"] == before


def test_frames_of_a_burst_that_nobody_takes_are_counted(net: TestHost) -> None:
    """The interface is down: the kernel refuses each."""
    one = net.open("a", type="tap", ifname="own0")
    Card(net, one)
    with net.lock:
        one.transmit_all([frame(B, A, b"x")] * 70)
    assert one.statistics()["dropped"] == 70


def test_a_tap_without_a_name_gets_the_first_free_one(net: TestHost) -> None:
    both_ways(net, net.open("a", type="tap"), "tap0")
    both_ways(net, net.open("b", type="tap"), "tap1")


def test_a_tap_that_was_there_stays(net: TestHost) -> None:
    ip("tuntap add dev stays mode tap")
    one = net.open("a", type="tap", ifname="stays")
    both_ways(net, one, "stays")
    one.close()
    assert "stays" in names()


def test_a_tap_by_descriptor(net: TestHost) -> None:
    both_ways(net, net.open("a", type="tap", fd=opened("given0")), "given0")


@pytest.mark.parametrize("way", ["fds", "queues"])
def test_a_tap_of_several_queues(net: TestHost, way: str) -> None:
    if way == "fds":
        fds = ":".join(str(opened("many0", IFF_MULTI_QUEUE)) for _ in range(3))
        one = net.open("a", type="tap", fds=fds)
    else:
        one = net.open("a", type="tap", ifname="many0", queues=3)
    assert one.queues == 3
    both_ways(net, one, "many0")
    card = Card(net, one)
    with kernel_side("many0") as kernel:  # the kernel spreads flows over the queues: all of them are read
        for port in range(64):
            udp = struct.pack(">HHHH", 1000 + port, 9, 8, 0)
            head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
            kernel.send((A + B + b"\x08\0" + head + udp).ljust(60, b"\0"))
        until(lambda: len([one for one in card.frames if one[12:14] == b"\x08\0" and one[23] == 17]) == 64)


def test_scripts_run_with_the_interface_s_name(net: TestHost, tmp_path: pathlib.Path) -> None:
    up = script(tmp_path / "up", f"#!/bin/sh\nip link set $1 up\necho up $1 >> {tmp_path}/said\n")
    down = script(tmp_path / "down", f"#!/bin/sh\nip link show $1 && echo down $1 >> {tmp_path}/said\n")
    one = net.open("a", type="tap", ifname="own0", script=up, downscript=down)
    assert "UP" in ip("link show own0")
    one.close()
    assert (tmp_path / "said").read_text() == "up own0\ndown own0\n"


def test_a_script_that_fails_or_is_not_there_is_named_and_leaves_nothing(net: TestHost, tmp_path: pathlib.Path) -> None:
    for path, said in ((script(tmp_path / "bad", "#!/bin/sh\nexit 7\n"), "ended with 7"), ("/nowhere/up", "cannot be")):
        with pytest.raises(BackendError, match=said) as caught:
            net.open("a", type="tap", ifname="own0", script=path)
        assert path in str(caught.value) and "script: no" in str(caught.value)
        assert "own0" not in names()
    net.nets.clear()


def test_an_interface_that_is_no_tap_or_is_in_use_is_named(net: TestHost) -> None:
    ip("link add none0 type bridge")
    first = net.open("first", type="tap", ifname="used0")
    for name in ("none0", "used0"):
        with pytest.raises(BackendError, match=f"interface {name} cannot be had") as caught:
            net.open("a", type="tap", ifname=name)
        assert caught.value.problems[0].remedy
    net.nets.pop("a", None)
    first.close()


def refusal(code: str, *prefix: str) -> str:
    """What vmrun says in a process of its own."""
    text = (
        "from tests.unit.net.host import TestHost\nfrom vmrun.errors import BackendError\nhost = TestHost()\n"
        f"try:\n    {code}\nexcept BackendError as error:\n    print(error)\nelse:\n    print('OPENED')\nhost.close()\n"
    )
    done = subprocess.run([*prefix, sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_may_not_make_a_tap_is_told_what_to_do(net: TestHost) -> None:
    if shutil.which("setpriv") is None or not os.access("/", os.R_OK):
        pytest.skip("no right to make a tap")
    said = refusal(
        "host.open('a', type='tap', ifname='own0')",
        "setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all",
    )  # fmt: skip
    assert "Operation not permitted" in said and "ip tuntap add" in said


def test_a_host_without_dev_net_tun_is_told(net: TestHost) -> None:
    hide = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh"]
    if subprocess.run([*hide, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a tap")
    assert "this host has no /dev/net/tun" in refusal("host.open('a', type='tap', ifname='own0')", *hide)


# --- bridges --------------------------------------------------------------------------------------------------------

HELPER = "/usr/lib/qemu/qemu-bridge-helper"
ALLOW = 'mkdir -p /etc/qemu && mount -t tmpfs none /etc/qemu && echo "allow br7" > /etc/qemu/bridge.conf && exec "$@"'
BRIDGED = "net = host.open('a', type='bridge', br={br!r}); import subprocess; "
BRIDGED += "print(net.describe(), subprocess.run(['ip', '-o', 'link'], capture_output=True, text=True).stdout)"


def test_qemu_s_bridge_helper_joins_a_bridge_and_refuses_others(net: TestHost) -> None:
    inside = ["unshare", "--mount", "sh", "-c", ALLOW, "sh"]
    if not os.path.exists(HELPER) or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no right to make a tap")
    ip("link add br7 type bridge")
    ip("link add br8 type bridge")
    said = refusal(BRIDGED.format(br="br7"), *inside)
    assert "ifname=tap0" in said and "tap0" in said and "master br7" in said and "OPENED" in said
    said = refusal(BRIDGED.format(br="br8"), *inside)
    assert "access denied by acl file" in said and "allow br8" in said
    said = refusal(BRIDGED.format(br="nowhere"), *inside)
    assert "nowhere" in said and "OPENED" not in said


def test_another_helper_is_called_as_qemu_calls_its_own(net: TestHost, tmp_path: pathlib.Path) -> None:
    program = script(
        tmp_path / "helper",
        f"#!{sys.executable}\n"
        "import array, fcntl, os, socket, struct, sys\n"
        f"open({str(tmp_path / 'words')!r}, 'w').write(' '.join(sys.argv[1:]))\n"
        "fd = os.open('/dev/net/tun', os.O_RDWR)\n"
        "fcntl.ioctl(fd, 0x400454CA, struct.pack('16sH22x', b'helped0', 0x5002))\n"
        "to = socket.socket(fileno=int(sys.argv[2].partition('=')[2]))\n"
        "to.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))])\n",
    )
    both_ways(net, net.open("a", type="tap", br="br5", helper=program), "helped0")
    words = (tmp_path / "words").read_text().split()
    assert words[0] == "--use-vnet" and words[1].startswith("--fd=") and words[2] == "--br=br5"
    for text, said in (("#!/bin/sh\nexit 0\n", "sent no descriptor"), ("#!/bin/sh\necho no >&2\nexit 1\n", "refuses")):
        with pytest.raises(BackendError, match=said):
            net.open("b", type="tap", br="br5", helper=script(tmp_path / "bad", text))


# --- programs that carry frames -------------------------------------------------------------------------------------


def arp(source: bytes, ask: str, own: str) -> bytes:
    body = b"\0\1\x08\0\6\4\0\1" + source + socket.inet_aton(own) + bytes(6) + socket.inet_aton(ask)
    return (b"\xff" * 6 + source + b"\x08\6" + body).ljust(60, b"\0")


def answers(host: TestHost, net: Any) -> bool:
    """passt answers ARP for whatever address but the guest's own."""
    card = Card(host, net)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        card.send(arp(A, "192.0.2.1", "192.0.2.15"))
        time.sleep(0.05)
        if any(one[12:14] == b"\x08\6" and one[20:22] == b"\0\2" for one in card.frames):
            return True
    return False


@pytest.fixture
def uplink(net: TestHost) -> TestHost:
    """passt wants an interface with an address and a route."""
    if shutil.which("passt") is None:
        pytest.skip("no passt")
    ip("link add up0 type veth peer name up1")
    ip("link set up1 up")
    ip("addr add 192.0.2.15/24 dev up0")
    ip("link set up0 up")
    ip("route add default via 192.0.2.1 dev up0")
    return net


def test_passt_is_started_and_ends_with_its_machine(uplink: TestHost) -> None:
    one = uplink.open("a", type="passt")
    pid = int(one.describe().partition("=")[2])
    assert answers(uplink, one)
    one.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_a_passt_that_runs_is_joined(uplink: TestHost, tmp_path: pathlib.Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if stat.S_IMODE(parent.stat().st_mode) & 0o005 != 0o005 and parent.owner() == "root":
            parent.chmod(0o755)
    where = str(tmp_path / "passt.sock")
    process = subprocess.Popen(["passt", "--foreground", "--quiet", "--socket", where], stderr=subprocess.DEVNULL)
    try:
        until(lambda: os.path.exists(where))
        assert answers(uplink, uplink.open("a", type="passt", socket=where))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
    with pytest.raises(BackendError, match="no passt answers"):
        uplink.open("b", type="passt", socket=where)


def test_two_ports_of_a_vde_switch(host: TestHost, tmp_path: pathlib.Path) -> None:
    if shutil.which("vde_switch") is None:
        pytest.skip("no vde_switch")
    where = str(tmp_path / "ctl")
    process = subprocess.Popen(["vde_switch", "-s", where], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        until(lambda: os.path.exists(f"{where}/ctl"))
        left, right = (Card(host, host.open(id, type="vde", sock=where, mode=0o600)) for id in "ab")
        left.send(frame(B, A, b"to the right"))
        assert right.wait() == [frame(B, A, b"to the right")]
        right.send(frame(A, B, b"to the left", 1514))
        assert left.wait() == [frame(A, B, b"to the left", 1514)]
        for id in "ab":
            host.nets.pop(id).close()
        assert [name for name in os.listdir(where) if name.startswith(".vmrun")] == []
    finally:
        process.terminate()
        process.wait(10)


def test_a_card_outlives_the_tap_that_it_had(net: TestHost) -> None:
    one = net.open("a", type="tap", ifname="own0", vnet_hdr=True)
    card = Card(net, one)
    one.close()
    with net.lock:
        one.plug(card.port)
        one.plug(None)
