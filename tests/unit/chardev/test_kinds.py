"""Datagrams, serial ports of the host, abstract names, WebSocket and TLS, files to read from."""

from __future__ import annotations

import base64
import os
import pathlib
import shutil
import socket
import ssl
from typing import Any

import pytest

from tests.certificates import make_credentials
from tests.ports import free_port
from tests.unit.chardev.test_chardev import Device, Rig, read_all, rig
from vmrun.backends.chardev import open_chardev
from vmrun.errors import BackendError

__all__ = ["rig"]


def test_datagrams_go_both_ways_and_wait_for_room(rig: Rig) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(5)
        backend = rig.open(
            type="udp", host="127.0.0.1", port=peer.getsockname()[1], localaddr="127.0.0.1", localport=0
        )
        device = Device(backend, room=4)
        rig.write(backend, b"out")
        rig.turns()
        data, address = peer.recvfrom(100)
        assert data == b"out"
        peer.sendto(b"0123456789", address)
        rig.until(lambda: device.got == b"0123")
        device.make_room(100)
        rig.until(lambda: device.got == b"0123456789")


def test_datagrams_to_nobody_vanish(rig: Rig) -> None:
    backend = rig.open(type="udp", host="127.0.0.1", port=free_port(socket.SOCK_DGRAM))
    for _ in range(3):
        rig.write(backend, b"x")
        rig.turns()
    assert backend.connected


def test_a_serial_port_of_the_host_is_raw_and_given_back_as_it_was(rig: Rig) -> None:
    import termios

    master, slave = os.openpty()
    before = termios.tcgetattr(slave)[:4]
    backend = rig.open(type="tty", path=os.ttyname(slave))
    device = Device(backend)
    assert termios.tcgetattr(slave)[:4] != before
    rig.write(backend, b"a\nb")
    rig.turns()
    assert read_all(master, 3) == b"a\nb"
    os.write(master, b"\x03\r\n")
    rig.until(lambda: device.got == b"\x03\r\n")
    backend.close()
    assert termios.tcgetattr(slave)[:4] == before
    os.close(master)
    os.close(slave)


def test_what_is_no_serial_port_is_refused(rig: Rig, tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(BackendError, match="no serial port or terminal"):
        rig.open(type="serial", path=str(tmp_path / "f"))


def test_an_abstract_name_is_no_file(rig: Rig, tmp_path: pathlib.Path) -> None:
    name = f"vmrun-test-{os.getpid()}"
    backend = rig.open(type="socket", path=name, abstract=True, server=True, wait=False)
    device = Device(backend)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(b"\0" + name.encode())
        client.sendall(b"hello")
        rig.until(lambda: device.got == b"hello")
    assert not os.path.exists(name)
    other = rig.open(type="socket", path=name + "2", abstract=True, tight=False, server=True, wait=False)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect((b"\0" + name.encode() + b"2").ljust(108, b"\0"))
    assert other.filename == f"disconnected:unix:{name}2,abstract=on,tight=off,server=on"


def test_a_file_is_read_as_fast_as_the_device_takes_it(rig: Rig, tmp_path: pathlib.Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(bytes(range(256)) * 40)
    backend = rig.open(type="file", path=str(tmp_path / "out"), **{"input-path": str(source)})
    device = Device(backend, room=1000)
    rig.until(lambda: len(device.got) == 1000)
    device.make_room(1 << 20)
    rig.until(lambda: device.got == bytes(range(256)) * 40)
    rig.write(backend, b"still there")
    rig.turns()
    assert (tmp_path / "out").read_bytes() == b"still there"


def test_a_server_that_comes_late_is_found_without_waiting_on_the_loop(rig: Rig, tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "late")
    backend = rig.open(type="socket", path=path, reconnect=0.05)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        rig.until(lambda: backend.peer is not None)


# --- WebSocket ----------------------------------------------------------------------------------------------------

HELLO = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: binary\r\n\r\n"
)


def frame(data: bytes, opcode: int = 2) -> bytes:
    """A client's, masked (RFC 6455, 5.2)."""
    mask = b"\x11\x22\x33\x44"
    size = len(data)
    head = bytes((0x80 | opcode,)) + (
        bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    )
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))


@pytest.fixture
def web(rig: Rig, tmp_path: pathlib.Path) -> Any:
    path = str(tmp_path / "w")
    backend = rig.open(type="socket", path=path, server=True, wait=False, websocket=True)
    device = Device(backend)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    client.settimeout(5)
    yield backend, device, client
    client.close()


