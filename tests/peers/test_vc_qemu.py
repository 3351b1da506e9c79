"""The chardev `vc` on both programs: what a serial port says there, seen through VNC, pixel by pixel; what is typed."""

from __future__ import annotations

import json
import pathlib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.peers.oracle import QEMU, converse, needs_qemu
from tests.peers.test_suites_qemu import VMRUN, Side
from tests.unit.ui.rfb import RAW, Rfb

pytestmark = [pytest.mark.peer, needs_qemu]
COM1, CONTROL, ALT, RETURN, UP = 0x3F8, 0xFFE3, 0xFFE9, 0xFF0D, 0xFF52
SAID = {
    "lines": b"plain\r\nnext\nthird\r\rover\b\bXY\tt\ta\a.",
    "long": bytes(range(0x20, 0x7F)) * 3 + b"|" * 80 + b"\r\nend",
    "scrolls": b"".join(b"line %d\r\n" % n for n in range(40)),
    "colours": b"".join(b"\x1b[%dm%d\x1b[0m \x1b[1;%dmb\x1b[22mn\x1b[m" % (n, n, n) for n in range(30, 48)),
    "inverse": b"\x1b[7minverse\x1b[27m not\x1b[7;31;44m both\x1b[0m end",
    "moves": b"\x1b[5;10Hfive\x1b[2Aup\x1b[3Ddown\x1b[4Bdd\x1b[7Gcol\x1b[HT\x1b[99;99HB\x1b[10;5fF\x1b[s\x1b[H\x1b[uS",
    "erases": b"abcdefgh\r\nABCDEFGH\r\n12345678\x1b[2;4H\x1b[K\x1b[1;4H\x1b[1K\x1b[3;4H\x1b[J\x1b[2;2H\x1b[1J",
    "all gone": b"text\r\nmore\x1b[2Jleft",
    "high": bytes(range(0x80, 0x100)),
    "unknown": b"\x1b[?25l\x1b[5qa\x1b(Bb\x1bMc\x1b[1;2;3;4mz",
}


class Seen:
    """A program whose COM1 is a terminal on its display, and a VNC viewer that has turned to it."""

    def __init__(self, place: pathlib.Path, program: list[str]) -> None:
        path = place / f"vnc{len(program)}"
        words = ["-M", "pc-i440fx-7.2", "-nodefaults", "-vga", "std", "-chardev", "vc,id=t", "-serial", "chardev:t"]
        self.side = Side(program, *words, "-vnc", f"unix:{path}")
        self.peer = socket.socket(socket.AF_UNIX)
        self.peer.connect(str(path))
        self.viewer = Rfb(self.peer, lambda: time.sleep(0.01))
        self.viewer.connect()
        self.viewer.encodings(RAW, -223)
        self.viewer.update()
        for key, down in ((CONTROL, 1), (ALT, 1), (ord("2"), 1), (ord("2"), 0), (ALT, 0), (CONTROL, 0)):
            self.viewer.key(key, bool(down))

    def close(self) -> None:
        self.peer.close()
        self.side.close()

    def picture(self) -> tuple[int, int, bytes]:
        self.viewer.update()
        width, height = self.viewer.width, self.viewer.height
        pixels = self.viewer.pixels
        data = b"".join(pixels.get((x, y), 0).to_bytes(3, "big") for y in range(height) for x in range(width))
        return width, height, data

    def say(self, data: bytes) -> None:
        for byte in data:
            self.side.outb(COM1, byte)

    def typed(self, *keys: int) -> bytes:
        for key in keys:
            self.viewer.key(key, True)
            self.viewer.key(key, False)
        found = b""
        end = time.monotonic() + 20
        while time.monotonic() < end and not found.endswith(b"\r"):
            if self.side.inb(COM1 + 5) & 1:
                found += bytes((self.side.inb(COM1),))
        return found


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Seen]]:
    place = tmp_path_factory.mktemp("vc")
    found = [Seen(place, [QEMU or "", "-accel", "tcg"]), Seen(place, VMRUN)]
    yield found
    for side in found:
        side.close()


@pytest.mark.parametrize("what", SAID)
def test_they_look_alike(sides: list[Seen], what: str) -> None:
    for side in sides:
        side.say(b"\x1b[0m\x1b[2J\x1b[H" + SAID[what] + b"\x1b[24;80H")
    end = time.monotonic() + 20  # QEMU looks at its screen when it likes
    while (wrong := differ(*(side.picture() for side in sides))) and time.monotonic() < end:
        time.sleep(0.2)
    assert not wrong


def differ(his: tuple[int, int, bytes], ours: tuple[int, int, bytes]) -> list[tuple[int, int]]:
    """(row, column) of cells that do not look alike. The fonts differ in some characters: what looks the same on one
    side has to look the same on the other. The cursor is left out, QEMU's blinks.
    """
    width, height, _ = his
    assert ours[:2] == (width, height)
    seen: tuple[dict[bytes, bytes], ...] = ({}, {})
    wrong = []
    for row in range(height // 16):
        for column in range(width // 8):
            lines = [3 * ((16 * row + line) * width + 8 * column) for line in range(16)]
            looks = [b"".join(side[2][at : at + 24] for at in lines) for side in (his, ours)]
            colours = [{look[n : n + 3] for n in range(0, len(look), 3)} for look in looks]
            same = all(seen[n].setdefault(looks[n], looks[not n]) == looks[not n] for n in (0, 1))
            if (row, column) != (23, 79) and (not same or colours[0] != colours[1]):
                wrong.append((row, column))
    return wrong


def test_keys_go_to_the_chardev(sides: list[Seen]) -> None:
    his, ours = (side.typed(ord("a"), UP, 0xFF50, 0xFFFF, 0xFF55, RETURN) for side in sides)
    assert ours == his == b"a\x1b[A\x1b[1~\x1b[3~\x1b[5~\r"


def test_the_default_monitor_is_one() -> None:
    asked = [{"execute": "query-chardev"}]
    line = ["-M", "pc-i440fx-7.2", "-S", "-display", "none", "-accel", "tcg", "-monitor", "vc", "-qmp", "stdio"]
    his, ours = (converse([*program, *line], asked)[0]["return"] for program in ([QEMU or ""], VMRUN[:2]))

    def rows(found: list[dict[str, object]]) -> list[str]:
        return sorted(json.dumps(row, sort_keys=True) for row in found)

    assert rows(ours) == rows(his)


@pytest.mark.parametrize("escape", [b"\x01", b"\x14"])
def test_the_escape_of_every_shared_chardev_is_echrs(escape: bytes) -> None:
    """Ctrl-A, or -echr's: `c` turns from the serial port to the monitor."""
    for program in ([QEMU or "", "-accel", "tcg"], VMRUN):
        near, far = socket.socketpair()
        words = ["-S", "-M", "pc-i440fx-7.2", "-nodefaults", "-display", "none", "-echr", str(escape[0])]
        words += ["-chardev", f"socket,id=c,fd={far.fileno()},mux=on", "-serial", "chardev:c", "-mon", "c"]
        with subprocess.Popen([*program, *words], pass_fds=[far.fileno()]) as process, near:
            far.close()
            try:
                near.settimeout(20)
                near.sendall(escape + b"cinfo status\r")
                heard = b""
                while b"prelaunch" not in heard:
                    more = near.recv(4096)
                    assert more, heard
                    heard += more
            finally:
                process.kill()
