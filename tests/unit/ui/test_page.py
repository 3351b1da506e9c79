"""The page for browsers: files behind a token, one viewer, nobody else."""

from __future__ import annotations

import base64
import os
import pathlib
import socket
from collections.abc import Iterator

import pytest

from tests.ports import listens
from tests.unit.ui.test_vnc import Setup
from vmrun.errors import BackendError
from vmrun.ui.vnc import page as module
from vmrun.ui.vnc.page import Page

KEY = base64.b64encode(bytes(16)).decode()


@pytest.fixture
def setup(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setup]:
    if not any(os.path.exists(place) for place in module.PLACES):
        pytest.skip("no noVNC: apt-get install novnc")
    found = Setup(tmp_path, password=True)
    yield found
    found.close()


class Browser:
    def __init__(self, setup: Setup, page: Page) -> None:
        self.setup, self.page = setup, page

    def get(self, path: str, **fields: str) -> bytes:
        """All that is answered within a moment."""
        with socket.create_connection(("127.0.0.1", self.page.port)) as connection:
            self.setup.peers.append(connection)
            fields = {"Host": f"127.0.0.1:{self.page.port}", **{key.replace("_", "-"): v for key, v in fields.items()}}
            lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
            connection.sendall("\r\n".join([*lines, "", ""]).encode())
            return self.read(connection)

    def read(self, connection: socket.socket) -> bytes:
        connection.setblocking(False)
        data = b""
        for _ in range(20):
            self.setup.turn()
            try:
                part = connection.recv(1 << 20)
            except BlockingIOError:
                continue
            if not part:
                break
            data += part
        return data

    def view(self, **fields: str) -> tuple[socket.socket, bytes]:
        connection = socket.create_connection(("127.0.0.1", self.page.port))
        self.setup.peers.append(connection)
        own = f"127.0.0.1:{self.page.port}"
        fields = {"Host": own, "Origin": f"http://{own}", "Upgrade": "websocket", "Sec-WebSocket-Key": KEY, **fields}
        lines = [f"GET /{self.page.token}/websockify HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return connection, self.read(connection)


@pytest.fixture
def browser(setup: Setup) -> Browser:
    return Browser(setup, Page(setup.server))


def test_the_page_and_its_files_are_there(browser: Browser) -> None:
    path = browser.page.url.partition(str(browser.page.port))[2]
    answer = browser.get(path)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"text/html" in answer and b"noVNC" in answer
    answer = browser.get(f"/{browser.page.token}/core/rfb.js")
    assert b"text/javascript" in answer and b"export default class RFB" in answer


@pytest.mark.parametrize("path", ["/vnc.html", "/", "//vnc.html", "/wrong/vnc.html", "/websockify", "x", "/%2e/"])
def test_without_the_token_there_is_nothing(browser: Browser, path: str) -> None:
    assert browser.get(path).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize("path", ["", "../../../etc/passwd", "..%2f..%2fetc/passwd", "none.html", "core", "/etc/hosts"])
def test_nothing_but_the_pages_files_is_served(browser: Browser, path: str) -> None:
    assert browser.get(f"/{browser.page.token}/{path}").startswith(b"HTTP/1.1 404 ")


def test_other_names_and_origins_are_refused(browser: Browser) -> None:
    path = f"/{browser.page.token}/vnc.html"
    assert browser.get(path, Host=f"evil.example:{browser.page.port}").startswith(b"HTTP/1.1 403 ")
    assert browser.get(path, Origin="http://evil.example").startswith(b"HTTP/1.1 403 ")
    assert browser.view(Origin="http://evil.example")[1].startswith(b"HTTP/1.1 403 ")
    assert not browser.page.used


def test_a_viewer_needs_no_password_and_is_the_only_one(browser: Browser, setup: Setup) -> None:
    assert listens(browser.page.port)
    viewer, answer = browser.view()
    assert answer.startswith(b"HTTP/1.1 101 ") and b"RFB 003.008\n" in answer
    assert browser.view()[1].startswith(b"HTTP/1.1 403 ")
    mask = bytes(4)
    viewer.sendall(b"\x82\x8c" + mask + b"RFB 003.008\n")
    assert browser.read(viewer) == b"\x82\x02\x01\x01"  # one security type: none
    viewer.close()
    setup.turn(5)
    assert setup.server.pages == []
    assert not listens(browser.page.port)


def test_each_page_has_a_token_of_its_own(browser: Browser, setup: Setup) -> None:
    other = Page(setup.server)
    assert other.token != browser.page.token
    assert browser.get(f"/{other.token}/vnc.html").startswith(b"HTTP/1.1 403 ")


def test_garbage_ends_the_connection_alone(browser: Browser) -> None:
    with socket.create_connection(("127.0.0.1", browser.page.port)) as connection:
        connection.sendall(os.urandom(9000))
        browser.read(connection)
    assert browser.get(f"/{browser.page.token}/vnc.html").startswith(b"HTTP/1.1 200 ")


def test_without_novnc_the_package_is_named(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", ("/nowhere",))
    with pytest.raises(BackendError, match="noVNC is not installed"):
        Page(setup.server)
