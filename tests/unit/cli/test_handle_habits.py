"""vmrun.Machine in the ways that programs use it: what is given wrongly, given up, killed, plenty, or garbled."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

import vmrun
from tests.unit.cli.test_handle import LOGIN, machine, own_directory  # noqa: F401  # a fixture
from vmrun.conversation import Core
from vmrun.errors import MonitorError

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_relative_paths_of_a_dict_begin_where_the_program_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    monkeypatch.chdir(tmp_path)
    document = machine(tmp_path, LOGIN, disks=["disk.img"], firmware={"bios": pathlib.Path("bios.bin")})
    with vmrun.Machine.start(document) as lab:
        assert lab.qmp("query-block")[0]["inserted"]["file"] == str(tmp_path / "disk.img")


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, TypeError, "a file, a dict or a command line"),
        ({"what": "a.yaml", "command_line": ["-S"]}, TypeError, "not of both"),
        ({"command_line": "-S -m 16"}, TypeError, "shlex.split"),
        ({"command_line": ["-S", "-daemonize"]}, vmrun.VmrunError, "leave its starter"),
        ({"what": {"schema": "vmrun/machine/1", "name": "a/b", "machine": "pc"}}, vmrun.VmrunError, "not a name"),
        ({"what": "nothing.yaml"}, vmrun.VmrunError, "there is no file 'nothing.yaml'"),
        ({"what": "m.yaml", "options": ["--directory", "/nowhere"]}, vmrun.VmrunError, "there is no directory"),
    ],
)
def test_what_cannot_be_started_is_said(given: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        vmrun.Machine.start(**given)  # type: ignore[arg-type]


def test_what_is_no_utf8_takes_nothing_with_it(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        lab.expect("login: ", timeout=None)
        lab.send(b"\xfe\xfeAxyzw")  # it answers with each byte plus one
        lab.expect(("nothing", "B"))
        lab.expect("y")
        assert lab.before == "" and lab.after == "y"
        lab.expect(b"z{")


def test_a_command_given_up_halfway_does_not_spoil_the_next(tmp_path: pathlib.Path) -> None:
    async def talk() -> str:
        async with await vmrun.AsyncMachine.start(machine(tmp_path, LOGIN)) as lab:
            os.kill(lab.pid, signal.SIGSTOP)
            with pytest.raises(TimeoutError):  # more than a socket holds
                await asyncio.wait_for(lab.qmp("human-monitor-command", command_line="x" * 900_000), 0.3)
            os.kill(lab.pid, signal.SIGCONT)
            return await lab.status()

    assert asyncio.run(asyncio.wait_for(talk(), 60)) == "running"


def test_descriptors_may_have_any_number(tmp_path: pathlib.Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        while not kept or kept[-1] < 1100:
            kept.append(os.open(os.devnull, os.O_RDONLY))
        with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
            lab.expect("login: ")
            assert lab.quit().reason == "quit"
    finally:
        for fd in kept:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_killed_machine_is_killed_for_all_who_watch(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab, vmrun.Machine.attach("handled") as same:
        with pytest.raises(vmrun.MonitorError, match="no serial console here"):
            same.expect("login: ")
        os.kill(lab.pid, signal.SIGKILL)
        assert (same.wait(10).reason, lab.wait(10).reason) == ("killed", "killed")
        for call in (lab.status, lambda: lab.send("x"), lambda: lab.expect("never"), lambda: lab.wait_event("RESET")):
            with pytest.raises(vmrun.WaitFailed) as told:
                call()
            assert told.value.reason == "off"


def test_errors_have_the_monitor_s_class(tmp_path: pathlib.Path) -> None:
    with vmrun.Machine.start(machine(tmp_path, LOGIN)) as lab:
        with pytest.raises(vmrun.MonitorError) as told:
            lab.qmp("qom-get", path="/nowhere", property="type")
        assert told.value.kind == "DeviceNotFound"


@pytest.mark.parametrize("line", [False, True])
def test_a_machine_ends_with_the_program_that_began_it(tmp_path: pathlib.Path, line: bool) -> None:
    """However that ends; but not with the thread that did."""
    what = "command_line=['-S', '-display', 'none', '-accel', 'qtest']" if line else "json.load(sys.stdin)"
    script = (
        "import json, os, sys, threading, vmrun; made = []\n"
        f"one = threading.Thread(target=lambda: made.append(vmrun.Machine.start({what})))\n"
        "one.start(); one.join(); print(made[0].pid, made[0].status(), flush=True); os.kill(os.getpid(), 9)"
    )
    text = json.dumps(machine(tmp_path, LOGIN))
    done = subprocess.run(
        [sys.executable, "-c", script], input=text, stdout=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False
    )
    pid, status = done.stdout.split()
    assert status == ("prelaunch" if line else "running")
    for _ in range(300):
        try:
            if not pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                break  # nobody has asked for its exit code yet
        except FileNotFoundError:
            break
        time.sleep(0.1)
    else:
        os.kill(int(pid), signal.SIGKILL)
        pytest.fail("it still runs")


def test_the_page_s_program_prints_what_it_says(tmp_path: pathlib.Path) -> None:
    page = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    code = page.split("```python\n")[-1].split("```")[0]
    wanted = [line.rsplit("# ", 1)[1] for line in code.splitlines() if "print(" in line]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=99, env=env)
    assert (done.stdout.splitlines(), done.stderr) == (wanted, "")


def test_what_events_say_of_the_end() -> None:
    told = {
        "": ["RESET", "STOP"],
        "shutdown": [("SHUTDOWN", "guest-shutdown")],
        "reset": ["TRIPLE_FAULT", ("SHUTDOWN", "guest-reset")],
        "quit": [("SHUTDOWN", "host-qmp-quit")],
        "panic": ["GUEST_PANICKED", ("SHUTDOWN", "guest-panic")],
    }
    for reason, events in told.items():
        core = Core()
        for event in events:
            name, why = event if isinstance(event, tuple) else (event, "")
            core._event({"event": name, "data": {"reason": why}})
        assert core.reason == reason
        assert core.faults == ("TRIPLE_FAULT" in events)


def test_who_has_gone_does_not_answer() -> None:
    core = Core()
    core.name = "lab"
    with pytest.raises(MonitorError, match="lab does not answer any more"):
        next(core.ask("stop", {}, 1.0))


def test_closing_gives_all_back(tmp_path: pathlib.Path) -> None:
    core = Core()
    ours, theirs = socket.socketpair()
    core.qmp, core.messages = ours, open(tmp_path / "messages", "w+b")  # noqa: SIM115
    messages = core.messages
    core.close()
    assert ours.fileno() == -1 and messages.closed
    theirs.close()
