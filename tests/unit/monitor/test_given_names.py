"""Names that clients give and that cannot be, or are somebody's: told in words, and nothing is left of it."""

from __future__ import annotations

import json
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.board import Driven
from tests.unit.monitor.test_qmp import Talk
from vmrun.backends.chardev.sockets import Listening
from vmrun.monitor.hmp import run

LONG = "x" * 70  # a label has 63
INET = {"type": "inet", "data": {"host": LONG, "port": "1"}}


@pytest.fixture
def talk(tmp_path: pathlib.Path) -> Iterator[Talk]:
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        talk = Talk(pc)
        talk.result("qmp_capabilities")
        yield talk
        talk.monitors.close()


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("chardev-add", {"id": "c", "backend": {"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": "a\0b"}}}}}),
        ("object-add", {"qom-type": "secret", "id": "s", "file": "a\0b"}),
        ("blockdev-add", {"driver": "raw", "node-name": "n", "file": {"driver": "file", "filename": "a\0b"}}),
        ("human-monitor-command", {"command-line": "screendump a\0b"}),
    ],
)  # fmt: skip
def test_no_name_has_a_zero_byte(talk: Talk, command: str, given: dict[str, Any]) -> None:
    assert talk.ask(command, **given)["error"]["desc"] == "a NUL character is not allowed in text"


def test_data_may_have_zero_bytes(talk: Talk) -> None:
    talk.result("chardev-add", id="r", backend={"type": "ringbuf", "data": {}})
    talk.result("ringbuf-write", device="r", data="a\0b")
    assert talk.result("ringbuf-read", device="r", size=3) == "a\0b"


def test_a_line_ends_at_a_zero_byte(talk: Talk) -> None:
    assert run(talk.machine, "info status\0 junk") == run(talk.machine, "info status")


@pytest.mark.parametrize(
    ("command", "given"),
    [
        ("chardev-add", {"id": "c", "backend": {"type": "socket", "data": {"addr": INET}}}),
        ("chardev-add", {"id": "c", "backend": {"type": "socket", "data": {"addr": INET, "server": False}}}),
        ("chardev-add", {"id": "c", "backend": {"type": "udp", "data": {"remote": INET}}}),
        ("chardev-add", {"id": "c", "backend": {"type": "udp", "data": {
            "remote": {"type": "inet", "data": {"host": "127.0.0.1", "port": "9"}}, "local": INET}}}),
        ("netdev_add", {"type": "stream", "id": "n", "addr": {"type": "inet", "host": LONG, "port": "1"}}),
        ("netdev_add", {"type": "socket", "id": "n", "connect": f"{LONG}:1"}),
        ("nbd-server-start", {"addr": INET}),
        ("blockdev-add", {"driver": "nbd", "node-name": "n", "server": {"type": "inet", "host": LONG, "port": "1"}}),
    ],
)  # fmt: skip
def test_a_host_whose_name_cannot_be_is_told(talk: Talk, command: str, given: dict[str, Any]) -> None:
    before = len(talk.sent)
    talk.session.feed(json.dumps({"execute": command, "arguments": given}).encode() + b"\n")
    end = time.monotonic() + 60
    while len(talk.sent) == before and time.monotonic() < end:  # one that waits for a server is answered later
        talk.machine.loop.run_once(0.01)
    assert "internal error" not in talk.sent[before]["error"]["desc"]


def test_ports_up_to_one_end_at_the_last_that_there_is() -> None:
    with socket.create_server(("127.0.0.1", 65535)), pytest.raises(OSError, match="in use"):
        Listening({"host": "127.0.0.1", "port": 65535, "to": 70000})


def test_a_nodes_name_is_one_nodes(talk: Talk, tmp_path: pathlib.Path) -> None:
    """Of drive_add, drive_add -n and blockdev-add alike; what was refused keeps no file open."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.img").write_bytes(bytes(1 << 16))
    told = "Duplicate nodes with node-name='n2'"

    def add(id: str, file: str, more: str = "") -> str:
        return str(run(talk.machine, f"drive_add 0 if=none,id={id},file={tmp_path}/{file}.img,format=raw{more}"))

    assert add("d1", "a", ",node-name=n2") == "OK\r\n"
    assert told in add("d2", "b", ",node-name=n2")
    assert told in str(run(talk.machine, "drive_add -n 0 driver=null-co,node-name=n2"))
    assert talk.ask("blockdev-add", driver="null-co", node_name="n2")["error"]["desc"] == told
    assert add("d2", "b") == "OK\r\n"
    run(talk.machine, "drive_del d1")
    talk.result("blockdev-add", driver="null-co", node_name="n2")
    assert talk.ask("blockdev-add", driver="null-co", node_name="")["error"]["desc"] == "Invalid node-name: ''"
