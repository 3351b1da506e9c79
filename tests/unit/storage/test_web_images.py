"""Images on a web server that wants to know who asks, goes another way, or says what is not so."""

from __future__ import annotations

import base64
import http.server
import json
import pathlib
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.images import Access, open_options
from vmrun.errors import BackendError

SIZE = 1 << 20
DATA = bytes(range(256)) * (SIZE // 256)


class Site(http.server.BaseHTTPRequestHandler):
    """What is served depends on the path's first part."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str, dict[str, str]]]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        headers = {key.lower(): value for key, value in self.headers.items()}
        type(self).seen.append((self.command, self.path, headers))
        kind = self.path.split("/")[1]
        basic = f"Basic {base64.b64encode(b'u:p:w').decode()}"
        wanted = {"auth": ("authorization", basic), "cookie": ("cookie", "k=v")}
        if kind in wanted and self.headers.get(wanted[kind][0]) != wanted[kind][1]:
            self.send_response(401)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        first, last = 0, SIZE - 1
        if "range" in self.headers:
            first, last = map(int, self.headers["range"].removeprefix("bytes=").split("-"))
        self.send_response(206 if "range" in self.headers else 200)
        self.send_header("Accept-Ranges", "bytes")
        shift = 512 if kind == "shifted" else 0
        self.send_header("Content-Range", f"bytes {first + shift}-{last + shift}/{SIZE}")
        if kind == "several":
            self.send_header("Content-Type", "multipart/byteranges; boundary=x")
        if kind == "packed":
            self.send_header("Content-Encoding", "gzip")
        if kind == "endless" and body:
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for _ in range(1024):
                    self.wfile.write(bytes(1 << 18))
            except OSError:
                pass
            return
        self.send_header("Content-Length", str(last - first + 1))
        self.end_headers()
        if body:
            end = (first + last) // 2 if kind == "cut" else last + 1
            self.wfile.write(DATA[first:end])
            self.close_connection = kind == "cut"


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[tuple[str, str, dict[str, str]]]]]:
    for name in ("http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)  # those of who runs the tests
    handler = type("Mine", (Site,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who hangs up does so on purpose
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.seen  # type: ignore[attr-defined]
    server.shutdown()
    thread.join(10)
    server.server_close()


class Secret:
    def __init__(self, value: bytes) -> None:
        self.value = value


def opened(url: str, objects: dict[str, Any] | None = None, **options: object) -> Any:
    given = {key.replace("_", "-"): value for key, value in options.items()}
    access = Access(readonly=True).with_objects(objects or {})
    return open_options({"driver": url.split(":")[0], "url": url, **given}, access)


def read(url: str, objects: dict[str, Any] | None = None, **options: object) -> None:
    node = opened(url, objects, **options)
    try:
        assert node.read(1000, 300_000) == DATA[1000:301_000]
    finally:
        node.close()


def test_who_asks_is_told_to_the_server(site: Any) -> None:
    url, _ = site
    with pytest.raises(BackendError, match="error: 401"):
        read(f"{url}/auth/x")
    read(f"{url}/auth/x", {"s": Secret(b"p:w")}, username="u", password_secret="s")
    read(f"{url.replace('//', '//u:p%3Aw@')}/auth/x")
    read(f"{url}/cookie/x", cookie="k=v")
    read(f"{url}/cookie/x", {"s": Secret(b"k=v")}, cookie_secret="s")
    with pytest.raises(BackendError, match="No secret with id 'nix'"):
        read(f"{url}/cookie/x", cookie_secret="nix")


def test_the_environment_says_whether_there_is_a_proxy(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    url, seen = site
    monkeypatch.setenv("http_proxy", url)
    read("http://elsewhere.invalid/x", {"s": Secret(b"p")}, proxy_username="me", proxy_password_secret="s")
    assert {row[1] for row in seen} == {"http://elsewhere.invalid/x"}
    assert seen[-1][2]["proxy-authorization"] == f"Basic {base64.b64encode(b'me:p').decode()}"
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    read(f"{url}/x")
    assert seen[-1][1] == "/x"


def test_as_much_is_fetched_at_a_time_as_readahead_says(site: Any) -> None:
    url, seen = site
    node = opened(f"{url}/x", readahead=4096)
    assert node.read(8192, 100) == DATA[8192:8292]
    node.close()
    assert seen[-1][2]["range"] == "bytes=8192-12287"


@pytest.mark.parametrize("kind", ["shifted", "packed", "several", "cut"])
def test_an_answer_that_is_not_what_was_asked_for_is_an_error(site: Any, kind: str) -> None:
    url, _ = site
    with pytest.raises(OSError, match="Input/output"):
        read(f"{url}/{kind}/x")


def test_of_an_answer_without_end_no_more_is_read_than_was_asked_for(site: Any) -> None:
    url, _ = site
    node = opened(f"{url}/endless/x")
    tracemalloc.start()
    try:
        assert node.read(0, 512) == bytes(512)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
        node.close()


@pytest.mark.parametrize(("options", "words"), [
    ({"timeout": -1}, "too large or negative"), ({"timeout": 1 << 40}, "too large or negative"),
    ({"timeout": "soon"}, "expects a number"), ({"readahead": 1000}, "not a multiple of 512"),
    ({"driver": "https"}, "does not start with 'https://'"), ({"url": ""}, "requires an 'url' option"),
    ({"url": "http://"}, "CURL: Error opening file"), ({"url": "http://127.0.0.1:99999/x"}, "CURL: Error opening file"),
    ({"url": "http://[::1/x"}, "CURL: Error opening file"),
])  # fmt: skip
def test_what_cannot_be_is_told(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BackendError, match=words):
        open_options({"driver": "http", "url": "http://127.0.0.1:1/x", **options}, Access(readonly=True))


def test_no_timeout_is_none(site: Any) -> None:
    read(f"{site[0]}/x", timeout=0)


def test_a_machine_s_drive_has_its_secrets_from_the_machine(site: Any, tmp_path: pathlib.Path) -> None:
    image = {"driver": "http", "url": f"{site[0]}/auth/x", "username": "u", "password-secret": "s"}
    disk = {"file": f"json:{json.dumps(image)}", "format": "raw", "readonly": True}
    objects = {"s": {"type": "secret", "data": "p:w"}}
    with Driven(tmp_path, machine="pc", memory="16MiB", objects=objects, disks=[disk]) as pc:
        (drive,) = pc.board.drives.values()
        assert drive.read_bytes(512, 512) == DATA[512:1024]
