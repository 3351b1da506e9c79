"""-display gtk and sdl: a viewer where one is installed, words where none is."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

import pytest

from vmrun.cli.window import find
from vmrun.errors import BackendError

PROGRAM = pathlib.Path(sys.prefix) / "bin" / "vmrun-qemu"
WORDS = ["-nodefaults", "-S", "-vga", "std", "-machine", "accel=qtest"]


@pytest.mark.parametrize("words", [["-display", "gtk"], ["-sdl"], ["-display", "sdl,gl=off"]])
def test_without_a_place_for_a_window_that_is_said(words: list[str]) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    done = subprocess.run([PROGRAM, *WORDS, *words], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "no window can be opened" in done.stderr and "-vnc" in done.stderr and "Traceback" not in done.stderr


def test_without_a_viewer_it_is_said_what_to_install() -> None:
    with pytest.raises(BackendError, match="no viewer is installed") as raised:
        find({"DISPLAY": ":0", "PATH": "/nowhere"})
    assert "tigervnc-viewer" in str(raised.value.problems[0].remedy)


def test_the_viewer_gets_the_address_and_a_password_and_its_end_is_the_machines(tmp_path: pathlib.Path) -> None:
    """A stand-in that writes down how it was called."""
    viewer = tmp_path / "xtigervncviewer"
    viewer.write_text(f'#!/bin/sh\ncp "$2" {tmp_path}/secret\necho "$@" > {tmp_path}/called\n')
    viewer.chmod(0o755)
    env = {**os.environ, "DISPLAY": ":77", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    if shutil.which("remote-viewer"):
        pytest.skip("another viewer comes first")
    done = subprocess.run([PROGRAM, *WORDS, "-display", "gtk"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    words = (tmp_path / "called").read_text().split()
    assert words[0] == "-passwd" and words[-1].startswith("127.0.0.1::")
    assert len((tmp_path / "secret").read_bytes()) == 8
    assert not pathlib.Path(words[1]).exists()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("Xvfb") or not shutil.which("xtigervncviewer"), reason="no TigerVNC")
def test_tigervnc_is_let_in(tmp_path: pathlib.Path) -> None:
    reader, writer = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(writer)], pass_fds=(writer,), stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as number:
        display = number.readline().strip()
    env = {**os.environ, "DISPLAY": f":{display}", "HOME": str(tmp_path)}
    machine = subprocess.Popen([PROGRAM, *WORDS, "-display", "gtk"], env=env, stderr=subprocess.PIPE, text=True)
    try:
        search = ["xdotool", "search", "--onlyvisible", "--name", "TigerVNC", "getwindowname"]
        end = time.monotonic() + 60
        while not (found := subprocess.run(search, env=env, capture_output=True, text=True).stdout):
            assert machine.poll() is None and time.monotonic() < end
            time.sleep(0.1)
        assert "QEMU" in found
    finally:
        machine.kill()
        machine.communicate()
        server.kill()
        server.wait()


@pytest.mark.parametrize(
    ("display", "said"),
    [
        ("dbus,p2p=on", "-display dbus: vmrun does not have this yet"),
        ("spice-app", "-display spice-app: vmrun does not have this yet"),
        ("curses", "-display curses: this is no terminal"), ("gtk,foo=1", "Parameter 'foo' is unexpected"),
        ("sdl,full-screen=x", "Parameter 'full-screen' expects 'on' or 'off'"),
        ("cocoa", "does not accept value 'cocoa'"),
        ("none,zoom-to-fit=on", "Parameter 'zoom-to-fit' is unexpected"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_said(display: str, said: str) -> None:
    done = subprocess.run(
        [PROGRAM, *WORDS, "-display", display], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_how_a_window_looks_is_noted() -> None:
    words = [PROGRAM, *WORDS, "-display", "egl-headless,gl=on", "-monitor", "stdio"]
    done = subprocess.run(words, input="quit\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert [line.partition("'")[2].partition("'")[0] for line in done.stderr.splitlines()] == ["egl-headless", "gl"]
