"""QMP's greeting comes before there is a machine, once."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys

from vmrun.monitor.early import GREETING, Early
from vmrun.monitor.qmp import QmpSession

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "bin" / "vmrun-qemu"


def test_the_greeting_is_that_of_a_session() -> None:
    said: list[bytes] = []
    QmpSession(None, said.append)  # type: ignore[arg-type]
    assert said == [GREETING]


def test_a_client_of_a_server_is_greeted_while_nothing_else_runs(tmp_path: pathlib.Path) -> None:
    early = Early()
    listening = early.listen({"path": str(tmp_path / "qmp")})
    early.begin()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(tmp_path / "qmp"))
        assert client.recv(4096) == GREETING
        early.end()
        assert [greeted for _, greeted in listening.clients] == [True]
    listening.close()
    assert not (tmp_path / "qmp").exists()


def test_who_is_not_there_any_more_is_not_taken_for_greeted() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    given, greeted = Early().connect({"fd": ours.fileno()})
    assert not greeted
    given.close()
    ours.close()


def test_each_client_has_one_greeting_and_its_answers(tmp_path: pathlib.Path) -> None:
    """One that listens, one that connects, and a second client of the first."""
    theirs = socket.socket(socket.AF_UNIX)
    theirs.settimeout(60)
    theirs.bind(str(tmp_path / "client"))
    theirs.listen(1)
    process = subprocess.Popen(
        [
            sys.executable, str(PROGRAM), "-M", "none", "-display", "none", "-qmp", f"unix:{tmp_path}/client",
            "-qmp", f"unix:{tmp_path}/server,server=on,wait=off",
        ],
    )  # fmt: skip
    try:
        first, _ = theirs.accept()
        said = []
        connections = [first]
        for _ in range(2):
            client = socket.socket(socket.AF_UNIX)
            while client.connect_ex(str(tmp_path / "server")):
                assert process.poll() is None
            connections.append(client)
        for n, client in enumerate(connections):
            client.settimeout(60)
            with client.makefile("rwb") as stream:
                stream.write(b'{"execute":"qmp_capabilities"}{"execute":"query-name","id":%d}' % n)
                stream.flush()
                said.append([json.loads(stream.readline()) for _ in range(3)])
            client.close()
        assert [rows[0] for rows in said] == [json.loads(GREETING)] * 3
        assert [rows[1:] for rows in said] == [[{"return": {}}, {"return": {}, "id": n}] for n in range(3)]
    finally:
        process.terminate()
        assert process.wait(60) == 0
        theirs.close()
    assert not os.path.exists(tmp_path / "server")
