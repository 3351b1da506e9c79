"""Nodes on top of others: throttle, copy-on-read; and images on web servers."""

from __future__ import annotations

import http.server
import pathlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from vmrun.backends.block.create import create_qcow2, new_file
from vmrun.backends.block.errors import ImageError
from vmrun.backends.block.filenames import named
from vmrun.backends.block.images import Access, open_node, open_options
from vmrun.errors import BuildError
from vmrun.machine.blockops import blockdev_reopen
from vmrun.machine.blocks import blocks

MIB = 1 << 20


@pytest.fixture
def raw(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "disk.img").write_bytes(bytes(range(256)) * (4 * MIB // 256))
    return tmp_path / "disk.img"


@pytest.fixture
def pc(tmp_path: pathlib.Path) -> Iterator[Driven]:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="16MiB") as pc:
        yield pc


def test_nodes_of_a_throttle_group_share_its_budget(pc: Driven, raw: pathlib.Path) -> None:
    machine = pc.machine
    machine.board.add_object({"qom-type": "throttle-group", "id": "g", "limits": {"bps-total": MIB}})
    table = blocks(machine)
    for name in ("a", "b"):
        file = {"driver": "file", "filename": str(raw), "read-only": True}
        table.add({"driver": "throttle", "node-name": name, "throttle-group": "g", "file": file, "read-only": True})
    began = time.monotonic()
    for name in ("a", "b"):
        assert len(table.named.open[name].read(0, MIB // 2)) == MIB // 2
    table.named.open["a"].read(0, 4096)  # the one after pays for them: a second's worth, less a burst of a tenth
    assert time.monotonic() - began > 0.85


def test_a_throttle_group_says_what_is_wrong(pc: Driven) -> None:
    def refused(**limits: int) -> str:
        with pytest.raises(BuildError) as told:
            pc.machine.board.add_object({"qom-type": "throttle-group", "id": "g", "limits": limits})
        return str(told.value)

    assert "same time" in refused(**{"bps-total": 1, "bps-read": 1})
    assert "require" in refused(**{"iops-total-max": 5})
    assert "unexpected" in refused(nix=5)
    with pytest.raises(BuildError, match="does not exist"):
        options = {"driver": "throttle", "node-name": "n", "throttle-group": "nix", "file": {"driver": "null-co"}}
        blocks(pc.machine).add(options)


def test_copy_on_read_keeps_what_was_read(tmp_path: pathlib.Path) -> None:
    for name, below in (("base.qcow2", ""), ("top.qcow2", str(tmp_path / "base.qcow2"))):
        new_file(str(tmp_path / name), 0)
        options = {"size": 4 * MIB, "backing_file": below, "backing_fmt": "qcow2" if below else ""}
        create_qcow2(str(tmp_path / name), 4 * MIB, options)
        if not below:
            base = open_node(str(tmp_path / name), "qcow2", Access())
            base.write(0, b"b" * 2 * MIB)
            base.close()
    file = {"driver": "qcow2", "file": {"driver": "file", "filename": str(tmp_path / "top.qcow2")}}
    node: Any = open_options({"driver": "copy-on-read", "file": file}, Access())
    assert node.read(MIB, 100) == b"b" * 100
    node.write(MIB + 10, b"top")
    assert node.read(MIB, 20) == b"b" * 10 + b"top" + b"b" * 7
    top = node.children()[0][1]
    assert top.extent(MIB, 65536)[1] & 4 and not top.extent(0, 65536)[1] & 4
    node.close()


class Ranges(http.server.BaseHTTPRequestHandler):
    data = b""
    ranges = True

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/disk.img" else 404)
        self.send_header("Content-Length", str(len(self.data)))
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()

    def do_GET(self) -> None:
        first, last = (int(word) for word in self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self.data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *what: Any) -> None:
        pass


@pytest.fixture
def web(raw: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Ranges]]]:
    monkeypatch.setenv("no_proxy", "*")  # whatever who runs the tests has
    handler = type("Handler", (Ranges,), {"data": raw.read_bytes()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


def test_an_image_on_a_web_server_is_read_by_ranges(web: tuple[str, type[Ranges]], raw: pathlib.Path) -> None:
    url, handler = web
    node = open_node(f"{url}/disk.img", "raw", Access(readonly=True))
    data = raw.read_bytes()
    assert node.size == len(data)
    for offset, count in ((0, 512), (MIB - 100, 300000), (len(data) - 700, 700)):
        assert node.read(offset, count) == data[offset : offset + count]
    handler.data = data[:MIB]
    with pytest.raises(OSError):
        node.read(3 * MIB, 4096)
    node.close()


def test_what_a_web_server_cannot_do_is_said(web: tuple[str, type[Ranges]]) -> None:
    url, handler = web
    with pytest.raises(ImageError, match="404"):
        open_node(f"{url}/nix", "raw", Access(readonly=True))
    with pytest.raises(ImageError, match="writes"):
        open_node(f"{url}/disk.img", "raw", Access())
    handler.ranges = False
    with pytest.raises(ImageError, match="range"):
        open_node(f"{url}/disk.img", "raw", Access(readonly=True))


def test_a_breakpoint_holds_a_request_until_it_is_let_go(pc: Driven, raw: pathlib.Path) -> None:
    from vmrun.machine import qemuio

    file = {"driver": "file", "filename": str(raw)}
    blocks(pc.machine).add({"driver": "blkdebug", "node-name": "d", "image": file})
    drive = pc.machine.board.drive("d")

    def io(*words: str) -> str:
        found: Any = qemuio.command(pc.machine, "d", list(words))
        return found if isinstance(found, str) else str(found(None))

    assert "No such file" in io("break", "nix", "a") and "No such file" in io("resume", "a")
    for tag in ("a", "b"):
        io("break", "pwritev", tag)
    io("aio_write", "-P", "7", "0", "4k")
    io("wait_break", "a")
    io("aio_write", "-P", "8", "8k", "4k")
    io("wait_break", "b")
    assert raw.read_bytes()[:1] == b"\0" and "Pattern" in io("read", "-P", "7", "0", "4k")
    assert io("resume", "a") == "" and "No such file" in io("resume", "a")
    end = time.monotonic() + 60
    while "Pattern" in io("read", "-P", "7", "0", "4k"):
        assert time.monotonic() < end
    assert "Pattern" in io("read", "-P", "8", "8k", "4k")
    assert drive.node.waits("b")
    pc.machine.close()  # lets it go
    assert raw.read_bytes()[8192:8196] == b"\x08" * 4


def test_a_flush_can_be_held_before_it_is_one() -> None:
    """`flush_to_os`, which is whatever below has to write back by itself, comes first."""
    node: Any = open_options({"driver": "blkdebug", "image": {"driver": "null-co", "size": 1 << 20}}, Access())
    heard: list[str] = []

    def hear(text: str) -> None:
        heard.append(text)
        node.resume_tag(text[-3])

    node.listen(hear)
    node.add_break("flush_to_disk", "D")
    node.add_break("flush_to_os", "O")
    node.sync()
    assert [(text.split()[1], text[-3]) for text in heard] == [
        ("Suspended", "O"), ("Resuming", "O"), ("Suspended", "D"), ("Resuming", "D")
    ]  # fmt: skip
    node.close()


def test_a_name_of_blkdebug_takes_options_of_the_image_in_it() -> None:
    options = {"file": {"image": {"read-zeroes": "on"}}, "driver": "raw"}
    made = named("blkdebug::null-co://", options)
    assert made["file"] == {"driver": "blkdebug", "image": {"driver": "null-co", "read-zeroes": "on"}}
    node = open_options(made, Access(readonly=True))
    assert node.read(0, 4) == bytes(4)
    node.close()


def test_who_hears_that_a_request_waits_can_let_it_go_at_once() -> None:
    node: Any = open_options({"driver": "blkdebug", "image": {"driver": "null-co", "size": 1 << 20}}, Access())
    heard: list[Any] = []

    def hear(text: str) -> None:
        heard.append((text, text.startswith("blkdebug: Suspended") and node.resume_tag("A", True)))

    node.listen(hear)
    node.add_break("pwritev", "A")
    thread = threading.Thread(target=node.write, args=(0, bytes(512)), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert heard == [("blkdebug: Suspended request 'A'\n", True), ("blkdebug: Resuming request 'A'\n", False)]
    node.close()


def test_what_a_reopened_node_cannot_change_is_refused(pc: Driven, raw: pathlib.Path) -> None:
    made = {"driver": "raw", "node-name": "n", "discard": "unmap", "file": {"driver": "file", "filename": str(raw)}}
    blocks(pc.machine).add(made)
    blockdev_reopen(pc.machine, [made])
    for key, value in (
        ("discard", "ignore"), ("detect-zeroes", "on"), ("offset", 512), ("size", 512), ("cache", {"direct": True}),
    ):  # fmt: skip
        with pytest.raises(BuildError, match=f"Cannot change the option '{key}'"):
            blockdev_reopen(pc.machine, [{**made, key: value}])
