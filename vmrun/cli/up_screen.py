"""The machine's text screen on this terminal, and the terminal's keys on the machine's keyboard.

The screen is one of the consoles that share the terminal: Ctrl-A c goes on to those on stdio, and back.
"""

from __future__ import annotations

import os
import sys

from vmrun.backends.chardev.base import RingChar
from vmrun.backends.chardev.mux import Mux
from vmrun.core.keys import keys_for
from vmrun.ui.screen import RESET, Differ, plain
from vmrun.ui.viewport import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmrun.backends.chardev.mux import MuxPort
    from vmrun.cli.runner import Runner

SIGWINCH = 28
INTERVAL = 0.05  # seconds between looks at the screen
WORDS_STAY = 5.0  # seconds that a line of vmrun's own stands on the screen
MOST_WAITING = 4096  # keys typed ahead of a busy guest
KEPT = 65536  # bytes of a console that is not shown
CLEAR = f"{RESET}\x1b[2J\x1b[1;1H"
SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x1b[H": "home",
    b"\x1b[F": "end", b"\x1b[2~": "insert", b"\x1b[3~": "delete", b"\x1b[5~": "pgup", b"\x1b[6~": "pgdn",
    b"\x1bOP": "f1", b"\x1bOQ": "f2", b"\x1bOR": "f3", b"\x1bOS": "f4", b"\x1b[15~": "f5", b"\x1b[17~": "f6",
    b"\x1b[18~": "f7", b"\x1b[19~": "f8", b"\x1b[20~": "f9", b"\x1b[21~": "f10", b"\x1b[23~": "f11",
    b"\x1b[24~": "f12",
}  # fmt: skip


