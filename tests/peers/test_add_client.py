"""add_client: viewers and peers that a manager hands over, as virt-viewer --attach has them; QEMU beside it."""

from __future__ import annotations

import array
import json
import pathlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.peers.oracle import QEMU, needs_qemu, wait_for

ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.peer, needs_qemu]


class Monitor:
    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb")
        self.file.readline()
        self.ask("qmp_capabilities")

    def ask(self, name: str, fd: int = -1, **arguments: Any) -> Any:
        line = json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n"
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd >= 0 else []
        self.socket.sendmsg([line], more)
        while True:
            answer = json.loads(self.file.readline())
            if "event" not in answer:
                return answer.get("error") or answer["return"]


@pytest.fixture(params=["qemu", "vmrun"])
def monitor(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Monitor]:
    program = [QEMU or ""] if request.param == "qemu" else [sys.executable, str(ROOT / "bin" / "vmrun-qemu")]
    line = ["-M", "pc-i440fx-7.2", "-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-vga", "std", "-m", "16"]
    line += ["-qmp", f"unix:{tmp_path}/qmp,server=on,wait=off", "-vnc", f"unix:{tmp_path}/vnc,password=on"]
    line += ["-chardev", f"socket,id=c0,path={tmp_path}/c,server=on,wait=off", "-device", "isa-serial,chardev=c0"]
    process = subprocess.Popen([*program, *line], stdin=subprocess.DEVNULL)
    try:
        assert wait_for(lambda: (tmp_path / "qmp").exists(), 60)
        yield Monitor(str(tmp_path / "qmp"))
    finally:
        process.kill()
        process.wait()


def hand_over(monitor: Monitor, protocol: str, **more: Any) -> tuple[socket.socket, Any]:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    with theirs:
        assert monitor.ask("getfd", theirs.fileno(), fdname="f") == {}
    return ours, monitor.ask("add_client", protocol=protocol, fdname="f", **more)


@pytest.mark.parametrize(("trusted", "kinds"), [(False, b"\x01\x02"), (True, b"\x01\x01")])
def test_a_viewer_is_welcome(monitor: Monitor, trusted: bool, kinds: bytes) -> None:
    viewer, answer = hand_over(monitor, "vnc", skipauth=trusted)
    assert answer == {}
    assert viewer.recv(12) == b"RFB 003.008\n"
    viewer.sendall(b"RFB 003.008\n")
    assert viewer.recv(2) == kinds  # how many ways to say who one is, and which: none, or a password
    viewer.close()


def test_a_character_device_takes_one_client(monitor: Monitor) -> None:
    peer, answer = hand_over(monitor, "c0")
    assert answer == {}
    assert next(row for row in monitor.ask("query-chardev") if row["label"] == "c0")["filename"].startswith("unix:")
    second, refused = hand_over(monitor, "c0")
    assert refused == {"class": "GenericError", "desc": "failed to add client"}
    assert second.recv(1) == b""
    peer.close()


def test_what_is_no_client_is_refused(monitor: Monitor) -> None:
    assert hand_over(monitor, "nonsense")[1]["desc"] == "protocol 'nonsense' is invalid"
    assert monitor.ask("add_client", protocol="vnc", fdname="f")["desc"].startswith("File descriptor named 'f' has not")
    with open("/dev/null", "rb") as file:
        monitor.ask("getfd", file.fileno(), fdname="f")
    answer = monitor.ask("add_client", protocol="vnc", fdname="f")  # QEMU 7.2 takes it; later ones say what we say
    assert answer in ({}, {"class": "GenericError", "desc": "parameter @fdname must name a socket"})
    assert monitor.ask("query-status")["status"] == "prelaunch"
