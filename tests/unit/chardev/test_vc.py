"""Terminals on the display, and chardevs without an other side."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from accel.api import DeviceLock

from vmrun.backends.chardev import open_chardev
from vmrun.backends.chardev.base import PyFrontend
from vmrun.backends.chardev.mux import shared
from vmrun.core.loop import Loop
from vmrun.core.textterminal import Terminal
from vmrun.errors import BackendError


def text(terminal: Terminal) -> list[str]:
    return [row[::2].decode("cp437").rstrip() for row in terminal.snapshot().rows]


def test_whatever_is_fed_stays_within_the_screen() -> None:
    noise = bytes((n * 167 + n // 251) & 0xFF for n in range(20000)) + b"\x1b[" + b"9" * 500 + b"H\x1b[99999999;0;m"
    terminal = Terminal(20, 5)
    for start in range(0, len(noise), 7):
        terminal.feed(noise[start : start + 7] + b"\x1b[%d;%dH" % (start, noise[start]))
        assert 0 <= terminal.y < 5
        assert 0 <= terminal.x <= 20
    assert {len(row) for row in terminal.cells} == {40}


def test_a_sequence_may_come_in_pieces() -> None:
    whole, pieces = Terminal(), Terminal()
    said = b"a\x1b[3;4Hb\x1b[1;31mc\x1b[2Kd"
    whole.feed(said)
    for byte in said:
        pieces.feed(bytes((byte,)))
    assert whole.snapshot().rows == pieces.snapshot().rows
    assert text(whole)[2] == "     d"


def test_it_says_where_the_cursor_is() -> None:
    terminal, said = Terminal(), bytearray()
    terminal.answer = said.extend
    terminal.feed(b"\x1b[7;9H\x1b[6n\x1b[5n")
    assert said == b"\x1b[7;9R\x1b[0n"


def test_what_is_typed_waits_for_the_device() -> None:
    lock = DeviceLock()
    loop = Loop(lock)
    chardev = open_chardev("t", {"type": "vc", "cols": 10, "rows": 2}, loop, lock)
    heard, room = bytearray(), [0]
    chardev.frontend = PyFrontend(heard.extend, lambda: room[0])
    chardev.typed(b"keys")
    loop.run_once(0.0)
    assert not heard
    room[0] = 2
    for _ in range(4):
        with lock:
            chardev.accept_input()
        loop.run_once(0.0)
    assert heard == b"keys"
    chardev.close()
    loop.close()


def test_a_file_is_no_parallel_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = DeviceLock()
    loop = Loop(lock)
    path = tmp_path / "port"
    path.write_bytes(b"")
    with pytest.raises(BackendError, match="not a parallel port: Inappropriate ioctl for device"):
        open_chardev("p", {"type": "parport", "path": str(path)}, loop, lock)
    asked = []
    monkeypatch.setattr(fcntl, "ioctl", lambda fd, request: asked.append(request))
    port = open_chardev("p", {"type": "parport", "path": str(path)}, loop, lock)
    assert port.send(b"page", lock) == 4
    port.close()
    assert path.read_bytes() == b"page"
    assert asked == [0x708B, 0x708C]  # claimed, released
    loop.close()


@pytest.mark.parametrize("kind", ["null", "file", "ringbuf", "vc", "pipe", "spicevmc"])
def test_every_kind_has_several_users(kind: str, tmp_path: Path) -> None:
    lock = DeviceLock()
    loop = Loop(lock)
    path = str(tmp_path / "x")
    if kind == "pipe":
        os.mkfifo(path)
    below = shared("s", {"type": kind, "path": path, "cols": 9, "rows": 3}, loop, lock)
    ports = [below.add_port(name) for name in "ab"]
    for port in ports:
        with lock:
            for byte in b"say":
                port.write(bytes((byte,)))
    for _ in range(4):
        loop.run_once(0.05)
    if kind == "file":
        assert Path(path).read_bytes() == b"saysay"
    elif kind == "vc":
        assert text(below.terminal)[1] == "saysay"
    for port in ports:
        port.close()
    assert below.closed
    loop.close()


@pytest.mark.parametrize(
    ("said", "rows"),
    [
        (b"\x1b[2;3H\x1b[J", ["abcdef", "gh", ""]),
        (b"\x1b[2;3H\x1b[1J", ["", "   jkl", "mnopqr"]),
        (b"\x1b[2;3H\x1b[2J", ["", "", ""]),
        (b"\x1b[2;3H\x1b[K", ["abcdef", "gh", "mnopqr"]),
        (b"\x1b[2;3H\x1b[1K", ["abcdef", "   jkl", "mnopqr"]),
        (b"\x1b[2;3H\x1b[2K", ["abcdef", "", "mnopqr"]),
        (b"\x1b[2;3HX\x08\x08Y", ["abcdef", "gYXjkl", "mnopqr"]),
        (b"\x1b[2;3H\x01X", ["abcdef", "ghXjkl", "mnopqr"]),  # what is no command is nothing
        (b"\x1b[1;2HX\x1b[2BY\x1b[AZ\x1b[2DW", ["aXcdef", "ghWZkl", "mnYpqr"]),
        (b"\x1b[2;3H\x1b[s\x1b[HX\x1b[uY", ["Xbcdef", "ghYjkl", "mnopqr"]),
        (b"\x1b[2;3H\x1b[5GX\x1b[3;1f\x1b[CY", ["abcdef", "ghijXl", "mYopqr"]),
        (b"\x1bcX", ["abcdef", "ghijkl", "mnopqX"]),  # another sequence than CSI
        (b"\x1b[3;6H\nX", ["ghijkl", "mnopqr", "     X"]),
    ],
)
def test_what_sequences_do(said: bytes, rows: list[str]) -> None:
    terminal = Terminal(6, 3)
    terminal.feed(b"abcdefghijklmnopqr\x1b[3;6H" + said)
    assert text(terminal) == rows


@pytest.mark.parametrize(
    ("said", "attribute"),
    [
        (b"\x1b[31;44m", 0x14),
        (b"\x1b[31;44;1m", 0x1C),
        (b"\x1b[31;44;1;22m", 0x14),
        (b"\x1b[31;44;7m", 0x41),
        (b"\x1b[31;44;7;27m", 0x14),
        (b"\x1b[31;44;8m", 0x11),
        (b"\x1b[31;44;8;28m", 0x14),
        (b"\x1b[31;44;1m\x1b[m", 0x07),
        (b"\x1b[31;44;7;0;33m", 0x06),
        (b"\x1b[37;47m", 0x77),
        (b"\x1b[30;47m", 0x70),
        (b"\x1b[38;48m", 0x07),
    ],
)
def test_renditions(said: bytes, attribute: int) -> None:
    terminal = Terminal(6, 3)
    terminal.feed(said + b"X")
    assert terminal.cells[0][:2] == b"X" + bytes((attribute,))


def test_tabs_and_the_end_of_a_line() -> None:
    terminal = Terminal(20, 3)
    terminal.feed(b"a\tb\tc\td\r\n\t\x1b[3;21He")
    assert text(terminal) == ["a       b       c", "d", "                   e"]
    assert terminal.snapshot().cursor == (2, 19)
