"""The line monitor: editing, history, completion."""

from __future__ import annotations

import pathlib

import pytest

from tests.board import Driven
from vmrun.monitor.readline import MAX_LINE, LineMonitor


class Screen:
    """A terminal of one line at a time: enough of a VT100 to see what a person sees."""

    def __init__(self) -> None:
        self.lines = [""]
        self.column = 0

    def take(self, data: bytes) -> None:
        text, at = data.decode(), 0
        while at < len(text):
            char = text[at]
            at += 1
            line = self.lines[-1]
            if char == "\x1b":
                end = at + 1
                while text[end].isdigit():
                    end += 1
                count = int(text[at + 1 : end] or 1)
                if text[end] == "D":
                    self.column -= count
                else:
                    self.lines[-1] = line[: self.column]
                at = end + 1
            elif char == "\r":
                self.column = 0
            elif char == "\n":
                self.lines.append("")
            else:
                self.lines[-1] = line[: self.column] + char + line[self.column + 1 :]
                self.column += 1


@pytest.fixture(scope="module")
def pc(tmp_path_factory: pytest.TempPathFactory):
    with Driven(pathlib.Path(tmp_path_factory.mktemp("m")), machine="pc-i440fx-2.0", memory="16MiB") as pc:
        yield pc


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def monitor(pc: Driven, screen: Screen) -> LineMonitor:
    return LineMonitor(pc.machine, screen.take)


def test_a_banner_and_a_prompt(monitor: LineMonitor, screen: Screen) -> None:
    assert screen.lines[0].startswith("QEMU ") and "type 'help'" in screen.lines[0]
    assert screen.lines[-1] == "(qemu) "


@pytest.mark.parametrize(("line", "rest"), [(b"quit", [""]), (b" q ", [""]), (b"quit now", ["(qemu) "])])
def test_who_quits_is_not_asked_for_more(pc: Driven, screen: Screen, line: bytes, rest: list[str]) -> None:
    monitor = LineMonitor(pc.machine, screen.take)
    monitor._run = lambda typed: ""  # type: ignore[method-assign]
    monitor.feed(line + b"\r")
    assert screen.lines[-1:] == rest


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
def test_a_line_is_run_once_whatever_ends_it(monitor: LineMonitor, screen: Screen, end: bytes) -> None:
    monitor.feed(b"info name" + end)
    assert screen.lines[-3:] == ["(qemu) info name", "driven", "(qemu) "]


@pytest.mark.parametrize(
    "keys, line, column",
    [
        (b"stop", "stop", 4),
        (b"stp\x1b[Do", "stop", 3),
        (b"top\x01s", "stop", 1),
        (b"stopp\x7f", "stop", 4),
        (b"sstop\x01\x04", "stop", 0),
        (b"stop now\x17\x7f", "stop", 4),
        (b"stop now\x01\x06\x06\x06\x06\x0b", "stop", 4),
        (b"no stop\x1b[D\x1b[D\x1b[D\x1b[D\x15", "stop", 0),
        (b"sto\x1b[Hx\x1b[3~\x1b[Fp", "xtop", 4),
        (b"st\x1bOD\x1b[1~x\x1b[4~op", "xstop", 5),
        (b"\x1b[D\x7f\x04\x1b[C\x1b[A\x1b[B", "", 0),
    ],
)
def test_the_screen_shows_the_line_that_is_edited(
    monitor: LineMonitor, screen: Screen, keys: bytes, line: str, column: int
) -> None:
    monitor.feed(keys)
    assert (monitor.line, monitor.cursor) == (line, column)
    assert screen.lines[-1].rstrip() == f"(qemu) {line}".rstrip()
    assert screen.column == len("(qemu) ") + column


def test_older_lines_come_back(monitor: LineMonitor) -> None:
    monitor.feed(b"info name\rinfo kvm\rhal")
    monitor.feed(b"\x1b[A")
    assert monitor.line == "info kvm"
    monitor.feed(b"\x1b[A")
    assert monitor.line == "info name"
    monitor.feed(b"\x1b[B\x1b[B")
    assert monitor.line == "hal"


@pytest.mark.parametrize(
    "typed, line", [(b"system_r", "system_reset "), (b"info mt", "info mtree "), (b"sys", "system_"), (b"zz", "zz")]
)
def test_tab_completes_what_is_certain(monitor: LineMonitor, typed: bytes, line: str) -> None:
    monitor.feed(typed + b"\t")
    assert monitor.line == line


def test_a_second_tab_lists_what_it_could_be(monitor: LineMonitor, screen: Screen) -> None:
    monitor.feed(b"system_\t")
    assert screen.lines[-2:] == ["system_powerdown  system_reset  system_wakeup", "(qemu) system_"]


def test_a_line_has_an_end(monitor: LineMonitor) -> None:
    monitor.feed(b"x" * 3 * MAX_LINE)
    assert len(monitor.line) == MAX_LINE


def test_every_byte_may_be_typed(monitor: LineMonitor) -> None:
    for byte in [*range(256), *range(255, -1, -1)]:
        monitor.feed(bytes([byte, 0x1B, byte]))


def test_without_echo_there_are_answers_only(pc: Driven) -> None:
    said: list[bytes] = []
    plain = LineMonitor(pc.machine, said.append, echo=False)
    said.clear()
    plain.feed(b"info name\n")
    assert said == [b"driven\r\n"]


@pytest.mark.parametrize("word", ["²", "٣", "1.5", "-1", "99", "9" * 400])
def test_a_processor_number_that_is_none_is_an_error(tmp_path: pathlib.Path, word: str) -> None:
    with Driven(tmp_path, machine="pc-i440fx-2.0", memory="16MiB") as pc:
        said = bytearray()
        monitor = LineMonitor(pc.machine, said.extend, echo=False)
        said.clear()
        monitor._run(f"cpu {word}")
        assert monitor.cpu == 0
        monitor.feed(f"cpu {word}\n".encode())
        assert said and b"(qemu)" not in said
