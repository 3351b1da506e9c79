"""Hundreds of characters typed at a boot loader's prompt: all of them arrive, in order, none twice, in any layout."""

from __future__ import annotations

import pathlib
import random
import shutil
import socket
import string
import struct
import subprocess
import time

import pytest

from tests.guest.screens import grub_disk, watch
from tests.unit.ui.rfb import Rfb
from tests.up import Up
from vmrun.screen import Screen

pytestmark = [pytest.mark.guest, pytest.mark.slow]
COUNT, RUNS = 500, 10
MARKS = "-_=+,.:/@%^*~"
# what needs AltGr or other keys on the layout, and no dead key, which GRUB has not
LAYOUTS = {"en-us": MARKS, "de": "-_=+,.:/@%*~[]{}|<>#?!()\"", "fr": "-_=+,.:/@%*~[]{}|<>#?!()&^"}
XKB = {"de": "de", "fr": "fr"}
# Further ones, once each: what is on keys that others have not (AltGr, the 102nd key, Brazil's and Japan's)
COMMON = "-_=+,.:/@%*[]{}|<>#?!()"
FURTHER = {
    "es": ("es", COMMON + '"'), "it": ("it", COMMON + "^"), "sv": ("se", COMMON), "pt-br": ("br", COMMON),
    "ja": ("jp", COMMON + "^~"), "en-gb": ("gb", COMMON + "^~"), "pl": ("pl", COMMON + "^~"), "de-ch": ("ch", COMMON),
}  # fmt: skip
XKB |= {layout: name for layout, (name, _) in FURTHER.items()}


def prompt(up: Up) -> Screen:
    screen = watch(up)
    screen.wait_for("grub>", 240)
    return screen


def arrived(screen: Screen, text: str) -> str:
    """What GRUB's prompt shows of the text in the end."""
    screen.type(text)
    deadline = time.monotonic() + 120
    while True:
        last = screen.read().text.rpartition("grub> ")[2]
        shown = last.replace("\n", "").replace(" ", "").replace("\\", "")
        if shown == text or time.monotonic() > deadline:
            return shown
        time.sleep(0.2)


def words(seed: int, marks: str) -> str:
    rng = random.Random(seed)
    return "".join(rng.choice(string.ascii_letters + string.digits + marks) for _ in range(COUNT))


def machine(directory: pathlib.Path, layout: str) -> Up:
    """At GRUB's prompt with that layout, which GRUB has from xkeyboard-config by Debian's ckbcomp."""
    # not GRUB's `console`: it lets the BIOS write, whose interrupt handler then takes keys from GRUB's own driver
    config, files = "terminal_output vga_text\n" if layout in XKB else "terminal_output console\n", []
    if layout in XKB:
        if shutil.which("ckbcomp") is None:
            pytest.skip("console-setup is not installed")
        path = directory / f"{layout}.gkb"
        subprocess.run(["grub-kbdcomp", "-o", path, XKB[layout]], check=True, stderr=subprocess.DEVNULL)
        config += f"terminal_input at_keyboard\nkeymap (memdisk)/{layout}.gkb\n"
        files.append(path)
    grub_disk(directory, config, "terminal", "vga_text", "at_keyboard", "keylayouts", files=tuple(files))
    keys = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    return Up(directory, **keys, keyboard=layout, disks=["grub.img"])


def check(shown: str, text: str) -> None:
    assert shown == text, f"{sum(a == b for a, b in zip(shown, text, strict=False))} of {COUNT}: {shown}"


def test_all_that_is_typed_at_grubs_prompt_arrives(tmp_path: pathlib.Path) -> None:
    text = words(6, MARKS)
    with machine(tmp_path, "en-us") as up:
        check(arrived(prompt(up), text), text)


@pytest.mark.long
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ten_times_in_a_layout(tmp_path: pathlib.Path, layout: str) -> None:
    with machine(tmp_path, layout) as up:
        screen = prompt(up)
        for run in range(RUNS):
            text = words(run, LAYOUTS[layout])
            check(arrived(screen, text), text)
            screen.type("\x15clear\n")  # Ctrl-U takes the line
            screen.wait_gone(text[:40])


@pytest.mark.long
@pytest.mark.parametrize("layout", FURTHER)
def test_once_in_a_further_layout(tmp_path: pathlib.Path, layout: str) -> None:
    text = words(1, FURTHER[layout][1])
    with machine(tmp_path, layout) as up:
        check(arrived(prompt(up), text), text)


@pytest.mark.parametrize("extended", [False, True])
def test_a_viewer_that_sends_all_at_once_loses_nothing(tmp_path: pathlib.Path, extended: bool) -> None:
    """A viewer pastes a page: 250 keys in one piece, as characters and as keys of a PC."""
    grub_disk(tmp_path, "terminal_output console\n", "terminal")
    keys = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    rng = random.Random(3)
    text = "".join(rng.choice(string.ascii_lowercase + string.digits) for _ in range(250))
    with (
        Up(tmp_path, **keys, disks=["grub.img"], vnc={"listen": f"unix:{tmp_path / 'vnc'}"}) as up,
        socket.socket(socket.AF_UNIX) as peer,
    ):
        screen = prompt(up)
        peer.connect(str(tmp_path / "vnc"))
        viewer = Rfb(peer, lambda: time.sleep(0.01))
        viewer.connect()
        viewer.encodings(-258)
        rows = {character: code for code, character in enumerate("1234567890", 2)}
        for first, letters in ((16, "qwertyuiop"), (30, "asdfghjkl"), (44, "zxcvbnm")):
            rows |= {character: code for code, character in enumerate(letters, first)}
        data = b""
        for character in text:
            for down in (1, 0):
                if extended:
                    data += struct.pack(">BBHII", 255, 0, down, ord(character), rows[character])
                else:
                    data += struct.pack(">BBxxI", 4, down, ord(character))
        viewer.send(data)
        deadline = time.monotonic() + 60
        shown = ""
        while shown != text and time.monotonic() < deadline:
            time.sleep(0.2)
            last = screen.read().text.rpartition("grub> ")[2]
            shown = last.replace("\n", "").replace(" ", "").replace("\\", "")
        assert shown == text
