"""Real VNC viewers look at a machine and type into it."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest
import vncdotool.command  # the client that `python -m` starts
from PIL import Image

from tests.up import Up

assert vncdotool.command.__file__


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[Up]:
    """SeaBIOS with nothing to boot, on a display of its own choosing."""
    keys = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    with Up(tmp_path, **keys, vnc={"listen": "127.0.0.1:90", "to": 400, "password": True}) as up:
        yield up


def vncdo(up: Up, directory: pathlib.Path, *words: str, password: str = "geheim") -> subprocess.CompletedProcess[str]:
    port = int(up.qmp("query-vnc")["service"])
    command = [sys.executable, "-m", "vncdotool.command", "-s", f"127.0.0.1::{port}", "-p", password, *words]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)


def test_vncdotool_sees_the_screenshot_and_types(machine: Up, tmp_path: pathlib.Path) -> None:
    machine.wait_screen("No bootable device")
    machine.qmp("change-vnc-password", password="geheim")
    result = vncdo(machine, tmp_path, "capture", "seen.png")
    assert result.returncode == 0, result.stderr
    machine.qmp("screendump", filename=str(tmp_path / "own.ppm"))
    seen, own = Image.open(tmp_path / "seen.png").convert("RGB"), Image.open(tmp_path / "own.ppm")
    assert seen.size == own.size and seen.tobytes() == own.tobytes()


def test_a_wrong_password_lets_nobody_in(machine: Up, tmp_path: pathlib.Path) -> None:
    machine.qmp("change-vnc-password", password="geheim")
    vncdo(machine, tmp_path, "capture", "seen.png", password="falsch")
    assert not (tmp_path / "seen.png").exists()
    assert machine.qmp("query-vnc")["clients"] == []


def test_typed_text_reaches_the_guest(machine: Up, tmp_path: pathlib.Path) -> None:
    machine.wait_screen("No bootable device")
    machine.qmp("change-vnc-password", password="geheim")
    assert vncdo(machine, tmp_path, "type", "Ab!").returncode == 0
    # SeaBIOS keeps what was typed in the BIOS data area: 0x41e holds (character, scan code) pairs
    def typed() -> bytes:
        line = machine.qmp("human-monitor-command", **{"command-line": "xp /6xb 0x41e"})
        found = [int(word, 16) for word in line.split() if word.startswith("0x")]
        return bytes(found[0::2])

    machine.until(lambda: typed()[-1])  # keys are paced, and go on when the viewer has gone
    assert typed() == b"Ab!"
