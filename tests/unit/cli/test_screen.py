"""up --screen: any terminal size, the consoles beside it, keys, words of vmrun's own."""

# ruff: noqa: F401, F811  (fixtures of the other file)

from __future__ import annotations

import fcntl
import os
import select
import struct
import termios
import types
from typing import Any

import pytest

from tests.unit.chardev.test_chardev import rig, terminal
from vmrun.cli.up_screen import ScreenConsole
from vmrun.devices.display.textscreen import Screen
from vmrun.machine.keyboards import load


def picture(columns: int = 80, rows: int = 25, cursor: tuple[int, int] | None = (0, 0)) -> Screen:
    """A letter for each row, a digit for each column."""
    lines = []
    for row in range(rows):
        text = "".join(chr(97 + row % 26) if n % 10 else str(n // 10 % 10) for n in range(columns))
        lines.append(b"".join(bytes((ord(char), 7)) for char in text))
    return Screen("text", columns, tuple(lines), cursor)


class Glass:
    """A terminal that shows what is written to it, of some size."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.count = columns, rows
        self.rows = [[" "] * columns for _ in range(rows)]
        self.at = self.saved = (0, 0)

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            char, at = text[at], at + 1
            row, column = self.at
            if char == "\x1b" and text[at : at + 1] in "78":
                self.saved, self.at = (self.at, self.at) if text[at] == "7" else (self.saved, self.saved)
                at += 1
            elif char == "\x1b":
                end = at + 1
                while not text[end].isalpha():
                    end += 1
                if text[end] == "H":
                    line, _, place = text[at + 1 : end].partition(";")
                    self.at = int(line) - 1, int(place) - 1
                elif text[end] == "J":
                    self.rows = [[" "] * self.columns for _ in range(self.count)]
                at = end + 1
            elif char == "\n":
                self.at = min(row + 1, self.count - 1), column
            elif char == "\r":
                self.at = row, 0
            else:
                assert row < self.count and column < self.columns, "written beyond the terminal"
                self.rows[row][column] = char
                self.at = row, column + 1

    def text(self) -> list[str]:
        return ["".join(row).rstrip() for row in self.rows]


class Show:
    def __init__(self, rig: Any, terminal: Any) -> None:
        self.rig, (self.master, self.slave) = rig, terminal
        self.screen = picture()
        self.keys: list[tuple[str, bool]] = []
        hands = types.SimpleNamespace(
            hungry=lambda: True,
            key=lambda name, down: self.keys.append((name, down)),
            sync=lambda: None,
            absolute=False,
            move=lambda dx, dy: self.mouse.append((dx, dy)),
            position=lambda x, y: self.mouse.append((x, y)),
            button=lambda name, down: self.mouse.append((name, down)),
        )
        self.hands, self.mouse = hands, list[Any]()
        consoles = [types.SimpleNamespace(characters=lambda: self.screen)]
        machine = types.SimpleNamespace(board=types.SimpleNamespace(consoles=consoles, input=hands, layout=load("de")))
        self.done: list[str] = []
        runner: Any = types.SimpleNamespace(
            machine=machine, escape=1, commands=lambda: {"x": ("end it", lambda: self.done.append("x"))}
        )
        self.resize(80, 25)
        self.console = ScreenConsole(rig.loop, rig.lock, runner, self.slave, self.slave)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.glass = Glass(columns, rows)

    def look(self) -> list[str]:
        self.console._draw()
        for _ in range(50):
            self.rig.turns()
            while select.select((self.master,), (), (), 0)[0]:
                self.glass.feed(os.read(self.master, 1 << 16).decode())
            if not self.console.pending:
                break
        return self.glass.text()

    def type(self, data: bytes) -> None:
        os.write(self.master, data)
        self.rig.until(lambda: not select.select((self.console.read_fd,), (), (), 0)[0])
        self.rig.turns()


@pytest.fixture
def show(rig, terminal):
    made = Show(rig, terminal)
    yield made
    made.console.close()


def test_a_terminal_of_the_screen_s_size_shows_it_whole(show: Show) -> None:
    shown = show.look()
    assert shown[0].startswith("0aaaaaaaaa1") and shown[24][1] == "y" and len(shown[0]) == 80


@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 10), (40, 25), (1, 1), (7, 3)])
def test_a_smaller_terminal_shows_where_the_cursor_is_and_says_so(show: Show, columns: int, rows: int) -> None:
    show.resize(columns, rows)
    show.screen = picture(cursor=(24, 79))
    shown = show.look()
    if rows > 2 and columns > 6:
        assert shown[rows - 2][-1:] == "y"
        assert shown[-1].startswith("[80x25"[:columns])
    show.screen = picture(cursor=(0, 0))
    assert show.look()[0][:1] == "0" or rows == 1


def test_a_larger_terminal_leaves_the_rest_empty(show: Show) -> None:
    show.resize(132, 50)
    shown = show.look()
    assert len(shown[24]) == 80 and shown[25] == ""


def test_a_resize_shows_everything_anew(show: Show) -> None:
    show.look()
    show.resize(40, 12)
    show.console._again()
    assert show.look()[0] == "0aaaaaaaaa1aaaaaaaaa2aaaaaaaaa3aaaaaaaaa"


def test_keys_go_to_the_guest(show: Show) -> None:
    show.type(b"aB\x1b[A\x03")
    assert show.keys == [
        ("a", True), ("a", False), ("shift", True), ("b", True), ("b", False), ("shift", False),
        ("up", True), ("up", False), ("ctrl", True), ("c", True), ("c", False), ("ctrl", False),
    ]  # fmt: skip


def test_characters_are_typed_by_the_layout_and_a_lone_escape_is_a_key(show: Show) -> None:
    show.type("ö\x1bz\x1b[1;5P\x1b".encode())
    show.console._look()
    show.console._look()
    assert [name for name, down in show.keys if down] == ["semicolon", "alt", "y", "ctrl", "f1", "esc"]


def test_the_mouse_goes_where_the_terminal_says(show: Show) -> None:
    show.look()
    show.type(b"\x1b[<0;3;2M\x1b[<0;3;2m\x1b[<64;3;2M")
    assert show.mouse == [(16, 16), ("left", True), ("left", False), ("wheel-up", True), ("wheel-up", False)]
    show.mouse.clear()
    show.hands.absolute = True
    show.type(b"\x1b[<32;80;25M")
    assert show.mouse == [(0x7FFF * 159 // 160, 0x7FFF * 49 // 50)]


def test_the_escape_leads_to_commands_and_help(show: Show) -> None:
    show.type(b"\x01x")
    assert show.done == ["x"]
    show.type(b"\x01h")
    shown = show.look()
    assert any("Ctrl-A x" in line and "end it" in line for line in shown)
    show.type(b"q")  # any key takes the help away
    assert not any("Ctrl-A x" in line for line in show.look())


def test_a_serial_console_is_reached_and_left(show: Show) -> None:
    port = show.console.add_port("serial0")
    with show.rig.lock:
        port.write(b"said before")
    show.look()
    assert not any("said before" in line for line in show.glass.text())
    show.type(b"\x01c")
    assert any("said before" in line for line in show.look())
    show.keys.clear()
    show.type(b"z")
    assert show.keys == [] and port.waiting == b"z"
    show.type(b"\x01c")
    assert show.look()[0].startswith("0aaaaaaaaa1")


def test_a_mode_without_characters_is_named(show: Show) -> None:
    show.screen = Screen("graphics", width=1024, height=768)
    assert "[graphics: 1024x768]" in show.look()[0]
