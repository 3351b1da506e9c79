"""VNC inside TLS (VeNCrypt with certificates), by a client of the standard library's, and clients that cheat."""

from __future__ import annotations

import pathlib
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.certificates import CURVE, openssl
from tests.unit.ui.rfb import RAW, Rfb
from tests.unit.ui.test_vnc import Setup
from vmrun.ui.vnc.server import VncServer, cipher

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    place = tmp_path_factory.mktemp("tls")
    files = ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    openssl("req", "-x509", *CURVE, "-subj", "/CN=lab", *files, cwd=place)
    return place


class Secure(Setup):
    """A server that wants TLS. `run` gives a blocking client a thread of its own while the loop turns."""

    def __init__(self, directory: pathlib.Path, certificate: pathlib.Path, **settings: Any) -> None:
        super().__init__(directory, **settings)
        self.server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")

    def run(self, talk: Callable[[socket.socket], Any]) -> Any:
        found: list[Any] = []
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(self.path)
        self.peers.append(connection)

        def work() -> None:
            try:
                found.append(talk(connection))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            self.turn()
        thread.join()
        if isinstance(found[0], Exception):
            raise found[0]
        return found[0]


@pytest.fixture
def secure(tmp_path: pathlib.Path, certificate: pathlib.Path) -> Iterator[Secure]:
    found = Secure(tmp_path, certificate)
    yield found
    found.close()


def exactly(connection: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError(data)
        data += part
    return data


def up_to_tls(connection: socket.socket, subtype: int = 0) -> int:
    """The plain part; the subtype that was offered."""
    assert exactly(connection, 12) == b"RFB 003.008\n"
    connection.sendall(b"RFB 003.008\n")
    assert exactly(connection, 2) == b"\1\x13"
    connection.sendall(b"\x13")
    assert exactly(connection, 2) == b"\0\2"
    connection.sendall(b"\0\2")
    assert exactly(connection, 2) == b"\0\1"
    offered = int.from_bytes(exactly(connection, 4), "big")
    connection.sendall((subtype or offered).to_bytes(4, "big"))
    assert exactly(connection, 1) == b"\1"
    return offered


def encrypted(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection)


def test_a_picture_comes_through_tls(secure: Secure) -> None:
    secure.painter.paint = lambda surface: surface.fill(0, 0, 100, 70, 0x123456)

    def talk(connection: socket.socket) -> tuple[int, bytes]:
        offered = up_to_tls(connection)
        inside = encrypted(connection)
        assert exactly(inside, 4) == bytes(4)
        inside.sendall(b"\1")
        size = exactly(inside, 24)
        exactly(inside, int.from_bytes(size[20:24], "big"))
        inside.sendall(b"\3\0\0\0\0\0\0\2\0\1")
        update = exactly(inside, 4 + 12 + 4 * 2)
        return offered, update[16:]

    offered, pixels = secure.run(talk)
    assert offered == 260
    assert pixels[:3] == b"\x56\x34\x12"
    assert secure.server.info()["auth"] == "vencrypt+x509+none"
    assert secure.server.info2()["vencrypt"] == "x509-none"


def test_the_password_is_asked_for_inside(tmp_path: pathlib.Path, certificate: pathlib.Path) -> None:
    secure = Secure(tmp_path, certificate, password=True)
    secure.server.set_password("geheim")

    def talk(connection: socket.socket) -> tuple[int, bytes]:
        offered = up_to_tls(connection)
        inside = encrypted(connection)
        inside.sendall(cipher(b"geheim", exactly(inside, 16)))
        return offered, exactly(inside, 4)

    try:
        assert secure.run(talk) == (261, bytes(4))
    finally:
        secure.close()


@pytest.mark.parametrize("kind", [1, 2, 0, 255])
def test_nothing_but_tls_is_offered(secure: Secure, kind: int) -> None:
    def talk(connection: socket.socket) -> bytes:
        exactly(connection, 12)
        connection.sendall(b"RFB 003.008\n")
        exactly(connection, 2)
        connection.sendall(bytes((kind,)))
        return exactly(connection, 4)

    assert secure.run(talk) == b"\0\0\0\1"


def test_a_client_of_the_first_version_is_told(secure: Secure) -> None:
    def talk(connection: socket.socket) -> bytes:
        exactly(connection, 12)
        connection.sendall(b"RFB 003.003\n")
        return connection.recv(1000)

    assert secure.run(talk)[:4] == bytes(4)


def test_what_is_sent_before_tls_is_not_heard_inside(secure: Secure) -> None:
    """A whole session in plain text behind the choice of TLS: the connection ends."""

    def talk(connection: socket.socket) -> bytes:
        exactly(connection, 12)
        connection.sendall(b"RFB 003.008\n\x13\0\2\0\0\1\4\1" + b"\3" * 40)
        data = b""
        while part := connection.recv(1000):
            data += part
        return data

    assert secure.run(talk)[-1:] == b"\0"
    assert not any(client.ready for client in secure.server.clients)


def test_garbage_in_the_place_of_a_handshake_ends_the_connection(secure: Secure) -> None:
    def talk(connection: socket.socket) -> bytes:
        up_to_tls(connection)
        connection.sendall(b"\x16\x03\x01" + b"x" * 5000)
        data = b""
        try:
            while part := connection.recv(1000):
                data += part
        except ConnectionError:
            pass
        return data

    secure.run(talk)
    secure.turn(3)
    assert secure.server.clients == []


def test_without_credentials_nothing_changes(setup_plain: Setup) -> None:
    client = setup_plain.client(RAW)
    assert isinstance(client, Rfb) and isinstance(setup_plain.server, VncServer)
    assert setup_plain.server.info()["auth"] == "none"


@pytest.fixture
def setup_plain(tmp_path: pathlib.Path) -> Iterator[Setup]:
    found = Setup(tmp_path)
    yield found
    found.close()
