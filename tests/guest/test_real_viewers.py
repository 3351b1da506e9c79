"""GRUB's graphical menu and memtest86+, seen and driven by people's own VNC viewers: TigerVNC and vncdotool."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import vncdotool.command
from PIL import Image

from tests.guest.screens import grub_disk, watch
from tests.up import Up
from vmrun.screen import ScreenTimeout

assert vncdotool.command.__file__
pytestmark = [pytest.mark.guest, pytest.mark.slow]
MEMTEST = pathlib.Path("/boot/memtest86+ia32.bin")
VIEWER = shutil.which("xtigervncviewer")
MENU = """
set gfxmode=640x480
terminal_output gfxterm
set timeout=-1
menuentry "first of all" { echo "the first one" ; sleep 1000 }
menuentry "second choice" { echo "chosen: the second" ; sleep 1000 }
"""
EXACT = ("-AutoSelect=0", "-PreferredEncoding=ZRLE", "-NoJPEG")
PATIENCE = 120.0


def machine(directory: pathlib.Path, **keys: Any) -> Up:
    common = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    return Up(directory, **common, vnc={"listen": "127.0.0.1:120", "to": 500}, **keys)


def port(up: Up) -> int:
    return int(up.qmp("query-vnc")["service"])


def vncdo(up: Up, directory: pathlib.Path, *words: str) -> None:
    command = [sys.executable, "-m", "vncdotool.command", "-s", f"127.0.0.1::{port(up)}", *words]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def shown(up: Up, directory: pathlib.Path) -> Image.Image:
    path = directory / "own.ppm"
    up.qmp("screendump", filename=str(path))
    return Image.open(path).convert("RGB")


class Desk:
    """An X server without a screen, with TigerVNC's viewer on it."""

    def __init__(self, directory: pathlib.Path, up: Up) -> None:
        self.frames = directory / "Xvfb_screen0"
        reader, writer = os.pipe()
        words = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x1024x24", "-fbdir", str(directory)]
        self.server = subprocess.Popen([*words, "-nolisten", "tcp"], pass_fds=(writer,), stderr=subprocess.DEVNULL)
        os.close(writer)
        self.viewer: subprocess.Popen[bytes] | None = None
        try:
            with os.fdopen(reader) as number:
                name = number.readline().strip()
            assert name, "Xvfb does not start"
            self.env = {**os.environ, "DISPLAY": f":{name}", "HOME": str(directory)}
            command = [str(VIEWER), "-RemoteResize=0", "-Shared", *EXACT, f"127.0.0.1::{port(up)}"]
            self.viewer = subprocess.Popen(command, env=self.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except BaseException:
            self.close()
            raise

    def picture(self) -> Image.Image:
        """What is on the screen: the file that Xvfb keeps it in, which is XWD's format."""
        data = self.frames.read_bytes()
        head = struct.unpack(">25I", data[:100])
        size, width, height, stride, colours = head[0], head[4], head[5], head[12], head[19]
        rows = data[size + 12 * colours :][: stride * height]
        return Image.frombytes("RGB", (width, height), rows, "raw", "BGRX", stride)

    def shows(self, picture: Image.Image) -> bool:
        """It is on the black desk, pixel by pixel, wherever the viewer has put its window."""
        desk = self.picture()
        mine, its = desk.getbbox(), picture.getbbox()
        return mine is not None and its is not None and desk.crop(mine).tobytes() == picture.crop(its).tobytes()

    def press(self, *keys: str) -> None:
        """With the pointer in the viewer and its window in focus, which no window manager does here."""
        window = ["search", "--onlyvisible", "--name", "TigerVNC", "windowfocus"]
        words = [*window, "mousemove", "200", "200", "sleep", "0.5", "key", "--delay", "50", *keys]
        subprocess.run(["xdotool", *words], env=self.env, check=True, timeout=PATIENCE)

    def close(self) -> None:
        for process in (self.viewer, self.server):
            if process is not None:
                process.kill()
                process.wait()


def settings(up: Up, press: Callable[[], None]) -> bool:
    """Whether memtest86+ shows its settings; else F1 is pressed, which it does not read while it counts processors."""
    screen = watch(up)
    if screen.read().find("Test selection"):
        return True
    press()
    try:
        screen.wait_for("Test selection", 10)
    except ScreenTimeout:
        return False
    return True


def until(seen: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > end:
            raise AssertionError("waited in vain")
        time.sleep(0.1)


@pytest.fixture
def menu(tmp_path: pathlib.Path) -> Iterator[Up]:
    grub_disk(tmp_path, MENU, "sleep")
    with machine(tmp_path, disks=["grub.img"]) as up:
        watch(up).wait_for("second choice", 240)
        yield up


def test_vncdotool_chooses_in_grubs_graphical_menu(menu: Up, tmp_path: pathlib.Path) -> None:
    vncdo(menu, tmp_path, "capture", "seen.png")
    assert Image.open(tmp_path / "seen.png").convert("RGB").tobytes() == shown(menu, tmp_path).tobytes()
    vncdo(menu, tmp_path, "key", "down", "key", "enter")
    watch(menu).wait_for("chosen: the second", PATIENCE)


@pytest.mark.skipif(VIEWER is None or not shutil.which("Xvfb") or not shutil.which("xdotool"), reason="no TigerVNC")
def test_tigervnc_chooses_in_grubs_graphical_menu(menu: Up, tmp_path: pathlib.Path) -> None:
    desk = Desk(tmp_path, menu)
    try:
        until(lambda: menu.qmp("query-vnc")["clients"] and desk.shows(shown(menu, tmp_path)))
        desk.press("Down", "Return")
        watch(menu).wait_for("chosen: the second", PATIENCE)
        until(lambda: desk.shows(shown(menu, tmp_path)))
    finally:
        desk.close()


@pytest.mark.long
@pytest.mark.skipif(VIEWER is None or not shutil.which("Xvfb") or not shutil.which("xdotool"), reason="no TigerVNC")
def test_tigervnc_sees_and_drives_memtest(tmp_path: pathlib.Path) -> None:
    with machine(tmp_path, kernel=str(MEMTEST)) as up:
        watch(up).wait_for("Memtest86+", PATIENCE)
        desk = Desk(tmp_path, up)
        try:
            until(lambda: up.qmp("query-vnc")["clients"])
            until(lambda: settings(up, lambda: desk.press("F1")))
            up.qmp("stop")
            until(lambda: desk.shows(shown(up, tmp_path)))
        finally:
            desk.close()


@pytest.mark.long
def test_vncdotool_sees_and_drives_memtest(tmp_path: pathlib.Path) -> None:
    with machine(tmp_path, kernel=str(MEMTEST)) as up:
        watch(up).wait_for("Memtest86+", PATIENCE)
        until(lambda: settings(up, lambda: vncdo(up, tmp_path, "key", "f1")))
        up.qmp("stop")
        vncdo(up, tmp_path, "capture", "seen.png")
        assert Image.open(tmp_path / "seen.png").convert("RGB").tobytes() == shown(up, tmp_path).tobytes()
