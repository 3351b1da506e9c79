"""-sandbox: denied calls fail, the rest goes on, in every thread."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests.guest.machines import need
from vmrun.config.importers.line import parse_command_line
from vmrun.config.importers.qemuopts import LineError

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / "bin" / "vmrun-qemu"
TRY = """
import os, sys, threading
from vmrun.cli.sandbox import enter
held = threading.Event()
found = []
def later():
    held.wait()
    found.append(tried(lambda: os.fork() or os._exit(0)))
def tried(call):
    try:
        call()
        return "fine"
    except PermissionError:
        return "denied"
thread = threading.Thread(target=later)
thread.start()
enter(dict(part.split("=") for part in sys.argv[1:]))
held.set()
thread.join()
another = threading.Thread(target=lambda: found.append("thread"))
another.start()
another.join()
print(*found, tried(lambda: os.posix_spawn("/bin/true", ["true"], {})), tried(lambda: os.setgid(os.getgid())),
      tried(lambda: os.sched_getaffinity(0)), tried(lambda: os.chroot("/")), tried(lambda: os.listdir("/")))
"""


def attempt(*words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", TRY, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ((), ["fine", "thread", "fine", "fine", "fine", "denied", "fine"]),
        (("spawn=deny",), ["denied", "thread", "denied", "fine", "fine", "denied", "fine"]),
        (("elevateprivileges=deny",), ["fine", "thread", "fine", "denied", "fine", "denied", "fine"]),
        (("resourcecontrol=deny",), ["fine", "thread", "fine", "fine", "denied", "denied", "fine"]),
    ],
)
def test_what_is_denied_fails_in_all_threads(words: tuple[str, ...], found: list[str]) -> None:
    assert attempt(*words) == found


ALL = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@pytest.mark.parametrize("accel", ["qtest", "tcg"])
def test_a_machine_runs_in_it(accel: str, tmp_path: pathlib.Path) -> None:
    if accel == "tcg":
        need("soft")
    command = [sys.executable, str(PROGRAM), "-M", "pc-i440fx-7.2", "-accel", accel, "-display", "none", "-nodefaults"]
    command += ["-m", "16", "-qmp", "stdio", "-sandbox", ALL]
    asked = '{"execute": "qmp_capabilities"}{"execute": "query-status"}{"execute": "quit"}'
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and '"running": true' in done.stdout, done.stdout + done.stderr


def test_words_it_does_not_know() -> None:
    for word in ("spawn=children", "nonsense=deny", "on,obsolete=maybe"):
        with pytest.raises(LineError):
            parse_command_line(["-M", "pc-i440fx-7.2", "-sandbox", word], defaults=False)


@pytest.mark.parametrize(
    ("words", "run"),
    [
        ("user=nobody,exit-with-parent=on", {"runas": "nobody", "exit-with-parent": True}),
        ("chroot=/srv,exit-with-parent=off", {"chroot": "/srv"}),
        ("async-teardown=off", {}),
    ],
)
def test_run_with_is_what_older_options_say(words: str, run: dict[str, object]) -> None:
    assert parse_command_line(["-run-with", words]).run == run


@pytest.mark.parametrize("words", ["exit-with-parent=maybe", "nonsense=on"])
def test_run_with_takes_not_anything(words: str) -> None:
    with pytest.raises(LineError, match="maybe|nonsense"):
        parse_command_line(["-run-with", words])
