"""on: of a machine file, and vmrun up --with-parent."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tests.board import Driven
from tests.unit.config.test_flash import found
from vmrun.monitor.runtime import socket_path

PANIC = {"driver": "pvpanic", "id": "panic"}


def test_what_becomes_of_events_is_the_machines_policy(tmp_path: pathlib.Path) -> None:
    wanted = {"poweroff": "pause", "reboot": "shutdown", "crash": "none", "watchdog": "inject-nmi"}
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", on=wanted) as pc:
        assert pc.machine.policy == {
            "shutdown": "pause", "reboot": "shutdown", "panic": "none", "watchdog": "inject-nmi"
        }  # fmt: skip


@pytest.mark.parametrize(("crash", "end"), [("none", None), ("shutdown", "panic"), ("pause", None)])
def test_a_crash_does_what_the_file_says(crash: str, end: str | None, tmp_path: pathlib.Path) -> None:
    with Driven(tmp_path, machine="pc-i440fx-7.2", memory="8MiB", on={"crash": crash}, devices=[PANIC]) as pc:
        pc.board.control.ask(pc.port(0x505, 1, 1))
        pc.machine.loop.run_once(0.1)
        assert (pc.machine.outcome.reason if pc.machine.outcome else None) == end


def test_only_known_words_will_do(tmp_path: pathlib.Path) -> None:
    assert found(tmp_path, "on: {crash: explode}\n")[0] != []
    assert found(tmp_path, "on: {lunch: pause}\n")[0] != []
    assert found(tmp_path, "on: {crash: pause}\n")[1]["on"] == {"crash": "pause"}


def test_a_machine_ends_with_its_parent(tmp_path: pathlib.Path) -> None:
    """The parent starts it and waits until it is told to go; what is left of the machine is nothing."""
    file = tmp_path / "child.json"
    file.write_text(
        json.dumps({"schema": "vmrun/machine/1", "name": f"orphan{os.getpid()}", "machine": "pc-i440fx-7.2",
                    "memory": "8MiB", "accel": ["qtest"], "serial": "null"})
    )  # fmt: skip
    code = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL);"
        " print(p.pid, flush=True); sys.stdin.readline()"
    )
    up = [sys.executable, "-c", "import sys; from vmrun.cli import main; sys.exit(main())", "up", "--quiet"]
    command = [sys.executable, "-c", code, *up, "--with-parent", str(file)]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert parent.stdout is not None and parent.stdin is not None
    child = int(parent.stdout.readline())
    place = f"orphan{os.getpid()}"
    end = time.monotonic() + 30
    there = pathlib.Path(socket_path(place)).parent
    while not any(place in name.name for name in there.glob("*")) and time.monotonic() < end:
        time.sleep(0.05)
    parent.stdin.close()
    parent.wait(10)
    while pathlib.Path(f"/proc/{child}/exe").exists() and time.monotonic() < end:
        time.sleep(0.05)
    words = pathlib.Path(f"/proc/{child}/cmdline")
    assert not words.exists() or not words.read_bytes()
    assert not any(place in name.name for name in there.glob("*"))