def test_a_websocket_carries_bytes_in_frames(rig: Rig, web: Any) -> None:
    backend, device, client = web
    rig.write(backend, b"before anybody is there")
    client.sendall(HELLO)
    rig.until(lambda: backend.connected)
    answer = client.recv(4096)
    assert b"101 Switching Protocols" in answer
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # RFC 6455's own example
    wire = frame(b"a" * 300) + frame(b"b") + frame(b"ping", 9)
    for at in range(0, len(wire), 7):  # in pieces that cut heads and masks
        client.sendall(wire[at : at + 7])
        rig.turns()
    rig.until(lambda: device.got == b"a" * 300 + b"b")
    assert client.recv(100) == b"\x8a\x04ping"
    rig.write(backend, b"\x00\xffout")
    rig.turns()
    assert client.recv(100) == b"\x82\x05\x00\xffout"


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"x" * 9000, HELLO + b"\x82\x01a", HELLO + frame(b"", 3)])
def test_what_does_not_speak_it_is_gone_and_the_next_is_served(rig: Rig, web: Any, said: bytes) -> None:
    backend, device, client = web
    client.sendall(said)
    rig.until(lambda: backend.peer is not None)
    rig.until(lambda: backend.peer is None)
    assert device.got == b""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(backend.listening.path)
        other.sendall(HELLO + frame(b"next"))
        rig.until(lambda: device.got == b"next")


def test_a_handshake_needs_no_room_in_the_device_and_many_of_them_no_memory(rig: Rig, web: Any) -> None:
    """A guest that does not read keeps nobody from connecting, as with QEMU; what peers said before is kept for it."""
    backend, device, client = web
    device.capacity = 0
    client.sendall(HELLO + frame(b"first"))
    rig.until(lambda: backend.connected)
    client.close()
    rig.until(lambda: backend.peer is None)
    for _ in range(40):
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(backend.listening.path)
            other.settimeout(5)
            other.sendall(HELLO + frame(b"x" * 60_000))
            rig.until(lambda: backend.connected)
            assert b"101 Switching Protocols" in other.recv(4096)
        rig.until(lambda: backend.peer is None)
    assert len(backend.backlog) < 1 << 20
    with rig.lock:
        device.make_room(5)
    rig.until(lambda: device.got == b"first")


# --- TLS ----------------------------------------------------------------------------------------------------------


class Objects:
    """As much of a board as credentials need."""


def credentials(directory: pathlib.Path, **more: Any) -> ssl.SSLContext:
    from vmrun.backends.objects import make

    made: Any = make({"qom-type": "tls-creds-x509", "id": "t", "dir": str(directory), **more})
    made.complete(Objects())
    context: ssl.SSLContext = made.context
    return context


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_server_speaks_tls_with_whom_it_trusts(rig: Rig, tmp_path: pathlib.Path) -> None:
    make_credentials(tmp_path)
    spec = {"type": "socket", "host": "127.0.0.1", "port": 0, "server": True, "wait": False}
    backend: Any = open_chardev("c0", spec, rig.loop, rig.lock, tls=credentials(tmp_path, endpoint="server"))
    rig.open_backends.append(backend)
    device = Device(backend, room=10)
    other: Any = open_chardev(
        "c1", {"type": "socket", "host": "127.0.0.1", "port": int(backend.address.rpartition(":")[2])}, rig.loop,
        rig.lock, tls=credentials(tmp_path, endpoint="client"),
    )  # fmt: skip
    rig.open_backends.append(other)
    far = Device(other)
    rig.write(other, b"x" * 20000)
    rig.until(lambda: len(device.got) == 10)
    device.make_room(1 << 20)
    rig.until(lambda: device.got == b"x" * 20000)
    rig.write(backend, b"and back")
    rig.until(lambda: far.got == b"and back")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_client_without_a_certificate_is_gone(rig: Rig, tmp_path: pathlib.Path) -> None:
    make_credentials(tmp_path)
    spec = {"type": "socket", "path": str(tmp_path / "s"), "server": True, "wait": False}
    backend: Any = open_chardev("c0", spec, rig.loop, rig.lock, tls=credentials(tmp_path, endpoint="server"))
    rig.open_backends.append(backend)
    device = Device(backend)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(b"plain text, and much of it")
        rig.until(lambda: backend.peer is not None)
        rig.until(lambda: backend.peer is None)
    assert device.got == b""


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("let_in", [True, False])
def test_an_authz_object_is_asked_about_the_name_in_a_certificate(
    rig: Rig, tmp_path: pathlib.Path, let_in: bool
) -> None:
    from vmrun.backends.objects.tls import Asked

    make_credentials(tmp_path)
    asked: list[str] = []
    tls = Asked(credentials(tmp_path, endpoint="server"), lambda name: asked.append(name) or let_in)  # type: ignore
    spec = {"type": "socket", "path": str(tmp_path / "s"), "server": True, "wait": False}
    backend: Any = open_chardev("c0", spec, rig.loop, rig.lock, tls=tls)
    rig.open_backends.append(backend)
    device = Device(backend)
    other: Any = open_chardev(
        "c1", {"type": "socket", "path": str(tmp_path / "s")}, rig.loop, rig.lock,
        tls=credentials(tmp_path, endpoint="client"),
    )  # fmt: skip
    rig.open_backends.append(other)
    Device(other)
    rig.write(other, b"hello")
    rig.until(lambda: device.got == b"hello" if let_in else bool(asked) and backend.peer is None)
    assert asked == ["CN=client"]
    assert device.got == (b"hello" if let_in else b"")


def test_the_example_key_of_the_standard() -> None:
    assert base64.b64decode("dGhlIHNhbXBsZSBub25jZQ==") == b"the sample nonce"
