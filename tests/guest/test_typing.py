"""Hundreds of characters typed at a boot loader's prompt: all of them arrive, in order, and none twice."""

from __future__ import annotations

import pathlib
import random
import string
import time

import pytest

from tests.guest.screens import grub_disk, watch
from tests.up import Up

pytestmark = [pytest.mark.guest, pytest.mark.slow]
COUNT = 500
LETTERS = string.ascii_letters + string.digits + "-_=+,.:/@%^*~"


def arrived(up: Up, text: str) -> str:
    """What GRUB's prompt shows of the text in the end."""
    screen = watch(up)
    screen.wait_for("grub>", 240)
    screen.type(text)
    deadline = time.monotonic() + 120
    while True:
        shown = "".join(screen.read().rows).partition("grub> ")[2].replace(" ", "").replace("\\", "")
        if shown == text or time.monotonic() > deadline:
            return shown
        time.sleep(0.2)


def test_all_that_is_typed_at_grubs_prompt_arrives(tmp_path: pathlib.Path) -> None:
    grub_disk(tmp_path, "terminal_output console\n", "terminal")
    rng = random.Random(6)
    text = "".join(rng.choice(LETTERS) for _ in range(COUNT))
    keys = {"machine": "pc-i440fx-2.0", "accel": "soft", "memory": "64MiB", "display": "std"}
    with Up(tmp_path, **keys, disks=["grub.img"]) as up:
        shown = arrived(up, text)
    assert shown == text, f"{sum(a == b for a, b in zip(shown, text, strict=False))} of {COUNT}: {shown}"
