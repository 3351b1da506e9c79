"""`vmrun view` in headless Chromium: the page shows the screen, and what is typed there reaches the guest."""

from __future__ import annotations

import base64
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.up import Up
from vmrun.ui.vnc.page import PLACES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.peer,
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.skipif(not any(os.path.exists(place) for place in PLACES), reason="no noVNC: apt-get install novnc"),
]


class Tab:
    """A page by the DevTools protocol: `do("Page.captureScreenshot")`."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=30) as answer:
            found = next(page for page in json.load(answer) if page["type"] == "page")
        path = "/" + found["webSocketDebuggerUrl"].partition("://")[2].partition("/")[2]
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        key = base64.b64encode(bytes(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", "", ""]
        self.socket.sendall("\r\n".join(lines).encode())
        self.file = self.socket.makefile("rb")
        while self.file.readline() != b"\r\n":
            pass
        self.number = 0

    def do(self, method: str, **params: Any) -> Any:
        self.number += 1
        data = json.dumps({"id": self.number, "method": method, "params": params}).encode()
        self.socket.sendall(b"\x81\xfe" + len(data).to_bytes(2, "big") + bytes(4) + data)
        while True:
            size = self.file.read(2)[1] & 0x7F
            if size > 125:
                size = int.from_bytes(self.file.read(2 if size == 126 else 8), "big")
            answer = json.loads(self.file.read(size))
            if answer.get("id") == self.number:
                return answer["result"]

    def picture(self) -> Image.Image:
        data = base64.b64decode(self.do("Page.captureScreenshot", format="png")["data"])
        return Image.open(io.BytesIO(data)).convert("L")


@pytest.fixture
def machine(tmp_path: pathlib.Path) -> Iterator[Up]:
    with Up(tmp_path, machine="pc-i440fx-2.0", accel="soft", memory="64MiB", display="std") as up:
        up.wait_screen("No bootable device")
        yield up


def test_the_page_shows_the_screen_and_types(machine: Up, tmp_path: pathlib.Path) -> None:
    url = machine.qmp("x-open-page")["url"]
    profile = tmp_path / "chromium"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0",
        "--window-size=900,700", f"--user-data-dir={profile}", url,
    ]  # fmt: skip
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as browser:
        try:
            ready = profile / "DevToolsActivePort"
            machine.until(lambda: ready.exists() and ready.read_text().count("\n"))
            tab = Tab(int(ready.read_text().split()[0]))
            # SeaBIOS's grey letters on black, somewhere in noVNC's frame
            machine.until(lambda: sum(tab.picture().histogram()[168:176]) > 500)
            tab.do("Runtime.evaluate", expression="document.querySelector('canvas').focus()")
            for character in "ab":
                for kind in ("keyDown", "keyUp"):
                    code, number = f"Key{character.upper()}", ord(character.upper())
                    keys = {"key": character, "code": code, "windowsVirtualKeyCode": number}
                    tab.do("Input.dispatchKeyEvent", type=kind, text=character if kind == "keyDown" else "", **keys)
                time.sleep(0.2)
            seen = machine.qmp("human-monitor-command", **{"command-line": "xp /4xb 0x41e"})
            found = [int(word, 16) for word in seen.split() if word.startswith("0x")]
            assert bytes(found[0::2]) == b"ab"
        finally:
            browser.terminate()
