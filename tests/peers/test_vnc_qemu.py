"""QEMU's VNC server and vmrun's, asked the same by one client program: handshakes, who is let in, events, what monitors
tell, and a picture in every encoding.
"""

from __future__ import annotations

import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import listens_at
from tests.unit.ui.rfb import HEXTILE, RAW, TIGHT, ZLIB, ZRLE, Rfb
from vmrun.monitor.client import QmpClient
from vmrun.ui.vnc.server import cipher

QEMU = shutil.which("qemu-system-x86_64")
ROOT = pathlib.Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(QEMU is None, reason="QEMU is not installed")
PATIENCE = 30.0


class Side:
    """One machine that stands still, with a VNC server on a unix socket."""

    def __init__(self, place: pathlib.Path, ours: bool, *more: str, vnc: str = "", paused: bool = True) -> None:
        place.mkdir()
        self.path, monitor = place / "vnc", place / "qmp"
        program = [sys.executable, str(ROOT / "bin" / "vmrun-qemu")] if ours else [str(QEMU)]
        words = ["-nodefaults", "-machine", "pc-i440fx-7.2", "-accel", "tcg", "-m", "64", "-vga", "std"]
        words += ["-S"] if paused else []
        words += ["-vnc", f"unix:{self.path}{vnc}", "-qmp", f"unix:{monitor},server=on,wait=off", *more]
        self.log = (place / "log").open("w+")
        self.process = subprocess.Popen([*program, *words], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        end = time.monotonic() + PATIENCE
        while not (listens_at(monitor) and listens_at(self.path)):
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise AssertionError(self.log.read())
            time.sleep(0.02)
        self.qmp = QmpClient(str(monitor))
        self.peers: list[socket.socket] = []

    def peer(self) -> Rfb:
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(str(self.path))
        self.peers.append(peer)
        return Rfb(peer, lambda: time.sleep(0.01))

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.qmp.__exit__()
        self.process.kill()
        self.process.wait(PATIENCE)
        self.log.close()


@pytest.fixture
def sides(tmp_path: pathlib.Path) -> Iterator[Any]:
    made: list[Side] = []

    def both(*more: str, **how: Any) -> list[Side]:
        for ours in (False, True):
            made.append(Side(tmp_path / f"{len(made)}", ours, *more, **how))
        return made[-2:]

    yield both
    for side in made:
        side.close()


def rest(client: Rfb) -> bytes:
    """All that comes until the server closes; what it says before it falls silent, and `…`, when it does not."""
    data, client.buffer = client.buffer, b""
    client.peer.settimeout(1.0)
    try:
        while more := client.peer.recv(4096):
            data += more
    except TimeoutError:
        return data + "…".encode()
    except ConnectionResetError:
        pass
    return data


SECURITY: list[tuple[str, list[bytes]]] = [
    ("3.3", [b"RFB 003.003\n"]),
    ("3.7", [b"RFB 003.007\n", b"\1"]),
    ("3.8", [b"RFB 003.008\n", b"\1"]),
    ("3.8, a type that was not offered", [b"RFB 003.008\n", b"\7"]),
    ("3.7, a type that was not offered", [b"RFB 003.007\n", b"\7"]),
    ("3.8, VNC's authentication", [b"RFB 003.008\n", b"\2", b"x" * 16]),
    ("3.5 counts as 3.3", [b"RFB 003.005\n"]),
    ("nobody speaks 4.1", [b"RFB 004.001\n"]),
    ("no version at all", [b"GET / HTTP/1\n"]),
]


def conversation(side: Side, words: list[bytes]) -> list[bytes]:
    """What is heard after each of the client's words; a challenge's bytes are not compared, and no words of reasons."""
    client = side.peer()
    heard = []
    client.read(12)
    for word in words:
        try:
            client.send(word)
            time.sleep(0.3)
            heard.append(client.peer.recv(4096))
        except (BlockingIOError, ConnectionResetError, BrokenPipeError):
            heard.append(b"")
    for n, data in enumerate(heard):
        if len(data) >= 16:
            heard[n] = bytes((len(data) - 16 if data[:4] != b"\0\0\0\1" else 1,))
    return heard


@pytest.mark.parametrize("password", ["", ",password=on"])
def test_handshakes(sides: Any, password: str) -> None:
    heard = [{what: conversation(side, words) for what, words in SECURITY} for side in sides(vnc=password)]
    assert heard[1] == heard[0]


def event(side: Side, name: str) -> Any:
    """What the next event of that name tells, without the names of sockets."""
    found = side.qmp.wait_for(name)
    assert found is not None
    found["data"]["server"].pop("service", None)
    return name, found["data"]


def test_events_and_what_monitors_tell(sides: Any) -> None:
    told = []
    for side in sides():
        client = side.peer()
        client.connect()
        found: list[Any] = [event(side, "VNC_CONNECTED"), event(side, "VNC_INITIALIZED")]
        rows = side.qmp.execute("query-vnc"), side.qmp.execute("query-vnc-servers")
        rows[0].pop("service")
        rows[1][0]["server"][0].pop("service")
        found.append(rows)
        client.peer.close()
        found.append(event(side, "VNC_DISCONNECTED"))
        told.append(found)
    assert told[1] == told[0]


@pytest.mark.parametrize("share", ["allow-exclusive", "force-shared", "ignore"])
def test_who_stays_when_one_wants_the_screen_alone(sides: Any, share: str) -> None:
    found = []
    for side in sides(vnc=f",share={share}"):
        first, second, third = side.peer(), side.peer(), side.peer()
        first.connect(shared=1)
        second.connect(shared=1)
        try:
            third.connect(shared=0)
        except (EOFError, ConnectionResetError):
            pass
        time.sleep(0.5)
        alive = []
        for client in (first, second, third):
            try:
                alive.append(client.peer.recv(1) != b"")
            except BlockingIOError:
                alive.append(True)
            except ConnectionResetError:
                alive.append(False)
        found.append(alive)
    assert found[1] == found[0]


def test_passwords_and_when_they_end(sides: Any) -> None:
    found = []
    for side in sides(vnc=",password=on"):
        def attempt(password: bytes, side: Side = side) -> bool:
            client = side.peer()
            try:
                client.connect(answer=lambda challenge: cipher(password, challenge))
            except (PermissionError, EOFError):
                return False
            return True

        seen = [attempt(b"")]
        side.qmp.execute("set_password", protocol="vnc", password="eightbytes")
        seen += [attempt(b"eightbyt"), attempt(b"eightbytes"), attempt(b"eight")]
        side.qmp.execute("expire_password", protocol="vnc", time="now")
        seen.append(attempt(b"eightbyt"))
        side.qmp.execute("expire_password", protocol="vnc", time="+100")
        seen.append(attempt(b"eightbyt"))
        side.qmp.execute("expire_password", protocol="vnc", time="never")
        side.qmp.execute("change-vnc-password", password="other")
        seen += [attempt(b"eightbyt"), attempt(b"other")]
        found.append(seen)
    assert found[1] == found[0] == [False, True, True, False, False, True, False, True]


def test_a_secret_is_the_password(sides: Any) -> None:
    for side in sides("-object", "secret,id=pw,data=geheim", vnc=",password-secret=pw"):
        client = side.peer()
        client.connect(answer=lambda challenge: cipher(b"geheim", challenge))
        assert client.width
        again = side.peer()
        with pytest.raises(PermissionError):
            again.connect(answer=lambda challenge: cipher(b"offen", challenge))


FORMS = [
    (32, 24, 0, (255, 255, 255), (16, 8, 0)), (32, 24, 1, (255, 255, 255), (0, 8, 16)),
    (16, 16, 0, (31, 63, 31), (11, 5, 0)), (8, 8, 0, (7, 7, 3), (0, 3, 6)),
]  # fmt: skip
LINES = 128  # above the cursor, which QEMU lets blink


def shown(side: Side, form: Any, encoding: int) -> Any:
    client = side.peer()
    client.connect()
    client.format(*form)
    client.encodings(encoding, -223)
    client.height = LINES
    client.update()
    client.peer.close()
    return client.width, {at: value for at, value in client.pixels.items() if at[1] < LINES}


@pytest.mark.long
def test_a_picture_in_every_encoding(sides: Any) -> None:
    """SeaBIOS's screen with nothing to boot, decoded by the client, is one picture from both and in all encodings.
    QEMU's tight has the colours of big-endian clients wrong.
    """
    made = sides(paused=False)
    for side in made:
        end, still = time.monotonic() + PATIENCE, 0
        while still < 3:
            assert time.monotonic() < end
            width, pixels = shown(side, FORMS[0], ZLIB)
            still = still + 1 if width == 720 and len(set(pixels.values())) > 1 else 0
            time.sleep(0.5)
        side.qmp.execute("stop")
    theirs, ours = made
    for form in FORMS:
        first = shown(theirs, form, RAW)
        for encoding in (RAW, HEXTILE, ZLIB, TIGHT, ZRLE):
            assert shown(ours, form, encoding) == first, f"{form} in encoding {encoding}"
            if encoding != TIGHT or not form[2]:
                assert shown(theirs, form, encoding) == first, f"QEMU's {form} in encoding {encoding}"