class PlainScreen:
    """In the terminal's place when there is none: what stands on the screen in the end is printed as text."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.closed = False

    def add_port(self, name: str, focus: bool = False) -> Any:
        port = RingChar(capacity=KEPT)
        port.name = name
        return port

    def say(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()

    def close(self) -> None:
        if self.closed or self.runner.machine is None:
            return
        self.closed = True
        for console in self.runner.machine.board.consoles:
            screen = console.characters()
            if screen is not None:
                text = plain(screen.rows) if screen.mode == "text" else f"[{screen.mode}]"
                sys.stdout.write(f"{text.rstrip()}\n")
                sys.stdout.flush()
                return


class ScreenConsole(Mux):
    """Takes the place of the shared terminal. `focus` None: the screen."""

    def __init__(self, loop: Any, lock: Any, runner: Runner, input_fd: int = 0, output_fd: int = 1) -> None:
        self.runner = runner
        self.differ = Differ()
        self.place = (0, 0)  # of what is shown on the whole screen
        self.waiting: list[list[str]] = []
        self.kept: dict[MuxPort, bytes] = {}
        self.words: list[str] = []  # vmrun's own, and whether they stand on the screen
        self.over: Any = None
        own: dict[str, Any] = {"escape": runner.escape, "announce": False, "input_fd": input_fd, "output_fd": output_fd}
        super().__init__("terminal", loop, lock, runner.commands(), **own)
        loop.add_signal(SIGWINCH, self._again)
        loop.call_later(INTERVAL, self._look)

    # --- consoles ---------------------------------------------------------------------------------------------

    def add_port(self, name: str, focus: bool = False) -> MuxPort:
        port = super().add_port(name, focus)
        self.focus = None
        self.kept[port] = b""
        return port

    def remove(self, port: MuxPort) -> None:
        super().remove(port)
        self.kept.pop(port, None)
        if self.focus is not port and self.focus in self.ports:
            return
        self.focus = None

    def _take_output(self) -> None:
        for port in self.ports:
            if not len(port.output):
                continue
            with self.lock:
                data = port.drain()
            self.kept[port] = (self.kept[port] + data)[-KEPT:]
            if port is self.focus:
                self.pending += self._stamped(port, data) if self.stamps is not None else data

    def _command(self, letter: str) -> None:
        if letter != "c":
            super()._command(letter)
            return
        every = [None, *self.ports]
        self.focus = every[(every.index(self.focus) + 1) % len(every)]
        if self.focus is None:
            self._again()
        else:
            self.pending += f"{CLEAR}\x1b[?25h[{self.focus.name}]\r\n".encode() + self.kept[self.focus]
            self._pump()

    def say(self, text: str) -> None:
        """On the screen the line stands at the bottom for a while; help takes the whole of it."""
        if self.focus is not None:
            super().say(text)
            return
        self.words = text.strip("\n").split("\n")
        if self.over is not None:
            self.over.cancel()
        self.over = self.loop.call_later(WORDS_STAY, self._unsay)
        self._write(self._said())

    def _unsay(self) -> None:
        self.words = []
        self._again()

    def _said(self) -> str:
        if not self.words:
            return ""
        columns, rows = self._size()
        shown = self.words[-rows:]
        first = rows - len(shown)
        return "".join(
            f"\x1b[{first + n + 1};1H\x1b[0;7m{line[:columns]:<{columns}}{RESET}" for n, line in enumerate(shown)
        )

    # --- the screen -------------------------------------------------------------------------------------------

    def _size(self) -> tuple[int, int]:
        try:
            size = os.get_terminal_size(self.terminal.output_fd)
        except OSError:
            return 80, 25
        return max(1, size.columns), max(1, size.lines)

    def _again(self) -> None:
        """Everything anew: the terminal has another size, or showed something else."""
        self.differ = Differ()
        if self.focus is None:
            self._draw()

    def _look(self) -> None:
        if self.focus is None:
            self._draw()
        if self.runner.machine is not None:
            self._feed()
        if not self.closed:
            self.loop.call_later(INTERVAL, self._look)

    def _draw(self) -> None:
        if self.runner.machine is None or self.pending:
            return  # a terminal that does not keep up gets the newest screen later
        for console in self.runner.machine.board.consoles:
            screen = console.characters()
            if screen is None:
                continue
            columns, rows = self._size()
            part = Part(screen, columns, rows, self.place)
            if part.at != self.place:
                self.differ, self.place = Differ(), part.at
            text = self.differ.update(part)
            if text and part.cut:
                cut = f"[{screen.columns}x{len(screen.rows)} on {columns}x{rows}: cut; from {part.at[1]},{part.at[0]}]"
                text = f"{text}\x1b7\x1b[{rows};1H\x1b[0;7m{cut[:columns]:<{columns}}{RESET}\x1b8"
            if text:
                self._write(text + self._said())
            return

    def _write(self, text: str) -> None:
        self.pending += text.encode()
        self._pump()

    # --- keys -------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        if self.focus is not None:
            super()._send(data)
            return
        if self.words and data:
            self._unsay()
        while data:
            sequence = next((s for s in SEQUENCES if data.startswith(s)), None)
            if sequence is not None:
                self._press([SEQUENCES[sequence]])
                data = data[len(sequence) :]
            else:
                self._press(keys_for(chr(data[0])))
                data = data[1:]

    def _press(self, keys: list[str]) -> None:
        """A PS/2 keyboard holds 16 bytes: keys wait here until the guest has read what came before."""
        if keys and len(self.waiting) < MOST_WAITING:
            self.waiting.append(keys)
            self._feed()

    def _feed(self) -> None:
        hands = self.runner.machine.board.input
        while self.waiting and hands.hungry():
            keys = self.waiting.pop(0)
            for key in keys:
                hands.key(key, True)
            for key in reversed(keys):
                hands.key(key, False)
            hands.sync()

    def close(self) -> None:
        if self.closed:
            return
        self.loop.remove_signal(SIGWINCH)
        if self.focus is None:
            self._draw()
        self._write(f"{RESET}\x1b[?25h\r\n")
        super().close()
